"""Mistakes in activations: ∂L/∂x = g f'(x)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._mutant import StepMutant, mistake


def sigmoid(x: Array) -> Array:
    """σ(x)."""
    return np.asarray(1 / (1 + np.exp(-x)))


def clipped(p: Array) -> Array:
    """Kept away from 0 and 1 by an ε that is visible in the dtype."""
    eps = p.dtype.type(1e-7 if p.dtype == np.float64 else 1e-5)
    return np.clip(p, eps, 1 - eps)


def density(x: Array) -> Array:
    """φ(x) of the standard normal distribution."""
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


def distribution(s: Any) -> Array:
    """Φ(x), from y = x Φ(x)."""
    return np.asarray(np.where(s.x == 0, s.x.dtype.type(0.5), s.y / np.where(s.x == 0, 1, s.x)))


def _slope(s: Any) -> Any:
    return s.x.dtype.type(s.layer.negative_slope)


def _exact(layer: Any) -> bool:
    return bool(layer.approximate == "none")


def _by_tanh(layer: Any) -> bool:
    return not _exact(layer)


def _tanh_parts(s: Any) -> tuple[Array, Array]:
    """tanh(u) and u' of GELU's approximation, u = k (x + 0.044715 x³)."""
    k = math.sqrt(2 / math.pi)
    return np.tanh(k * (s.x + 0.044715 * s.x**3)), k * (1 + 3 * 0.044715 * s.x * s.x)


MISTAKES: tuple[StepMutant, ...] = (
    # ---------------------------------------------------------------- ReLU: g where x > 0
    mistake(nn.ReLU, "dx", "relu-mask-forgotten", "mask-missing", "the gradient passes unmasked", lambda s: s.g.copy()),
    mistake(nn.ReLU, "dx", "relu-mask-of-upstream", "mask-wrong-tensor", "the mask asks for the gradient, not for x",
            lambda s: s.g * (s.g > 0)),
    mistake(nn.ReLU, "dx", "relu-mask-of-both", "mask-of-both",
            "masked by x and by the gradient (guided backpropagation)", lambda s: s.g * (s.x > 0) * (s.g > 0)),
    mistake(nn.ReLU, "dx", "relu-mask-inverted", "mask-inverted", "the mask lets through where x is negative",
            lambda s: s.g * (s.x < 0)),
    mistake(nn.ReLU, "dx", "relu-mask-shifted", "mask-misaligned", "the mask of the column beside it",
            lambda s: s.g * np.roll(s.x > 0, 1, axis=-1)),
    mistake(nn.ReLU, "dx", "relu-mask-of-first-example", "mask-misaligned", "the first example's mask for all of them",
            lambda s: s.g * (s.x[:1] > 0)),
    mistake(nn.ReLU, "dx", "relu-times-output", "derivative-wrong", "multiplied with the output, not with the mask",
            lambda s: s.g * s.y),
    mistake(nn.ReLU, "dx", "relu-leaky-backward", "derivative-of-other-function", "the derivative of a leaky ReLU",
            lambda s: np.where(s.x > 0, s.g, s.g.dtype.type(0.01) * s.g)),
    mistake(nn.ReLU, "dx", "relu-greater-or-equal", "subgradient-at-kink", ">= for >: at 0 the gradient passes",
            lambda s: s.g * (s.x >= 0), kind="kink"),
    mistake(nn.ReLU, "dx", "relu-half-at-zero", "subgradient-at-kink", "half of the gradient passes at 0",
            lambda s: s.g * np.heaviside(s.x, s.x.dtype.type(0.5)), kind="kink"),
    mistake(nn.ReLU, "dx", "relu-negative-at-zero", "not-a-subgradient",
            "at 0 the gradient comes back with the wrong sign", lambda s: np.where(s.x == 0, -s.g, s.dx)),
    mistake(nn.ReLU, "y", "relu-y-absolute", "absolute-value", "the absolute value", lambda s: np.abs(s.x)),
    mistake(nn.ReLU, "y", "relu-y-leaky", "other-function", "a leaky ReLU",
            lambda s: np.where(s.x > 0, s.x, s.x / 100)),
    mistake(nn.ReLU, "y", "relu-y-capped", "other-function", "cut off at 6",
            lambda s: np.minimum(s.y, s.y.dtype.type(6))),
    # ---------------------------------------------------------------- leaky ReLU: g, or slope g
    mistake(nn.LeakyReLU, "dx", "leaky-slope-forgotten", "slope-missing", "nothing passes where x is negative",
            lambda s: s.g * (s.x > 0)),
    mistake(nn.LeakyReLU, "dx", "leaky-default-slope", "option-ignored", "the slope is always 0.01 on the way back",
            lambda s: np.where(s.x > 0, s.g, s.g.dtype.type(0.01) * s.g)),
    mistake(nn.LeakyReLU, "dx", "leaky-slope-squared", "derivative-squared", "the slope is multiplied in twice",
            lambda s: np.where(s.x > 0, s.g, _slope(s) ** 2 * s.g)),
    mistake(nn.LeakyReLU, "dx", "leaky-slope-exchanged", "mask-inverted", "the slope where x is positive",
            lambda s: np.where(s.x > 0, _slope(s) * s.g, s.g)),
    mistake(nn.LeakyReLU, "dx", "leaky-greater-or-equal", "subgradient-at-kink",
            ">= for >: at 0 the whole gradient passes", lambda s: np.where(s.x >= 0, s.g, _slope(s) * s.g),
            kind="kink"),
    # ---------------------------------------------------------------- sigmoid: g y (1 - y)
    mistake(nn.Sigmoid, "dx", "sigmoid-derivative-squared", "derivative-squared", "y (1 - y) is multiplied in twice",
            lambda s: s.g * (s.y * (1 - s.y)) ** 2),
    mistake(nn.Sigmoid, "dx", "sigmoid-of-output", "derivative-wrong-point", "σ' at the output instead of the input",
            lambda s: s.g * sigmoid(s.y) * (1 - sigmoid(s.y))),
    mistake(nn.Sigmoid, "dx", "sigmoid-second-factor-forgotten", "factor-missing", "(1 - y) is forgotten",
            lambda s: s.g * s.y),
    mistake(nn.Sigmoid, "dx", "sigmoid-first-factor-forgotten", "factor-missing", "y is forgotten",
            lambda s: s.g * (1 - s.y)),
    mistake(nn.Sigmoid, "dx", "sigmoid-plus-for-minus", "sign-inside", "y (1 + y)", lambda s: s.g * s.y * (1 + s.y)),
    mistake(nn.Sigmoid, "dx", "sigmoid-derivative-forgotten", "derivative-missing", "the gradient passes unchanged",
            lambda s: s.g.copy()),
    mistake(nn.Sigmoid, "dx", "sigmoid-of-raw-input", "operand-swapped",
            "z (1 - z): the input where the output belongs", lambda s: s.g * s.x * (1 - s.x)),
    mistake(nn.Sigmoid, "dx", "sigmoid-tanh-derivative", "derivative-of-other-function",
            "1 - y²: the derivative of tanh", lambda s: s.g * (1 - s.y * s.y)),
    mistake(nn.Sigmoid, "dx", "sigmoid-linearised", "derivative-of-other-function", "¼ everywhere: the derivative at 0",
            lambda s: s.g / 4),
    mistake(nn.Sigmoid, "y", "sigmoid-y-negated-input", "sign-inside", "1 / (1 + eˣ)", lambda s: sigmoid(-s.x)),
    mistake(nn.Sigmoid, "y", "sigmoid-y-clipped", "clipped", "the output kept away from 0 and 1 by a small ε",
            lambda s: clipped(s.y)),
    mistake(nn.Sigmoid, "y", "sigmoid-y-tanh", "other-function", "tanh in its place", lambda s: np.tanh(s.x)),
    # ---------------------------------------------------------------- tanh: g (1 - y²)
    mistake(nn.Tanh, "dx", "tanh-square-forgotten", "square-missing", "1 - y", lambda s: s.g * (1 - s.y)),
    mistake(nn.Tanh, "dx", "tanh-of-raw-input", "operand-swapped", "1 - x²: the input where the output belongs",
            lambda s: s.g * (1 - s.x * s.x)),
    mistake(nn.Tanh, "dx", "tanh-of-output", "derivative-wrong-point", "1 - tanh²(y)",
            lambda s: s.g * (1 - np.tanh(s.y) ** 2)),
    mistake(nn.Tanh, "dx", "tanh-sigmoid-derivative", "derivative-of-other-function", "y (1 - y): the sigmoid's",
            lambda s: s.g * s.y * (1 - s.y)),
    mistake(nn.Tanh, "dx", "tanh-plus-for-minus", "sign-inside", "1 + y²", lambda s: s.g * (1 + s.y * s.y)),
    mistake(nn.Tanh, "dx", "tanh-square-outside", "square-outside", "(1 - y)²", lambda s: s.g * (1 - s.y) ** 2),
    mistake(nn.Tanh, "dx", "tanh-derivative-squared", "derivative-squared", "1 - y² is multiplied in twice",
            lambda s: s.g * (1 - s.y * s.y) ** 2),
    mistake(nn.Tanh, "dx", "tanh-derivative-forgotten", "derivative-missing", "the gradient passes unchanged",
            lambda s: s.g.copy()),
    mistake(nn.Tanh, "y", "tanh-y-half-argument", "constant-factor-inside", "2 σ(x) - 1, which is tanh(x/2)",
            lambda s: 2 * sigmoid(s.x) - 1),
    # ---------------------------------------------------------------- GELU: g (Φ + x φ)
    mistake(nn.GELU, "dx", "gelu-density-forgotten", "term-missing", "Φ(x) alone: the product rule is forgotten",
            lambda s: s.g * distribution(s), when=_exact),
    mistake(nn.GELU, "dx", "gelu-x-forgotten", "factor-missing", "Φ(x) + φ(x)",
            lambda s: s.g * (distribution(s) + density(s.x)), when=_exact),
    mistake(nn.GELU, "dx", "gelu-root-forgotten", "constant-factor-inside", "φ without the root in 1/√(2π)",
            lambda s: s.g * (distribution(s) + s.x * density(s.x) / math.sqrt(2 * math.pi)), when=_exact),
    mistake(nn.GELU, ("y",), "gelu-y-approximated", "approximation-for-exact", "the approximation by tanh, unasked",
            lambda s: s.forward(layer=nn.GELU(approximate="tanh")), when=_exact),
    mistake(nn.GELU, "dx", "gelu-dx-approximated", "approximation-for-exact",
            "the derivative of the approximation by tanh", lambda s: s.backward(layer=nn.GELU(approximate="tanh")).dx,
            when=_exact),
    mistake(nn.GELU, "dx", "gelu-tanh-dx-exact", "exact-for-approximation", "the derivative of the exact form",
            lambda s: s.backward(layer=nn.GELU()).dx, when=_by_tanh),
    mistake(nn.GELU, "dx", "gelu-tanh-inner-forgotten", "factor-missing", "the inner derivative u' is forgotten",
            lambda s: s.g * (0.5 * (1 + _tanh_parts(s)[0]) + 0.5 * s.x * (1 - _tanh_parts(s)[0] ** 2)), when=_by_tanh),
    mistake(nn.GELU, "y", "gelu-tanh-y-cubic-forgotten", "term-missing", "the cubic term is forgotten",
            lambda s: 0.5 * s.x * (1 + np.tanh(math.sqrt(2 / math.pi) * s.x)), when=_by_tanh),
    # ---------------------------------------------------------------- SiLU: g (σ + x σ (1 - σ))
    mistake(nn.SiLU, "dx", "silu-gate-only", "term-missing", "σ(x) alone: the product rule is forgotten",
            lambda s: s.g * sigmoid(s.x)),
    mistake(nn.SiLU, "dx", "silu-first-term-forgotten", "term-missing", "x σ'(x) alone",
            lambda s: s.g * s.x * sigmoid(s.x) * (1 - sigmoid(s.x))),
    mistake(nn.SiLU, "dx", "silu-of-output", "operand-swapped", "σ + x y (1 - y): the output for σ",
            lambda s: s.g * (sigmoid(s.x) + s.x * s.y * (1 - s.y))),
    mistake(nn.SiLU, "y", "silu-y-gelu", "other-function", "x σ(1.702 x), an approximation of GELU",
            lambda s: s.x * sigmoid(1.702 * s.x)),
    # ---------------------------------------------------------------- softplus: g σ(β x)
    mistake(nn.Softplus, "dx", "softplus-beta-ignored", "option-ignored", "σ(x), without β",
            lambda s: s.g * sigmoid(s.x)),
    mistake(nn.Softplus, "dx", "softplus-beta-outside", "constant-factor", "β σ(β x): 1/β in front is forgotten",
            lambda s: s.layer.beta * s.dx),
    mistake(nn.Softplus, "dx", "softplus-of-output", "derivative-wrong-point", "σ at the output",
            lambda s: s.g * sigmoid(s.layer.beta * s.y)),
    mistake(nn.Softplus, "y", "softplus-y-not-divided", "constant-factor", "log(1 + e^(β x)) without 1/β",
            lambda s: s.layer.beta * s.y),
    # ---------------------------------------------------------------- softmax: y (g - Σ g y)
    mistake(nn.Softmax, "dx", "softmax-diagonal-only", "jacobian-diagonal",
            "y (1 - y) g: the Jacobian's diagonal alone", lambda s: s.g * s.y * (1 - s.y)),
    mistake(nn.Softmax, "dx", "softmax-sum-forgotten", "term-missing", "y g: the sum is forgotten",
            lambda s: s.g * s.y),
    mistake(nn.Softmax, "dx", "softmax-sum-unweighted", "factor-missing", "y (g - Σ g)",
            lambda s: s.y * (s.g - s.g.sum(axis=s.layer.dim, keepdims=True))),
    mistake(nn.Softmax, "dx", "softmax-sum-over-batch", "wrong-axes", "the sum runs over the examples",
            lambda s: s.y * (s.g - (s.g * s.y).sum(axis=0, keepdims=True)), when=lambda layer: layer.dim != 0),
    mistake(nn.Softmax, "dx", "softmax-outer-factor-forgotten", "factor-missing", "g - Σ g y",
            lambda s: s.g - (s.g * s.y).sum(axis=s.layer.dim, keepdims=True)),
    mistake(nn.Softmax, "y", "softmax-y-over-batch", "wrong-axes", "normalised over the examples",
            lambda s: s.forward(layer=nn.Softmax(dim=0))),
    mistake(nn.LogSoftmax, "dx", "logsoftmax-log-for-probability", "operand-swapped", "g - y Σ g with y the logarithm",
            lambda s: s.g - s.y * s.g.sum(axis=s.layer.dim, keepdims=True)),
    mistake(nn.LogSoftmax, "dx", "logsoftmax-sum-forgotten", "term-missing", "the gradient passes unchanged",
            lambda s: s.g.copy()),
    mistake(nn.LogSoftmax, "dx", "logsoftmax-upstream-not-summed", "sum-missing", "g - e^y: as if Σ g were 1",
            lambda s: s.g - np.exp(s.y)),
    mistake(nn.LogSoftmax, "y", "logsoftmax-y-base-two", "log-base", "the logarithm to base 2",
            lambda s: s.y / s.y.dtype.type(math.log(2))),
)  # fmt: skip
