"""Other right implementations of batch and layer normalisation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array, Gradients


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    return x.mean(axis=axes, keepdims=True)


def two_pass(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    mu = _mean(x, axes)
    return mu, _mean((x - mu) ** 2, axes)


def one_pass(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """mean x² - mu², which cancels; never below 0."""
    mu = _mean(x, axes)
    return mu, np.maximum(_mean(x * x, axes) - mu * mu, 0)


def welford(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """One element after the other."""
    flat = np.moveaxis(x, axes, range(len(axes)))
    rest = flat.shape[len(axes) :]
    flat = flat.reshape(-1, *rest)
    mu, m2 = np.zeros(rest, x.dtype), np.zeros(rest, x.dtype)
    for k, row in enumerate(flat, 1):
        step = row - mu
        mu = mu + step / x.dtype.type(k)
        m2 = m2 + step * (row - mu)
    return np.expand_dims(mu, axes), np.expand_dims(m2 / x.dtype.type(len(flat)), axes)


MOMENTS = {"two_pass": two_pass, "one_pass": one_pass, "welford": welford}


class NormBy:
    """BatchNorm and LayerNorm with the chosen moments, forward form, and backward form."""

    moments = "two_pass"
    folded = False
    how = "short"

    def _axes(self, x: Array) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Over which x is normalised, over which a parameter's gradient is summed, and a parameter's shape beside x."""
        if isinstance(self, nn.LayerNorm):
            k = len(self.shape)
            lead = x.ndim - k
            return tuple(range(lead, x.ndim)), tuple(range(lead)), (*(1,) * lead, *self.shape)
        axes = tuple(d for d in range(x.ndim) if d != 1)
        return axes, axes, (1, -1, *(1,) * (x.ndim - 2))

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        axes, _, column = self._axes(x)
        given = not getattr(self, "training", True) and "running_mean" in params
        if given:
            mu, v = params["running_mean"].reshape(column), params["running_var"].reshape(column)
        else:
            mu, v = MOMENTS[self.moments](x, axes)
        r = 1 / np.sqrt(v + x.dtype.type(self.eps))
        w = params["weight"].reshape(column) if "weight" in params else np.ones((), x.dtype)
        b = params["bias"].reshape(column) if "bias" in params else np.zeros((), x.dtype)
        y = x * (w * r) + (b - mu * (w * r)) if self.folded else w * ((x - mu) * r) + b
        return y, (x, mu, r, w, given, tuple(params))

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        x, mu, r, w, given, names = cache
        axes, summed, _ = self._axes(x)
        xhat = (x - mu) * r
        g, m = upstream * w, x.dtype.type(x.size // mu.size)
        params = {}
        if "weight" in names:
            params["weight"] = (upstream * xhat).sum(axis=summed).reshape(self.parameter_shapes()["weight"])
        if "bias" in names:
            params["bias"] = upstream.sum(axis=summed).reshape(self.parameter_shapes()["bias"])
        if given:
            dx = g * r
        elif self.how == "short":
            dx = r / m * (m * g - g.sum(axes, keepdims=True) - xhat * (g * xhat).sum(axes, keepdims=True))
        elif self.how == "textbook":
            d = x - mu
            dv = (g * d).sum(axes, keepdims=True) * x.dtype.type(-0.5) * r**3
            dmu = -r * g.sum(axes, keepdims=True) + dv * (-2 * d).sum(axes, keepdims=True) / m
            dx = g * r + dv * 2 * d / m + dmu / m
        else:  # without centring
            b = r**3 / m * (mu * g.sum(axes, keepdims=True) - (g * x).sum(axes, keepdims=True))
            dx = r * g + b * x - (b * mu + r * g.sum(axes, keepdims=True) / m)
        return Gradients((np.asarray(dx),), params)


def _options(moments: str, folded: bool, how: str) -> type:
    return type(f"Norm{moments}{how}{'Folded' * folded}", (NormBy,), {"moments": moments, "folded": folded, "how": how})


NORMS: dict[type[nn.Layer], list[type]] = {
    key: [_options(*o) for o in itertools.product(MOMENTS, (False, True), ("short", "textbook", "uncentred"))]
    for key in (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
}
