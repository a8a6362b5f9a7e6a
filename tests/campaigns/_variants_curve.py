"""Other right implementations of activations and softmax.

A textbook formula that overflows or cancels to nothing is right only within its range: beyond it, these give way to the
engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array, Gradients

Function = Callable[[Array], Array]

#: |z| up to which e^z stays far from overflow, in float32 and squared.
RANGE = 40.0


def _one(z: Array) -> Any:
    return z.dtype.type(1)


SIGMOIDS: dict[str, Function] = {
    "reciprocal": lambda z: _one(z) / (_one(z) + np.exp(-z)),
    "quotient": lambda z: np.exp(z) / (_one(z) + np.exp(z)),
    "by_tanh": lambda z: z.dtype.type(0.5) * (_one(z) + np.tanh(z * z.dtype.type(0.5))),
}

TANHS: dict[str, Function] = {
    "quotient": lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    "twice": lambda z: (np.exp(2 * z) - _one(z)) / (np.exp(2 * z) + _one(z)),
    "by_sigmoid": lambda z: 2 / (_one(z) + np.exp(-2 * z)) - _one(z),
    "one_minus": lambda z: _one(z) - 2 / (_one(z) + np.exp(2 * z)),
}


def _sigmoid(z: Array, how: str) -> Array:
    return np.where(np.abs(z) < RANGE, SIGMOIDS[how](np.clip(z, -RANGE, RANGE)), 1 / (1 + np.exp(-z))).astype(z.dtype)


class SigmoidBy:
    how = "reciprocal"
    slope = "output"

    def forward(self, params: Any, z: Array) -> tuple[Array, Any]:
        a = _sigmoid(z, self.how)
        return a, (z, a)

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        z, a = cache
        if self.slope == "input":
            z = np.clip(z, -RANGE, RANGE)
            e = np.exp(-z)
            return Gradients((upstream * (e / ((1 + e) * (1 + e))),))
        if self.slope == "other":
            return Gradients((upstream * a * (1 - a),))
        if self.slope == "square":
            return Gradients((upstream * (a - a * a),))
        return Gradients((upstream * (_sigmoid(z, self.how) * (1 - _sigmoid(z, self.how))),))


class TanhBy:
    how = "quotient"
    slope = "output"

    def forward(self, params: Any, z: Array) -> tuple[Array, Any]:
        near = np.abs(z) < RANGE / 2
        t = np.where(near, TANHS[self.how](np.clip(z, -RANGE / 2, RANGE / 2)), np.tanh(z)).astype(z.dtype)
        return t, (z, t)

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        z, t = cache
        if self.slope == "input":
            c = np.cosh(np.clip(z, -RANGE, RANGE))
            return Gradients((upstream / (c * c),))
        if self.slope == "factors":
            return Gradients((upstream * ((1 - t) * (1 + t)),))
        return Gradients((upstream * (1 - t**2),))


class RectifierBy:
    """ReLU and LeakyReLU by a product with a mask, by a maximum, or by the absolute value; 0 or 1 as slope at 0."""

    how = "mask"
    at_zero = False

    def _slope(self, x: Array) -> Any:
        return x.dtype.type(getattr(self, "negative_slope", 0.0))

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        s = self._slope(x)
        if self.how == "absolute":
            half = x.dtype.type(0.5)
            return half * (1 + s) * x + half * (1 - s) * np.abs(x), x
        if self.how == "maximum" and s <= 1:
            return np.maximum(x, s * x), x
        return x * np.where(x > 0, _one(x), s), x

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        x = cache
        mask = x >= 0 if self.at_zero else x > 0
        return Gradients((upstream * np.where(mask, _one(x), self._slope(x)),))


class SiluBy:
    how = "reciprocal"

    def forward(self, params: Any, z: Array) -> tuple[Array, Any]:
        if self.how == "divide":
            near = np.clip(z, -RANGE, None)
            return np.where(z > -RANGE, z / (1 + np.exp(-near)), z * _sigmoid(z, "reciprocal")).astype(z.dtype), z
        return z * _sigmoid(z, self.how), z

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        z = cache
        s = _sigmoid(z, "reciprocal" if self.how == "divide" else self.how)
        y = z * s
        return Gradients((upstream * (y + s * (1 - y)),))


class GeluBy:
    """erf element by element from the C library; tanh by way of a sigmoid."""

    def forward(self, params: Any, z: Array) -> tuple[Array, Any]:
        p = self._phi(z)
        return z * p, (z, p)

    def _phi(self, z: Array) -> Array:
        if self.approximate == "none":
            return np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))), otypes=[z.dtype])(z)
        k = z.dtype.type(math.sqrt(2 / math.pi))
        near = np.clip(z, -20, 20)
        return _sigmoid(2 * k * (near + z.dtype.type(0.044715) * near**3), "reciprocal")

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        z, p = cache
        near = np.clip(z, -20, 20)
        if self.approximate == "none":
            density = np.exp(-near * near / 2) / z.dtype.type(math.sqrt(2 * math.pi))
            return Gradients((upstream * (p + near * density),))
        k = z.dtype.type(math.sqrt(2 / math.pi))
        return Gradients((upstream * (p + 2 * near * p * (1 - p) * k * (1 + 3 * z.dtype.type(0.044715) * near**2)),))


class SoftplusBy:
    """log(1 + e^w) as it stands, with or without torch's linear branch; σ by a quotient."""

    linear = True

    def forward(self, params: Any, z: Array) -> tuple[Array, Any]:
        w = z * z.dtype.type(self.beta)
        smooth = np.maximum(w, 0) + np.log(1 + np.exp(-np.abs(w)))
        whole = self.threshold >= 20 and not self.linear
        return np.where((w > self.threshold) & (not whole), z, smooth / z.dtype.type(self.beta)).astype(z.dtype), w

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        w = cache
        whole = self.threshold >= 20 and not self.linear
        s = _sigmoid(w, "quotient")
        return Gradients((np.where((w > self.threshold) & (not whole), upstream, upstream * s),))


