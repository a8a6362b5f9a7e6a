"""Mistakes in losses: the value y, and the gradient dp = ∂L/∂p."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._activation import clipped, sigmoid
from ._mutant import StepMutant, mistake

SQUARED = (nn.MSELoss, nn.HalfSquaredError)
CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)


def _scalar(value: Any, s: Any) -> Array:
    """A loss in the dtype of the prediction."""
    return np.asarray(value, s.p.dtype)


def _axis(p: Array) -> int:
    """The axis of the classes."""
    return min(p.ndim - 1, 1)


def _softmax(p: Array, axis: int | None = None) -> Array:
    """The softmax over the classes, or along another axis."""
    axis = _axis(p) if axis is None else axis
    e = np.exp(p - p.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def _classes(s: Any) -> int:
    return int(s.p.shape[_axis(s.p)])


def _target_of(s: Any) -> Array:
    """What is subtracted from the softmax: q times its share."""
    return np.asarray(_softmax(s.p) * _weight_of(s) - s.dp)


def _weight_of(s: Any) -> Array:
    """Σ_c q[n, c] times the share of every position."""
    return np.asarray(-_without_softmax(s).sum(axis=_axis(s.p), keepdims=True))


def _without_softmax(s: Any) -> Array:
    """-q times its share: the gradient of the loss with the softmax's own part left out."""
    plain = nn.NLLLoss(weight=s.loss.weight, reduction=s.loss.reduction)
    even = s.loss.label_smoothing
    hard = s.of_other(plain).dp
    if not even:
        return np.asarray(hard)
    weights = np.asarray(s.loss.weight if s.loss.weight is not None else np.ones(_classes(s)), s.p.dtype)
    total = weights[s.t].sum() if s.loss.reduction == "mean" else 1.0
    spread = weights.reshape(-1, *(1,) * (s.p.ndim - 1 - _axis(s.p))) / _classes(s) / total
    return np.asarray((1 - even) * hard - even * spread)


def _weighted(loss: Any) -> bool:
    return loss.weight is not None


def _hard(loss: Any) -> bool:
    """Unweighted, not smoothed: softmax minus one-hot, nothing else."""
    return loss.weight is None and not loss.label_smoothing


def _off_by_one(s: Any) -> Array:
    return np.asarray((s.t + 1) % _classes(s))


def _huber_without_offset(s: Any) -> Array:
    size = np.abs(s.d)
    losses = np.where(size < s.loss.delta, size * size / 2, s.loss.delta * size)
    return _scalar(losses.sum() * s.share, s)


def _log_with_epsilon(s: Any) -> Array:
    axis = _axis(s.p)
    likelihood = np.take_along_axis(_softmax(s.p), np.expand_dims(s.t, axis), axis)
    total = -np.log(likelihood + 1e-3).sum()
    return _scalar(total / s.t.size if s.loss.reduction == "mean" else total, s)


