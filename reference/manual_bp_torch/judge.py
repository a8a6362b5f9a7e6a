"""The torch side of a judgement: reference pass, replay with the candidate's numbers, bounds, referee.

`Judge` is built once for a network and dtype; `Judge.items` turns one candidate's trace on one probe into what
`manual_bp.compare` needs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from manual_bp.compare import Expected, Item
from manual_bp.network import INPUT, Network, Node
from manual_bp.nn import Dropout, Optimizer
from manual_bp.report import Check, Referee
from manual_bp.trace import GRAD, NEW, Array, Quantity, Trace, bit_identical
from manual_bp_torch.answers import alternatives_of, expected_of, kink_set_of
from manual_bp_torch.bounds import INFLATION, Bound, Precision, update_bound
from manual_bp_torch.bounds._model import heard, nothing
from manual_bp_torch.build import TORCH_DTYPES, build, loss_for, optimizer_for
from manual_bp_torch.certify import Plan, PlanStep
from manual_bp_torch.side import Own, Replay, Setting, Side
from manual_bp_torch.stages import one_thread, stages_of
from manual_bp_torch.weights import load, shared, to_torch

_WIDE = torch.float64

#: A gradient and its bound.
_Known = tuple[Tensor, Bound | None]

#: Elements of a trace up to which a second thread does not pay: most operations are too short to share.
ALONE = 3 << 20


class Judge:
    """Judges hand-written passes of one network in one dtype.

    Parameters
    ----------
    network
        The description; the reference is built from it.
    dtype
        "float32" or "float64", of weights, inputs and every quantity.
    """

    def __init__(self, network: Network, dtype: str) -> None:
        self.network = network
        self.dtype = TORCH_DTYPES[dtype]
        self.module = build(network, self.dtype)
        self.loss = loss_for(network.loss, self.dtype)
        self.precision = Precision.of(self.dtype)
        wide = copy.deepcopy(self.module).to(_WIDE)
        for parameter in wide.parameters():
            parameter.requires_grad_(False)
        self._wide_loss = copy.deepcopy(self.loss).to(_WIDE)
        self._wide = wide
        self._masked = tuple(node.name for node in network.nodes if isinstance(node.layer, Dropout))
        self._buffers = (*network.buffer_shapes(), *(f"{name}.mask" for name in self._masked))
        self._parameters = tuple(network.parameter_shapes())
        # what has to run before a quantity is known
        self._order = [("forward", node.name) for node in network.nodes]
        self._order += [("loss", network.loss_name), *(("backward", node.name) for node in reversed(network.nodes))]
        self._stages = {q.name: stage for q in network.quantities() if (stage := self._stage(q)) is not None}
        self._computed = {stage: [n for n, own in self._stages.items() if own == stage] for stage in self._order}
        self.plan = Plan(
            tuple(
                PlanStep(
                    node.name,
                    wide.get_submodule(node.name),
                    node.inputs,
                    {p: f"{node.name}.{p}" for p in self._stored(node)},
                )
                for node in network.nodes
            ),
            network.loss_name,
            self._wide_loss,
            network.output,
        )

    def _stage(self, quantity: Quantity) -> tuple[str, str] | None:
        if quantity.step == self.network.loss_name:
            return "loss", quantity.step
        if quantity.kind in ("gradient", "parameter_gradient"):
            return "backward", quantity.step
        return ("forward", quantity.step) if quantity.kind == "value" and quantity.name != INPUT else None

    @staticmethod
    def _stored(node: Node) -> tuple[str, ...]:
        """Names of what a step reads besides its inputs: parameters, buffers, a given mask."""
        mask = ("mask",) if isinstance(node.layer, Dropout) else ()
        return (*node.layer.parameter_shapes(), *node.layer.buffer_shapes(), *mask)

    # ------------------------------------------------------------------ passes

    def items(self, params: Mapping[str, Array], x: Array, y: Array, candidate: Trace) -> tuple[Item, ...]:
        """What every quantity of the network should be, end to end and isolated, in execution order.

        Parameters
        ----------
        params
            The probe's parameters and buffers, as both sides were given them.
        candidate
            What the hand-written side reports; quantities that are absent or misshapen are not substituted.
        """
        return tuple(self.each(params, x, y, candidate))

    def each(
        self, params: Mapping[str, Array], x: Array, y: Array, candidate: Trace, *, lean: bool = False
    ) -> Iterator[Item]:
        """The same one by one: who looks at an item and lets go of it needs far less memory.

        With ``lean`` what end to end may differ is first only as much as is at hand, and `Expected.wider` makes what
        decides where that is too little.
        """
        setting = self._setting(params, x, y)
        alone = sum(a.size for a in candidate.values()) < ALONE
        with torch.no_grad(), one_thread(alone):
            own, shapes = self._own(setting)
            claims = self._claims(candidate, shapes, params)
            replay = Replay(setting, without_improbable(claims, self.network.output, self.loss))
            refused = next(iter(claims.keys() - replay.claims.keys()), "")
            if lean and self._stages.keys() <= replay.claims.keys():  # what is not compared was not found to hold
                own.lean_on(replay)
        update = _Update(self.network.optimizer, setting, replay.claims) if self.network.optimizer else None
        waiting = set(self._stages)
        with stages_of(replay, own, self._order, alone=alone) as through:
            for quantity in self.network.quantities():
                with torch.no_grad(), one_thread(alone):
                    while quantity.name in waiting:
                        waiting.difference_update(self._computed[next(through)])
                    item = self._item(quantity, setting, own, replay, update)
                    if refused and quantity.name in (self.network.loss_name, refused + GRAD):
                        item = replace(item, isolated=None, refused=refused)
                yield item
                del item  # or it would live until the next one is there

    def _setting(self, params: Mapping[str, Array], x: Array, y: Array) -> Setting:
        for name in self._masked:  # a mask has its input's shape, which only the probe knows
            self.module.get_submodule(name).mask = to_torch(params[f"{name}.mask"])
        load(self.module, params)
        given = {name: shared(a) for name, a in params.items()}
        return Setting(
            self.module,
            self.loss,
            self.plan,
            self.precision,
            {name: given[name] for name in self._parameters},
            {name: given[name] for name in self._buffers},
            shared(x),
            shared(y),
        )

    def _own(self, setting: Setting) -> tuple[Own, Mapping[str, tuple[int, ...]]]:
        """Torch's own pass, and the shapes of what can be claimed."""
        own = Own(setting)
        return own, own.shapes()

    def _claims(
        self, candidate: Trace, shapes: Mapping[str, tuple[int, ...]], params: Mapping[str, Array]
    ) -> dict[str, Tensor]:
        """What can be substituted: of the shape and dtype of torch's own; weights, if they are others."""
        name_of_dtype = str(self.dtype).removeprefix("torch.")
        return {
            name: shared(array)
            for name, array in candidate.items()
            if array.shape == shapes.get(name)
            and str(array.dtype) == name_of_dtype
            and not (name in params and bit_identical(array, params[name]))
        }

    # ------------------------------------------------------------------ items

    def _item(self, quantity: Quantity, setting: Setting, own: Side, replay: Side, update: _Update | None) -> Item:
        name = quantity.name
        if update is not None and quantity.kind == "update":
            isolated, end_to_end = update.of(name.removesuffix(NEW))
            return Item(quantity=quantity, isolated=isolated, end_to_end=end_to_end)
        given = setting.given(name)
        if given is not None:
            same = Bound(nothing(given), "identical: both sides are given the same bits")
            answer = expected_of(given, same)
            return Item(quantity=quantity, isolated=answer, end_to_end=answer)
        (found_iso, iso), (found_end, end) = replay.take(name), own.take(name)
        if found_iso is None or found_end is None:
            # nothing depends on it: its gradient is zero
            like = setting.given(name.removesuffix(GRAD))
            like = torch.zeros(()) if like is None else like
            answer = expected_of(torch.zeros_like(like), Bound(nothing(like), "exact: the loss does not depend on it"))
            return Item(quantity=quantity, isolated=answer, end_to_end=answer)
        if update is not None and quantity.kind == "parameter_gradient":
            end = update.add(name.removesuffix(GRAD), (found_iso, iso), (found_end, end))
        return Item(
            quantity=quantity,
            isolated=expected_of(found_iso, iso) if iso else None,
            end_to_end=expected_of(found_end, end) if end else None,
            alternatives=alternatives_of(iso),
            kinks=kink_set_of(iso.kinks, iso) if iso and iso.kinks else None,
        )

    # ------------------------------------------------------------------ referee

    def referee(
        self, params: Mapping[str, Array], x: Array, y: Array, candidate: Trace, checks: tuple[Check, ...]
    ) -> dict[str, Referee]:
        """For the quantities that differ: how far either side is from the same step in float64, in units of the bound.

        Only for float32; in float64 there is no wider precision that torch could run in.
        """
        suspects = [c.name for c in checks if c.status in ("wrong", "nonfinite") and not c.name.endswith(NEW)]
        if self.dtype == _WIDE or not suspects:
            return {}
        setting = self._setting(params, x, y)
        wide = setting.widened(self._wide, self._wide_loss)
        verdicts = {}
        with torch.no_grad():
            claims = self._claims(candidate, self._own(setting)[1], params)
            claims = without_improbable(claims, self.network.output, self.loss)
            replay = Replay(setting, claims)
            truth = Replay(wide, {**wide.params, **{name: t.to(_WIDE) for name, t in claims.items()}})
            for stage in self._order:
                for side in (replay, truth):
                    side.compute(stage)
                    side.certify(stage)
                for name in self._computed[stage]:
                    (found, bound), (exact, _) = replay.take(name), truth.take(name)
                    if name in suspects and name in claims and found is not None and exact is not None and bound:
                        verdicts[name] = verdict_of(claims[name], found, exact, bound.e)
        return verdicts


