"""Judging a candidate against any torch program; the counterpart of `judge.Judge` for what people bring along.

Steps that are one known module get certified bounds. Everything else is calibrated: the segment in float64 under
stochastic arithmetic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from manual_bp.compare import Item
from manual_bp.inputs import mapped, named
from manual_bp.report import Check, Kind, Referee, StepInfo
from manual_bp.trace import GRAD, Array, Equation, Quantity, Trace
from manual_bp_torch.answers import alternatives_of, expected_of, kink_set_of
from manual_bp_torch.bounds import Alternative, Bound, Kinks, Precision
from manual_bp_torch.bounds._model import nothing
from manual_bp_torch.certify import certify
from manual_bp_torch.choices import Choices, kinks_of
from manual_bp_torch.failures import TheirError
from manual_bp_torch.judge import verdict_of
from manual_bp_torch.program import LOSS, Program, Structure
from manual_bp_torch.running import changed, statistics_of
from manual_bp_torch.shares import shares_of
from manual_bp_torch.stochastic import Nudge, as_it_is, spread
from manual_bp_torch.tapping import Pass
from manual_bp_torch.ties import found_ties, holding
from manual_bp_torch.unrounded import unrounded
from manual_bp_torch.weights import to_numpy, to_torch

_WIDE = torch.float64
_INDEPENDENT = "exact: the loss does not depend on it"


@dataclass(frozen=True)
class Setting:
    """What both sides are given on one probe: parameters and buffers, input, target."""

    params: dict[str, Tensor]
    x: Any
    y: Any

    def widened(self) -> Setting:
        return Setting({n: _widen(p) for n, p in self.params.items()}, mapped(self.x, _widen), _widen(self.y))


class ProgramJudge:
    """Judges candidates against one program.

    Parameters
    ----------
    program
        The reference in the dtype under judgement.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.wide = program.wide()
        self.precision = Precision.of(program.dtype)
        self.suspects: set[str] = set()  # what was wrong on a probe before

    def record(self, setting: Setting) -> tuple[Pass, Structure]:
        """The reference's own pass."""
        return self.program.run(setting.params, setting.x, setting.y)

    def random_quantity(self, setting: Setting, found: Pass) -> str | None:
        """The first value that a second pass on the same data does not give; roundings aside."""
        again, _ = self.record(setting)
        for name, value in found.values.items():
            other = again.values.get(name)
            if other is None or other.shape != value.shape:
                return name
            if value.is_floating_point() and not torch.allclose(value, other, rtol=1e-3, atol=1e-6, equal_nan=True):
                return name
        return None

    def quantities(self, setting: Setting, found: Pass, structure: Structure) -> tuple[Quantity, ...]:
        """Every quantity of the program in execution order: values, then gradients from the loss back."""
        trained = self.program.trained(setting.params)
        arriving = found.grads.keys() - found.zeros
        out: list[Quantity] = []
        seen: set[str] = set()
        inputs = [name for name in structure.inputs if name in found.values]
        out += [_quantity(name, "value", name) for name in inputs]
        for name, segment in structure.segments.items():
            for parameter in segment.params:
                if parameter not in seen:
                    out.append(_quantity(parameter, "parameter", name))
                    seen.add(parameter)
            out.append(_quantity(name, "value", name))
        done: set[str] = set()
        order = list(structure.segments.values())
        for segment in reversed(order):
            for parameter in segment.params:
                first = next(s.name for s in order if parameter in s.params)
                if first == segment.name and parameter in trained and parameter + GRAD in arriving:
                    out.append(_quantity(parameter + GRAD, "parameter_gradient", segment.name))
            for read in dict.fromkeys(segment.reads):
                first = next(s.name for s in order if read in s.reads)
                if first == segment.name and read + GRAD in arriving and read not in done:
                    out.append(_quantity(read + GRAD, "gradient", segment.name))
                    done.add(read)
        return tuple(out)

    def unasked(self, structure: Structure) -> frozenset[str]:
        """Quantities that nobody expects to be reported: without a loss, the loss that stands in for one."""
        return frozenset((LOSS, *self._handed(structure))) if self.program.upstream_given else frozenset()

    def steps(self, found: Pass, structure: Structure) -> tuple[StepInfo, ...]:
        """The program's graph as a report shows it."""
        infos = [
            StepInfo(name=name, op="input", inputs=(), role="input", shape=tuple(found.values[name].shape))
            for name in structure.inputs
            if name in found.values
        ]
        for name, segment in structure.segments.items():
            call = structure.calls.get(name)
            op = " → ".join(segment.ops[-6:]) or "identity"
            if call is not None and self.program.module is not None:
                op = repr(self.program.module.get_submodule(call[0]))
            elif name == LOSS and isinstance(self.program.loss, nn.Module):
                op = repr(self.program.loss)
            infos.append(
                StepInfo(
                    name=name,
                    op=op,
                    inputs=tuple(dict.fromkeys(segment.reads)),
                    role="loss" if name == LOSS else "layer",
                    shape=tuple(found.values[name].shape),
                    params=segment.params,
                )
            )
        return tuple(infos)

    # ------------------------------------------------------------------ items

    def items(
        self, setting: Setting, candidate: Trace, found: Pass, structure: Structure, names: Mapping[str, Equation]
    ) -> tuple[Item, ...]:
        """What every quantity should be, isolated and end to end; see `judge.Judge.items`."""
        replay, claims, refused = self._replayed(setting, self._claims(candidate, found), structure)
        with torch.no_grad():
            silent = self.unasked(structure) - candidate.keys()
            isolated = self._bounds(setting, replay, structure, claims, silent)
            end = self._bounds(setting, found, structure, {}, silent, kinks=False)
        items = []
        for quantity in self.quantities(setting, found, structure):
            name = quantity.name
            if name in silent:
                continue
            if name in names:
                quantity = Quantity(
                    name=name, kind=quantity.kind, step=quantity.step, symbol=quantity.symbol, equation=names[name]
                )
            if name in structure.inputs or name in setting.params:
                given = named(setting.x)[name] if name in structure.inputs else setting.params[name]
                zero = Bound(torch.zeros(given.shape, dtype=_WIDE), "identical: both sides are given the same bits")
                same = expected_of(given, zero)
                items.append(Item(quantity=quantity, isolated=same, end_to_end=same))
                continue
            own, ends = ({**p.values, **p.grads}[name] for p in (replay, found))
            if name in refused:
                items.append(
                    Item(
                        quantity=quantity, isolated=None, end_to_end=expected_of(ends, end[name]), refused=refused[name]
                    )
                )
                continue
            bound = isolated[name]
            items.append(
                Item(
                    quantity=quantity,
                    isolated=expected_of(own, bound),
                    end_to_end=expected_of(ends, end[name]),
                    alternatives=alternatives_of(bound),
                    kinks=kink_set_of(bound.kinks, bound) if bound.kinks else None,
                )
            )
        known = {item.quantity.name for item in items} | silent
        items += [item for item in self._zeros(found) if item.quantity.name in candidate.keys() - known]
        bounds = (self._left_behind(setting, structure, *of) for of in ((replay, claims, isolated), (found, {}, end)))
        items += self._buffers(candidate.keys() - known, setting, (replay, found), tuple(bounds))
        return tuple(items)

    @staticmethod
    def _zeros(found: Pass) -> Iterator[Item]:
        """Gradients of what the loss does not depend on; nobody need report them."""
        for name in found.zeros:
            answer = expected_of(found.grads[name], Bound(nothing(found.grads[name]), _INDEPENDENT))
            yield Item(quantity=_quantity(name, "gradient", ""), isolated=answer, end_to_end=answer)

    # ------------------------------------------------------------------ buffers

    def buffers(self, setting: Setting) -> dict[str, Tensor]:
        """The module's buffers as they were given."""
        apart = self.program.trained(setting.params) | self.program.frozen()
        return {n: p for n, p in setting.params.items() if n not in apart} if self.program.module else {}

    def changed(self, setting: Setting, found: Pass) -> tuple[str, ...]:
        """The running statistics that the reference's pass changes; counts are none."""
        return tuple(n for n in changed(self.buffers(setting), found.values) if found.values[n].is_floating_point())

    def unjudged(self, setting: Setting, found: Pass, structure: Structure) -> frozenset[str]:
        """Those of them that there is no bound for."""
        wanted = self.changed(setting, found)
        if not wanted:
            return frozenset()
        with torch.no_grad():
            return frozenset(wanted) - self._left_behind(setting, structure, found, {}, {}).keys()

    def _buffers(
        self,
        names: Collection[str],
        setting: Setting,
        passes: tuple[Pass, Pass],
        bounds: tuple[Mapping[str, Bound], ...],
    ) -> Iterator[Item]:
        """Buffers that the candidate reports, as the pass leaves them."""
        for name, before in self.buffers(setting).items():
            if name not in names:
                continue
            after = [p.values[name] for p in passes]
            if not before.is_floating_point() or all(torch.equal(before, value) for value in after):
                exact = Bound(torch.zeros(before.shape, dtype=_WIDE), "exact: nothing is rounded")
                answers = [expected_of(value, exact) for value in after]
            elif all(name in found for found in bounds):
                answers = [expected_of(value, found[name]) for value, found in zip(after, bounds, strict=True)]
            else:
                continue
            quantity = _quantity(name, "value", name.rpartition(".")[0])
            yield Item(quantity=quantity, isolated=answers[0], end_to_end=answers[1])

    def _left_behind(
        self,
        setting: Setting,
        structure: Structure,
        found: Pass,
        claims: Mapping[str, Tensor],
        bounds: Mapping[str, Bound],
    ) -> dict[str, Bound]:
        """Bounds of new running statistics, of modules that are called once."""
        out: dict[str, Bound] = {}
        called = [module for module, _ in structure.calls.values()]
        for module, (read, *_) in structure.calls.values():
            if self.program.module is None or called.count(module) > 1:
                continue
            x = _widen(claims.get(read, found.values[read]))
            e = bounds[read].e if read in bounds and read not in claims else nothing(x)
            own = self.program.module.get_submodule(module)
            out |= statistics_of(own, module, x, e, setting.params, self.precision)
        return out

    def _claims(self, candidate: Trace, found: Pass) -> dict[str, Tensor]:
        dtype = str(self.program.dtype).removeprefix("torch.")
        known = {**found.values, **found.grads}
        return {
            name: to_torch(array)
            for name, array in candidate.items()
            if name in known and array.shape == tuple(known[name].shape) and str(array.dtype) == dtype
        }

    def _replayed(
        self, setting: Setting, claims: dict[str, Tensor], structure: Structure
    ) -> tuple[Pass, dict[str, Tensor], dict[str, str]]:
        """The reference's pass on what the candidate claims, less what the reference raises at.

        Returns the pass, the claims that it could work with, and by quantity which other one it would have been made
        of: a loss is not to be had of what is no probability.
        """
        given = setting.params, setting.x, setting.y
        values = tuple(name for name in reversed(structure.segments) if name in claims)
        for without in ((), *((name,) for name in values), values):
            usable = {name: claim for name, claim in claims.items() if name not in without}
            try:
                replay, _ = self.program.run(*given, claims=usable)
                break
            except TheirError:
                if without == values:
                    raise
        else:
            raise AssertionError("the last one is run or raises")
        readers = [(s, read) for s in structure.segments.values() for read in without if read in s.reads]
        made = {name: read for s, read in readers for name in (s.name, *(n + GRAD for n in (*s.reads, *s.params)))}
        return replay, usable, made

    def _handed(self, structure: Structure) -> tuple[str, ...]:
        """Without a loss, the output's gradient is given to both sides."""
        return (f"{structure.output}{GRAD}",) if self.program.upstream_given and structure.output else ()

    def _bounds(
        self,
        setting: Setting,
        found: Pass,
        structure: Structure,
        claims: Mapping[str, Tensor],
        silent: Collection[str] = (),
        *,
        kinks: bool = True,
    ) -> dict[str, Bound]:
        """Certified where there is a rule, calibrated elsewhere; nothing for what nobody asks for.

        Only a step that is judged on the candidate's own operands can be held to its ``kinks``.
        """
        used = {n: _widen(claims.get(n, t)) for n, t in {**setting.params, **found.values}.items()}
        grads = {n: _widen(claims.get(n, t)) for n, t in found.grads.items() if n not in found.zeros}
        plan = self.program.plan(structure, self.wide.module, self.wide.loss)
        target = _widen(setting.y)
        given = {*structure.inputs, *setting.params, *silent, *found.zeros}
        bounds = certify(
            plan, used, grads, target, self.precision, claimed={*claims, *structure.inputs, *self._handed(structure)}
        )
        # whole numbers: indices, masks
        whole = {
            name: value for name, value in found.values.items() if name not in given and not value.is_floating_point()
        }
        bounds |= {n: Bound(torch.zeros(v.shape, dtype=_WIDE), "exact: whole numbers") for n, v in whole.items()}
        missing = [name for name in {**found.values, **found.grads} if name not in bounds and name not in given]
        if not missing:
            return bounds
        wide = setting.widened()
        widened = {name: _widen(claim) for name, claim in claims.items()}

        def again(nudge: Nudge, stored: Nudge = as_it_is, errors: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
            # exact numbers of both sides, all of them; what stands on a kink is moved off it, to either side
            params, claimed = ({name: nudge(t) for name, t in d.items()} for d in (wide.params, widened))
            claimed = {name: stored(t, (errors or {}).get(name)) for name, t in claimed.items()}
            moved, _ = self.wide.run(params, mapped(wide.x, nudge), wide.y, claims=claimed)
            return {name: {**moved.values, **moved.grads}[name] for name in missing}

        of = {name: used[base] for name in missing if (base := name.removesuffix(GRAD)) != name and base in used}
        u, eta = self.precision.u, self.precision.eta
        ties = cache(partial(found_ties, lambda: again(as_it_is), u))
        hold = partial(holding, ties)
        estimates = spread(again, u=u, eta=eta, operands=of if kinks else None, hold=hold)
        rule = "calibrated: stochastic arithmetic in float64"
        others: Mapping[str, Sequence[Alternative]] = {}
        if kinks and claims:
            computed = {**found.values, **found.grads}
            wanted = {n: computed[n] for n in missing}
            others = unrounded(again, wanted, u=u, eta=eta, operands=of, hold=hold, claims=widened, bounds=bounds)
        chosen: Mapping[str, Kinks] = {}
        if kinks and (claimed := {n: widened[n] for n in missing if n.endswith(GRAD) and n in widened}):
            errors = {name: estimates[name].e for name in claimed}
            size = sum(t.numel() for t in (*found.values.values(), *found.grads.values()))
            run = partial(again, as_it_is)
            chosen = kinks_of(lambda: Choices(run, claimed, errors, ties(), size, self.suspects), claimed, estimates)
        for name, told in estimates.items():
            kink = chosen.get(name, told.kinks)
            bounds[name] = Bound(told.e, rule, kinks=kink, alternatives=others.get(name, ()))
        return bounds

    def shares(
        self, setting: Setting, candidate: Trace, found: Pass, structure: Structure, name: str
    ) -> dict[str, Array]:
        """What each reader of a quantity gives to its gradient, of the candidate's own numbers; see `shares_of`."""
        _, claims, _ = self._replayed(setting, self._claims(candidate, found), structure)
        wide = setting.widened()
        run = partial(self.wide.run, wide.params, wide.x, wide.y)
        return shares_of(run, {n: _widen(t) for n, t in claims.items()}, structure, name)

    # ------------------------------------------------------------------ referee

    def referee(
        self, setting: Setting, candidate: Trace, found: Pass, structure: Structure, checks: tuple[Check, ...]
    ) -> dict[str, Referee]:
        """See `judge.Judge.referee`."""
        suspects = [c.name for c in checks if c.status in ("wrong", "nonfinite")]
        if self.program.dtype == _WIDE or not suspects:
            return {}
        replay, claims, _ = self._replayed(setting, self._claims(candidate, found), structure)
        wide = setting.widened()
        truth, _ = self.wide.run(wide.params, wide.x, wide.y, claims={n: _widen(t) for n, t in claims.items()})
        with torch.no_grad():
            bounds = self._bounds(setting, replay, structure, claims)
        exact, own = {**truth.values, **truth.grads}, {**replay.values, **replay.grads}
        return {
            name: verdict_of(claims[name], own[name], exact[name], bounds[name].e)
            for name in suspects
            if name in claims and name in own and name in exact and name in bounds
        }


def _quantity(name: str, kind: Kind, step: str) -> Quantity:
    return Quantity(name=name, kind=kind, step=step)


def _widen(value: Any) -> Any:
    return value.to(_WIDE) if isinstance(value, Tensor) and value.is_floating_point() else value


def numpy_pass(found: Pass) -> dict[str, Array]:
    """A pass of torch as a trace."""
    return {name: to_numpy(t) for name, t in {**found.values, **found.grads}.items()}
