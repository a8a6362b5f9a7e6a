"""Windows in tiles: a tile of outputs that lie side by side is computed by one kernel.

Neighbouring windows see nearly the same elements, and columns of windows hold each of them once for every window.
Along one axis, b windows of stride s and span d (K − 1) + 1 together see (b − 1) s + d (K − 1) + 1 elements. So a
convolution with O kernels is another one with O b kernels of that size and stride b s: kernel (o, r) is w[o], moved to
where the tile's window r stands, among zeros ::

    T[o, r, c, r s + k d] = w[o,c,k]        y[n, o, q b + r] = Σ_c Σ_k' T[o,r,c,k'] x̄[n, c, q b s + k']

There are fewer columns and taller matrices, at the price of multiplications by zero. With all outputs in one tile T is
the matrix of the convolution as a linear map, and there are no columns at all.

0 · inf is NaN, so an input with such elements must be computed in another way. Zeros add nothing else: neither to the
results nor to their rounding errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from ._layer import Array
from ._window import Shape, Window


@dataclass(frozen=True)
class Tiles:
    """How weights, outputs and bias of one convolution become those of the convolution by tiles."""

    window: Window  # of the convolution itself
    tile: Shape  # *B, a divisor of the number of windows on each axis
    weight_shape: Shape  # (O, C/G, *K)
    outputs: Shape  # *P

    @cached_property
    def size(self) -> int:
        """Outputs in a tile."""
        return math.prod(self.tile)

    @cached_property
    def windows(self) -> Window:
        """The windows of the tiles."""
        w = self.window
        kernel = tuple((b - 1) * s + span for b, s, span in zip(self.tile, w.stride, w.span, strict=True))
        stride = tuple(b * s for b, s in zip(self.tile, w.stride, strict=True))
        return Window(kernel, stride, (1,) * len(kernel), w.before, w.after)

    @cached_property
    def counts(self) -> Shape:
        """Number of tiles on each axis, *Q."""
        return tuple(p // b for p, b in zip(self.outputs, self.tile, strict=True))

    @cached_property
    def expanded_shape(self) -> Shape:
        """Shape of T, (O B, C/G, *K')."""
        o, c, *_ = self.weight_shape
        return (o * self.size, c, *self.windows.kernel)

    @cached_property
    def positions(self) -> npt.NDArray[np.intp]:
        """Where in T the weights stand, (B, O C/G K): all of them once for each window of a tile."""
        o, c, *_ = self.weight_shape
        elements = np.arange(math.prod(self.expanded_shape), dtype=np.intp)
        elements = elements.reshape(o, self.size, c, *self.windows.kernel)
        seen = [
            elements[:, r][(..., *self.window.at(place)[1:])].reshape(-1)
            for r, place in enumerate(product(*map(range, self.tile)))
        ]
        return np.stack(seen)

    def expand(self, weight: Array) -> Array:
        """T (O B, C/G, *K') from w (O, C/G, *K)."""
        kernels = np.zeros(self.expanded_shape, weight.dtype)
        kernels.put(self.positions, weight)  # the weights, again and again
        return kernels

    def collapse(self, dkernels: Array) -> Array:
        """Adjoint of `expand`: ∂L/∂w[o,c,k] = Σ_r ∂L/∂T[o, r, c, r s + k d]."""
        dw: Array = np.add.reduce(dkernels.take(self.positions), axis=0)
        return dw.reshape(self.weight_shape)

    def join(self, y: Array) -> Array:
        """The outputs (N, O, *P) from those of the tiles (N, O B, *Q), with the batch innermost in memory."""
        out_channels = self.weight_shape[0]
        if max(self.counts) == 1:
            return y.reshape(len(y), out_channels, *self.outputs)
        joined = np.empty((out_channels, *self.outputs, len(y)), y.dtype)
        self._by_tile(joined)[...] = y.transpose(*range(1, y.ndim), 0).reshape(
            out_channels, *self.tile, *self.counts, len(y)
        )
        return joined.transpose(-1, *range(y.ndim - 1))

    def split(self, delta: Array) -> Array:
        """Adjoint of `join`, and its inverse: (N, O B, *Q) from (N, O, *P)."""
        rows = self.weight_shape[0] * self.size
        if max(self.counts) == 1:
            return delta.reshape(len(delta), rows, *self.counts)
        tiles = self._by_tile(delta.transpose(*range(1, delta.ndim), 0))
        return np.ascontiguousarray(tiles).reshape(rows, *self.counts, len(delta)).transpose(-1, *range(delta.ndim - 1))

    def _by_tile(self, outputs: Array) -> Array:
        """(O, *P, N) seen as (O, *B, *Q, N)."""
        axes = len(self.tile)
        apart = [length for pair in zip(self.counts, self.tile, strict=True) for length in pair]  # Q, B, Q, B, ...
        order = (0, *range(2, 2 * axes + 1, 2), *range(1, 2 * axes + 1, 2), 2 * axes + 1)
        return outputs.reshape(len(outputs), *apart, outputs.shape[-1]).transpose(order)
