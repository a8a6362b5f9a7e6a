"""The search: hypothesis draws networks until one disagrees with torch, and makes that one as small as it can."""

from __future__ import annotations

import contextlib
import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.report import HARMLESS, Check
from manual_bp.runner import judge_run

from ._draw import Source, draw_network
from ._numbers import REGIMES, draw_probe
from ._simpler import simplify, simplify_network

#: Turns the right network into the one under test; the identity tests the engine itself.
Candidate = Callable[[Network], Network]
Progress = Callable[[int, float], None]

#: Networks a round: each round has a seed of its own, so a search is the same however its rounds are spread.
ROUND = 50
#: So many simpler networks hypothesis may try once one has failed.
SHRINKING = 100


@dataclass(frozen=True, kw_only=True)
class Found:
    """A disagreement: the smallest network and numbers that still show it, and the quantities that are wrong there."""

    network: Network
    probe: Probe
    wrong: tuple[str, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How many networks were tried in how many seconds, and what was found (None: nothing)."""

    networks: int
    seconds: float
    found: Found | None


def search(
    *,
    seed: int = 0,
    dtypes: tuple[str, ...] = ("float32", "float64"),
    seconds: float = float("inf"),
    networks: float = float("inf"),
    workers: int = 1,
    candidate: Candidate = lambda network: network,
    progress: Progress = lambda _networks, _seconds: None,
) -> Outcome:
    """Try random networks until one is wrong, or the budget is spent.

    Parameters
    ----------
    seed
        Decides every network and every number.
    dtypes
        Which of "float32" and "float64" to try.
    seconds, networks
        The budget; give at least one of them. Making a failure smaller comes on top.
    workers
        Processes. With a budget in networks the outcome does not depend on their number.
    candidate
        The implementation under test, made from the right network.
    progress
        Called with the networks and seconds so far.

    Raises
    ------
    ManualBPError
        If torch or hypothesis (or joblib, for several workers) is not installed, or no budget is given.
    """
    if np.isinf(seconds) and np.isinf(networks):
        raise ManualBPError("a search without an end", hint="give a budget in seconds or in networks")
    _needed("hypothesis")
    _torch_side.torch_version()  # without torch every network would seem to disagree with it
    begin, tried = time.monotonic(), 0
    for count, found in _rounds(seed, dtypes, begin + seconds, networks, workers, candidate):
        tried += count
        progress(tried, time.monotonic() - begin)
        if found is not None:
            return Outcome(networks=tried, seconds=time.monotonic() - begin, found=found)
    return Outcome(networks=tried, seconds=time.monotonic() - begin, found=None)


def _rounds(
    seed: int, dtypes: tuple[str, ...], deadline: float, networks: float, workers: int, candidate: Candidate
) -> Iterator[tuple[int, Found | None]]:
    """The rounds' results in their order; of rounds that ran side by side the first failure counts."""
    number, left = 0, networks
    while left > 0 and time.monotonic() < deadline:
        sizes = []
        for _ in range(max(1, workers)):
            if left > 0:
                sizes.append(int(min(ROUND, left)))
                left -= sizes[-1]
        tasks = [(seed, number + i, size, dtypes, deadline - time.monotonic()) for i, size in enumerate(sizes)]
        number += len(tasks)
        if workers <= 1:
            yield _round(*tasks[0], candidate=candidate)
            continue
        joblib = _needed("joblib")
        yield from joblib.Parallel(n_jobs=workers)(joblib.delayed(_round)(*task, candidate=candidate) for task in tasks)


def _round(
    seed: int, number: int, size: int, dtypes: tuple[str, ...], seconds: float, *, candidate: Candidate
) -> tuple[int, Found | None]:
    """Up to ``size`` networks; hypothesis draws them, and once one fails, ever simpler ones."""
    hypothesis = _needed("hypothesis")
    st = hypothesis.strategies
    state = _State(time.monotonic() + seconds, candidate)

    settings = hypothesis.settings(
        max_examples=size,
        database=None,
        deadline=None,
        derandomize=False,
        verbosity=hypothesis.Verbosity.quiet,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
    )

    def attempt(data: Any) -> None:
        state.attempt(Source(lambda low, high: int(data.draw(st.integers(low, high)))), dtypes)

    wrapped = settings(hypothesis.given(st.data())(attempt))
    (own,) = np.random.SeedSequence([seed, number]).generate_state(1)
    # the smallest failure is kept by us: what hypothesis raises at the end (it may call it flaky) says nothing new
    with contextlib.suppress(_DisagreementError, hypothesis.errors.HypothesisException, BaseExceptionGroup):
        hypothesis.seed(int(own))(wrapped)()
    return state.networks, state.simplest()


class _DisagreementError(Exception):
    """Tells hypothesis that this network is one to make smaller."""


class _State:
    """What a round has tried, and the smallest failure so far."""

    def __init__(self, deadline: float, candidate: Candidate) -> None:
        self.deadline, self.candidate = deadline, candidate
        self.networks = 0
        self.shrinking = SHRINKING
        self.best: tuple[tuple[int, ...], Network, Probe] | None = None

    def attempt(self, source: Source, dtypes: tuple[str, ...]) -> None:
        if self.best is None:
            if time.monotonic() > self.deadline:
                return
            self.networks += 1
        else:
            self.shrinking -= 1
            if self.shrinking < 0:
                return
        network = draw_network(source)
        dtype, regime = source.choice(dtypes), source.choice(tuple(REGIMES))
        probe = draw_probe(network, regime, seed=source.integer(0, 2**16), batch=source.integer(1, 4), dtype=dtype)
        if not self._wrong(network, probe):
            return
        size = (len(network.nodes), probe.x.size + sum(a.size for a in probe.params.values()))
        if self.best is None or size < self.best[0]:
            self.best = size, network, probe
        raise _DisagreementError

    def _wrong(self, network: Network, probe: Probe) -> list[Check]:
        return wrong_checks(network, self.candidate(network), probe)

    def simplest(self) -> Found | None:
        """The smallest failure, with the simplest numbers that still show it."""
        if self.best is None:
            return None
        _, network, probe = self.best
        network, probe = simplify_network(network, probe, lambda n, p: bool(self._wrong(n, p)))
        probe = simplify(probe, lambda p: bool(self._wrong(network, p)))
        probe = replace(probe, name="found", description="the smallest numbers that still show it")
        wrong = self._wrong(network, probe)
        return Found(network=network, probe=probe, wrong=tuple(c.name for c in wrong), note=wrong[0].note)


def wrong_checks(network: Network, candidate: Network, probe: Probe) -> list[Check]:
    """The checks that begin a mistake; none where the numbers overflow, or where the engine refuses such an input."""
    run = candidate.run(probe.params, probe.x, probe.y)
    if run.failure and "NNError" in run.failure.error:
        return []
    plain = network.run(probe.params, probe.x, probe.y)
    if not all(np.isfinite(a).all() for a in plain.trace.values()):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # padding='same' with an even kernel costs torch a copy
            judge = _torch_side.judge.Judge(network, str(probe.x.dtype))
            checks, _ = judge_run(judge, probe, run, strict_kinks=False)
    except (ManualBPError, ValueError, RuntimeError) as error:
        return [_refused(network, probe, error)]
    return [c for c in checks if c.status not in HARMLESS and c.status != "inherited"]


def _refused(network: Network, probe: Probe, error: Exception) -> Check:
    """Torch refuses what the engine takes: a disagreement as well."""
    return Check(
        probe=probe.name,
        name=network.loss_name,
        kind="value",
        step=network.loss_name,
        shape=(),
        dtype=str(probe.x.dtype),
        status="wrong",
        note=f"torch refuses it: {' '.join(str(error).split())}",
    )


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        hint = "install it with: pip install 'manual-bp[campaigns]'"
        raise ManualBPError(f"the search needs {name}, which is not installed", hint=hint) from None
