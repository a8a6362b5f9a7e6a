"""Mistakes in the first update step of an optimiser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._mutant import StepMutant, mistake

ADAMS = (nn.Adam, nn.AdamW)
ALL = (nn.SGD, *ADAMS)


def _moved(s: Any) -> Array:
    """How far the right step goes."""
    return np.asarray(s.new - s.theta)


def _adam(s: Any, *, root: bool = True, corrected: bool = True, inside: bool = False, swapped: bool = False) -> Array:
    """θ - lr m̂ / (√v̂ + ε), with one part of it wrong."""
    o = s.optimizer
    theta = s.theta * (1 - o.lr * o.weight_decay) if isinstance(o, nn.AdamW) else s.theta
    g = s.g if isinstance(o, nn.AdamW) else s.g + o.weight_decay * s.theta
    b1, b2 = reversed(o.betas) if swapped else o.betas
    m, v = (1 - b1) * g, (1 - b2) * g * g
    if corrected:
        m, v = m / (1 - o.betas[0]), v / (1 - o.betas[1])
    size = np.sqrt(v + o.eps) if inside else (np.sqrt(v) if root else v) + o.eps
    return np.asarray(theta - o.lr * m / size, s.theta.dtype)


def _other_decay(s: Any) -> Array:
    """Adam's penalty where AdamW shrinks, and the other way round."""
    kind = nn.AdamW if type(s.optimizer) is nn.Adam else nn.Adam
    o = s.optimizer
    found: Array = s.of_other(kind(lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay))
    return found


def _decays(o: Any) -> bool:
    return bool(o.weight_decay)


def _negative_decay(s: Any) -> Array:
    """The weights grow where they should shrink."""
    if isinstance(s.optimizer, nn.AdamW):
        return np.asarray(s.new + 2 * s.optimizer.lr * s.optimizer.weight_decay * s.theta)
    plain = replace(s.optimizer, weight_decay=0.0)
    found: Array = s.of_other(plain, g=s.g - s.optimizer.weight_decay * s.theta)
    return found


MISTAKES: tuple[StepMutant, ...] = (
    mistake(ALL, "new", "update-wrong-sign", "sign-flipped", "uphill: θ + lr d", lambda s: s.theta - _moved(s)),
    mistake(ALL, "new", "update-rate-twice", "factor-doubled", "the learning rate is multiplied in twice",
            lambda s: s.theta + s.optimizer.lr * _moved(s)),
    mistake(ALL, "new", "update-rate-forgotten", "factor-missing", "the learning rate is forgotten",
            lambda s: s.of_other(replace(s.optimizer, lr=1.0))),
    mistake(ALL, "new", "update-not-made", "result-missing", "the parameter stays as it was", lambda s: s.theta.copy()),
    mistake(ALL, "new", "update-made-twice", "function-applied-twice", "the step is made twice",
            lambda s: s.of_other(s.optimizer, theta=s.new)),
    mistake((nn.SGD, nn.AdamW), "new", "update-decay-forgotten", "option-ignored", "weight decay is forgotten",
            lambda s: s.of_other(replace(s.optimizer, weight_decay=0.0)), when=_decays),
    # Adam's first step is lr times little more than the gradient's sign: in float32 rounding hides the rest
    mistake(nn.Adam, "new", "adam-decay-forgotten", "option-ignored", "weight decay is forgotten",
            lambda s: s.of_other(replace(s.optimizer, weight_decay=0.0)), when=_decays, dtypes=("float64",)),
    mistake(ALL, "new", "update-decay-wrong-sign", "sign-inside", "weight decay with the wrong sign", _negative_decay,
            when=_decays),
    mistake(nn.SGD, "new", "sgd-decay-undamped", "factor-missing", "the decay is not multiplied with the learning rate",
            lambda s: s.of_other(replace(s.optimizer, weight_decay=0.0)) - s.optimizer.weight_decay * s.theta,
            when=_decays),
    mistake(nn.SGD, "new", "sgd-nesterov-forgotten", "option-ignored", "plain momentum in place of Nesterov's",
            lambda s: s.of_other(replace(s.optimizer, nesterov=False)), when=lambda o: o.nesterov),
    mistake(nn.SGD, "new", "sgd-first-step-damped", "factor-extra", "the first gradient enters the buffer times 1 - μ",
            lambda s: s.theta + (1 - s.optimizer.momentum) * _moved(s), when=lambda o: o.momentum > 0),
    mistake(ADAMS, "new", "adam-not-corrected", "term-missing", "the bias correction is forgotten",
            lambda s: _adam(s, corrected=False)),
    mistake(ADAMS, "new", "adam-root-forgotten", "root-missing", "m / v in place of m / √v",
            lambda s: _adam(s, root=False)),
    mistake(ADAMS, "new", "adam-epsilon-inside", "epsilon-inside", "√(v + ε) in place of √v + ε",
            lambda s: _adam(s, inside=True), dtypes=("float64",)),
    mistake(ADAMS, "new", "adam-betas-exchanged", "operand-swapped", "β₁ and β₂ exchanged",
            lambda s: _adam(s, swapped=True)),
    mistake(ADAMS, "new", "adam-decay-of-the-other", "option-mixed-up",
            "decay in the gradient for AdamW, outside for Adam", _other_decay, when=_decays),
)  # fmt: skip
