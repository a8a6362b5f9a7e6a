"""Other right implementations of what is linear: dense layers, convolutions, mean and max pooling."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array, Gradients
from tests.campaigns._sums import ORDERS, PRODUCTS, sequential

#: np.pad's names of torch's padding modes.
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class DenseByProduct:
    """y = x Wᵀ + b through one of the matrix products; the bias may come first."""

    product = "matmul"
    bias_first = False

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        rows, w = x.reshape(-1, x.shape[-1]), params["weight"]
        if self.bias_first and "bias" in params:
            one = np.ones((len(rows), 1), x.dtype)
            y = PRODUCTS[self.product](np.hstack([one, rows]), np.hstack([params["bias"][:, None], w]).T)
        else:
            y = PRODUCTS[self.product](rows, w.T)
            y = y + params["bias"] if "bias" in params else y
        return y.reshape(*x.shape[:-1], len(w)), (x, w, "bias" in params)

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        x, w, bias = cache
        g, rows = upstream.reshape(-1, len(w)), x.reshape(-1, x.shape[-1])
        product = PRODUCTS[self.product]
        params = {"weight": product(g.T, rows)}
        if bias:
            params["bias"] = product(np.ones((1, len(g)), g.dtype), g)[0]
        return Gradients((product(g, w).reshape(x.shape),), params)


class _Windows:
    """Where each window reads: positions in the padded input, and where they come from in the input."""

    def geometry(self, x: Array) -> tuple[Array, Array, tuple[int, ...]]:
        """Flat positions (P, K) in the padded plane, source of each padded element (-1: none), output shape."""
        w, lengths = self.window, x.shape[-self.axes :]
        width = [(b, a) for b, a in zip(w.before, w.after, strict=True)]
        plane = np.arange(math.prod(lengths)).reshape(lengths)
        mode = MODES[getattr(self, "padding_mode", "zeros")]
        source = np.pad(plane, width, mode=mode, **({"constant_values": -1} if mode == "constant" else {}))
        outputs = w.outputs(lengths, ceil=getattr(self, "ceil_mode", False))
        more = [
            max(0, (p - 1) * s + n - have)
            for p, s, n, have in zip(outputs, w.stride, w.span, source.shape, strict=True)
        ]
        source = np.pad(source, [(0, m) for m in more], constant_values=-2)  # beyond the padding: ceil_mode
        place = np.arange(source.size).reshape(source.shape)
        rows = []
        for p in itertools.product(*map(range, outputs)):
            at = tuple(slice(i * s, i * s + n, d) for i, s, n, d in zip(p, w.stride, w.span, w.dilation, strict=True))
            rows.append(place[at].reshape(-1))
        return np.array(rows).reshape(len(rows), -1), source.reshape(-1), outputs


def _planes(x: Array, axes: int) -> Array:
    """(N, C, L), with a batch axis if there is none."""
    x = x if x.ndim == axes + 2 else x[None]
    return x.reshape(*x.shape[:2], -1)


class ConvByColumns(_Windows):
    """im2col: one matrix product for each group, columns scattered back one by one."""

    product = "matmul"

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        index, source, outputs = self.geometry(x)
        flat = _planes(x, self.axes)
        padded = np.where(source >= 0, flat[..., np.maximum(source, 0)], x.dtype.type(0))
        columns = padded[..., index]  # (N, C, P, K)
        w, n, p = params["weight"], len(flat), len(index)
        y = np.empty((n, self.out_channels, p), x.dtype)
        per, out = flat.shape[1] // self.groups, self.out_channels // self.groups
        for g in range(self.groups):
            rows = columns[:, g * per : (g + 1) * per].transpose(0, 2, 1, 3).reshape(n * p, -1)
            found = PRODUCTS[self.product](rows, w[g * out : (g + 1) * out].reshape(out, -1).T)
            y[:, g * out : (g + 1) * out] = found.reshape(n, p, out).transpose(0, 2, 1)
        if self.bias:
            y = y + params["bias"][:, None]
        lead = (n,) if x.ndim == self.axes + 2 else ()
        return y.reshape(*lead, self.out_channels, *outputs), (x, columns, w, index, source)

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        x, columns, w, index, source = cache
        n, c, p, k = columns.shape
        g_all = upstream.reshape(n, self.out_channels, p)
        per, out = c // self.groups, self.out_channels // self.groups
        d_columns, dw = np.empty_like(columns), np.empty_like(w)
        product = PRODUCTS[self.product]
        for g in range(self.groups):
            delta = g_all[:, g * out : (g + 1) * out].transpose(1, 0, 2).reshape(out, n * p)
            rows = columns[:, g * per : (g + 1) * per].transpose(0, 2, 1, 3).reshape(n * p, per * k)
            own = w[g * out : (g + 1) * out].reshape(out, per * k)
            dw[g * out : (g + 1) * out] = product(delta, rows).reshape(out, *w.shape[1:])
            back = product(delta.T.copy(), own).reshape(n, p, per, k)
            d_columns[:, g * per : (g + 1) * per] = back.transpose(0, 2, 1, 3)
        d_padded = np.zeros((n, c, len(source)), x.dtype)
        np.add.at(d_padded, (slice(None), slice(None), index), d_columns)
        dx = np.zeros((n, c, math.prod(x.shape[-self.axes :])), x.dtype)
        kept = source >= 0
        np.add.at(dx, (slice(None), slice(None), source[kept]), d_padded[..., kept])
        params = {"weight": dw}
        if self.bias:
            params["bias"] = sequential(g_all.transpose(0, 2, 1).reshape(n * p, -1))
        return Gradients((dx.reshape(x.shape),), params)


class ConvByShifts(ConvByColumns):
    """Shift and add: one tap of the kernel and one channel after the other, sums in the order of the taps."""

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        y, cache = super().forward(params, x)
        _, columns, w, _, _ = cache
        n, c, p, k = columns.shape
        per, out = c // self.groups, self.out_channels // self.groups
        total = np.zeros((n, self.out_channels, p), x.dtype)
        if self.bias:
            total = total + params["bias"][:, None]
        flat = w.reshape(self.out_channels, per, k)
        for tap, i in itertools.product(reversed(range(k)), range(per)):
            for o in range(self.out_channels):
                total[:, o] = total[:, o] + flat[o, i, tap] * columns[:, o // out * per + i, :, tap]
        return total.reshape(y.shape), cache

    product = "reversed"


class MeanByShares(_Windows):
    """The mean as a sum of shares x / n, or as a sum times 1 / n; windows taken from the last to the first."""

    shares = True
    order = "sequential"

    def _divisors(self, index: Array, source: Array) -> Array:
        counted = source[index] >= (-1 if self.count_include_pad else 0)
        n = counted.sum(1)
        override = getattr(self, "divisor_override", None)
        return np.full_like(n, override) if override else n

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        index, source, outputs = self.geometry(x)
        flat = _planes(x, self.axes)
        padded = np.where(source >= 0, flat[..., np.maximum(source, 0)], x.dtype.type(0))
        n = self._divisors(index, source).astype(x.dtype)
        terms = np.moveaxis(padded[..., index], -1, 0)  # (K, N, C, P)
        total = ORDERS[self.order](terms / n) if self.shares else ORDERS[self.order](terms) * (x.dtype.type(1) / n)
        lead = x.shape[: -self.axes]
        return total.reshape(*lead, *outputs), (x, index, source, n)

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        x, index, source, n = cache
        flat = _planes(x, self.axes)
        g = upstream.reshape(*flat.shape[:2], -1)
        dx = np.zeros_like(flat)
        for p in reversed(range(len(index))):
            share = g[..., p] / n[p] if self.shares else g[..., p] * (x.dtype.type(1) / n[p])
            for at in source[index[p]]:
                if at >= 0:
                    dx[..., at] = dx[..., at] + share
        return Gradients((dx.reshape(x.shape),))


class MaxByLoops(_Windows):
    """The winner of each window by comparison: the first or the last of equal ones, or all of them sharing."""

    ties = "first"

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        index, source, outputs = self.geometry(x)
        flat = _planes(x, self.axes)
        inside = source[index] >= 0
        windows = np.where(inside, flat[..., np.maximum(source[index], 0)], -np.inf).astype(x.dtype)
        y = windows.max(-1)
        return y.reshape(*x.shape[: -self.axes], *outputs), (x, windows, y, source[index], inside)

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        x, windows, y, at, inside = cache
        winners = (windows == y[..., None]) & inside  # (N, C, P, K)
        if self.ties == "first":
            winners &= np.cumsum(winners, -1) == 1
        elif self.ties == "last":
            winners &= np.cumsum(winners[..., ::-1], -1)[..., ::-1] == 1
        count = np.maximum(winners.sum(-1, keepdims=True), 1).astype(x.dtype)
        g = upstream.reshape(*y.shape, 1)
        share = np.where(winners, g / count, x.dtype.type(0))
        flat = np.zeros((*y.shape[:2], math.prod(x.shape[-self.axes :])), x.dtype)
        for p in range(at.shape[0]):
            for k in range(at.shape[1]):
                if inside[p, k]:
                    flat[..., at[p, k]] = flat[..., at[p, k]] + share[..., p, k]
        return Gradients((flat.reshape(x.shape),))


def _options(base: type, name: str, **fixed: Any) -> type:
    return type(name, (base,), fixed)


#: By layer: ways to compute it, each a class to be put in front of the engine's.
DENSE = [_options(DenseByProduct, f"By{p.title()}", product=p, bias_first=i % 2 == 1) for i, p in enumerate(PRODUCTS)]
CONVOLUTION = [*(_options(ConvByColumns, f"Columns{p.title()}", product=p) for p in PRODUCTS), ConvByShifts]
MEAN = [
    _options(MeanByShares, f"Mean{o.title()}{s}", order=o, shares=s)
    for o, s in itertools.product(("sequential", "reversed", "pairwise"), (True, False))
]
MAX = [_options(MaxByLoops, f"Ties{t.title()}", ties=t) for t in ("first", "last", "shared")]

LINEAR: dict[type[nn.Layer], list[type]] = {
    nn.Linear: DENSE,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), CONVOLUTION),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), MEAN),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), MAX),
}
