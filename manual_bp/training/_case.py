"""Training of one's own code in lockstep: what a case's candidate reports as gradients is what its weights follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.candidate import Given, Naming, call
from manual_bp.case import Case
from manual_bp.causes import with_causes
from manual_bp.errors import ManualBPError
from manual_bp.inputs import mapped, named
from manual_bp.layouts import to_torch_layout
from manual_bp.nn import Optimizer, Params, State
from manual_bp.report import Report
from manual_bp.runner import describe
from manual_bp.session import Session
from manual_bp.trace import GRAD, Array
from manual_bp.training._course import Observer, check_numbers, drift, run_course
from manual_bp.training._judged import Judged, judged_update
from manual_bp.training._record import Step, Training
from manual_bp.variants import Variant, probe_info
from manual_bp.verdict import environment, make_report, merge_findings
from manual_bp.verification import Judging, Observed, Run, judge_observed, observe, runner

if TYPE_CHECKING:
    from manual_bp_torch.lockstep import ProgramLockstep


def train_case(
    case: Case,
    *,
    steps: int,
    optimizer: Any = None,
    batch: int | None = None,
    judge_every: int = 1,
    watch: Observer | None = None,
) -> Training:
    """Train a case's candidate beside its reference, and judge the hand-written side at every step.

    Both sides start from the same weights. The candidate's follow the gradients that it reports, by the case's own
    ``update`` or by the optimiser as `manual_bp.nn` has it; each update is judged isolated. The first step that is
    wrong ends it. Buffers (the running statistics of a normalisation) stay as they are.

    Parameters
    ----------
    optimizer
        What is right, if it is not the case's own.
    batch
        Examples a step, drawn from x and y, in every epoch in another order; all of them if not given.
    judge_every
        Judge the whole pass at every so many steps; the update is judged at every one.
    watch
        Called with each step's record.

    Raises
    ------
    ManualBPError
        The case has no optimiser, no loss, or a candidate that reports no gradient for some parameter.
    """
    check_numbers(steps=steps, judge_every=judge_every, batch=1 if batch is None else batch)
    optimizer = case.optimizer if optimizer is None else optimizer
    if optimizer is None:
        hint = "write optimizer=manual_bp.nn.SGD(lr=0.1) into it; on the command line: --optimizer sgd --lr 0.1"
        raise ManualBPError("the case has no optimizer", hint=hint)
    if isinstance(case.candidate, Mapping):
        raise ManualBPError(
            "the candidate is one pass, written down", hint="give a function (params, x, y) to train it"
        )
    chosen = _torch_side.lockstep.described(optimizer)
    pair = _CasePair(case, chosen, batch, case.session())
    course = run_course(pair, steps=steps, judge_every=judge_every, often=steps, observe=watch)
    return Training(
        network=case.title,
        title=case.title,
        optimizer=describe(chosen) + (" beside an update of your own" if case.update else ""),
        dtype=pair.session.dtype,
        seed=case.seed,
        batch=batch or pair.examples,
        steps=steps,
        examples=pair.examples,
        held_back=0,
        unit="example",
        environment=environment(_torch_side.torch_version()),
        **course,
    )


@dataclass
class _CasePair:
    """Both sides, and where the hand-written one stands; parameters are in torch's names and layout."""

    case: Case
    optimizer: Optimizer
    batch: int | None
    session: Session
    run: Run = field(init=False)
    params: dict[str, Array] = field(init=False)
    state: State = field(init=False)
    reference: ProgramLockstep = field(init=False)
    examples: int = field(init=False)
    own: _OwnUpdate | None = field(init=False)

    def __post_init__(self) -> None:
        session = self.session
        if session.upstream:
            raise ManualBPError("the case has no loss to train on", hint="give it loss=..., and the target as y")
        self.params = dict(session.params)
        self.run = runner(self.case.candidate, session)
        self.state = {}
        update = self.case.update
        self.own = _OwnUpdate(update, self.optimizer, session.naming) if update is not None else None
        self.reference = _torch_side.lockstep.ProgramLockstep(session.program, self.optimizer, self.params)
        if not self.reference.parameters():
            raise ManualBPError("the reference has no parameters to train", hint="give it params=..., or a module")
        sizes = {len(part) if np.ndim(part) else 0 for part in (*named(session.x).values(), session.y)}
        self.examples = max(sizes)
        if self.batch is not None and (len(sizes) > 1 or self.batch > self.examples):
            what = (
                "inputs and target have different lengths" if len(sizes) > 1 else f"there are {self.examples} examples"
            )
            raise ManualBPError(f"no batch of {self.batch} can be drawn: {what}", hint="leave --batch away")

    def _trained(self) -> dict[str, Array]:
        return {name: self.params[name] for name in self.reference.parameters()}

    def _data(self, number: int) -> tuple[Any, Any]:
        """Inputs and target of one step."""
        x, y = self.session.x, self.session.y
        if self.batch is None:
            return x, y
        epoch, part = divmod(number - 1, self.examples // self.batch)
        order = np.random.default_rng([self.case.seed, epoch]).permutation(self.examples)
        chosen = order[part * self.batch : (part + 1) * self.batch]
        return mapped(x, lambda own: own[chosen]), y if y is None else y[chosen]

    def evaluated(self, step: Step) -> Step:
        """Nothing is held back."""
        return step

    def step(self, number: int, *, whole: bool) -> tuple[Step, Report | None]:
        """Take one step on both sides; the report if the hand-written one is wrong."""
        x, y = self._data(number)
        text = f"the data of step {number}, the weights as the training left them"
        probe = Variant(name=f"step {number}", description=text, params=self.params, x=x, y=y)
        seen = observe(self.session, probe, self.run)
        self._check_gradients(seen)
        setting = seen.setting
        reference_loss = self.reference.step(setting.x, setting.y)
        loss = float(own) if (own := seen.trace.get("loss")) is not None and own.size == 1 else np.nan
        if not np.isfinite(reference_loss):
            return Step(step=number, loss=loss, reference_loss=reference_loss, drift=np.nan), None
        found = Judged()
        moved: Params = {}  # none, where there was no update
        usable = self._usable(seen)
        if whole or not usable or seen.changed:
            self.session.evidence = None  # of this step alone
            judging = Judging(strict_kinks=self.case.strict_kinks)
            found += Judged.of(*judge_observed(self.session, probe, seen, judging)[:2])
        passed = not found.wrong
        if usable and passed:
            updated, moved = self._update(seen, probe.name)
            found += updated
        step = Step(
            step=number,
            loss=loss,
            reference_loss=reference_loss,
            drift=drift(moved, self.reference.parameters()),
            judged=found.judged,
            used=found.used,
        )
        return step, self._report(probe, found, causes=not passed) if found.wrong else None

    def _check_gradients(self, seen: Observed) -> None:
        for name in self._trained():
            if name + GRAD not in seen.trace:
                own = self.session.naming.own_name(name)
                raise ManualBPError(
                    f"the candidate reports no {own + GRAD!r}, which the training needs",
                    hint="report the gradient of every parameter, or freeze it in the reference",
                )

    def _usable(self, seen: Observed) -> bool:
        """Whether there is a gradient of the right shape and dtype for every parameter."""
        grads = {name: seen.trace[name + GRAD] for name in self._trained()}
        return all(g.shape == self.params[n].shape and g.dtype == self.params[n].dtype for n, g in grads.items())

    def _update(self, seen: Observed, probe: str) -> tuple[Judged, Params]:
        """The update, judged, and the parameters that it made; the candidate goes on from them if they are right."""
        params = self._trained()
        grads = {name: seen.trace[name + GRAD] for name in params}
        if self.own:
            self.own.nearby = [tuple(t.shape) for t in seen.found.values.values() if t.dim() > 2]
        step = self.own.step if self.own else self.optimizer.step
        found, new, state = judged_update(self.optimizer, step, params, grads, self.state, probe=probe)
        if not found.wrong:
            self.params, self.state = {**self.params, **new}, state
        return found, new

    def _report(self, probe: Variant, found: Judged, *, causes: bool) -> Report:
        report = make_report(
            network=self.case.title,
            title=self.case.title,
            dtype=self.session.dtype,
            seed=self.case.seed,
            checks=found.checks,
            steps=self.session.steps,
            probes=(probe_info(probe, self.case.seed),),
            findings=merge_findings(found.findings),
            torch_version=_torch_side.torch_version(),
        )
        return with_causes(report, self.session.evidence) if causes else report


@dataclass
class _OwnUpdate:
    """A hand-written optimiser's step, in its author's names and layouts; ``memory`` is its state as it keeps it."""

    update: Any
    optimizer: Optimizer
    naming: Naming
    memory: Any = field(default_factory=dict)
    nearby: list[tuple[int, ...]] = field(default_factory=list)

    def step(self, params: Params, grads: Params, _state: State) -> tuple[dict[str, Array], State]:
        """New parameters, and state as far as torch has it, in torch's names and layout.

        Raises
        ------
        ManualBPError
            It raises itself, returns something else, or keeps no state from which the next step could be judged.
        """
        reference = {self.naming.own_name(name): name for name in params}
        theta, g = (
            {own: self._own(name, arrays[name]) for own, name in reference.items()} for arrays in (params, grads)
        )
        returned = call(lambda: self.update(theta, g, self.memory), Given(), None, None)
        new = theta if returned is None else returned  # None: it worked in place
        if isinstance(returned, tuple) and len(returned) == 2:
            new, self.memory = returned
        if not isinstance(new, Mapping) or set(new) != set(reference):
            what = f"parameters {', '.join(map(str, new))}" if isinstance(new, Mapping) else f"a {type(new).__name__}"
            raise ManualBPError(
                f"update returned {what}", hint=f"return new parameters and state by name: {', '.join(reference)}"
            )
        found = {name: self._torch(name, new[own], params) for own, name in reference.items()}
        return found, {name: self._kept(own, name, params, grads) for own, name in reference.items()}

    def _kept(self, own: str, name: str, params: Params, grads: Params) -> dict[str, Array]:
        """The state of one parameter by torch's names."""
        like = self.optimizer.step({name: params[name]}, {name: grads[name]}, {})[1][name]
        entries = self.memory.get(own) if isinstance(self.memory, Mapping) else None
        entries = entries if isinstance(entries, Mapping) else {}
        if missing := [key for key in like if key not in entries]:
            raise ManualBPError(
                f"the state that update keeps has no {missing[0]!r} for {own!r}",
                hint=f"keep it by torch's names: state[{own!r}] = {{{', '.join(f'{key!r}: ...' for key in like)}}}",
            )
        return {
            key: self._torch(name, entries[key], params)
            if like[key].ndim
            else np.asarray(entries[key], like[key].dtype)
            for key in like
        }

    def _own(self, name: str, array: Array) -> Array:
        return self.naming.stored(name, array, self.nearby)[1]

    def _torch(self, name: str, value: Any, params: Params) -> Array:
        text = self.naming.layout(self.naming.own_name(name), name)
        array = np.array(value)
        return to_torch_layout(array, text, target=params[name].shape, shapes=self.nearby) if text else array
