"""Large arrays in pieces that stay in cache, shared between threads.

What acts on each element alone needs no array of its operands' size in between, and a second thread that waits for
other memory than the first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._formulation import PIECE, SHARED_POOL
from ._formulation_threads import shard, threads
from ._layer import Array
from ._window import Index


def in_pieces(work: Callable[[Index], None], x: Array) -> None:
    """Have all of x (N, C, ...) worked on, in pieces of the axis, N or C, that lies outermost in memory."""
    if x.nbytes <= PIECE:
        work(())
        return
    axis = int(x.ndim > 1 and x.shape[1] > 1 and x.strides[1] > x.strides[0])
    step = max(1, PIECE * x.shape[axis] // x.nbytes)

    def several(start: int, stop: int) -> None:
        for first in range(start, stop, step):
            work((slice(None),) * axis + (slice(first, min(first + step, stop)),))

    shard(several, x.shape[axis], threads() if x.nbytes >= SHARED_POOL else 1)


def elementwise(function: Callable[..., Array], *operands: Array) -> Array:
    """``function`` of arrays of one shape and dtype, which gives another one and acts on each element alone."""
    first = operands[0]
    if first.nbytes < SHARED_POOL:
        return np.asarray(function(*operands))
    out = np.empty_like(first)

    def work(piece: Index) -> None:
        out[piece] = function(*(a[piece] for a in operands))

    in_pieces(work, first)
    return out


def total(function: Callable[[Array], Array], x: Array) -> Array:
    """Σ function(x), which acts on each element alone."""
    if x.nbytes < SHARED_POOL:
        return np.asarray(np.add.reduce(function(x), axis=None))
    sums: list[Array] = []
    in_pieces(lambda piece: sums.append(np.add.reduce(function(x[piece]), axis=None)), x)
    return np.asarray(np.add.reduce(np.sort(np.array(sums, x.dtype))))  # whichever thread comes first, the same sum
