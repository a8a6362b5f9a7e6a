"""Mistakes that can be made in any step: a sign, a factor, an element, the batch, the precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._mutant import Role, StepMutant, mistake

#: The layers whose result a mistake in the arithmetic can change; Flatten only moves numbers.
LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus,
    nn.Softmax, nn.LogSoftmax, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.Add, nn.Flatten,
)  # fmt: skip
WITH_WEIGHT = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm,
)  # fmt: skip
LOSSES = (
    nn.MSELoss, nn.HalfSquaredError, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.BCELoss, nn.BCEWithLogitsLoss,
    nn.CrossEntropyLoss, nn.NLLLoss,
)  # fmt: skip

_WORDS: dict[Role, str] = {"y": "the output", "dx": "∂L/∂x", "dw": "∂L/∂w", "db": "∂L/∂b"}
_ON: dict[Role, tuple[type, ...]] = {"y": LAYERS, "dx": LAYERS, "dw": WITH_WEIGHT, "db": WITH_WEIGHT}


def _right(s: Any, role: Role) -> Array:
    """The right result of that role."""
    result: Array = getattr(s, role)
    return result


def _has(role: Role) -> Callable[[Any], bool]:
    """Whether the layer has that parameter."""
    name = {"dw": "weight", "db": "bias"}.get(role)
    return lambda layer: name is None or name in layer.parameter_shapes()


def one_element(a: Array) -> Array:
    """The array with half its largest number taken from its second element: always that one, as a wrong index does."""
    out = np.array(a, order="C")
    element = out.reshape(-1)[:2][-1:]
    element -= np.copysign(np.max(np.abs(a), initial=0.0) / 2, element)
    return out


def not_a_number(a: Array) -> Array:
    """The array with a NaN in the middle."""
    out = np.array(a, order="C")
    out.reshape(-1)[out.size // 2] = np.nan
    return out


def rounded(a: Array, dtype: type) -> Array:
    """Through a lower precision and back."""
    return np.asarray(a, dtype).astype(a.dtype)


def bfloat16(a: Array) -> Array:
    """Through bfloat16, the upper half of a float32, and back."""
    bits = np.asarray(a, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return np.asarray(bits.view(np.float32).astype(a.dtype))


def _everywhere(role: Role) -> list[StepMutant]:
    """What can go wrong with any result."""
    name = _WORDS[role]

    def of(id_: str, hypothesis: str, title: str, edit: Callable[[Array], Array], **options: Any) -> StepMutant:
        change = lambda s: edit(_right(s, role))  # noqa: E731  # it goes straight into the line below
        return mistake(
            _ON[role], role, f"{role}-{id_}", hypothesis, f"{name} {title}", change, when=_has(role), **options
        )

    return [
        of("negated", "sign-flipped", "with the wrong sign", lambda a: -a),
        of("one-element", "single-element", "wrong in one element, by half as much as the largest", one_element),
        of("nan", "nonfinite", "has a NaN in it", not_a_number),
        of("nudged", "perturbed", "off by a millionth", lambda a: a * (1 + 1e-6), dtypes=("float64",)),
        of("bfloat16-inside", "precision-lowered", "rounded to bfloat16 on the way", bfloat16),
    ]


MISTAKES: tuple[StepMutant, ...] = (
    *_everywhere("y"),
    *_everywhere("dx"),
    *_everywhere("dw"),
    *_everywhere("db"),
    # a factor
    mistake(LAYERS, "dx", "dx-doubled", "constant-factor", "∂L/∂x twice as large", lambda s: 2 * s.dx),
    mistake(WITH_WEIGHT, "dw", "dw-halved", "constant-factor", "∂L/∂w half as large", lambda s: s.dw / 2,
            when=_has("dw")),
    # a term is added once too often, or never
    mistake(WITH_WEIGHT, "dw", "dw-not-zeroed", "term-doubled",
            "∂L/∂w added to that of an earlier backward pass, never set to zero", lambda s: s.dw + s.dw,
            when=_has("dw")),
    mistake(LAYERS, "dx", "dx-never-written", "result-missing", "∂L/∂x stays at the zeros it was made of",
            lambda s: np.zeros_like(s.dx)),
    mistake(WITH_WEIGHT, "dw", "dw-never-written", "result-missing", "∂L/∂w stays at the zeros it was made of",
            lambda s: np.zeros_like(s.dw), when=_has("dw")),
    mistake(WITH_WEIGHT, "db", "db-never-written", "result-missing", "∂L/∂b stays at the zeros it was made of",
            lambda s: np.zeros_like(s.db), when=_has("db")),
    # the upstream gradient
    mistake(LAYERS, "dx", "upstream-ignored", "upstream-ignored", "the local derivative alone: as if ∂L/∂y were 1",
            lambda s: s.backward(g=np.ones_like(s.g)).dx),
    mistake(LAYERS, "dx", "upstream-squared", "upstream-doubled", "multiplied with ∂L/∂y twice",
            lambda s: s.backward(g=s.g * s.g).dx),
    # the batch
    mistake(LAYERS, "dx", "dx-batch-averaged", "mean-for-sum", "∂L/∂x divided by the number of examples",
            lambda s: s.dx / len(s.x)),
    mistake(LAYERS, "dx", "dx-batch-summed", "batch-summed", "every example gets the sum of all examples' ∂L/∂x",
            lambda s: np.broadcast_to(s.dx.sum(axis=0), s.dx.shape).copy()),
    mistake(LAYERS, "dx", "dx-examples-shifted", "batch-misaligned", "∂L/∂y of the previous example",
            lambda s: s.backward(g=np.roll(s.g, 1, axis=0)).dx),
    mistake(LAYERS, "dx", "dx-last-example-forgotten", "batch-not-complete", "the loop ends one example early",
            lambda s: np.concatenate([s.dx[:-1], 0 * s.dx[-1:]])),
    mistake(WITH_WEIGHT, "dw", "dw-batch-averaged", "mean-for-sum",
            "∂L/∂w averaged over the examples, though the loss does that already", lambda s: s.dw / len(s.x),
            when=_has("dw")),
    mistake(WITH_WEIGHT, "db", "db-batch-averaged", "mean-for-sum",
            "∂L/∂b averaged over the examples, though the loss does that already", lambda s: s.db / len(s.x),
            when=_has("db")),
    mistake(WITH_WEIGHT, "dw", "dw-last-example-only", "accumulation-overwritten",
            "∂L/∂w assigned in the loop over the examples, not added up", lambda s: _one_example(s, -1).dw,
            when=_has("dw")),
    mistake(WITH_WEIGHT, "db", "db-first-example-only", "batch-not-summed", "∂L/∂b of the first example alone",
            lambda s: _one_example(s, 0).db, when=_has("db")),
    mistake(WITH_WEIGHT, "dw", "dw-examples-shifted", "batch-misaligned",
            "∂L/∂w pairs each input with the next example's ∂L/∂y", lambda s: s.backward(g=np.roll(s.g, 1, axis=0)).dw,
            when=_has("dw")),
    # several results at once
    mistake(WITH_WEIGHT, ("dx", "dw", "db"), "upstream-averaged", "mean-for-sum",
            "∂L/∂y divided by the number of examples on arrival",
            lambda s: (s.dx / len(s.x), s.dw / len(s.x), s.db / len(s.x)), when=_has("db")),
    mistake(LAYERS, "dx", "dx-float32-inside", "precision-lowered", "∂L/∂x computed in float32",
            lambda s: rounded(s.dx, np.float32), dtypes=("float64",)),
    mistake(WITH_WEIGHT, "y", "y-float32-inside", "precision-lowered", "weights stored in float32",
            lambda s: s.forward(weight=rounded(s.w, np.float32)), when=_has("dw"), dtypes=("float64",)),
    # losses
    mistake(LOSSES, "y", "loss-summed", "sum-for-mean", "the loss summed, not averaged",
            lambda s: np.asarray(s.y / s.y.dtype.type(s.share)), when=lambda loss: loss.reduction == "mean"),
    mistake(LOSSES, "dx", "loss-gradient-summed", "sum-for-mean", "the loss is averaged, its gradient is not",
            lambda s: s.dp / s.dp.dtype.type(s.share), when=lambda loss: loss.reduction == "mean"),
    mistake(LOSSES, "dx", "loss-gradient-averaged", "mean-for-sum", "the loss is summed, its gradient averaged",
            lambda s: s.dp / s.p.size, when=lambda loss: loss.reduction == "sum"),
    mistake(LOSSES, "dx", "loss-averaged-once-more", "mean-for-sum", "the gradient of the mean divided by N once more",
            lambda s: s.dp / s.n),
    mistake(LOSSES, "dx", "loss-gradient-negated", "sign-flipped",
            "the gradient of target minus prediction, sign forgotten", lambda s: -s.dp),
    mistake(LOSSES, "y", "loss-negated", "sign-flipped", "the loss with the wrong sign", lambda s: -s.y),
    mistake(LOSSES, "dx", "loss-gradient-bfloat16", "precision-lowered", "the loss's gradient rounded to bfloat16",
            lambda s: bfloat16(s.dp)),
    mistake(LOSSES, "y", "loss-float32", "precision-lowered", "the loss kept in float32",
            lambda s: rounded(s.y, np.float32), dtypes=("float64",)),
    mistake(LOSSES, "dx", "loss-examples-shifted", "batch-misaligned",
            "each prediction judged by its neighbour's target",
            lambda s: s.of_other(s.loss, t=np.roll(s.t, 1, axis=0)).dp),
)  # fmt: skip


def _one_example(s: Any, index: int) -> Any:
    """The right backward pass in which only one example's gradient arrives."""
    alone = np.zeros_like(s.g)
    alone[index] = s.g[index]
    return s.backward(g=alone)