MISTAKES: tuple[StepMutant, ...] = (
    # ---------------------------------------------------------------- squares: (p - t)²
    mistake(SQUARED, "dx", "squared-factor-wrong", "constant-factor",
            "the 2 of the derivative forgotten, or one too many",
            lambda s: s.dp / 2 if isinstance(s.loss, nn.MSELoss) else 2 * s.dp),
    mistake(SQUARED, "y", "squared-y-factor-wrong", "constant-factor", "½ in front where it must not be, or forgotten",
            lambda s: s.y / 2 if isinstance(s.loss, nn.MSELoss) else 2 * s.y),
    mistake(SQUARED, "y", "squared-y-absolute", "square-missing", "the absolute value of the difference",
            lambda s: _scalar(np.abs(s.d).sum() * s.share, s)),
    mistake(SQUARED, "y", "squared-y-rooted", "root-extra", "the root of the mean square", lambda s: np.sqrt(s.y)),
    mistake(SQUARED, "dx", "squared-sign-only", "derivative-of-other-function", "the sign of the difference alone",
            lambda s: np.sign(s.d) * s.d.dtype.type(s.share)),
    mistake((nn.MSELoss, nn.L1Loss), "dx", "elements-for-batch", "wrong-count",
            "divided by the number of examples, where the mean runs over all elements", lambda s: s.dp * s.p.size / s.n,
            when=lambda loss: loss.reduction == "mean"),
    # ---------------------------------------------------------------- absolute values
    mistake(nn.L1Loss, "dx", "l1-difference-for-sign", "derivative-of-other-function", "the difference, not its sign",
            lambda s: s.d * s.d.dtype.type(s.share)),
    mistake(nn.L1Loss, "dx", "l1-one-at-zero", "subgradient-at-kink",
            "where the prediction is exactly right, 1 and not 0",
            lambda s: np.where(s.d >= 0, s.d.dtype.type(1), s.d.dtype.type(-1)) * s.d.dtype.type(s.share), kind="kink"),
    mistake(nn.HuberLoss, "dx", "huber-not-clipped", "clipping-missing", "the parabola's derivative everywhere",
            lambda s: s.d * s.d.dtype.type(s.share)),
    mistake(nn.HuberLoss, "dx", "huber-delta-ignored", "option-ignored", "clipped at 1, whatever δ is",
            lambda s: np.clip(s.d, -1, 1) * s.d.dtype.type(s.share)),
    mistake(nn.HuberLoss, "y", "huber-y-offset-forgotten", "term-missing", "δ |d| outside, without - ½ δ²",
            _huber_without_offset),
    mistake(nn.SmoothL1Loss, "dx", "smooth-l1-beta-ignored", "option-ignored", "d clipped to ±1, without 1/β",
            lambda s: np.clip(s.d, -1, 1) * s.d.dtype.type(s.share)),
    mistake(nn.SmoothL1Loss, "dx", "smooth-l1-not-clipped", "clipping-missing", "d / β everywhere",
            lambda s: s.d / s.loss.beta * s.d.dtype.type(s.share)),
    mistake(nn.SmoothL1Loss, "y", "smooth-l1-is-huber", "constant-factor", "Huber's loss: not divided by β",
            lambda s: s.y * s.y.dtype.type(s.loss.beta)),
    # ---------------------------------------------------------------- binary cross-entropy of probabilities
    mistake(nn.BCELoss, "dx", "bce-difference-only", "factor-missing", "p - t: the denominator p (1 - p) is forgotten",
            lambda s: (s.p - s.t) * s.p.dtype.type(s.share)),
    mistake(nn.BCELoss, "dx", "bce-negatives-forgotten", "term-missing", "-t/p alone",
            lambda s: -s.t / np.maximum(s.p, s.p.dtype.type(1e-12)) * s.p.dtype.type(s.share)),
    mistake(nn.BCELoss, "dx", "bce-gradient-clipped", "clipped",
            "p kept away from 0 and 1 by a small ε in the gradient", lambda s: s.of_other(s.loss, p=clipped(s.p)).dp),
    mistake(nn.BCELoss, "y", "bce-y-clipped", "clipped", "p kept away from 0 and 1 by a small ε in the loss",
            lambda s: s.of_other(s.loss, p=clipped(s.p)).y),
    mistake(nn.BCELoss, "y", "bce-y-negatives-forgotten", "term-missing", "-t log p alone",
            lambda s: _scalar(-(s.t * np.maximum(np.log(s.p), -100)).sum() * s.share, s)),
    mistake((nn.BCELoss, nn.BCEWithLogitsLoss, nn.CrossEntropyLoss), "y", "entropy-base-two", "log-base",
            "the logarithm to base 2", lambda s: s.y / s.y.dtype.type(math.log(2))),
    mistake((nn.BCELoss, nn.BCEWithLogitsLoss), "dx", "bce-targets-exchanged", "target-inverted",
            "yes and no exchanged", lambda s: s.of_other(s.loss, t=1 - s.t).dp),
    # ---------------------------------------------------------------- ... of logits
    mistake(nn.BCEWithLogitsLoss, "dx", "logits-sigmoid-twice", "derivative-doubled",
            "σ - t multiplied with σ' once more", lambda s: s.dp * sigmoid(s.p) * (1 - sigmoid(s.p))),
    mistake(nn.BCEWithLogitsLoss, "dx", "logits-taken-for-probabilities", "operand-swapped",
            "z - t: the sigmoid is forgotten", lambda s: (s.p - s.t) * s.p.dtype.type(s.share)),
    mistake(nn.BCEWithLogitsLoss, "dx", "logits-weight-ignored", "option-ignored",
            "pos_weight forgotten on the way back", lambda s: s.of_other(replace(s.loss, pos_weight=None)).dp,
            when=lambda loss: loss.pos_weight is not None),
    mistake(nn.BCEWithLogitsLoss, "dx", "logits-weight-on-both", "factor-extra",
            "pos_weight on the negative term as well",
            lambda s: s.of_other(replace(s.loss, pos_weight=None, weight=s.loss.pos_weight)).dp,
            when=lambda loss: loss.pos_weight is not None),
    mistake(nn.BCEWithLogitsLoss, "y", "logits-y-weight-ignored", "option-ignored", "pos_weight forgotten in the loss",
            lambda s: s.of_other(replace(s.loss, pos_weight=None)).y, when=lambda loss: loss.pos_weight is not None),
    mistake(nn.BCEWithLogitsLoss, "y", "logits-y-clipped", "clipped", "σ clipped by a small ε before the logarithm",
            lambda s: nn.BCELoss(reduction=s.loss.reduction).forward(clipped(sigmoid(s.p)), s.t)[0],
            when=lambda loss: loss.pos_weight is None and loss.weight is None),
    # ---------------------------------------------------------------- cross-entropy of classes
    mistake(nn.CrossEntropyLoss, "dx", "entropy-one-hot-forgotten", "term-missing",
            "the softmax alone, nothing subtracted", lambda s: _softmax(s.p) * _weight_of(s)),
    mistake(nn.CrossEntropyLoss, "dx", "entropy-softmax-forgotten", "term-missing",
            "minus one-hot alone, as for log-probabilities", _without_softmax),
    mistake(nn.CrossEntropyLoss, "dx", "entropy-jacobian-diagonal", "jacobian-diagonal",
            "multiplied with s (1 - s), as if the softmax had no other terms",
            lambda s: s.dp * _softmax(s.p) * (1 - _softmax(s.p))),
    mistake(nn.CrossEntropyLoss, "dx", "entropy-divided-by-classes", "wrong-count", "averaged over the classes as well",
            lambda s: s.dp / _classes(s)),
    mistake(nn.CrossEntropyLoss, "dx", "entropy-softmax-over-batch", "wrong-axes", "normalised over the examples",
            lambda s: _softmax(s.p, axis=0) * _weight_of(s) - _target_of(s)),
    mistake(CLASSES, "dx", "classes-label-off-by-one", "index-off-by-one", "classes counted from 1",
            lambda s: s.of_other(s.loss, t=_off_by_one(s)).dp),
    mistake(CLASSES, "y", "classes-y-label-off-by-one", "index-off-by-one", "classes counted from 1",
            lambda s: s.of_other(s.loss, t=_off_by_one(s)).y),
    mistake(CLASSES, "dx", "classes-weight-ignored", "option-ignored", "the class weights forgotten on the way back",
            lambda s: s.of_other(replace(s.loss, weight=None)).dp, when=_weighted),
    mistake(CLASSES, "y", "classes-y-divided-by-n", "wrong-count",
            "divided by the number of examples, not by their weights",
            lambda s: s.of_other(replace(s.loss, reduction="sum")).y / s.y.dtype.type(s.t.size), when=_weighted),
    mistake(nn.CrossEntropyLoss, "dx", "entropy-smoothing-ignored", "option-ignored",
            "label smoothing forgotten on the way back", lambda s: s.of_other(replace(s.loss, label_smoothing=0.0)).dp),
    mistake(nn.CrossEntropyLoss, "y", "entropy-y-smoothing-ignored", "option-ignored",
            "label smoothing forgotten in the loss", lambda s: s.of_other(replace(s.loss, label_smoothing=0.0)).y),
    mistake(nn.CrossEntropyLoss, "y", "entropy-y-softmax-twice", "function-applied-twice", "the softmax of a softmax",
            lambda s: s.of_other(s.loss, p=_softmax(s.p)).y),
    mistake(nn.CrossEntropyLoss, "y", "entropy-y-epsilon", "epsilon-inside", "log(s + 10⁻³): an ε inside the logarithm",
            _log_with_epsilon, when=_hard),
    mistake(nn.NLLLoss, "dx", "nll-all-classes", "mask-missing", "every class gets the gradient, not only the true one",
            lambda s: np.broadcast_to(s.dp.sum(axis=_axis(s.p), keepdims=True), s.dp.shape).copy()),
)  # fmt: skip
