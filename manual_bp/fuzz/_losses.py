"""Every loss and optimiser with every hyperparameter, and the targets that a loss takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

if TYPE_CHECKING:
    from ._draw import Source

Shape = tuple[int, ...]

#: Marks the positions of a classification that count for nothing.
IGNORED = -100


def draw_loss(s: Source, shape: Shape) -> tuple[list[nn.Layer], nn.Loss]:
    """A loss for outputs of this shape (one example), and the layers that it needs in front of it."""
    kinds = ["squared", "absolute", "huber", "probability", "logit"] + (
        ["classes", "likelihoods"] if shape[0] > 1 else []
    )
    kind, reduction = s.choice(kinds), s.choice(("mean", "sum"))
    if kind == "squared":
        return [], (nn.MSELoss(reduction) if not s.flag() else nn.HalfSquaredError())
    if kind == "absolute":
        return [], nn.L1Loss(reduction)
    if kind == "huber":
        huber = [nn.HuberLoss(reduction, delta=d) for d in (1.0, 0.3)]
        smooth = [nn.SmoothL1Loss(reduction, beta=b) for b in (1.0, 0.2, 0.0)]
        return [], s.choice([*huber, *smooth])
    weight = _weights(s, shape[-1] if kind in ("probability", "logit") else shape[0])
    if kind == "probability":
        return [nn.Sigmoid()], nn.BCELoss(weight, reduction=reduction)
    if kind == "logit":
        return [], nn.BCEWithLogitsLoss(weight, reduction=reduction, pos_weight=_weights(s, shape[-1]))
    if kind == "likelihoods":
        return [nn.LogSoftmax(dim=1)], nn.NLLLoss(weight, reduction=reduction)
    return [], nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=s.choice((0.0, 0.1, 0.5)))


def _weights(s: Source, count: int) -> Array | None:
    """One factor for each column (or class), or none."""
    return np.array([s.integer(1, 8) / 7 for _ in range(count)]) if s.flag() else None


def draw_optimizer(s: Source) -> nn.Optimizer | None:
    """One update step, or none."""
    make: Any = s.choice((None, nn.SGD, nn.SGD, nn.Adam, nn.AdamW))
    if make is None:
        return None
    decay = s.choice((0.0, 0.01, 0.3))
    if make is nn.SGD:
        momentum = s.choice((0.0, 0.9))
        return nn.SGD(lr=0.1, momentum=momentum, weight_decay=decay, nesterov=momentum > 0 and s.flag())
    made: nn.Optimizer = make(lr=0.01, betas=s.choice(((0.9, 0.999), (0.5, 0.9))), weight_decay=decay, amsgrad=s.flag())
    return made


def draw_target(loss: nn.Loss, output: Array, rng: np.random.Generator) -> Array:
    """A random target for predictions like ``output``; of real-valued ones a few are exactly right."""
    if isinstance(loss, nn.BCELoss | nn.BCEWithLogitsLoss):
        hard = rng.integers(0, 2, output.shape).astype(np.float64)
        return np.where(rng.random(output.shape) < 0.3, rng.random(output.shape), hard)
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        positions = (output.shape[0], *output.shape[2:])
        if isinstance(loss, nn.CrossEntropyLoss) and rng.random() < 0.3:
            soft = rng.random(output.shape)
            return np.asarray(soft / soft.sum(1, keepdims=True))
        target = rng.integers(0, output.shape[1], positions)
        if math.prod(positions) > 1:
            target[rng.random(positions) < 0.2] = IGNORED
            target.flat[0] = 0
        return target
    size = float(np.median(np.abs(output))) if output.size else 1.0
    drawn = rng.standard_normal(output.shape) * (size if np.isfinite(size) and size > 0 else 1.0)
    return np.where(rng.random(output.shape) < 0.2, output, drawn)
