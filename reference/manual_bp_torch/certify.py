"""Certified bounds of all quantities of a pass: rules applied step by step, errors passed on where nothing is claimed.

With nothing claimed, errors travel from the input to the loss and back: the bounds of the end-to-end comparison.
Where a candidate's value is substituted, its step starts from exact operands: the bounds of the isolated comparison.
One function does both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manual_bp.trace import GRAD
from manual_bp_torch.bounds import Alternative, Bound, Kinks, LossOperands, Operands, Precision, loss_rule, rule_for
from manual_bp_torch.vjp import vjp


@dataclass(frozen=True)
class PlanStep:
    """One step as the bounds see it: a module in float64, what it reads, and its parameters' global names."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All steps in execution order, and the loss over the last one's output.

    ``readers`` says who reads a quantity, once an edge, where that is not only the steps of the plan; ``shared`` names
    the parameters that more than one step uses.
    """

    steps: tuple[PlanStep, ...]
    loss_name: str
    loss: nn.Module
    output: str
    readers: Mapping[str, tuple[str, ...]] | None = None
    shared: Collection[str] = ()

    def consumers(self, name: str) -> tuple[str, ...]:
        """Names of the steps that read ``name``, the loss included."""
        if self.readers is not None:
            return self.readers.get(name, ())
        found = tuple(step.name for step in self.steps for i in step.inputs if i == name)
        return (*found, self.loss_name) if name == self.output else found


class _Errors:
    """The error that a quantity carries into the next step: none if it was substituted."""

    def __init__(self, claimed: Collection[str]) -> None:
        self.claimed = claimed
        self.known: dict[str, Tensor] = {}

    def has(self, name: str) -> bool:
        """Whether the error is known: the input is given, what is substituted is exact, the rest is computed."""
        return name in ("x", *self.claimed) or name in self.known

    def of(self, name: str, like: Tensor) -> Tensor:
        if name in self.claimed or name not in self.known:
            return torch.zeros_like(like)
        return self.known[name]


def certify(
    plan: Plan,
    values: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    target: Tensor,
    precision: Precision,
    *,
    claimed: Collection[str] = (),
) -> dict[str, Bound]:
    """Bounds of all quantities by name; a quantity without a certified rule is absent.

    Parameters
    ----------
    values, grads
        In float64, what each step was given: the candidate's numbers where they are substituted, else torch's.
        Parameters and buffers are among the values.
    claimed
        Names of the substituted quantities (``.grad`` included).
    """
    bounds: dict[str, Bound] = {}
    errors = _Errors(claimed)
    operands: dict[str, Operands] = {}
    for step in plan.steps:
        rule = rule_for(step.module)
        if rule is None or not all(map(errors.has, step.inputs)):
            continue
        s = Operands(
            step.module,
            tuple(values[i] for i in step.inputs),
            tuple(errors.of(i, values[i]) for i in step.inputs),
            {local: values[name] for local, name in step.params.items()},
            values[step.name],
            precision,
        )
        operands[step.name] = s
        bounds[step.name] = rule.forward(s)
        errors.known[step.name] = bounds[step.name].e
    _loss(plan, values, target, precision, errors, bounds)
    _backward(plan, values, grads, operands, errors, bounds, precision)
    return bounds


def _loss(
    plan: Plan,
    values: Mapping[str, Tensor],
    target: Tensor,
    precision: Precision,
    errors: _Errors,
    bounds: dict[str, Bound],
) -> None:
    rule = loss_rule(plan.loss)
    if rule is None or not errors.has(plan.output):
        return
    prediction = values[plan.output]
    one = torch.ones_like(values[plan.loss_name])
    s = LossOperands(
        plan.loss, prediction, errors.of(plan.output, prediction), target, precision, one, torch.zeros_like(one)
    )
    bounds[plan.loss_name] = rule.forward(s)
    if len(plan.consumers(plan.output)) > 1:
        return  # its gradient is a sum, of which the loss is only one part
    bounds[plan.output + GRAD] = rule.backward(s)
    errors.known[plan.output + GRAD] = bounds[plan.output + GRAD].e


def _backward(
    plan: Plan,
    values: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    operands: Mapping[str, Operands],
    errors: _Errors,
    bounds: dict[str, Bound],
    precision: Precision,
) -> None:
    contributions: dict[str, list[tuple[Bound, PlanStep, int]]] = {}
    for step in reversed(plan.steps):
        name = step.name + GRAD
        s, rule = operands.get(step.name), rule_for(step.module)
        if step.name in contributions:
            combined = _combine(contributions[step.name], plan.consumers(step.name), values, grads, precision)
            if combined is not None:
                bounds[name] = combined
                errors.known[name] = combined.e
        if s is None or rule is None or name not in grads or not errors.has(name):
            continue
        g = grads[name]
        result = rule.backward(s, g, errors.of(name, g))
        for local, bound in result.params.items():
            if step.params[local] not in plan.shared:
                bounds[step.params[local] + GRAD] = bound
        for i, (read, bound) in enumerate(zip(step.inputs, result.inputs, strict=True)):
            contributions.setdefault(read, []).append((bound, step, i))
    if "x" in contributions:
        combined = _combine(contributions["x"], plan.consumers("x"), values, grads, precision)
        if combined is not None:
            bounds["x" + GRAD] = combined


def _combine(
    parts: list[tuple[Bound, PlanStep, int]],
    consumers: tuple[str, ...],
    values: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    precision: Precision,
) -> Bound | None:
    """The gradients of all consumers add up: so do their errors, and the sum rounds as well."""
    if len(parts) < len(consumers):
        return None  # one of them has no rule
    if len(parts) == 1:
        return parts[0][0]
    size = sum((b.magnitude if b.magnitude is not None else b.e for b, _, _ in parts), torch.zeros_like(parts[0][0].e))
    e = sum((b.e for b, _, _ in parts), torch.zeros_like(size))
    own = [_contribution(step, i, values, grads) for _, step, i in parts]
    total = sum(own, torch.zeros_like(own[0]))
    kinks: Kinks | None = None
    alternatives: list[Alternative] = []
    slack = 4 * precision.u * size
    for (bound, _, _), mine in zip(parts, own, strict=True):
        rest = total - mine
        if bound.kinks is not None:
            kinks = _with_rest(bound.kinks, rest, slack) if kinks is None else _wider(kinks, bound.kinks, mine, slack)
        alternatives += [replace(a, value=a.value + rest, e=e + a.e + slack) for a in bound.alternatives]
    rule = " + ".join(b.rule.removeprefix("certified: ") for b, _, _ in parts)
    e = e + precision.gamma(len(parts) - 1) * size
    return Bound(e, f"certified: {rule}", size, kinks, tuple(alternatives))


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


def _contribution(step: PlanStep, i: int, values: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> Tensor:
    """What one consumer adds to the gradient of its i-th input, by torch, in float64."""
    with torch.enable_grad():
        inputs = [values[name].detach().clone().requires_grad_() for name in step.inputs]
        state: dict[str, Any] = {local: values[name].clone() for local, name in step.params.items()}
        y = functional_call(step.module, state, tuple(inputs))
        (found,) = vjp(y, [inputs[i]], grads[step.name + GRAD])
    return found
