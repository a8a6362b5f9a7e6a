"""The torch side of a judgement: reference pass, replay with the candidate's numbers, bounds, referee.

`Judge` is built once for a network and dtype; `Judge.items` turns one candidate's trace on one probe into what
`manual_bp.compare` needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from manual_bp.compare import Alternative, Expected, Item, KinkSet
from manual_bp.network import INPUT, Network, Node
from manual_bp.nn import Dropout, Optimizer
from manual_bp.report import Check, Referee
from manual_bp.trace import GRAD, NEW, Array, Quantity, Trace
from manual_bp_torch.bounds import INFLATION, Bound, Kinks, Precision, update_bound
from manual_bp_torch.bounds._model import constant, nothing
from manual_bp_torch.build import TORCH_DTYPES, build, loss_for, optimizer_for
from manual_bp_torch.certify import Plan, PlanStep, certify
from manual_bp_torch.tapping import Pass, run_pass
from manual_bp_torch.weights import load, to_torch

_WIDE = torch.float64

#: Elements of a trace up to which a second thread does not pay.
LITTLE = 1 << 17


@dataclass(frozen=True)
class _Side:
    """One pass of torch with its bounds."""

    found: Pass
    bounds: dict[str, Bound]

    def of(self, name: str) -> Tensor | None:
        """A value or gradient of the pass."""
        return self.found.grads.get(name, self.found.values.get(name))


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

    @staticmethod
    def _stored(node: Node) -> tuple[str, ...]:
        """Names of what a step reads besides its inputs: parameters, buffers, a given mask."""
        mask = ("mask",) if isinstance(node.layer, Dropout) else ()
        return (*node.layer.parameter_shapes(), *node.layer.buffer_shapes(), *mask)

    # ------------------------------------------------------------------ passes

    def items(self, params: Mapping[str, Array], x: Array, y: Array, candidate: Trace) -> tuple[Item, ...]:
        """What every quantity of the network should be, end to end and isolated.

        Parameters
        ----------
        params
            The probe's parameters and buffers, as both sides were given them.
        candidate
            What the hand-written side reports; quantities that are absent or misshapen are not substituted.
        """
        for name in self._masked:  # a mask has its input's shape, which only the probe knows
            self.module.get_submodule(name).mask = to_torch(params[f"{name}.mask"])
        load(self.module, params)
        inputs = {name: to_torch(a) for name, a in params.items()}
        target = to_torch(y)
        quantities = self.network.quantities()
        with torch.no_grad(), _one_thread_for(candidate):
            end = self._side(self.module, self.loss, inputs, to_torch(x), target, {})
            claims = self._claims(candidate, end.found)
            iso = self._side(self.module, self.loss, inputs, to_torch(x), target, claims)
            given = {INPUT: to_torch(x), **inputs}
            updates = {}
            if self.network.optimizer is not None:
                updates = self._updates(self.network.optimizer, inputs, end, iso, claims)
            return tuple(self._item(q, given, end, iso, updates) for q in quantities)

    def _claims(self, candidate: Trace, own: Pass) -> dict[str, Tensor]:
        """What can be substituted: of the shape and dtype of torch's own."""
        shapes = {name: tuple(t.shape) for name, t in own.values.items()}
        shapes |= {name + GRAD: shape for name, shape in shapes.items() if name != self.network.loss_name}
        name_of_dtype = str(self.dtype).removeprefix("torch.")
        claims = {
            name: shared(array)
            for name, array in candidate.items()
            if array.shape == shapes.get(name) and str(array.dtype) == name_of_dtype
        }
        return without_improbable(claims, self.network.output, self.loss)

    def _side(
        self,
        module: nn.Module,
        loss: nn.Module,
        inputs: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        claims: Mapping[str, Tensor],
    ) -> _Side:
        found = self._run(module, loss, inputs, x, y, claims)
        values = {**found.values, **{n: inputs[n] for n in self._buffers}}
        used = {name: claims.get(name, t) for name, t in values.items()}
        grads = {n: claims.get(n, t) for n, t in found.grads.items()}
        bounds = certify(self.plan, used, grads, y, self.precision, claimed=claims.keys())
        return _Side(found, bounds)

    def _run(
        self,
        module: nn.Module,
        loss: nn.Module,
        inputs: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        claims: Mapping[str, Tensor],
    ) -> Pass:
        return run_pass(
            module,
            loss,
            {name: inputs[name] for name in self._parameters},
            {name: inputs[name] for name in self._buffers},
            x,
            y,
            names=tuple(node.name for node in self.network.nodes),
            loss_name=self.network.loss_name,
            claims=claims,
        )

    def _updates(
        self,
        optimizer: Optimizer,
        inputs: Mapping[str, Tensor],
        end: _Side,
        iso: _Side,
        claims: Mapping[str, Tensor],
    ) -> dict[str, tuple[Expected, Expected]]:
        """The optimiser's step, from the candidate's own gradients and from the reference's."""
        answers: list[dict[str, Expected]] = []
        for side, own in ((iso, claims), (end, {})):
            old = {n: own.get(n, inputs[n]).clone().requires_grad_() for n in self._parameters}
            for name, parameter in old.items():
                parameter.grad = own.get(name + GRAD, side.found.grads[name + GRAD]).clone()
            before = {name: p.detach().to(_WIDE) for name, p in old.items()}
            stepper = optimizer_for(optimizer, list(old.values()))
            stepper.step()
            found = {}
            for name, parameter in old.items():
                g = parameter.grad
                assert g is not None
                carried = side.bounds.get(name + GRAD)
                zero = torch.zeros_like(before[name])
                e_g = zero if name + GRAD in own or carried is None else carried.e.to(_WIDE)
                new = parameter.detach()
                bound = update_bound(stepper, new.to(_WIDE), before[name], g.to(_WIDE), e_g, self.precision)
                found[name] = expected_of(new, bound)
            answers.append(found)
        return {name + NEW: (answers[0][name], answers[1][name]) for name in self._parameters}

    # ------------------------------------------------------------------ items

    def _item(
        self,
        quantity: Quantity,
        given: Mapping[str, Tensor],
        end: _Side,
        iso: _Side,
        updates: Mapping[str, tuple[Expected, Expected]],
    ) -> Item:
        name = quantity.name
        if name in updates:
            isolated, end_to_end = updates[name]
            return Item(quantity=quantity, isolated=isolated, end_to_end=end_to_end)
        if name in given:
            same = Bound(nothing(given[name]), "identical: both sides are given the same bits")
            answer = expected_of(given[name], same)
            return Item(quantity=quantity, isolated=answer, end_to_end=answer)
        found_iso, found_end = iso.of(name), end.of(name)
        if found_iso is None or found_end is None:
            # nothing depends on it: its gradient is zero
            like = given.get(name.removesuffix(GRAD), torch.zeros(()))
            answer = expected_of(torch.zeros_like(like), Bound(nothing(like), "exact: the loss does not depend on it"))
            return Item(quantity=quantity, isolated=answer, end_to_end=answer)
        bound_iso, bound_end = iso.bounds.get(name), end.bounds.get(name)
        return Item(
            quantity=quantity,
            isolated=expected_of(found_iso, bound_iso) if bound_iso else None,
            end_to_end=expected_of(found_end, bound_end) if bound_end else None,
            alternatives=alternatives_of(bound_iso),
            kinks=kink_set_of(bound_iso.kinks, bound_iso) if bound_iso and bound_iso.kinks else None,
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
        inputs = {name: to_torch(a) for name, a in params.items()}
        wide = {name: t.to(_WIDE) if t.is_floating_point() else t for name, t in inputs.items()}
        target, data = to_torch(y), to_torch(x)
        wide_y = target.to(_WIDE) if target.is_floating_point() else target
        with torch.no_grad():
            claims = self._claims(candidate, self._run(self.module, self.loss, inputs, data, target, {}))
            iso = self._side(self.module, self.loss, inputs, data, target, claims)
            wide_claims = {n: t.to(_WIDE) for n, t in claims.items()}
            truth = self._run(self._wide, self._wide_loss, wide, data.to(_WIDE), wide_y, wide_claims)
        verdicts = {}
        for name in suspects:
            exact = {**truth.values, **truth.grads}.get(name)
            own = iso.of(name)
            if exact is None or own is None or name not in claims or name not in iso.bounds:
                continue
            verdicts[name] = verdict_of(claims[name], own, exact, iso.bounds[name].e)
        return verdicts


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


def shared(array: Array) -> Tensor:
    """A tensor with the bits of an array, in the array's own memory if that can be; not to be written into."""
    return torch.from_numpy(array) if array.flags.c_contiguous and array.flags.writeable else to_torch(array)


def _twice(e: Tensor, *, instead_of_nan: float = float("inf")) -> Array:
    """Two correct sides are each within e of the exact result."""
    allowed = (2 * INFLATION) * (e[(0,) * e.dim()] if constant(e) else e)
    # a sum is NaN if one of its elements is, and takes no memory
    if bool(allowed.sum().isnan()):
        allowed.nan_to_num_(nan=instead_of_nan, posinf=float("inf"))
    out: Array = np.broadcast_to(allowed.numpy(), e.shape)
    return out


def expected_of(value: Tensor, bound: Bound) -> Expected:
    """What the candidate is held against: torch's value, and twice the bound."""
    return Expected(value=_array(value), allowed=_twice(bound.e), rule=bound.rule)


def _array(value: Tensor) -> Array:
    """The tensor's own memory as a contiguous array."""
    out: Array = value.detach().contiguous().numpy()
    return out


def alternatives_of(bound: Bound | None) -> tuple[Alternative, ...]:
    """The other right answers that a rule names."""
    if bound is None:
        return ()
    return tuple(
        Alternative(value=_array(a.value), allowed=_twice(a.e, instead_of_nan=0.0), reason=a.reason, kink=a.kink)
        for a in bound.alternatives
    )


class _LaterKinks(KinkSet):
    """A set of kinks that is made when somebody asks for it."""

    def __init__(self, make: Callable[[], Kinks], convention: str, e: Tensor) -> None:
        self.__dict__.update(_make=make, convention=convention, _e=e, valid=self._valid)

    def __getattr__(self, name: str) -> Array:
        if name != "mask":
            raise AttributeError(name)
        return np.asarray(self.__dict__["_make"]().mask.numpy())

    def _valid(self, candidate: Array) -> Array:
        kinks, e = self.__dict__["_make"](), self.__dict__["_e"].to(_WIDE)
        own = to_torch(candidate).to(_WIDE)
        ok = (own >= kinks.low.to(_WIDE) - 2 * e) & (own <= kinks.high.to(_WIDE) + 2 * e)
        if kinks.valid is not None:
            ok &= kinks.valid(own, e)
        return np.asarray(ok.numpy())


def kink_set_of(kinks: Kinks, bound: Bound) -> KinkSet:
    """The kinks of a rule, for NumPy."""
    return _LaterKinks(kinks.made, kinks.convention, bound.e)


@contextmanager
def _one_thread_for(trace: Trace) -> Iterator[None]:
    """A little network in one thread: to wake the others, and wait for them, takes longer than the work."""
    threads = torch.get_num_threads()
    little = threads > 1 and sum(a.size for a in trace.values()) < LITTLE
    if little:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if little:
            torch.set_num_threads(threads)
