"""Certified bounds of all quantities of a pass: rules applied step by step, errors passed on where nothing is claimed.

With nothing claimed, errors travel from the input to the loss and back: the bounds of the end-to-end comparison.
Where a candidate's value is substituted, its step starts from exact operands: the bounds of the isolated comparison.
One function does both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from manual_bp.trace import GRAD
from manual_bp_torch.bounds import Backward, Bound, LossOperands, Operands, Precision, Rule, loss_rule, rule_for
from manual_bp_torch.bounds._linear import Affine, Near
from manual_bp_torch.bounds._model import carries, constant, heard, nothing
from manual_bp_torch.branches import Part, PlanStep, add_up

__all__ = ["Plan", "PlanStep", "Walk", "certify", "finite"]

_WIDE = torch.float64


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

    @cached_property
    def branches(self) -> bool:
        """Whether anything is used more than once."""
        return bool(self.shared) or any(len(self.consumers(name)) > 1 for name in ("x", *(s.name for s in self.steps)))

    @cached_property
    def completed_by(self) -> Mapping[str, tuple[str, ...]]:
        """By step, whose gradients are complete after its backward pass: it is their first reader, the last to run."""
        first: dict[str, str] = {}
        for step in self.steps:
            for name in step.inputs:
                first.setdefault(name, step.name)
        known = {"x", *(step.name for step in self.steps)}
        return {s.name: tuple(n for n, by in first.items() if by == s.name and n in known) for s in self.steps}


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
    walk = Walk(plan, values, grads, target, precision, claimed)
    bounds: dict[str, Bound] = {}
    for step in plan.steps:
        bounds |= walk.forward(step)
    bounds |= walk.loss()
    for step in reversed(plan.steps):
        bounds |= walk.backward(step)
    return bounds


class Walk:
    """One walk through the steps, forward and back: call `forward` of every step, `loss`, and `backward` in reverse.

    ``values`` and ``grads`` are looked at when a step needs them, so they may be filled as the walk goes on. A step's
    bounds are handed out and only the errors that travel on are kept, until `forget`.

    Attributes
    ----------
    nearer
        Bounds of the same quantities from the walk over what a candidate claims. Where they are given, affine steps,
        whose products are nearly all the work, may take theirs from there. They are at most what this walk would find,
        whose operands are |x| + 2 e, and carry e besides. So what holds within them is right; what does not is to be
        held against `Bound.wider`, which starts from errors that were found to hold.
    """

    def __init__(
        self,
        plan: Plan,
        values: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        target: Tensor,
        precision: Precision,
        claimed: Collection[str],
    ) -> None:
        self.plan, self.precision = plan, precision
        self.values, self.grads = values, grads
        self.target = target
        self.claimed = claimed
        self._replayed = any(name.endswith(GRAD) for name in claimed)
        self.nearer: Mapping[str, Bound] | None = None
        self.known: dict[str, Tensor] = {}
        self._parts: dict[str, list[Part]] = {}

    # ------------------------------------------------------------------ operands

    def _raw(self, name: str) -> Tensor:
        return self.grads[name] if name in self.grads else self.values[name]

    def _wide(self, name: str) -> Tensor:
        """A value or gradient in float64."""
        return self._raw(name).to(_WIDE)

    def _has(self, name: str) -> bool:
        """Whether the error is known: the input is given, what is substituted is exact, the rest is computed."""
        return name == "x" or name in self.claimed or name in self.known

    def _error(self, name: str, like: Tensor) -> Tensor:
        """The error that a quantity carries into the next step: none if it was substituted."""
        if name in self.claimed or name not in self.known:
            return nothing(like)
        e = self.known[name]
        return e if e.dtype == like.dtype else nothing(like) if not carries(e) else _in_dtype(e, like.dtype)

    def _carry(self, name: str, bound: Bound) -> None:
        if name not in self.claimed:
            self.known[name] = bound.e

    def _operands(self, step: PlanStep, *, narrow: bool) -> Operands:
        own = self._raw if narrow else self._wide
        inputs = tuple(map(own, step.inputs))
        errors = tuple(self._error(i, like) for i, like in zip(step.inputs, inputs, strict=True))
        params = {local: own(name) for local, name in step.params.items()}
        return Operands(step.module, inputs, errors, params, own(step.name), self.precision)

    def _may_be_narrow(self, step: PlanStep, rule: Rule) -> bool:
        """Whether float32 will do: where nothing branches, on a machine that is not told to multiply with less."""
        if not rule.narrow or self.plan.branches or torch.get_float32_matmul_precision() != "highest":
            return False
        used = (*step.inputs, step.name, *step.params.values())
        return all(t.dtype == torch.float32 for t in map(self._raw, used) if t.is_floating_point())

    # ------------------------------------------------------------------ bounds of another walk

    def leans(self, step: PlanStep) -> bool:
        """Whether bounds of the other walk may serve: not where something branches, and one may be only a part."""
        return self.nearer is not None and isinstance(rule_for(step.module), Affine) and not self.plan.branches

    def _near_value(self, rule: Rule, step: PlanStep) -> Bound | None:
        """The bound of a step's output from the other walk, if that may serve."""
        if self.nearer is None or not isinstance(rule, Affine) or not self.leans(step):
            return None
        found = rule.within(self._operands(step, narrow=True), self.nearer.get(step.name))
        return self._settling(step.name, found) if found else None

    def _near_gradients(self, rule: Rule, step: PlanStep) -> Backward | None:
        """The bounds of a step's gradients, as many as may serve from the other walk."""
        if self.nearer is None or not isinstance(rule, Affine) or not self.leans(step):
            return None
        if not self._may_be_narrow(step, rule) and self._raw(step.name).dtype != _WIDE:
            return None
        g = self._raw(step.name + GRAD)
        s, e_g = self._operands(step, narrow=True), self._error(step.name + GRAD, g)
        near = {local: self.nearer.get(name + GRAD) for local, name in step.params.items()}
        found = rule.backward(s, g, e_g, Near(self.nearer.get(step.inputs[0] + GRAD), near))
        return replace(found, inputs=(self._settling(step.inputs[0] + GRAD, found.inputs[0]),))

    def _settling(self, name: str, bound: Bound) -> Bound:
        """The bound, whose wider one is what travels on once it has been asked for."""

        def travels_on(found: Bound) -> None:
            if name in self.known:
                self.known[name] = found.e

        return heard(bound, travels_on)

    # ------------------------------------------------------------------ walk

    def forward(self, step: PlanStep) -> dict[str, Bound]:
        """The bound of a step's output; nothing where there is no rule for it."""
        rule = rule_for(step.module)
        if rule is None or not all(map(self._has, step.inputs)):
            return {}
        bound = self._near_value(rule, step)
        if bound is None and self._may_be_narrow(step, rule):
            bound = rule.forward(self._operands(step, narrow=True))
        if bound is None or not finite(bound.e):
            bound = rule.forward(self._operands(step, narrow=False))
        self._carry(step.name, bound)
        return {step.name: bound}

    def loss(self) -> dict[str, Bound]:
        """The bounds of the loss, and of the gradient of what it reads if nothing else does."""
        plan = self.plan
        rule = loss_rule(plan.loss)
        if rule is None or not self._has(plan.output):
            return {}
        prediction, target = self._raw(plan.output), self.target
        if not rule.by_pieces(plan.loss, prediction, target):
            prediction, target = prediction.to(_WIDE), target.to(_WIDE) if target.is_floating_point() else target
        one = torch.ones_like(self._wide(plan.loss_name))
        e = self._error(plan.output, prediction)
        s = LossOperands(plan.loss, prediction, e, target, self.precision, one, torch.zeros_like(one))
        found = {plan.loss_name: rule.forward(s)}
        if len(plan.consumers(plan.output)) <= 1:  # else its gradient is a sum, of which the loss is only one part
            found[plan.output + GRAD] = rule.backward(s)
            self._carry(plan.output + GRAD, found[plan.output + GRAD])
        return found

    def backward(self, step: PlanStep) -> dict[str, Bound]:
        """The bounds of the gradients that are complete after a step's backward pass."""
        bounds = self._through(step)
        for name in self.plan.completed_by.get(step.name, ()):
            self.known.pop(name, None)  # the errors of the step's inputs have been read for the last time
            if name in self._parts:
                combined = self._combined(self._parts.pop(name), name)
                if combined is not None:
                    bounds[name + GRAD] = combined
                    self._carry(name + GRAD, combined)
        return bounds

    def forget(self, step: PlanStep) -> None:
        """Let go of the errors of a step's output and of its gradient, which nobody reads any more."""
        self.known.pop(step.name, None)
        self.known.pop(step.name + GRAD, None)

    def _through(self, step: PlanStep) -> dict[str, Bound]:
        """The bounds of the gradients of a step's parameters; those of its inputs are put aside."""
        name, rule = step.name + GRAD, rule_for(step.module)
        if rule is None or name not in self.grads or not self._has(name) or not all(map(self._has, step.inputs)):
            return {}
        result = self._near_gradients(rule, step)
        if result is None and self._may_be_narrow(step, rule) and self._raw(name).dtype == torch.float32:
            result = self._apply(rule, step, narrow=True)
        if result is None or not all(finite(bound.e) for bound in (*result.inputs, *result.params.values())):
            result = self._apply(rule, step, narrow=False)
        for i, (read, bound) in enumerate(zip(step.inputs, result.inputs, strict=True)):
            bound = self._unsettled(step, i, bound)
            # a part of a sum is told from the others later on, when the walk has forgotten the numbers
            of = (*step.inputs, *step.params.values(), name) if len(self.plan.consumers(read)) > 1 else ()
            self._parts.setdefault(read, []).append(Part(bound, step, i, {n: self._raw(n) for n in of}))
        return {
            step.params[local] + GRAD: bound
            for local, bound in result.params.items()
            if step.params[local] not in self.plan.shared
        }

    def _unsettled(self, step: PlanStep, which: int, bound: Bound) -> Bound:
        """The bound of what goes back to an input of a step, and travels on.

        At a kink a candidate that does not report this gradient may have chosen another one than torch: what follows
        from it may be off by as much.
        """
        name = step.inputs[which]
        if (
            bound.kinks is None
            or not self._replayed
            or name + GRAD in self.claimed
            or carries(self._error(name, bound.e))
        ):
            return bound
        kinks = bound.kinks.made()
        g = self._wide(step.name + GRAD)
        e_g = self._error(step.name + GRAD, g)
        if carries(e_g):  # it may have come here with another gradient already
            rule = rule_for(step.module)
            assert rule is not None, "it has given this bound"
            most = rule.backward(self._operands(step, narrow=False), g.abs() + 2 * e_g, nothing(g)).inputs[which]
            kinks = most.kinks.made() if most.kinks is not None else kinks
        if not bool(kinks.mask.any()):
            return bound
        swing = torch.where(kinks.mask, kinks.high - kinks.low, 0.0) / 2  # twice the bound is allowed
        return replace(bound, e=bound.e + swing.to(bound.e.dtype))

    def _apply(self, rule: Rule, step: PlanStep, *, narrow: bool) -> Backward:
        g = self._raw(step.name + GRAD) if narrow else self._wide(step.name + GRAD)
        return rule.backward(self._operands(step, narrow=narrow), g, self._error(step.name + GRAD, g))

    def _combined(self, parts: list[Part], name: str) -> Bound | None:
        consumers = self.plan.consumers(name)
        if len(parts) < len(consumers):
            return None  # one of them has no rule
        if len(parts) == 1:
            return parts[0].bound
        return add_up(parts, self.precision)


def finite(e: Tensor) -> bool:
    """Whether all of an error is."""
    # a sum is finite only if all of it is, and takes one look at each element and no memory
    return not e.numel() or math.isfinite(float(e[(0,) * e.dim()] if constant(e) else e.sum()))


def _in_dtype(e: Tensor, dtype: torch.dtype) -> Tensor:
    """An error bound in another dtype, rounded up."""
    if dtype == _WIDE:
        return e.to(dtype)
    tiny = torch.finfo(dtype).tiny
    return torch.where(e > 0, (e * (1 + torch.finfo(dtype).eps)).clamp(min=tiny), 0.0).to(dtype)
