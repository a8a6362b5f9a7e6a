"""Convolution as products of matrices: the fast formulations, forward and backward side by side.

`_formulation` says which one serves which shape, `_formulation_columns` what slabs and columns are,
`textbook` holds the formulas as they stand in a book.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import product
from operator import add

import numpy as np

from ._formulation import ConvPlan
from ._formulation_columns import Padded, blocks_of, from_slabs, to_slabs, windows_of
from ._formulation_threads import share
from ._layer import Array
from ._window import Index, Window


def forward(x: Array, weight: Array, bias: Array | None, plan: ConvPlan) -> Array:
    """Output y (N, O, *P) of x (N, C, *L), weight (O, C/G, *K) and bias (O,).

    Y = W X + b with the kernels as rows of W (G, O/G, C/G K) and the windows as columns of X (G, C/G K, P M).
    """
    g, o = plan.groups, plan.out_channels // plan.groups
    kernels = weight.reshape(g, o, -1)  # (G, O/G, C/G K)
    offset = None if bias is None else bias.reshape(g, o, 1)
    x = to_slabs(x, batch_last=plan.batch_last)  # (S, C, *L, M)
    y = np.empty((len(x), g * o, *plan.outputs, x.shape[-1]), x.dtype)  # (S, O, *P, M)

    def work(slabs: range, start: int, stop: int) -> None:
        padded = Padded(plan.window, plan.lengths)
        for s in slabs:
            windows = windows_of(padded(x[s]), plan.window, plan.outputs)
            y_s = y[s].reshape(g, o, -1)  # (G, O/G, P M)
            for block in blocks_of(windows, g, start, stop, plan.rows):
                part = y_s[..., block.place]
                np.matmul(kernels, block.columns, out=part)
                if offset is not None:
                    part += offset

    share(work, len(x), plan.outputs[0], plan.threads)
    return from_slabs(y, batch_last=plan.batch_last)


def backward(x: Array, weight: Array, upstream: Array, plan: ConvPlan) -> tuple[Array, Array, Array]:
    """(∂L/∂x, ∂L/∂w, ∂L/∂b) from upstream δ = ∂L/∂y (N, O, *P)."""
    db = upstream.sum(axis=(0, *range(2, upstream.ndim)))
    x, delta = to_slabs(x, batch_last=plan.batch_last), to_slabs(upstream, batch_last=plan.batch_last)
    if plan.turned is None:
        dx, dw = _scatter(x, weight, delta, plan)
    else:
        dx, dw = _gather(x, weight, delta, plan, plan.turned)
    return from_slabs(dx, batch_last=plan.batch_last), dw, db


def _gather(x: Array, weight: Array, delta: Array, plan: ConvPlan, turned: Window) -> tuple[Array, Array]:
    """Stride 1: the columns of δ, padded so that its windows stand on the elements of x, serve both gradients.

    The window that stands on x[c,i] sees δ[o, i + b − d k] at its tap K − 1 − k. With the turned kernels
    W' (G, C/G, O/G K) and the columns Δ (G, O/G K, L M): ∂L/∂x = W' Δ and ∂L/∂W' = x Δᵀ.
    """
    g, c, o = plan.groups, plan.channels // plan.groups, plan.out_channels // plan.groups
    turn: Index = (..., *(slice(None, None, -1),) * len(turned.kernel))
    kernels = weight.reshape(g, o, c, *turned.kernel)[turn].swapaxes(1, 2).reshape(g, c, -1)  # (G, C/G, O/G K)
    dx = np.empty((len(x), g * c, *plan.lengths, x.shape[-1]), x.dtype)  # (S, C, *L, M)

    def work(slabs: range, start: int, stop: int) -> Array:
        dw, padded = np.zeros(kernels.shape, x.dtype), Padded(turned, plan.outputs)
        for s in slabs:
            windows = windows_of(padded(delta[s]), turned, plan.lengths)
            x_s, dx_s = x[s].reshape(g, c, -1), dx[s].reshape(g, c, -1)  # (G, C/G, L M)
            for block in blocks_of(windows, g, start, stop, plan.turned_rows):
                np.matmul(kernels, block.columns, out=dx_s[..., block.place])
                dw += np.matmul(x_s[..., block.place], block.columns.swapaxes(1, 2))
        return dw

    dw = reduce(add, share(work, len(x), plan.lengths[0], plan.threads))  # (G, C/G, O/G K)
    dw = dw.reshape(g, c, o, *turned.kernel)[turn].swapaxes(1, 2)
    return dx, np.ascontiguousarray(dw.reshape(weight.shape))


def _scatter(x: Array, weight: Array, delta: Array, plan: ConvPlan) -> tuple[Array, Array]:
    """Any stride: ∂L/∂W = δ Xᵀ, and Wᵀ δ holds what each window adds to ∂L/∂x through each of its taps."""
    g, o = plan.groups, plan.out_channels // plan.groups
    kernels = weight.reshape(g, o, -1)  # (G, O/G, C/G K)
    dx = np.empty((len(x), plan.channels, *plan.lengths, x.shape[-1]), x.dtype)  # (S, C, *L, M)
    padded_dx = Padded(plan.window, plan.lengths)

    def work(slabs: range, start: int, stop: int) -> tuple[Array, Array]:
        dw, padded = np.zeros(kernels.shape, x.dtype), Padded(plan.window, plan.lengths)
        dx_s = padded.blank(x[0])  # (C, *L̄, M)
        for s in slabs:
            dx_s[...] = 0
            windows = windows_of(padded(x[s]), plan.window, plan.outputs)
            delta_s = delta[s].reshape(g, o, -1)  # (G, O/G, P M)
            for block in blocks_of(windows, g, start, stop, plan.rows):
                part = delta_s[..., block.place]
                dw += np.matmul(part, block.columns.swapaxes(1, 2))
                np.matmul(kernels.swapaxes(1, 2), part, out=block.columns)  # x's columns have served
                for tap, place in _taps(plan.window, plan.outputs, block.start, block.stop):
                    dx_s[place] += block.by_tap[tap]
            if len(x) > 1:
                dx[s] = padded.inside(dx_s)
        return dw, dx_s

    parts = share(work, len(x), plan.outputs[0], plan.threads)
    if len(x) == 1:
        dx[0] = padded_dx.inside(reduce(add, (dx_s for _, dx_s in parts)))
    return dx, reduce(add, (dw for dw, _ in parts)).reshape(weight.shape)


def _taps(window: Window, outputs: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[Index, Index]]:
    """Each tap k, and the elements of the padded slab that the windows of rows start..stop see through it."""
    firsts, counts = (start, *(0,) * (len(outputs) - 1)), (stop - start, *outputs[1:])
    for tap in product(*map(range, window.kernel)):
        place: list[slice] = []
        for t, d, s, first, count in zip(tap, window.dilation, window.stride, firsts, counts, strict=True):
            low = first * s + t * d
            place.append(slice(low, low + (count - 1) * s + 1, s))
        yield (slice(None), *tap), (slice(None), *place)
