"""Training in lockstep: the same optimiser, the same mini-batches, and every update judged as one more step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from manual_bp import _torch_side
from manual_bp.compare import compare
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.nn import NNError, Optimizer, State
from manual_bp.probes import Probe
from manual_bp.probes._step import values
from manual_bp.report import ProbeInfo, Report
from manual_bp.runner import describe, judge_run, step_infos
from manual_bp.trace import GRAD, NEW, Array, Run, Trace
from manual_bp.training._data import Examples, examples, start
from manual_bp.training._judged import Judged, largest_share, unusable
from manual_bp.training._record import Step, Training
from manual_bp.verdict import environment, make_report, merge_findings

if TYPE_CHECKING:
    from manual_bp_torch.judge import Judge
    from manual_bp_torch.lockstep import Lockstep

Observer = Callable[[Step], None]


def train(
    network: Network,
    *,
    steps: int,
    optimizer: Optimizer,
    batch: int = 32,
    dtype: str = "float64",
    seed: int = 0,
    judge_every: int = 1,
    evaluate_every: int | None = None,
    candidate: Network | None = None,
    candidate_optimizer: Optimizer | None = None,
    observe: Observer | None = None,
) -> Training:
    """Train a network by hand and in torch on the same digits, and judge the hand-written side at every step.

    Each update is judged isolated: torch's optimiser starts from the candidate's own parameters, gradients and state.
    The whole pass is judged at the first step and at every ``judge_every``-th. The first step that is wrong ends it.

    Parameters
    ----------
    network, optimizer
        What is right: the reference is built from them.
    batch
        Digits a step.
    evaluate_every
        After how many steps the accuracy is taken, beside the first and the last time; a tenth of all if not given.
    candidate, candidate_optimizer
        The hand-written side, if it is not the same: another implementation of the same description.
    observe
        Called with each step's record.

    Raises
    ------
    ManualBPError
        Steps, batch or intervals below 1, another dtype, a batch larger than the data.
    """
    _check(steps=steps, batch=batch, judge_every=judge_every, evaluate_every=evaluate_every or 1)
    if dtype not in ("float32", "float64"):
        raise ManualBPError(f"there is no training in {dtype!r}", hint="choose float32 or float64")
    pair = _Pair(network, optimizer, candidate or network, candidate_optimizer or optimizer, dtype, seed, batch)
    often = evaluate_every or max(1, steps // 10)
    history: list[Step] = []
    wrong: Report | None = None
    diverged, interrupted = None, False

    def told(step: Step) -> None:
        history.append(step)
        if observe:
            observe(step)

    try:
        told(pair.evaluated(Step(step=0)))
        for number in range(1, steps + 1):
            whole = number == 1 or number % judge_every == 0
            step, wrong = pair.step(number, whole=whole)
            last = wrong is not None or number == steps
            told(pair.evaluated(step) if last or number % often == 0 else step)
            if wrong is not None:
                break
            if not np.isfinite(step.reference_loss):
                diverged = number
                break
    except KeyboardInterrupt:
        if not history:
            raise
        interrupted = True
    return Training(
        network=network.name,
        title=network.title,
        optimizer=describe(optimizer),
        dtype=dtype,
        seed=seed,
        batch=batch,
        steps=steps,
        examples=len(pair.data.images),
        held_back=len(pair.data.held_images),
        history=tuple(history),
        environment=environment(_torch_side.torch_version()),
        wrong_step=history[-1].step if wrong else None,
        report=wrong,
        diverged=diverged,
        interrupted=interrupted,
    )


@dataclass
class _Pair:
    """Both sides, and where the hand-written one stands."""

    network: Network
    optimizer: Optimizer
    candidate: Network
    candidate_optimizer: Optimizer
    dtype: str
    seed: int
    batch: int
    params: dict[str, Array] = field(init=False)
    state: State = field(init=False)
    data: Examples = field(init=False)
    judge: Judge = field(init=False)
    reference: Lockstep = field(init=False)

    def __post_init__(self) -> None:
        # the network's own optimiser takes its first step in every pass; here the update is a step of its own
        self.plain = replace(self.network, optimizer=None)
        self.candidate = replace(self.candidate, optimizer=None)
        self.data = examples(self.network, dtype=self.dtype, seed=self.seed, batch=self.batch)
        self.params = start(self.plain, self.data, batch=self.batch, seed=self.seed, dtype=self.dtype)
        self.state = self.candidate_optimizer.initial_state(self._trained())
        self.judge = _torch_side.judge.Judge(self.plain, self.dtype)
        self.reference = _torch_side.lockstep.Lockstep(self.plain, self.optimizer, self.dtype, self.params)

    def _trained(self) -> dict[str, Array]:
        return {name: self.params[name] for name in self.network.parameter_shapes()}

    def step(self, number: int, *, whole: bool) -> tuple[Step, Report | None]:
        """Take one step on both sides; the report if the hand-written one is wrong."""
        x, y = self.data.batch(number, self.batch)
        probe = Probe(
            name=f"step {number}",
            description=f"the mini-batch of step {number}, {len(x)} digits, the weights as the training left them",
            params=MappingProxyType(self.params),
            x=x,
            y=y,
            seed=self.seed,
        )
        run = self.candidate.run(self.params, x, y)
        loss, reference_loss = float(run.trace.get(self.network.loss_name, np.nan)), self._reference_step(x, y)
        if not np.isfinite(reference_loss):
            # both sides came here by steps that were right; torch's losses refuse to go on from such numbers
            return Step(step=number, loss=loss, reference_loss=reference_loss, drift=np.nan), None
        found = Judged()
        usable = run.failure is None and self._usable(run.trace)
        if whole or not usable or run.mutations:
            found += self._pass(probe, run)
        if usable and not found.wrong:
            found += self._update(run, probe.name)
        step = Step(
            step=number,
            loss=loss,
            reference_loss=reference_loss,
            drift=_drift(self._trained(), self.reference.parameters()),
            judged=found.judged,
            used=found.used,
        )
        return step, self._report(probe, found) if found.wrong else None

    def _reference_step(self, x: Array, y: Array) -> float:
        """torch's own step; NaN where torch refuses the numbers, as its binary cross-entropy does."""
        try:
            return self.reference.step(x, y)
        except RuntimeError:
            return float("nan")

    def _pass(self, probe: Probe, run: Run) -> Judged:
        """The whole pass, judged as ``manual-bp compare`` does."""
        items = self.judge.items(probe.params, probe.x, probe.y, run.trace)
        used = largest_share(items, run.trace)
        if used is not None and not run.mutations:
            return Judged(judged=len(items), used=used)
        checks, findings = judge_run(self.judge, probe, run, strict_kinks=False)
        return Judged.of(checks, findings)

    def _usable(self, trace: Trace) -> bool:
        """Whether there is a gradient of the right shape and dtype for every parameter."""
        return all(
            (g := trace.get(name + GRAD)) is not None and g.shape == a.shape and g.dtype == a.dtype
            for name, a in self._trained().items()
        )

    def _update(self, run: Run, probe: str) -> Judged:
        """The update by hand, judged; the candidate goes on from it if it is right."""
        params = self._trained()
        grads = {name: run.trace[name + GRAD] for name in params}
        items = _torch_side.lockstep.update_items(self.optimizer, params, grads, self.state)
        given = {**params, **{name + GRAD: g for name, g in grads.items()}}
        kept = {name: array.tobytes() for name, array in given.items()}
        try:
            new, state = self.candidate_optimizer.step(params, grads, self.state)
        except Exception as error:  # noqa: BLE001  # hand-written code under judgement: what it raises is a finding
            return unusable(items, probe, f"the optimiser raised {type(error).__name__}: {error}")
        if changed := [name for name, array in given.items() if array.tobytes() != kept[name]]:
            return unusable(items, probe, f"the optimiser changed {changed[0]}, which it was given, in place")
        trace: Trace = {name + NEW: np.asarray(array) for name, array in new.items()}
        trace |= {f"{n}.{key}{NEW}": np.asarray(a) for n, own in state.items() for key, a in own.items()}
        used = largest_share(items, trace)
        found = Judged(len(items), used) if used is not None else Judged.of(compare(items, trace, probe=probe))
        if not found.wrong:
            self.params, self.state = {**self.params, **new}, state
        return found

    def evaluated(self, step: Step) -> Step:
        """The record with the accuracy of both sides on the held-back digits."""
        output = self.network.output
        try:
            own = self.data.accuracy(lambda x: values(self.candidate, self.params, x)[output])
        except NNError:
            own = None
        return replace(step, accuracy=own, reference_accuracy=self.data.accuracy(self.reference.predict))

    def _report(self, probe: Probe, found: Judged) -> Report:
        info = ProbeInfo(name=probe.name, description=probe.description, batch=probe.batch, seed=self.seed)
        return make_report(
            network=self.network.name,
            title=self.network.title,
            dtype=self.dtype,
            seed=self.seed,
            checks=found.checks,
            steps=step_infos(replace(self.network, optimizer=self.optimizer), probe),
            probes=(info,),
            findings=merge_findings(found.findings),
            torch_version=_torch_side.torch_version(),
        )


def _drift(own: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    """The largest difference of a parameter in units of its own size; 0 when all are equal."""
    worst = 0.0
    for name, array in reference.items():
        with np.errstate(all="ignore"):
            apart = float(np.max(np.abs(own[name].astype(np.float64) - array), initial=0.0))
            size = float(np.max(np.abs(array), initial=0.0))
        if apart:
            worst = max(worst, apart / size if size else np.inf)
    return worst


def _check(**numbers: object) -> None:
    for name, number in numbers.items():
        if not isinstance(number, (int, np.integer)) or number < 1:
            raise ManualBPError(f"{name.replace('_', ' ')} is {number!r}", hint="give an integer of at least 1")
