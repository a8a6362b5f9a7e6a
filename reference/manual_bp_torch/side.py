"""One pass of torch and the bounds of all it computes, a step at a time, so that no more is held than is needed.

There are two sides to a judgement. `Own` is torch's own pass: the network runs as a whole, its graph is cut where a
value is tapped, and walked back from tap to tap. `Replay` gives each step the candidate's numbers, which are all known
beforehand, so each is run by itself. Either walks forward through the steps, over the loss, and back: `Side.compute` of
each stage, `Side.certify`, and then `Side.take` hands out what was found. What no later stage reads is let go of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from manual_bp.network import INPUT
from manual_bp.trace import GRAD
from manual_bp_torch.bounds import Bound, Precision
from manual_bp_torch.bounds._model import called
from manual_bp_torch.certify import Plan, PlanStep, Walk
from manual_bp_torch.vjp import Tip, vjp


@dataclass(frozen=True)
class Setting:
    """What both sides are given.

    Attributes
    ----------
    module, loss
        In the dtype under judgement, with the probe's weights in them.
    plan
        The steps, as the bounds see them.
    params, buffers
        By global name; the buffers include masks.
    """

    module: nn.Module
    loss: nn.Module
    plan: Plan
    precision: Precision
    params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    x: Tensor
    y: Tensor

    def leaf(self, tensor: Tensor) -> Tensor:
        """The same numbers at the start of a graph."""
        found = tensor.detach()
        return found.requires_grad_() if found.is_floating_point() else found

    def given(self, name: str) -> Tensor | None:
        """What both sides have from the start, under its name."""
        return self.x if name == INPUT else self.params.get(name, self.buffers.get(name))

    def widened(self, module: nn.Module, loss: nn.Module) -> Setting:
        """The same in float64, for these modules; weights are to be claimed there."""

        def wide(tensor: Tensor) -> Tensor:
            return tensor.double() if tensor.is_floating_point() else tensor

        params, buffers = ({name: wide(t) for name, t in own.items()} for own in (self.params, self.buffers))
        return Setting(module, loss, self.plan, self.precision, params, buffers, wide(self.x), wide(self.y))


#: What is taken in one go: "forward" or "backward" and a step, or "loss" and its name.
Stage = tuple[str, str]


class Side:
    """What the sides have in common: numbers that each step is given, bounds, and what torch makes of them."""

    def __init__(self, setting: Setting, claims: Mapping[str, Tensor]) -> None:
        self.setting, self.claims = setting, claims
        self.values: dict[str, Tensor] = {**setting.params, **setting.buffers, INPUT: setting.x}
        self.values.update({name: claims[name] for name in self.values if name in claims})
        self.grads: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}
        self.bounds: dict[str, Bound] = {}
        self._sums: dict[str, Tensor] = {}
        self._steps = {step.name: step for step in setting.plan.steps}
        self._walk = Walk(setting.plan, self.values, self.grads, setting.y, setting.precision, claims.keys())

    # ------------------------------------------------------------------ stages

    def compute(self, stage: Stage) -> None:
        """What torch makes of a stage: a step forward, the loss there and back, or a step back."""
        phase, name = stage
        if phase == "forward":
            self._value(name, self._forward(self._steps[name]))
        elif phase == "backward":
            self._back(self._steps[name])
        else:
            total, gradient = self._loss()
            self._value(name, total)
            if gradient is not None:
                self._gradient(self.setting.plan.output, gradient)

    def certify(self, stage: Stage) -> None:
        """The bounds of what was computed. Then a step that has run back is let go of."""
        phase, name = stage
        if phase == "forward":
            self._bound(self._walk.forward(self._steps[name]))
        elif phase == "backward":
            self._bound(self._walk.backward(self._steps[name]))
            self.forget(self._steps[name])
        else:
            self._bound(self._walk.loss())

    def leans(self, stage: Stage) -> bool:
        """Whether the bounds of a stage are made of those of another side."""
        return stage[1] in self._steps and self._walk.leans(self._steps[stage[1]])

    def _back(self, step: PlanStep) -> None:
        """Run a step backward, from the gradient that it is given."""
        g = self.grads.get(step.name + GRAD)
        if g is not None:
            names, found = self._backward(step, g)
            for name, own in zip(names, found, strict=True):
                if own is None:
                    continue
                if name in self.setting.params:
                    self.found[name + GRAD] = own
                else:  # multivariate chain rule: the gradients of all readers add up
                    self._sums[name] = self._sums[name] + own if name in self._sums else own
        for name in self.setting.plan.completed_by[step.name]:
            if name in self._sums:
                self._gradient(name, self._sums.pop(name))

    def take(self, name: str) -> tuple[Tensor | None, Bound | None]:
        """What torch made of a quantity, and its bound; each can be had once."""
        return self.found.pop(name, None), self.bounds.pop(name, None)

    def forget(self, step: PlanStep) -> None:
        """Let go of a step that has run backward."""
        self._walk.forget(step)
        self.values.pop(step.name, None)
        self.grads.pop(step.name + GRAD, None)

    # ------------------------------------------------------------------ torch

    def _forward(self, step: PlanStep) -> Tensor:
        raise NotImplementedError

    def _loss(self) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError

    def _backward(self, step: PlanStep, g: Tensor) -> tuple[Sequence[str], Sequence[Tensor | None]]:
        raise NotImplementedError

    def _bound(self, found: Mapping[str, Bound]) -> None:
        self.bounds.update(found)

    def _value(self, name: str, computed: Tensor) -> None:
        self.found[name] = computed
        self.values[name] = self.claims.get(name, computed)

    def _gradient(self, name: str, computed: Tensor) -> None:
        computed = computed.detach().contiguous()
        self.found[name + GRAD] = computed
        self.grads[name + GRAD] = self.claims.get(name + GRAD, computed)


class Own(Side):
    """Torch's own pass. The whole network runs as the module it is; its graph is cut at every value."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, {})
        self._raw: dict[str, Tensor] = {}
        self._tapped: dict[str, Tensor] = {INPUT: setting.leaf(setting.x)}
        modules = [(step.name, setting.module.get_submodule(step.name)) for step in setting.plan.steps]
        handles = [
            module.register_forward_hook(lambda _m, _i, out, name=name: self._tap(name, out))
            for name, module in modules
        ]
        try:
            with torch.enable_grad():
                out = setting.module(self._tapped[INPUT])
                self._raw[setting.plan.loss_name] = setting.loss(out, setting.y)
        finally:
            for handle in handles:
                handle.remove()

    def lean_on(self, replay: Replay) -> None:
        """Take the bounds of affine steps from there; see `Walk.nearer`."""
        self._walk.nearer = replay.bounds

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all that a candidate can claim: values, parameters, and their gradients."""
        named = {INPUT: self.setting.x, **self.setting.params, **self._raw}
        shapes = {name: tuple(t.shape) for name, t in named.items()}
        return shapes | {name + GRAD: s for name, s in shapes.items() if name != self.setting.plan.loss_name}

    def _bound(self, found: Mapping[str, Bound]) -> None:
        """Other right answers are held against the candidate's own operands only; here they would hold on to these."""
        super()._bound({name: replace(bound, kinks=None, alternatives=()) for name, bound in found.items()})

    def _tap(self, name: str, out: Tensor) -> Tensor:
        self._raw[name] = out
        # the start of a new graph: a path through another reader must not be counted twice
        self._tapped[name] = self.setting.leaf(out)
        return self._tapped[name]

    def _forward(self, step: PlanStep) -> Tensor:
        return self._raw[step.name].detach()

    def _loss(self) -> tuple[Tensor, Tensor | None]:
        plan = self.setting.plan
        total, output = self._raw[plan.loss_name], self._tapped[plan.output]
        return total.detach(), _loss_gradient(total, output)

    def _backward(self, step: PlanStep, g: Tensor) -> tuple[Sequence[str], Sequence[Tensor | None]]:
        return _gradients(_tip(self._raw[step.name]), _leaves(self.setting, step, self._tapped), g)

    def forget(self, step: PlanStep) -> None:
        """Let go of a step that has run backward."""
        super().forget(step)
        self._raw.pop(step.name)
        self._tapped.pop(step.name)