class SoftmaxBy:
    """With or without the shift, through the Jacobian or not; log-softmax as a logarithm or a difference."""

    shift = True
    jacobian = False

    def _softmax(self, x: Array) -> tuple[Array, Array]:
        x = np.moveaxis(x, self.dim, -1)
        top = x.max(-1, keepdims=True)
        shift = top if self.shift or np.abs(x).max(initial=0) > RANGE else np.zeros_like(top)
        e = np.exp(x - shift)
        total = np.add.accumulate(e, axis=-1)[..., -1:]
        return e / total, x - (shift + np.log(total))

    @property
    def _log(self) -> bool:
        return isinstance(self, nn.LogSoftmax)

    def forward(self, params: Any, x: Array) -> tuple[Array, Any]:
        y, log = self._softmax(x)
        if self._log:
            ok = y.min(initial=1) > 1e-30
            log = np.log(y) if self.jacobian and ok else log
        return np.moveaxis(log if self._log else y, -1, self.dim), y

    def backward(self, cache: Any, upstream: Array) -> Gradients:
        y = cache
        g = np.moveaxis(upstream, self.dim, -1)
        if self._log:
            dx = g - y * g.sum(-1, keepdims=True)
        elif self.jacobian:
            jacobian = y[..., None] * np.eye(y.shape[-1], dtype=y.dtype) - y[..., None] * y[..., None, :]
            dx = (jacobian * g[..., None, :]).sum(-1)
        else:
            dx = y * (g - np.add.accumulate(g * y, axis=-1)[..., -1:])
        return Gradients((np.moveaxis(dx, -1, self.dim),))


def _options(base: type, **fixed: Any) -> type:
    return type(base.__name__ + "".join(str(v).title() for v in fixed.values()), (base,), fixed)


CURVES: dict[type[nn.Layer], list[type]] = {
    nn.Sigmoid: [_options(SigmoidBy, how=h, slope=s) for h in SIGMOIDS for s in ("output", "input", "other", "square")],
    nn.Tanh: [_options(TanhBy, how=h, slope=s) for h in TANHS for s in ("output", "input", "factors")],
    **{
        key: [_options(RectifierBy, how=h, at_zero=z) for h in ("mask", "maximum", "absolute") for z in (False, True)]
        for key in (nn.ReLU, nn.LeakyReLU)
    },
    nn.SiLU: [_options(SiluBy, how=h) for h in (*SIGMOIDS, "divide")],
    nn.GELU: [GeluBy],
    nn.Softplus: [_options(SoftplusBy, linear=v) for v in (True, False)],
    **{
        key: [_options(SoftmaxBy, shift=s, jacobian=j) for s in (True, False) for j in (True, False)]
        for key in (nn.Softmax, nn.LogSoftmax)
    },
}
