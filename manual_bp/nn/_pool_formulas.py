"""Max and average pooling of all windows at once: forward and backward side by side.

Large inputs are worked on in pieces that stay in cache, shared between threads. `textbook` holds the
formulas as they stand in a book.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ._layer import Array
from ._pieces import in_pieces
from ._pool_windows import Cover, Taps
from ._special import has_nan, part_where
from ._window import Index


def max_pool(x: Array, taps: Taps) -> list[Array]:
    """The padded x (N, C, *L̄), then its maxima along one axis after the other, the last one first: y (N, C, *P)."""
    stages, shape = [taps.pad(x, -math.inf)], list(x.shape[:2] + taps.reach)
    for axis in reversed(range(len(taps.outputs))):
        shape[2 + axis] = taps.outputs[axis]
        stages.append(np.empty_like(x, shape=shape))

    def work(piece: Index) -> None:
        for (before, after), along in zip(pairwise(stages), reversed(taps.by_axis), strict=True):
            _maximum(before[piece], after[piece], along)

    in_pieces(work, x)
    return stages


def max_pool_backward(stages: list[Array], upstream: Array, taps: Taps) -> Array:
    """∂L/∂x from upstream = ∂L/∂y, from maximum to maximum, the first axis first: of equal elements the first wins."""
    *befores, y = stages
    gradients = [_like(y, upstream)]
    if has_nan(y) or (taps.padded and np.isneginf(y).any()):
        # a NaN equals nothing, and where the maximum is -inf the padding would win
        _, winners = _winners(np.ascontiguousarray(stages[0]), taps)
        return max_pool_little_backward(winners, upstream, taps)
    for before, cover in zip(reversed(befores), taps.covers, strict=True):
        gradients.append(np.empty_like(before) if cover is Cover.EXACT else np.zeros_like(before))

    def work(piece: Index) -> None:
        pairs = zip(pairwise(reversed(stages)), pairwise(gradients), taps.by_axis, taps.covers, strict=True)
        for (after, before), (delta, dx), along, cover in pairs:
            _maximum_backward(before[piece], after[piece], delta[piece], dx[piece], along, cover)

    in_pieces(work, stages[0])
    return taps.unpad(gradients[-1])


def _maximum(x: Array, y: Array, along: tuple[Index, ...]) -> None:
    """Write the maximum over the taps along one axis into y."""
    first, *others = (x[tap] for tap in along)
    if not others:
        y[...] = first
    for other in others:
        np.maximum(first, other, out=y)
        first = y


def _maximum_backward(x: Array, y: Array, upstream: Array, dx: Array, along: tuple[Index, ...], cover: Cover) -> None:
    """At each tap what equals the maximum takes what is left of the gradient; the last one takes the rest."""
    left, (*firsts, last) = upstream, along
    apart = cover is not Cover.OVERLAP
    for tap in firsts:
        share = dx[tap] if apart else np.empty_like(left)
        rest = dx[last] if apart and tap is firsts[-1] else np.empty_like(left)
        part_where(np.equal(x[tap], y), left, share, rest)
        if not apart:
            dx[tap] += share
        left = rest
    if not apart:
        dx[last] += left
    elif not firsts:
        dx[last] = left


def max_pool_little(x: Array, taps: Taps) -> tuple[Array, Array]:
    """y (N C, P) of a little x (N, C, *L), and where among all padded elements each of them came from."""
    return _winners(np.ascontiguousarray(taps.pad(x, -math.inf)), taps)


def max_pool_little_backward(winners: Array, upstream: Array, taps: Taps) -> Array:
    """∂L/∂x from where the winners are."""
    dx = np.zeros((*upstream.shape[:2], *taps.reach), upstream.dtype)
    flat, gradient = dx.reshape(-1), upstream.reshape(winners.shape)
    if taps.disjoint:
        flat[winners] = gradient
    else:
        np.add.at(flat, winners, gradient)
    return taps.unpad(dx)


def _winners(padded: Array, taps: Taps) -> tuple[Array, Array]:
    """The maximum of each window, and where it lies: at the window's last NaN, else at its first maximum."""
    elements = padded.reshape(-1, taps.elements)  # (N C, L̄)
    windows = elements.take(taps.positions, axis=1)  # (N C, P, K)
    first = taps.first_positions(len(elements))
    winners = first + taps.offsets.take(windows.argmax(axis=-1))  # the first NaN, else the first maximum, be it padding
    y = elements.take(winners)
    if has_nan(y) or (taps.padded and np.isneginf(y).any()):
        nan = np.isnan(windows)
        last_nan = windows.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
        first_maximum = ((windows == y[..., None]) & taps.real).argmax(axis=-1)
        winners = first + taps.offsets.take(np.where(nan.any(axis=-1), last_nan, first_maximum))
    return y, winners


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
    y: Array = np.empty_like(x, shape=x.shape[:2] + taps.outputs)

    def work(piece: Index) -> None:
        y[piece] = _mean(x[piece], taps, divisor)

    in_pieces(work, x)
    return y


def avg_pool_backward(x: Array, upstream: Array, taps: Taps, divisor: int | Array) -> Array:
    """∂L/∂x (like x) from upstream = ∂L/∂y: every element of a window gets the same share."""
    dx: Array = np.empty_like(x)
    delta = _like(np.empty_like(x, shape=upstream.shape), upstream)

    def work(piece: Index) -> None:
        dx[piece] = _mean_backward(x[piece], delta[piece], taps, divisor)

    in_pieces(work, x)
    return dx


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


def _like(model: Array, array: Array) -> Array:
    """``array`` with its axes in memory in the order of ``model``'s, of the same shape."""
    if array.strides == model.strides:
        return array
    copy = np.empty_like(model)
    copy[...] = array
    return copy
