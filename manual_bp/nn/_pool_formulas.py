"""Max and average pooling of all windows at once: forward and backward side by side.

Large inputs are worked on in pieces that stay in cache, shared between threads. `textbook` holds the
formulas as they stand in a book.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ._formulation import LITTLE_POOL, PIECE, SHARED_POOL
from ._formulation_threads import shard, threads
from ._layer import Array
from ._pool_windows import Taps
from ._window import Shape

#: the integer as wide as a number: its bits times 0 or 1 are right for inf and NaN too
_BITS = {2: np.int16, 4: np.int32, 8: np.int64}


def max_pool(x: Array, taps: Taps) -> tuple[Array, Array | None]:
    """Output y (N, C, *P) of x (N, C, *L), and for little inputs where in the padded x each came from."""
    if x.shape[0] * x.shape[1] * taps.size <= LITTLE_POOL:
        padded = np.ascontiguousarray(taps.pad(x, -math.inf))
        winners, y = _winners(padded, taps)
        return y.reshape(*x.shape[:2], *taps.outputs), winners
    return _in_pieces(lambda piece: _maximum(piece, taps), taps.outputs, x), None


def max_pool_backward(x: Array, y: Array, winners: Array | None, upstream: Array, taps: Taps) -> Array:
    """∂L/∂x from upstream = ∂L/∂y: each window's winner takes the whole gradient."""
    if winners is not None:
        return _scatter(x, winners, upstream, taps)

    def back(x: Array, y: Array, upstream: Array) -> Array:
        return _maximum_backward(x, y, upstream, taps)

    return _in_pieces(back, taps.lengths, x, y, _like(y, upstream))


def _winners(padded: Array, taps: Taps) -> tuple[Array, Array]:
    """Where among all padded elements each window's winner lies, its last NaN, else its first maximum; and what it is.

    Both are (N C, P).
    """
    elements = padded.reshape(-1, taps.elements)  # (N C, L̄)
    windows = elements.take(taps.positions, axis=1)  # (N C, P, K)
    tap = windows.argmax(axis=-1)  # the first NaN, else the first maximum, be it padding
    first = taps.first_positions(len(elements))
    winners = first + taps.offsets.take(tap)
    y = padded.reshape(-1).take(winners)
    if np.count_nonzero(y != y) or (taps.padded and np.isneginf(y).any()):
        nan = np.isnan(windows)
        last_nan = windows.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
        first_maximum = ((windows == y[..., None]) & taps.real).argmax(axis=-1)
        tap = np.where(nan.any(axis=-1), last_nan, first_maximum)
        winners = first + taps.offsets.take(tap)
        y = padded.reshape(-1).take(winners)
    return winners, y


def _scatter(x: Array, winners: Array, upstream: Array, taps: Taps) -> Array:
    """∂L/∂x (like x) from where the winners are."""
    dx = np.zeros((*x.shape[:2], *taps.reach), x.dtype)
    flat, gradient = dx.reshape(-1), upstream.reshape(winners.shape)
    if taps.disjoint:
        flat[winners] = gradient
    else:
        np.add.at(flat, winners, gradient)
    return taps.unpad(dx)


def _maximum(x: Array, taps: Taps) -> Array:
    """The maximum along one axis after the other."""
    y = taps.pad(x, -math.inf)
    for along in taps.by_axis:
        first, *others = (y[tap] for tap in along)
        y = np.maximum(first, others[0]) if others else first
        for other in others[1:]:
            np.maximum(y, other, out=y)
    return y if max(taps.window.kernel) > 1 else y.copy(order="K")  # never a view of the input


def _maximum_backward(x: Array, y: Array, upstream: Array, taps: Taps) -> Array:
    """At each tap, what equals the maximum and comes first takes the gradient."""
    padded = taps.pad(x, -math.inf)
    dx = taps.blank(x)
    taken: Array | None = None
    for tap in taps.all:
        wins = np.equal(padded[tap], y)
        if taken is None:
            taken = wins
        else:
            taken, wins = taken | wins, np.greater(wins, taken)  # equal to the maximum, and nothing before it was
        if taps.disjoint:
            _select(upstream, wins, dx[tap])
        else:
            dx[tap] += _select(upstream, wins, np.empty_like(upstream))
    if not np.all(taken) or (taps.padded and np.isneginf(y).any()):
        # a NaN equals nothing, and where the maximum is -inf the padding would win
        return _scatter(x, _winners(np.ascontiguousarray(padded), taps)[0], upstream, taps)
    return taps.unpad(dx)