class Replay(Side):
    """Each step run on what the candidate claims; where it claims nothing, on what torch made of what came before."""

    def __init__(self, setting: Setting, claims: Mapping[str, Tensor]) -> None:
        super().__init__(setting, claims)
        self._graphs: dict[str, tuple[Tip | None, dict[str, Tensor]]] = {}

    def _run(self, step: PlanStep) -> tuple[Tensor, dict[str, Tensor]]:
        """A step's output, and what it was made of."""
        setting = self.setting
        module = setting.module.get_submodule(step.name)
        leaves = _leaves(setting, step, {name: setting.leaf(self.values[name]) for name in step.inputs})
        inputs = tuple(leaves[name] for name in step.inputs)
        with torch.enable_grad():
            if not any(name in self.claims for name in step.params.values()):
                return module(*inputs), leaves
            # the candidate says that it used other weights
            leaves |= {name: setting.leaf(self.values[name]) for name in step.params.values() if name in setting.params}
            state = {local: leaves.get(name, self.values[name].clone()) for local, name in step.params.items()}
            return called(module, state, *inputs), leaves

    def _forward(self, step: PlanStep) -> Tensor:
        out, leaves = self._run(step)
        weighted = any(name in self.setting.params for name in leaves)
        if weighted or out.numel() * 4 <= max(leaf.numel() for leaf in leaves.values()):
            # its graph holds what it was given, which is the candidate's; that of others holds what they computed
            self._graphs[step.name] = _tip(out), leaves
        return out.detach()

    def _loss(self) -> tuple[Tensor, Tensor | None]:
        setting = self.setting
        leaf = setting.leaf(self.values[setting.plan.output])
        with torch.enable_grad():
            total = setting.loss(leaf, setting.y)
        return total.detach(), _loss_gradient(total, leaf)

    def _backward(self, step: PlanStep, g: Tensor) -> tuple[Sequence[str], Sequence[Tensor | None]]:
        if step.name not in self._graphs:
            out, leaves = self._run(step)
            return _gradients(_tip(out), leaves, g)
        return _gradients(*self._graphs.pop(step.name), g)


def _leaves(setting: Setting, step: PlanStep, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a step's gradients are asked of: its inputs and its parameters, by global name."""
    module = setting.module.get_submodule(step.name)
    own = {name: getattr(module, local) for local, name in step.params.items() if name in setting.params}
    return {**{name: inputs[name] for name in step.inputs}, **own}


def _tip(y: Tensor) -> Tip | None:
    """Where a graph ends, if there is one."""
    return Tip(y) if y.requires_grad else None


def _gradients(
    tip: Tip | None, leaves: Mapping[str, Tensor], g: Tensor
) -> tuple[Sequence[str], Sequence[Tensor | None]]:
    """By name, what a step adds to the gradient of each of its leaves."""
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not wanted or tip is None:
        return (), ()
    return tuple(wanted), tip.vjp(tuple(wanted.values()), g, allow_unused=True)


def _loss_gradient(total: Tensor, output: Tensor) -> Tensor | None:
    if not total.requires_grad:
        return None
    found: Tensor | None = vjp(total, [output], torch.ones_like(total), allow_unused=True)[0]
    return found
