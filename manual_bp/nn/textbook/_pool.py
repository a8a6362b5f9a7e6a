"""Maximum and average pooling by their definitions.

W(p) is the set of elements that window p covers without its padding, g = dL/dy::

    max:      y[p] = x[m(p)],  m(p) = the first maximum of W(p)     dL/dx[i] = sum over p with m(p) = i of g[p]
    average:  y[p] = (1/D(p)) sum of x[i] over i in W(p)            dL/dx[i] = sum over p with i in W(p) of g[p]/D(p)

The maximum has no derivative where two elements of a window tie; "the first in window order takes the
whole gradient" is torch's choice among the subgradients. A NaN is greater than everything, and the last
one of a window wins (torch's loop replaces the winner by every NaN it meets).

Source: Goodfellow, Bengio & Courville 2016, "Deep Learning", section 9.3.
"""

from __future__ import annotations

import math

import numpy as np

from .._layer import Array
from .._window import Window


def winner(values: Array) -> Array:
    """Index along the last axis of the element that max pooling selects: the last NaN, else the first maximum."""
    nan = np.isnan(values)
    last_nan = values.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1)
    return np.asarray(np.where(nan.any(axis=-1), last_nan, np.argmax(values, axis=-1)))


def _flat(values: Array) -> Array:
    """(N, C, *K) -> (N, C, K1 K2 ..), in window order."""
    return values.reshape(*values.shape[:2], math.prod(values.shape[2:]))


def max_pool_forward(x: Array, window: Window, *, ceil_mode: bool = False) -> Array:
    """y (N, C, *P) from x (N, C, *L)."""
    outputs = window.outputs(x.shape[2:], ceil=ceil_mode)
    y = np.full((*x.shape[:2], *outputs), -np.inf, x.dtype)  # a window over padding alone keeps the padding's -inf
    for p in np.ndindex(outputs):
        values = _flat(x[window.inside(p, x.shape[2:])])  # (N, C, |W(p)|)
        if values.shape[-1]:
            y[(..., *p)] = np.take_along_axis(values, winner(values)[..., None], axis=-1)[..., 0]
    return y


def max_pool_backward(x: Array, upstream: Array, window: Window) -> Array:
    """dL/dx (N, C, *L) from upstream = dL/dy (N, C, *P)."""
    dx = np.zeros_like(x)
    for p in np.ndindex(upstream.shape[2:]):
        w_p = window.inside(p, x.shape[2:])
        values = _flat(x[w_p])  # (N, C, |W(p)|)
        if not values.shape[-1]:
            continue
        selected = np.arange(values.shape[-1]) == winner(values)[..., None]  # (N, C, |W(p)|)
        share = np.where(selected, upstream[(..., *p)][..., None], x.dtype.type(0))
        dx[w_p] += share.reshape(x[w_p].shape)
    return dx


def avg_pool_divisor(
    p: tuple[int, ...], lengths: tuple[int, ...], window: Window, count_include_pad: bool, divisor_override: int | None
) -> int:
    """D(p): how many elements torch counts in window p.

    With count_include_pad the declared padding counts, but not what ceil_mode lets the window reach
    beyond it; without, only elements of the input do.
    """
    if divisor_override is not None:
        return divisor_override
    count = 1
    for i, s, k, b, a, length in zip(
        p, window.stride, window.kernel, window.before, window.after, lengths, strict=True
    ):
        start = i * s - b
        low, high = (start, length + a) if count_include_pad else (max(start, 0), length)
        count *= min(start + k, high) - low
    return count


def avg_pool_forward(
    x: Array,
    window: Window,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """y (N, C, *P) from x (N, C, *L)."""
    lengths = x.shape[2:]
    axes = tuple(range(2, x.ndim))
    y = np.empty((*x.shape[:2], *window.outputs(lengths, ceil=ceil_mode)), x.dtype)
    for p in np.ndindex(y.shape[2:]):
        divisor = avg_pool_divisor(p, lengths, window, count_include_pad, divisor_override)
        y[(..., *p)] = x[window.inside(p, lengths)].sum(axis=axes) / x.dtype.type(divisor)
    return y


def avg_pool_backward(
    upstream: Array,
    lengths: tuple[int, ...],
    window: Window,
    *,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """dL/dx (N, C, *L) from upstream = dL/dy (N, C, *P)."""
    dx = np.zeros((*upstream.shape[:2], *lengths), upstream.dtype)
    for p in np.ndindex(upstream.shape[2:]):
        divisor = avg_pool_divisor(p, lengths, window, count_include_pad, divisor_override)
        share = upstream[(..., *p)] / upstream.dtype.type(divisor)  # (N, C)
        dx[window.inside(p, lengths)] += share.reshape(*share.shape, *(1,) * len(lengths))
    return dx
