"""The bounds of a gradient that is a sum: what reads a value more than once gives a contribution for each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from manual_bp.trace import GRAD
from manual_bp_torch.bounds import Alternative, Bound, Kinks, Precision
from manual_bp_torch.bounds._model import Later, LaterKinks, called
from manual_bp_torch.vjp import vjp


@dataclass(frozen=True)
class PlanStep:
    """One step as the bounds see it: a module in float64, what it reads, and its parameters' global names."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What one consumer adds: its bound, the step, which of its inputs, and the numbers it is made of, by name."""

    bound: Bound
    step: PlanStep
    input: int
    numbers: Mapping[str, Tensor]


def add_up(parts: list[Part], precision: Precision) -> Bound:
    """The gradients of all consumers add up: so do their errors, and the sum rounds as well."""
    bounds = [part.bound for part in parts]
    size = sum((b.magnitude if b.magnitude is not None else b.e for b in bounds), torch.zeros_like(bounds[0].e))
    carried = sum((b.e for b in bounds), torch.zeros_like(size))
    slack = 4 * precision.u * size

    @cache
    def shares() -> list[tuple[Tensor, Tensor]]:
        """What each consumer adds, and what the others do; not the sum less its own, which may be NaN."""
        found = [_contribution(part) for part in parts]
        zero = torch.zeros_like(found[0])
        return [(mine, sum(found[:i] + found[i + 1 :], zero)) for i, mine in enumerate(found)]

    def made() -> Kinks:
        kinks: Kinks | None = None
        for bound, (mine, rest) in zip(bounds, shares(), strict=True):
            if bound.kinks is not None:
                its = bound.kinks.made()
                kinks = _with_rest(its, rest, slack) if kinks is None else _wider(kinks, its, mine, slack)
        assert kinks is not None
        return kinks

    def alternatives() -> Iterator[Alternative]:
        for bound, (_, rest) in zip(bounds, shares(), strict=True):
            for a in bound.alternatives:
                yield replace(a, value=a.value + rest, e=carried + a.e + slack)

    conventions = [b.kinks.convention for b in bounds if b.kinks is not None]
    kinks = LaterKinks(made, conventions[0]) if conventions else None
    rule = " + ".join(b.rule.removeprefix("certified: ") for b in bounds)
    e = carried + precision.gamma(len(parts) - 1) * size
    return Bound(e, f"certified: {rule}", size, kinks, Later(alternatives))


def _with_rest(kinks: Kinks, rest: Tensor, slack: Tensor) -> Kinks:
    """The kinks of one consumer, where ``rest`` comes from the others: what is left after it must be valid."""
    valid = kinks.valid
    whole = None if valid is None else lambda own, e: valid(own - rest, e + slack)
    return replace(kinks, low=kinks.low + rest - slack, high=kinks.high + rest + slack, valid=whole)


def _wider(kinks: Kinks, other: Kinks, mine: Tensor, slack: Tensor) -> Kinks:
    """Kinks of several consumers: their ranges add up, and who took which share can't be told any more."""
    low = kinks.low + torch.where(other.mask, other.low - mine, 0.0).clamp(max=0.0) - slack
    high = kinks.high + torch.where(other.mask, other.high - mine, 0.0).clamp(min=0.0) + slack
    return replace(kinks, mask=kinks.mask | other.mask, low=low, high=high, valid=None)


def _contribution(part: Part) -> Tensor:
    """What one consumer adds to the gradient of one of its inputs, by torch, in float64."""
    step = part.step

    def value(name: str) -> Tensor:
        return part.numbers[name].to(torch.float64)

    with torch.enable_grad():
        inputs = [value(name).detach().clone().requires_grad_() for name in step.inputs]
        state: dict[str, Any] = {local: value(name).clone() for local, name in step.params.items()}
        y = called(step.module, state, *inputs)
        (found,) = vjp(y, [inputs[part.input]], value(step.name + GRAD))
    return found