def _select(upstream: Array, wins: Array, out: Array) -> Array:
    """``upstream`` where ``wins`` and zero elsewhere, written into ``out``."""
    bits = _BITS.get(out.itemsize)
    if bits is None:  # longdouble
        out[...] = np.where(wins, upstream, out.dtype.type(0))
    else:
        np.multiply(upstream.view(bits), wins, out=out.view(bits))
    return out


def divisors(taps: Taps, *, count_include_pad: bool, divisor_override: int | None) -> int | Array:
    """D(p) for all windows: one number, or an integer array (*P).

    It is the product over the axes of how many elements the window counts there: torch takes the declared
    padding as part of the input if ``count_include_pad``, but never what ceil_mode adds to it.
    """
    if divisor_override is not None:
        return divisor_override
    w, counts = taps.window, np.ones((), np.int64)
    for n, p, s, k, b, a in zip(taps.lengths, taps.outputs, w.stride, w.kernel, w.before, w.after, strict=True):
        start = np.arange(p) * s - b
        low, high = (start, n + a) if count_include_pad else (np.maximum(start, 0), n)
        counts = counts[..., None] * (np.minimum(start + k, high) - low)
    return int(counts.flat[0]) if (counts == counts.flat[0]).all() else counts


def avg_pool(x: Array, taps: Taps, divisor: int | Array) -> Array:
    """Output y (N, C, *P) of x (N, C, *L)."""
    return _in_pieces(lambda piece: _mean(piece, taps, divisor), taps.outputs, x)


def avg_pool_backward(x: Array, upstream: Array, taps: Taps, divisor: int | Array) -> Array:
    """∂L/∂x (like x) from upstream = ∂L/∂y: every element of a window gets the same share."""
    like_y = np.empty_like(x, shape=upstream.shape)
    return _in_pieces(
        lambda piece, delta: _mean_backward(piece, delta, taps, divisor), taps.lengths, x, _like(like_y, upstream)
    )


def _mean(x: Array, taps: Taps, divisor: int | Array) -> Array:
    """Sums along one axis after the other, then the division."""
    y = taps.pad(x, 0)
    for along in taps.by_axis:
        first, *others = (y[tap] for tap in along)
        y = first + others[0] if others else first
        for other in others[1:]:
            y += other
    mean: Array = y / np.asarray(divisor, x.dtype)
    return mean


def _mean_backward(x: Array, upstream: Array, taps: Taps, divisor: int | Array) -> Array:
    """The division, then the adjoints of the axes' sums in turn, backwards."""
    share = upstream / np.asarray(divisor, upstream.dtype)
    if taps.disjoint:
        dx = taps.blank(x)
        for tap in taps.all:
            dx[tap] = share
        return taps.unpad(dx)
    for axis in reversed(range(len(taps.lengths))):
        wider = np.zeros_like(share, shape=(*share.shape[: axis + 2], taps.reach[axis], *share.shape[axis + 3 :]))
        for tap in taps.by_axis[axis]:
            wider[tap] += share
        share = wider
    return taps.unpad(share)


def _in_pieces(function: Callable[..., Array], lengths: Shape, *arrays: Array) -> Array:
    """``function(*arrays)``, (N, C, *lengths): in pieces of the axis, N or C, that lies outermost in memory."""
    x = arrays[0]
    if x.nbytes <= PIECE:
        return function(*arrays)
    axis = int(x.shape[1] > 1 and x.strides[1] > x.strides[0])
    step = max(1, PIECE * x.shape[axis] // x.nbytes)
    result = np.empty_like(x, shape=(*x.shape[:2], *lengths))

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, step):
            piece = (slice(None),) * axis + (slice(first, min(first + step, stop)),)
            result[piece] = function(*(array[piece] for array in arrays))

    shard(work, x.shape[axis], threads() if x.nbytes >= SHARED_POOL else 1)
    return result


def _like(model: Array, array: Array) -> Array:
    """``array`` with its axes in memory in the order of ``model``'s, of the same shape."""
    if array.strides == model.strides:
        return array
    copy = np.empty_like(model)
    copy[...] = array
    return copy
