"""Certified bounds of all quantities of a pass: rules applied step by step, errors passed on where nothing is claimed.

With nothing claimed, errors travel from the input to the loss and back: the bounds of the end-to-end comparison.
Where a candidate's value is substituted, its step starts from exact operands: the bounds of the isolated comparison.
One function does both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manual_bp.trace import GRAD
from manual_bp_torch.bounds import (
    Alternative,
    Bound,
    Kinks,
    LossOperands,
    Operands,
    Precision,
    Rule,
    loss_rule,
    rule_for,
)
from manual_bp_torch.bounds._model import carries, constant, nothing
from manual_bp_torch.vjp import vjp

_WIDE = torch.float64


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
        What each step was given: the candidate's numbers where they are substituted, else torch's. Parameters and
        buffers are among the values. In float64, or all in float32: then the rules that can do so stay in float32,
        unless something branches, overflows, or float32 products are not computed as such.
    claimed
        Names of the substituted quantities (``.grad`` included).
    """
    if _narrow_enough(plan, values):
        bounds = _Walk(plan, values, grads, target, precision, claimed, narrow=True).bounds
        if all(_finite(bound.e) for bound in bounds.values()):
            return bounds
    return _Walk(plan, values, grads, target, precision, claimed, narrow=False).bounds


def _narrow_enough(plan: Plan, values: Mapping[str, Tensor]) -> bool:
    """Whether float32 will do: a chain, in float32, on a machine that is not told to multiply with fewer bits."""
    single = all(t.dtype == torch.float32 for t in values.values() if t.is_floating_point())
    chain = all(len(plan.consumers(name)) <= 1 for name in ("x", *(step.name for step in plan.steps)))
    exact = torch.get_float32_matmul_precision() == "highest"
    return single and chain and exact and not plan.shared


def _finite(e: Tensor) -> bool:
    # a sum is finite only if all of it is, and takes one look at each element and no memory
    return not e.numel() or math.isfinite(float(e[(0,) * e.dim()] if constant(e) else e.sum()))


