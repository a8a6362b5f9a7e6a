"""Other right implementations of losses and optimisers."""

from __future__ import annotations

from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array
from tests.campaigns._sums import ORDERS


class _Reduced:
    order = "sequential"

    def _value(self, losses: Array) -> Array:
        total = ORDERS[self.order](losses.reshape(-1))
        return np.asarray(total / losses.dtype.type(losses.size) if self.reduction == "mean" else total)

    def _n(self, a: Array) -> Any:
        return a.dtype.type(a.size if self.reduction == "mean" else 1)


class SquaredBy(_Reduced):
    """Mean of squares; the gradient divided last."""

    def forward(self, p: Array, t: Array) -> tuple[Array, Any]:
        d = t - p
        value = self._value(d**2)
        return np.asarray(value * value.dtype.type(0.5) if self._half else value), d

    @property
    def _half(self) -> bool:
        return isinstance(self, nn.HalfSquaredError)

    def backward(self, cache: Any, upstream: Any = 1.0) -> Array:
        d = cache
        return np.asarray(-d if self._half else -2 * d / self._n(d))


class AbsoluteBy(_Reduced):
    """|d| by a choice of sign, whose value at 0 is 1."""

    def forward(self, p: Array, t: Array) -> tuple[Array, Any]:
        d = p - t
        return self._value(np.where(d < 0, -d, d)), d

    def backward(self, cache: Any, upstream: Any = 1.0) -> Array:
        d = cache
        one = d.dtype.type(1)
        return np.where(d < 0, -one, one) / self._n(d)


class HuberBy(_Reduced):
    """Both branches in full, chosen between."""

    def forward(self, p: Array, t: Array) -> tuple[Array, Any]:
        d = p - t
        a = np.abs(d)
        if isinstance(self, nn.HuberLoss):
            k = d.dtype.type(self.delta)
            return self._value(np.where(a <= k, d.dtype.type(0.5) * d * d, k * a - k * k / 2)), d
        k = d.dtype.type(self.beta)
        inside = d.dtype.type(0.5) * d * d / k if self.beta else a
        return self._value(np.where(a < k, inside, a - k / 2)), d

    def backward(self, cache: Any, upstream: Any = 1.0) -> Array:
        d = cache
        if isinstance(self, nn.HuberLoss):
            return np.where(np.abs(d) <= self.delta, d, self.delta * np.sign(d)).astype(d.dtype) / self._n(d)
        inside = d / d.dtype.type(self.beta) if self.beta else np.sign(d)
        return np.where(np.abs(d) < self.beta, inside, np.sign(d)).astype(d.dtype) / self._n(d)


def _factor(values: Any, like: Array) -> Array:
    return np.asarray(1 if values is None else values, like.dtype)


class ProbabilityBy(_Reduced):
    """Binary cross-entropy with two logarithms; the gradient as two quotients or as one."""

    quotients = 2

    def forward(self, p: Array, t: Array) -> tuple[Array, Any]:
        low = p.dtype.type(-100)
        losses = -(t * np.maximum(np.log(p), low) + (1 - t) * np.maximum(np.log(1 - p), low))
        return self._value(losses * _factor(self.weight, p)), (p, t)

    def backward(self, cache: Any, upstream: Any = 1.0) -> Array:
        p, t = cache
        q = p * (1 - p)
        saturated = q < 1e-11
        if self.quotients == 2:
            g = -t / np.where(saturated, 1, p) + (1 - t) / np.where(saturated, 1, 1 - p)
        else:
            g = (p - t) / np.where(saturated, 1, q)
        # the clamp in front of the division, its constant in the working precision
        g = np.where(saturated, (p - t) / np.maximum(q, p.dtype.type(1e-12)), g)
        return (g * _factor(self.weight, p) / self._n(p)).astype(p.dtype)


class LogitBy(_Reduced):
    """max(z, 0) - z t + log(1 + e^-|z|), or the same as a softplus; with weights in the textbook's two terms."""

    def forward(self, z: Array, t: Array) -> tuple[Array, Any]:
        w, c = _factor(self.weight, z), _factor(self.pos_weight, z)
        tail = np.log(1 + np.exp(-np.abs(z)))
        losses = c * t * (np.maximum(-z, 0) + tail) + (1 - t) * (np.maximum(z, 0) + tail)
        return self._value(losses * w), (z, t, w, c)

    def backward(self, cache: Any, upstream: Any = 1.0) -> Array:
        z, t, w, c = cache
        e = np.exp(-np.abs(z))
        s = np.where(z >= 0, 1 / (1 + e), e / (1 + e)).astype(z.dtype)
        other = np.where(z >= 0, e / (1 + e), 1 / (1 + e)).astype(z.dtype)
        return np.asarray(w * ((1 - t) * s - c * t * other) / self._n(z))


