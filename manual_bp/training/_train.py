"""Training in lockstep: the same optimiser, the same mini-batches, and every update judged as one more step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from manual_bp import _torch_side
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.nn import NNError, Optimizer, Params, State
from manual_bp.probes import Probe
from manual_bp.probes._step import values
from manual_bp.report import ProbeInfo, Report
from manual_bp.runner import describe, judge_run, step_infos
from manual_bp.trace import GRAD, Array, Run, Trace
from manual_bp.training._course import Observer, check_numbers, drift, run_course
from manual_bp.training._data import Examples, examples, start
from manual_bp.training._judged import Judged, judged_update, largest_share
from manual_bp.training._record import Step, Training
from manual_bp.verdict import environment, make_report, merge_findings

if TYPE_CHECKING:
    from manual_bp_torch.judge import Judge
    from manual_bp_torch.lockstep import Lockstep


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
    check_numbers(steps=steps, batch=batch, judge_every=judge_every, evaluate_every=evaluate_every or 1)
    if dtype not in ("float32", "float64"):
        raise ManualBPError(f"there is no training in {dtype!r}", hint="choose float32 or float64")
    pair = _Pair(network, optimizer, candidate or network, candidate_optimizer or optimizer, dtype, seed, batch)
    often = evaluate_every or max(1, steps // 10)
    course = run_course(pair, steps=steps, judge_every=judge_every, often=often, observe=observe)
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
        environment=environment(_torch_side.torch_version()),
        **course,
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
        moved: Params = {}  # none, where there was no update
        usable = run.failure is None and self._usable(run.trace)
        if whole or not usable or run.mutations:
            found += self._pass(probe, run)
        if usable and not found.wrong:
            updated, moved = self._update(run, probe.name)
            found += updated
        step = Step(
            step=number,
            loss=loss,
            reference_loss=reference_loss,
            drift=drift(moved, self.reference.parameters()),
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

    def _update(self, run: Run, probe: str) -> tuple[Judged, Params]:
        """The update by hand, judged, and the parameters that it made; the candidate goes on from them if right."""
        params = self._trained()
        grads = {name: run.trace[name + GRAD] for name in params}
        found, new, state = judged_update(
            self.optimizer, self.candidate_optimizer.step, params, grads, self.state, probe=probe
        )
        if not found.wrong:
            self.params, self.state = {**self.params, **new}, state
        return found, new

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