class _Walk:
    """One walk through the steps, forward and back; ``narrow`` lets rules that can do so work in float32."""

    def __init__(
        self,
        plan: Plan,
        values: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        target: Tensor,
        precision: Precision,
        claimed: Collection[str],
        *,
        narrow: bool,
    ) -> None:
        self.plan, self.precision, self.narrow = plan, precision, narrow
        self.values, self.grads = values, grads
        self.target = target.to(_WIDE) if target.is_floating_point() else target
        self.claimed = claimed
        self.known: dict[str, Tensor] = {}
        self.bounds: dict[str, Bound] = {}
        self.operands: dict[str, Operands] = {}
        self._widened: dict[str, Tensor] = {}
        self._forward()
        self._loss()
        self._backward()

    # ------------------------------------------------------------------ operands

    def _wide(self, name: str) -> Tensor:
        """A value or gradient in float64."""
        if name not in self._widened:
            found = self.grads[name] if name in self.grads else self.values[name]
            self._widened[name] = found.to(_WIDE)
        return self._widened[name]

    def _given(self, name: str, rule: Rule) -> Tensor:
        """A value or gradient as a rule takes it."""
        if self.narrow and rule.narrow:
            return self.grads[name] if name in self.grads else self.values[name]
        return self._wide(name)

    def _has(self, name: str) -> bool:
        """Whether the error is known: the input is given, what is substituted is exact, the rest is computed."""
        return name in ("x", *self.claimed) or name in self.known

    def _error(self, name: str, like: Tensor) -> Tensor:
        """The error that a quantity carries into the next step: none if it was substituted."""
        if name in self.claimed or name not in self.known:
            return nothing(like)
        e = self.known[name]
        return e if e.dtype == like.dtype else nothing(like) if not carries(e) else _in_dtype(e, like.dtype)

    def _keep(self, name: str, bound: Bound) -> None:
        self.bounds[name] = bound
        self.known[name] = bound.e

    # ------------------------------------------------------------------ walk

    def _forward(self) -> None:
        for step in self.plan.steps:
            rule = rule_for(step.module)
            if rule is None or not all(map(self._has, step.inputs)):
                continue
            inputs = tuple(self._given(i, rule) for i in step.inputs)
            errors = tuple(self._error(i, own) for i, own in zip(step.inputs, inputs, strict=True))
            params = {local: self._given(name, rule) for local, name in step.params.items()}
            s = Operands(step.module, inputs, errors, params, self._given(step.name, rule), self.precision)
            self.operands[step.name] = s
            self._keep(step.name, rule.forward(s))

    def _loss(self) -> None:
        plan = self.plan
        rule = loss_rule(plan.loss)
        if rule is None or not self._has(plan.output):
            return
        prediction = self._wide(plan.output)
        one = torch.ones_like(self._wide(plan.loss_name))
        e = self._error(plan.output, prediction)
        s = LossOperands(plan.loss, prediction, e, self.target, self.precision, one, torch.zeros_like(one))
        self.bounds[plan.loss_name] = rule.forward(s)
        if len(plan.consumers(plan.output)) > 1:
            return  # its gradient is a sum, of which the loss is only one part
        self._keep(plan.output + GRAD, rule.backward(s))

    def _backward(self) -> None:
        plan = self.plan
        contributions: dict[str, list[tuple[Bound, PlanStep, int]]] = {}
        for step in reversed(plan.steps):
            name = step.name + GRAD
            s, rule = self.operands.get(step.name), rule_for(step.module)
            if step.name in contributions:
                combined = self._combined(contributions[step.name], step.name)
                if combined is not None:
                    self._keep(name, combined)
            if s is None or rule is None or name not in self.grads or not self._has(name):
                continue
            g = self._given(name, rule)
            result = rule.backward(s, g, self._error(name, g))
            for local, bound in result.params.items():
                if step.params[local] not in plan.shared:
                    self.bounds[step.params[local] + GRAD] = bound
            for i, (read, bound) in enumerate(zip(step.inputs, result.inputs, strict=True)):
                contributions.setdefault(read, []).append((bound, step, i))
        if "x" in contributions:
            combined = self._combined(contributions["x"], "x")
            if combined is not None:
                self.bounds["x" + GRAD] = combined

    def _combined(self, parts: list[tuple[Bound, PlanStep, int]], name: str) -> Bound | None:
        consumers = self.plan.consumers(name)
        if len(parts) < len(consumers):
            return None  # one of them has no rule
        if len(parts) == 1:
            return parts[0][0]
        return _combine(parts, self._wide, self.precision)


def _in_dtype(e: Tensor, dtype: torch.dtype) -> Tensor:
    """An error bound in another dtype, rounded up."""
    if dtype == _WIDE:
        return e.to(dtype)
    tiny = torch.finfo(dtype).tiny
    return torch.where(e > 0, (e * (1 + torch.finfo(dtype).eps)).clamp(min=tiny), 0.0).to(dtype)


def _combine(parts: list[tuple[Bound, PlanStep, int]], value: Callable[[str], Tensor], precision: Precision) -> Bound:
    """The gradients of all consumers add up: so do their errors, and the sum rounds as well."""
    size = sum((b.magnitude if b.magnitude is not None else b.e for b, _, _ in parts), torch.zeros_like(parts[0][0].e))
    e = sum((b.e for b, _, _ in parts), torch.zeros_like(size))
    own = [_contribution(step, i, value) for _, step, i in parts]
    total = sum(own, torch.zeros_like(own[0]))
    kinks: Kinks | None = None
    alternatives: list[Alternative] = []
    slack = 4 * precision.u * size
    for (bound, _, _), mine in zip(parts, own, strict=True):
        rest = total - mine
        if bound.kinks is not None:
            its = bound.kinks.made()
            kinks = _with_rest(its, rest, slack) if kinks is None else _wider(kinks, its, mine, slack)
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


def _contribution(step: PlanStep, i: int, value: Callable[[str], Tensor]) -> Tensor:
    """What one consumer adds to the gradient of its i-th input, by torch, in float64."""
    with torch.enable_grad():
        inputs = [value(name).detach().clone().requires_grad_() for name in step.inputs]
        state: dict[str, Any] = {local: value(name).clone() for local, name in step.params.items()}
        y = functional_call(step.module, state, tuple(inputs))
        (found,) = vjp(y, [inputs[i]], value(step.name + GRAD))
    return found
