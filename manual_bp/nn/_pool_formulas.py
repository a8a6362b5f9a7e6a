"""Max and average pooling of all windows at once, tap by tap: forward and backward side by side.

`textbook` holds the formulas themselves.
"""

from __future__ import annotations

import math

import numpy as np

from . import textbook
from ._layer import Array
from ._pool_windows import Taps

#: the integer as wide as a number: a mask of its bits selects without arithmetic, right for inf and NaN too
_BITS = {2: np.int16, 4: np.int32, 8: np.int64}


def max_pool(x: Array, taps: Taps) -> Array:
    """Output y (N, C, *P) of x (N, C, *L): the maximum along one axis after the other."""
    y = taps.pad(x, -math.inf)
    for along in taps.by_axis:
        first, *others = (y[tap] for tap in along)
        y = np.maximum(first, others[0]) if others else first
        for other in others[1:]:
            np.maximum(y, other, out=y)
    return y if max(taps.window.kernel) > 1 else y.copy(order="K")  # never a view of the input


def max_pool_backward(x: Array, y: Array, upstream: Array, taps: Taps) -> Array:
    """∂L/∂x from upstream = ∂L/∂y: at each tap, what equals the maximum and comes first takes the gradient."""
    padded = taps.pad(x, -math.inf)
    dx = taps.blank(x)
    taken: Array | None = None
    for tap in taps.all:
        wins = np.equal(padded[tap], y)
        if taken is None:
            taken = wins.copy()
        else:
            np.greater(wins, taken, out=wins)  # equal to the maximum, and nothing before it was
            taken |= wins
        _give(dx[tap], upstream, wins, add=not taps.disjoint)
    if not (taken is None or taken.all()) or (taps.padded and np.isneginf(y).any()):
        # A NaN equals nothing, and where -inf is the maximum the padding would win: window by window.
        return textbook.max_pool_backward(x, upstream, taps.window)
    return taps.unpad(dx)


def _give(dx: Array, upstream: Array, wins: Array, *, add: bool) -> None:
    """Write ``upstream`` where ``wins`` and zero elsewhere into dx, or add it."""
    bits = _BITS.get(dx.itemsize)
    if bits is None:  # longdouble
        share = np.where(wins, upstream, dx.dtype.type(0))
        if add:
            dx += share
        else:
            dx[...] = share
        return
    mask = np.negative(wins.view(np.int8)).astype(bits)  # all ones where wins
    if add:
        dx += np.bitwise_and(upstream.view(bits), mask).view(dx.dtype)
    else:
        np.bitwise_and(upstream.view(bits), mask, out=dx.view(bits))


def divisors(taps: Taps, count_include_pad: bool, divisor_override: int | None) -> int | Array:
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
    """Output y (N, C, *P) of x (N, C, *L): sums along one axis after the other, then the division."""
    y = taps.pad(x, 0)
    for along in taps.by_axis:
        first, *others = (y[tap] for tap in along)
        y = first + others[0] if others else first
        for other in others[1:]:
            y += other
    return y / np.asarray(divisor, x.dtype)


def avg_pool_backward(x: Array, upstream: Array, taps: Taps, divisor: int | Array) -> Array:
    """∂L/∂x (like x) from upstream = ∂L/∂y: every element of a window gets the same share."""
    share = upstream / np.asarray(divisor, upstream.dtype)
    if taps.disjoint:
        dx = taps.blank(x)
        for tap in taps.all:
            dx[tap] = share
        return taps.unpad(dx)
    dx = share
    for axis in reversed(range(len(taps.lengths))):  # the axes' sums, in turn and backwards
        shape = (*dx.shape[: axis + 2], taps.reach[axis], *dx.shape[axis + 3 :])
        wider = np.zeros_like(dx, shape=shape)
        for tap in taps.by_axis[axis]:
            wider[tap] += dx
        dx = wider
    return taps.unpad(dx)