class _Update:
    """The optimiser's step, from the candidate's own gradients and from the reference's.

    Gradients are added as they become known; the step is made once somebody asks for its result.
    """

    def __init__(self, optimizer: Optimizer, setting: Setting, claims: Mapping[str, Tensor]) -> None:
        self._optimizer, self._setting, self._claims = optimizer, setting, claims
        self._grads: tuple[dict[str, _Known], dict[str, _Known]] = ({}, {})
        self._made = cache(self._make)

    def add(self, name: str, isolated: _Known, end_to_end: _Known) -> Bound | None:
        """The gradient of a parameter, and its bound; gives that end to end back, whose wider one is added, too."""
        self._grads[0][name], self._grads[1][name] = isolated, end_to_end
        found, bound = end_to_end

        def decides(wider: Bound) -> None:
            self._grads[1][name] = found, wider

        return heard(bound, decides) if bound else None

    def of(self, name: str) -> tuple[Expected, Expected]:
        """What becomes of a parameter, isolated and end to end."""
        isolated, end_to_end = self._made()
        return isolated[name], end_to_end[name]

    def _make(self) -> tuple[dict[str, Expected], ...]:
        return tuple(self._step(g, own) for g, own in zip(self._grads, (self._claims, {}), strict=True))

    def _step(self, grads: Mapping[str, _Known], own: Mapping[str, Tensor]) -> dict[str, Expected]:
        old = {n: own.get(n, p).clone().requires_grad_() for n, p in self._setting.params.items()}
        for name, parameter in old.items():
            parameter.grad = own.get(name + GRAD, grads[name][0]).clone()
        before = {name: p.detach().to(_WIDE, copy=True) for name, p in old.items()}  # the step changes it in place
        stepper = optimizer_for(self._optimizer, list(old.values()))
        stepper.step()
        found = {}
        for name, parameter in old.items():
            g, carried = parameter.grad, grads[name][1]
            assert g is not None
            zero = torch.zeros_like(before[name])
            e_g = zero if name + GRAD in own or carried is None else carried.e.to(_WIDE)
            new = parameter.detach()
            bound = update_bound(stepper, new.to(_WIDE), before[name], g.to(_WIDE), e_g, self._setting.precision)
            found[name] = expected_of(new, bound)
        return found


def without_improbable(claims: dict[str, Tensor], output: str | None, loss: object) -> dict[str, Tensor]:
    """Drop what torch would refuse: a prediction outside [0, 1] in front of BCELoss says nothing about the loss."""
    claim = claims.get(output or "")
    if isinstance(loss, nn.BCELoss) and claim is not None and not bool(((claim >= 0) & (claim <= 1)).all()):
        return {name: c for name, c in claims.items() if name != output}
    return claims


def verdict_of(candidate: Tensor, reference: Tensor, truth: Tensor, e: Tensor) -> Referee:
    """How far both sides are from the truth, in units of the one-sided bound ``e``, and whose fault that is."""

    def distance(side: Tensor) -> float:
        error = (side.to(_WIDE) - truth).abs()
        units = torch.where(error == 0, 0.0, error / (e * INFLATION))
        return float(torch.nan_to_num(units, nan=float("inf")).max()) if units.numel() else 0.0

    c, r = distance(candidate), distance(reference)
    off_c, off_r = c > 1.0, r > 1.0
    fault = "both" if off_c and off_r else "candidate" if off_c else "reference" if off_r else "neither"
    return Referee(precision="float64", candidate=c, reference=r, fault=fault)  # type: ignore[arg-type]  # one of the four words