class ClassesBy:
    """Cross-entropy and NLL through the whole target distribution: -Σ T log p, and (softmax Σ T - T)."""

    def _parts(self, z: Array, t: Array) -> tuple[Array, Any]:
        count = z.shape[1]
        w = np.ones(count, z.dtype) if self.weight is None else np.asarray(self.weight, z.dtype)
        column = w.reshape(1, -1, *(1,) * (z.ndim - 2))
        smooth = z.dtype.type(getattr(self, "label_smoothing", 0.0))
        if t.dtype.kind == "f":
            target, divisor = t, z.dtype.type(z.size // count)
        else:
            keep = t != self.ignore_index
            known = np.where(keep, t, 0)
            target = np.moveaxis(np.eye(count, dtype=z.dtype)[known], -1, 1) * np.expand_dims(keep, 1)
            column = column * np.expand_dims(keep, 1)
            divisor = np.add.accumulate((w[known] * keep).reshape(-1))[-1]
        spread = ((1 - smooth) * target + smooth / z.dtype.type(count)) * column
        return spread.astype(z.dtype), divisor if self.reduction == "mean" else z.dtype.type(1)

    def forward(self, z: Array, t: Array) -> tuple[Array, Any]:
        target, divisor = self._parts(z, t)
        if isinstance(self, nn.NLLLoss):
            logs, soft = z, None
        else:
            e = np.exp(z - z.max(1, keepdims=True))
            total = np.add.accumulate(e, axis=1)[:, -1:]
            soft, logs = e / total, z - (z.max(1, keepdims=True) + np.log(total))
        losses = np.where(target > 0, target * logs, z.dtype.type(0)).reshape(-1)
        return np.asarray(-np.add.accumulate(losses)[-1] / divisor), (target, divisor, soft)

    def backward(self, cache: Any, upstream: Any = 1.0) -> Array:
        target, divisor, soft = cache
        if soft is None:
            return np.asarray(-target / divisor)
        return np.asarray((soft * target.sum(1, keepdims=True) - target) / divisor)


class AdamBy:
    """The textbook's Adam: both moments corrected first, then lr m / (sqrt(v) + eps)."""

    def step(self, params: Any, grads: Any, state: Any) -> Any:
        (b1, b2), new = self.betas, {}
        for name, theta in params.items():
            g = grads[name]
            if isinstance(self, nn.AdamW):
                theta = theta - self.lr * self.weight_decay * theta
            else:
                g = g + self.weight_decay * theta
            m, v = (1 - b1) * g / (1 - b1), (1 - b2) * g * g / (1 - b2)
            new[name] = theta - self.lr * m / (np.sqrt(v) + self.eps)
        return new, state


class SgdBy:
    """v = -lr g as a velocity."""

    def step(self, params: Any, grads: Any, state: Any) -> Any:
        new = {}
        for name, theta in params.items():
            velocity = -self.lr * (grads[name] + self.weight_decay * theta)
            if self.nesterov:
                velocity = velocity + self.momentum * velocity
            new[name] = theta + velocity
        return new, state


def _options(base: type, **fixed: Any) -> type:
    return type(base.__name__ + "".join(str(v).title() for v in fixed.values()), (base,), fixed)


LOSSES: dict[type, list[type]] = {
    **{key: [_options(SquaredBy, order=o) for o in ORDERS] for key in (nn.MSELoss, nn.HalfSquaredError)},
    nn.L1Loss: [AbsoluteBy],
    **{key: [HuberBy] for key in (nn.HuberLoss, nn.SmoothL1Loss)},
    nn.BCELoss: [_options(ProbabilityBy, quotients=q) for q in (1, 2)],
    nn.BCEWithLogitsLoss: [LogitBy],
    **{key: [ClassesBy] for key in (nn.CrossEntropyLoss, nn.NLLLoss)},
}
OPTIMIZERS: dict[type, list[type]] = {nn.SGD: [SgdBy], **{key: [AdamBy] for key in (nn.Adam, nn.AdamW)}}
