"""Convolution as products of matrices: the fast formulations, forward and backward side by side.

`_formulation` says which one serves which shape, `_formulation_columns` what slabs and columns are,
`textbook` holds the formulas as they stand in a book.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add

import numpy as np

from . import _window_pad
from ._formulation import ConvPlan
from ._formulation_columns import Columns, from_slabs, to_slabs
from ._formulation_threads import beside, shard, share
from ._layer import Array
from ._special import finite
from ._window import Index


def forward(x: Array, weight: Array, bias: Array | None, plan: ConvPlan) -> Array:
    """Output y (N, O, *P) of x (N, C, *L), weight (O, C/G, *K) and bias (O,).

    Y = W X + b with the kernels as rows of W (G, O/G, C/G K) and the windows as columns of X (G, C/G K, P M). In
    memory the batch may lie innermost.
    """
    if plan.little is not None:
        return plan.little.forward(x, weight, bias)
    if plan.tiles is not None and plan.by_tile is not None and finite(x):
        repeated = None if bias is None else bias.repeat(plan.tiles.size)
        return plan.tiles.join(forward(x, plan.tiles.expand(weight), repeated, plan.by_tile))
    if plan.single:
        y = weight.reshape(len(weight), plan.columns.height) @ _rows(x, plan).T  # (O, N)
        if bias is not None:
            y += bias[:, None]
        return y.T.reshape(len(x), plan.out_channels, *plan.outputs)
    if plan.part < len(x):
        y = np.empty((len(x), plan.out_channels, *plan.outputs), x.dtype)
        for part in _parts(plan, len(x)):
            y[part] = forward(x[part], weight, bias, plan.for_part(len(x[part])))
        return y
    g, o, columns = plan.groups, plan.out_channels // plan.groups, plan.columns
    kernels = np.ascontiguousarray(weight).reshape(g, o, columns.height)
    offset = None if bias is None else bias.reshape(g, o, 1)
    x = to_slabs(x, batch_last=plan.batch_last)  # (S, C, *L, M)
    if plan.at_once:
        y = np.matmul(kernels, columns.all(x[0]))  # (G, O/G, P M)
        if offset is not None:
            y += offset
        return from_slabs(y.reshape(1, g * o, *plan.outputs, columns.samples), batch_last=True)
    y = np.empty((len(x), g * o, *plan.outputs, columns.samples), x.dtype)  # (S, O, *P, M)

    if plan.several > 1:

        def some(start: int, stop: int) -> None:
            for part in _pieces(start, stop, plan.several):
                y_s = y[part].reshape(len(y[part]), g, o, -1)  # (S, G, O/G, P M)
                np.matmul(kernels, columns.several(x[part])[0], out=y_s)
                if offset is not None:
                    y_s += offset

        shard(some, len(x), plan.threads)
        return from_slabs(y, batch_last=False)

    def work(slabs: range, start: int, stop: int) -> None:
        buffer = None
        for s in slabs:
            buffer = columns.pad(x[s], buffer)
            y_s = y[s].reshape(g, o, -1)  # (G, O/G, P M)
            for block in columns.blocks(buffer, start, stop):
                part = y_s[..., block.place]
                np.matmul(kernels, block.columns, out=part)
                if offset is not None:
                    part += offset

    share(work, len(x), plan.outputs[0], plan.threads)
    return from_slabs(y, batch_last=plan.batch_last)


def backward(x: Array, weight: Array, upstream: Array, plan: ConvPlan) -> tuple[Array, Array, Array]:
    """(∂L/∂x, ∂L/∂w, ∂L/∂b) from upstream δ = ∂L/∂y (N, O, *P)."""
    if plan.little is not None:
        return plan.little.backward(x, weight, upstream)
    if plan.tiles is not None and plan.by_tile is not None and finite(upstream):
        tiles = plan.tiles
        dx, dkernels, offsets = backward(x, tiles.expand(weight), tiles.split(upstream), plan.by_tile)
        return dx, tiles.collapse(dkernels), np.add.reduce(offsets.reshape(-1, tiles.size), axis=1)
    if plan.single:
        delta = upstream.reshape(len(x), plan.out_channels)  # (N, O)
        dw = (delta.T @ _rows(x, plan)).reshape(weight.shape)
        dx = _unrows((weight.reshape(len(weight), plan.columns.height).T @ delta.T).T, plan)
        return dx, dw, np.add.reduce(delta, axis=0)
    if plan.part < len(x):
        dx, dw, db = np.empty(x.shape, x.dtype), np.zeros_like(weight), np.zeros(len(weight), x.dtype)
        for part in _parts(plan, len(x)):
            dx[part], dw_part, db_part = backward(x[part], weight, upstream[part], plan.for_part(len(x[part])))
            dw += dw_part
            db += db_part
        return dx, dw, db
    x, delta = to_slabs(x, batch_last=plan.batch_last), to_slabs(upstream, batch_last=plan.batch_last)
    if plan.turned is None:
        dx, dw = _scatter(x, weight, delta, plan)
    else:
        dx, dw = _gather(x, weight, delta, plan, plan.turned)
    db = np.add.reduce(delta.reshape(len(delta), plan.out_channels, -1), axis=(0, 2))
    return from_slabs(dx, batch_last=plan.batch_last), dw, db


def _rows(x: Array, plan: ConvPlan) -> Array:
    """What the only window sees of each sample, (N, C K)."""
    window = plan.columns.window
    seen: Index = (..., *map(slice, window.kernel))
    return _window_pad.pad(x, window)[seen].reshape(len(x), plan.columns.height)


def _unrows(rows: Array, plan: ConvPlan) -> Array:
    """Adjoint of `_rows`: (N, C, *L)."""
    window, (_, *padded, _) = plan.columns.window, plan.columns.padded_shape
    dx = rows.reshape(len(rows), plan.channels, *window.kernel)
    if tuple(padded) != window.kernel:
        whole = np.zeros((len(rows), plan.channels, *padded), rows.dtype)
        seen: Index = (..., *map(slice, window.kernel))
        whole[seen] = dx
        dx = whole
    return _window_pad.unpad(dx, window, plan.lengths)


def _parts(plan: ConvPlan, batch: int) -> Iterator[slice]:
    return _pieces(0, batch, plan.part)


def _pieces(start: int, stop: int, length: int) -> Iterator[slice]:
    for first in range(start, stop, length):
        yield slice(first, min(first + length, stop))


def _gather(x: Array, weight: Array, delta: Array, plan: ConvPlan, turned: Columns) -> tuple[Array, Array]:
    """Stride 1: the columns of δ, padded so that its windows stand on the elements of x, serve both gradients.

    The window that stands on x[c,i] sees δ[o, i + b − d k] at its tap K − 1 − k. With the turned kernels
    W' (G, C/G, O/G K) and the columns Δ (G, O/G K, L M): ∂L/∂x = W' Δ and ∂L/∂W' = x Δᵀ.
    """
    g, c, o, kernel = plan.groups, plan.channels // plan.groups, plan.out_channels // plan.groups, turned.window.kernel
    turn: Index = (..., *(slice(None, None, -1),) * len(kernel))
    by_group = weight.reshape(g, o, c, *kernel)[turn].swapaxes(1, 2)
    kernels = np.ascontiguousarray(by_group).reshape(g, c, turned.height)  # BLAS takes no view that runs backwards

    def turned_back(dw: Array) -> Array:
        return np.ascontiguousarray(dw.reshape(g, c, o, *kernel)[turn].swapaxes(1, 2)).reshape(weight.shape)

    if plan.at_once:
        all_columns = turned.all(delta[0])
        dx = np.matmul(kernels, all_columns).reshape(1, g * c, *plan.lengths, turned.samples)
        dw = np.matmul(x[0].reshape(g, c, -1), all_columns.swapaxes(1, 2))
        return dx, turned_back(dw)
    dx = np.empty((len(x), g * c, *plan.lengths, turned.samples), x.dtype)  # (S, C, *L, M)

    def work(slabs: range, start: int, stop: int) -> Array:
        dw, buffer = np.zeros((g, turned.height, c), x.dtype), None
        for s in slabs:
            buffer = turned.pad(delta[s], buffer)
            x_s, dx_s = x[s].reshape(g, c, -1), dx[s].reshape(g, c, -1)  # (G, C/G, L M)
            for block in turned.blocks(buffer, start, stop):
                np.matmul(kernels, block.columns, out=dx_s[..., block.place])
                dw += np.matmul(block.columns, x_s[..., block.place].swapaxes(1, 2))
        return dw

    dw = reduce(add, share(work, len(x), plan.lengths[0], plan.threads)).swapaxes(1, 2)  # (G, C/G, O/G K)
    return dx, turned_back(dw)


def _scatter(x: Array, weight: Array, delta: Array, plan: ConvPlan) -> tuple[Array, Array]:
    """Any stride: ∂L/∂W = δ Xᵀ, and Wᵀ δ holds what each window adds to ∂L/∂x through each of its taps."""
    g, o, columns = plan.groups, plan.out_channels // plan.groups, plan.columns
    kernels = np.ascontiguousarray(weight).reshape(g, o, columns.height)
    dx = np.empty((len(x), plan.channels, *plan.lengths, columns.samples), x.dtype)  # (S, C, *L, M)

    if plan.beside:
        return dx, _scatter_block(x, kernels, delta, dx, plan).reshape(weight.shape)
    if plan.several > 1:
        return dx, _scatter_images(x, kernels, delta, dx, plan).reshape(weight.shape)

    def work(slabs: range, start: int, stop: int) -> tuple[Array, Array]:
        dw, buffer, dx_s = np.zeros(kernels.shape, x.dtype), None, columns.zeros(x.dtype)
        for s in slabs:
            dx_s[...] = 0
            buffer = columns.pad(x[s], buffer)
            delta_s = delta[s].reshape(g, o, -1)  # (G, O/G, P M)
            for block in columns.blocks(buffer, start, stop, writable=True):
                part = delta_s[..., block.place]
                dw += np.matmul(part, block.columns.swapaxes(1, 2))
                np.matmul(kernels.swapaxes(1, 2), part, out=block.columns)  # x's columns have served
                for tap, place in columns.taps(block.start, block.stop):
                    dx_s[place] += block.by_tap[tap]
            if len(x) > 1:
                dx[s] = columns.unpad(dx_s)
        return dw, dx_s

    parts = share(work, len(x), plan.outputs[0], plan.threads)
    if len(x) == 1:
        dx[0] = columns.unpad(reduce(add, (dx_s for _, dx_s in parts)))
    return dx, reduce(add, (dw for dw, _ in parts)).reshape(weight.shape)


def _scatter_block(x: Array, kernels: Array, delta: Array, dx: Array, plan: ConvPlan) -> Array:
    """One slab whose columns are one block: ∂L/∂W in a thread of its own. Writes ∂L/∂x into ``dx``."""
    columns, delta_s = plan.columns, delta[0].reshape(plan.groups, kernels.shape[1], -1)  # (G, O/G, P M)
    buffer, dx_s = columns.pad(x[0], None), columns.zeros(x.dtype)
    (block,) = columns.blocks(buffer, 0, plan.outputs[0])

    def of_input() -> None:
        by_tap = np.matmul(kernels.swapaxes(1, 2), delta_s).reshape(block.by_tap.shape)
        for tap, place in columns.taps(block.start, block.stop):
            dx_s[place] += by_tap[tap]

    dw: Array = beside(of_input, lambda: np.matmul(delta_s, block.columns.swapaxes(1, 2)))
    dx[0] = columns.unpad(dx_s)
    return dw


def _scatter_images(x: Array, kernels: Array, delta: Array, dx: Array, plan: ConvPlan) -> Array:
    """Several images at a time: ∂L/∂W. Writes ∂L/∂x into ``dx``."""
    g, o, columns, images = plan.groups, kernels.shape[1], plan.columns, slice(None)

    def work(start: int, stop: int) -> Array:
        dw = np.zeros(kernels.shape, x.dtype)
        for part in _pieces(start, stop, plan.several):
            delta_s = delta[part].reshape(-1, g, o, columns.width * plan.outputs[0])  # (S, G, O/G, P)
            all_columns, by_tap = columns.several(x[part])
            dw += np.add.reduce(np.matmul(delta_s, all_columns.swapaxes(-1, -2)))
            np.matmul(kernels.swapaxes(1, 2), delta_s, out=all_columns)  # x's columns have served
            dx_s = np.zeros((len(delta_s), *columns.padded_shape), x.dtype)
            for tap, place in columns.taps(0, plan.outputs[0]):
                dx_s[(images, *place)] += by_tap[(images, *tap)]
            dx[part] = dx_s[(images, *columns.inside)]
        return dw

    return reduce(add, shard(work, len(x), plan.threads))
