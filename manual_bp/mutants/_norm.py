"""Mistakes in normalisations: x̂ = (x - μ) / √(σ² + ε), y = w x̂ + b."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._mutant import StepMutant, mistake

BATCH = (nn.BatchNorm1d, nn.BatchNorm2d)
NORM = (*BATCH, nn.LayerNorm)


@dataclass(frozen=True)
class Parts:
    """What a normalisation computes on the way, in the names of its formulas."""

    over: tuple[int, ...]  # the axes of a group
    summed: tuple[int, ...]  # the axes that share a weight
    n: int  # elements of a group
    mean: Array
    variance: Array
    s: Array  # 1 / √(σ² + ε)
    x_hat: Array
    w: Array  # broadcast against x, 1 if there is none
    b: Array  # 0 if there is none
    g: Array  # w times the upstream gradient: ∂L/∂x̂; w itself in the forward pass


def parts(s: Any) -> Parts:
    """From the right operands."""
    x, layer, one = s.x, s.layer, s.x.dtype.type(1)
    if isinstance(layer, nn.LayerNorm):
        over = tuple(range(x.ndim - len(layer.shape), x.ndim))
        summed, shape = tuple(range(over[0])), layer.shape
    else:
        over = summed = (0, *range(2, x.ndim))
        shape = (1, -1, *(1,) * (x.ndim - 2))
    mean, variance = x.mean(axis=over, keepdims=True), x.var(axis=over, keepdims=True)
    if not getattr(layer, "training", True):
        mean, variance = s.params["running_mean"].reshape(shape), s.params["running_var"].reshape(shape)
    scale = 1 / np.sqrt(variance + layer.eps)
    w = s.params["weight"].reshape(shape) if "weight" in s.params else one
    b = s.params["bias"].reshape(shape) if "bias" in s.params else 0 * one
    g = w * one if s.upstream is None else s.upstream * w
    n = math.prod(x.shape[axis] for axis in over)
    return Parts(over, summed, n, mean, variance, scale, (x - mean) * scale, w, b, g)


def _dx(s: Any, *, centred: bool = True, projected: bool = True, scale: Any = None) -> Array:
    """s (g - mean g - x̂ mean(g x̂)), with terms left out or exchanged."""
    p = parts(s)
    out = p.g
    if centred:
        out = out - p.g.mean(axis=p.over, keepdims=True)
    if projected:
        out = out - p.x_hat * (p.g * p.x_hat).mean(axis=p.over, keepdims=True)
    return np.asarray(out * (p.s if scale is None else scale), s.x.dtype)


def _y(s: Any, *, mean: Any = None, scale: Any = None, w: Any = None, b: Any = None) -> Array:
    """w (x - μ) s + b, with one of them exchanged."""
    p = parts(s)
    x_hat = (s.x - (p.mean if mean is None else mean)) * (p.s if scale is None else scale)
    return np.asarray(x_hat * (p.w if w is None else w) + (p.b if b is None else b), s.x.dtype)


def _own(s: Any) -> tuple[Array, Array]:
    """Mean and variance of the batch, whatever statistics are given."""
    over = parts(s).over
    return s.x.mean(axis=over, keepdims=True), s.x.var(axis=over, keepdims=True)


def _eps(s: Any) -> Any:
    return s.layer.eps


def _of_batch(layer: Any) -> bool:
    """Whether mean and variance are computed, not given."""
    return bool(getattr(layer, "training", True))


def _given(layer: Any) -> bool:
    return not _of_batch(layer)


def _affine(layer: Any) -> bool:
    return "weight" in layer.parameter_shapes()


def _both(layer: Any) -> bool:
    return "bias" in layer.parameter_shapes()


def _unbiased(p: Parts) -> Array:
    return np.asarray(p.variance * p.n / (p.n - 1))


MISTAKES: tuple[StepMutant, ...] = (
    # ---------------------------------------------------------------- ∂L/∂x = s (g - mean g - x̂ mean(g x̂))
    mistake(NORM, "dx", "norm-mean-term-missing", "term-missing", "the way through the mean is forgotten: - mean g",
            lambda s: _dx(s, centred=False), when=_of_batch),
    mistake(NORM, "dx", "norm-variance-term-missing", "term-missing",
            "the way through the variance is forgotten: - x̂ mean(g x̂)", lambda s: _dx(s, projected=False),
            when=_of_batch),
    mistake(NORM, "dx", "norm-statistics-constant", "term-missing", "mean and variance treated as constants",
            lambda s: _dx(s, centred=False, projected=False), when=_of_batch),
    mistake(NORM, "dx", "norm-weight-forgotten", "factor-missing", "w is forgotten on the way back",
            lambda s: s.backward(weight=np.ones_like(s.w)).dx, when=_affine),
    mistake(NORM, "dx", "norm-scale-forgotten", "factor-missing", "1/σ is forgotten on the way back",
            lambda s: s.dx / parts(s).s),
    mistake(NORM, "dx", "norm-scale-squared", "factor-doubled", "1/σ² on the way back", lambda s: s.dx * parts(s).s),
    mistake(NORM, "dx", "norm-dx-unbiased", "wrong-count", "σ² with n - 1 on the way back",
            lambda s: _dx(s, scale=1 / np.sqrt(_unbiased(parts(s)) + _eps(s))), when=_of_batch),
    mistake(NORM, "dx", "norm-epsilon-forgotten", "epsilon-missing", "1/√σ² on the way back: ε is forgotten",
            lambda s: s.dx / parts(s).s / np.sqrt(parts(s).variance)),
    mistake(NORM, "dx", "norm-sum-for-mean", "sum-for-mean", "- Σ g in place of - mean g",
            lambda s: s.dx - parts(s).s * parts(s).g.mean(axis=parts(s).over, keepdims=True) * (parts(s).n - 1),
            when=_of_batch),
    mistake(BATCH, "dx", "norm-eval-as-training", "option-ignored",
            "the statistics are given, and differentiated all the same", _dx, when=_given),
    # ---------------------------------------------------------------- parameters
    mistake(NORM, "dw", "norm-dw-raw-input", "operand-swapped", "Σ g x in place of Σ g x̂",
            lambda s: (s.g * s.x).sum(axis=parts(s).summed), when=_affine),
    mistake(NORM, "dw", "norm-dw-output", "operand-swapped", "Σ g y in place of Σ g x̂",
            lambda s: (s.g * s.y).sum(axis=parts(s).summed), when=_affine),
    mistake(NORM, "dw", "norm-dw-like-bias", "factor-missing", "Σ g: x̂ is forgotten",
            lambda s: s.g.sum(axis=parts(s).summed), when=_affine),
    mistake(NORM, "dw", "norm-dw-averaged", "mean-for-sum", "∂L/∂w averaged",
            lambda s: (s.g * parts(s).x_hat).mean(axis=parts(s).summed), when=_affine),
    mistake(NORM, "db", "norm-db-averaged", "mean-for-sum", "∂L/∂b averaged", lambda s: s.g.mean(axis=parts(s).summed),
            when=_both),
    mistake(NORM, "db", "norm-db-times-weight", "factor-extra", "Σ w g: ∂L/∂x̂ where ∂L/∂y belongs",
            lambda s: parts(s).g.sum(axis=parts(s).summed), when=_both),
    # ---------------------------------------------------------------- y
    mistake(NORM, "y", "norm-y-unbiased", "wrong-count", "the variance divided by n - 1",
            lambda s: _y(s, scale=1 / np.sqrt(_unbiased(parts(s)) + _eps(s))), when=_of_batch),
    mistake(NORM, "y", "norm-y-epsilon-outside", "epsilon-outside", "1 / (σ + ε): ε outside of the root",
            lambda s: _y(s, scale=1 / (np.sqrt(parts(s).variance) + _eps(s)))),
    mistake(NORM, "y", "norm-y-epsilon-forgotten", "epsilon-missing", "no ε",
            lambda s: _y(s, scale=1 / np.sqrt(parts(s).variance))),
    mistake(NORM, "y", "norm-y-not-centred", "term-missing", "the mean is not subtracted", lambda s: _y(s, mean=0)),
    mistake(NORM, "y", "norm-y-variance-for-deviation", "root-missing", "divided by σ², not by σ",
            lambda s: _y(s, scale=1 / (parts(s).variance + _eps(s)))),
    mistake(NORM, "y", "norm-y-weight-forgotten", "factor-missing", "w is forgotten", lambda s: _y(s, w=1),
            when=_affine),
    mistake(NORM, "y", "norm-y-bias-forgotten", "bias-missing", "the bias is never added", lambda s: _y(s, b=0),
            when=_both),
    mistake(BATCH, "y", "norm-y-eval-as-training", "option-ignored", "the batch's own statistics in evaluation",
            lambda s: _y(s, mean=_own(s)[0], scale=1 / np.sqrt(_own(s)[1] + _eps(s))), when=_given),
)  # fmt: skip
