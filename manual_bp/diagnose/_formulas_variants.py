"""∂L/∂x of a layer as it is written when one decision was wrong, where no single place of the formula is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from manual_bp import nn

from ._formulas import Operands, formulas_of
from ._node import Node, add, fn, mul, one_minus, rebuilt, walk


def layer_variants(layer: Any, s: Operands) -> Iterator[tuple[str, str, float, Node]]:
    """identifier, name, cost and formula of each."""
    match layer:
        case nn.SiLU():
            sigma = fn("sigmoid", s.x, "σ(x)")
            y = mul(s.x, sigma, says="y")
            wrong = mul(s.g, add(sigma, mul(s.x, y, one_minus(y))), says="∂L/∂x")
            yield "operand-swapped", "the slope is σ + x y (1 − y): the output y in place of σ", 1.3, wrong
            # y + σ (1 − y) is right, and so is σ (1 + x (1 − σ)); these are what becomes of them
            wrong = mul(s.g, add(y, mul(sigma, one_minus(sigma))), says="∂L/∂x")
            yield "operand-swapped", "the slope is y + σ (1 − σ): σ in place of the output y", 1.3, wrong
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            yield from _given_statistics(layer, s)


def _given_statistics(layer: Any, s: Operands) -> Iterator[tuple[str, str, float, Node]]:
    """Statistics that are given, and differentiated all the same: s (ĝ − mean ĝ − x̂ mean(ĝ x̂)) by those statistics."""
    if layer.training or not layer.track_running_stats:
        return
    training = formulas_of(replace(layer, training=True), s)
    given = formulas_of(layer, s)
    if training is None or given is None:
        return
    yield "option-ignored", "the statistics are those of the batch, as in training", 1.2, training.inputs[0]
    swap = {n.says: n for root in (given.y, *given.inputs) for _, n in walk(root) if n.says in _STATISTICS}
    dx = training.inputs[0]
    wrong = rebuilt(dx, {n: swap[n.says] for _, n in walk(dx) if n.says in swap})
    name = "the statistics are differentiated as in training, but here they are given"
    yield "option-ignored", name, 1.2, wrong


#: What is made of the statistics alone, by its name in the formulas of a normalisation.
_STATISTICS = ("x̂", "1/√(σ² + ε)")
