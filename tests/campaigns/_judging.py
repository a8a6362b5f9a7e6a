"""Judging many candidates of one network: the right run and the reference's own pass are computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from torch import Tensor

from manual_bp import compare as comparing
from manual_bp import probes as probe_sets
from manual_bp.compare import Item
from manual_bp.measure import excess
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.report import Check, Comparison, Referee
from manual_bp.runner import judge_run
from manual_bp.trace import Array, Run, Trace, bit_identical
from manual_bp_torch.bounds import Bound
from manual_bp_torch.judge import Judge
from manual_bp_torch.side import Setting, Side, Stage

from ._networks import network_of

#: Statuses that say: this quantity is wrong in itself.
BLAMED = frozenset({"wrong", "nonfinite", "mismatch", "missing"})
SEVERITY = ("pass", "kink", "inherited", "extra", "missing", "mismatch", "nonfinite", "wrong")


class _Remembered:
    """A side that goes through each stage once, and gives its answers as often as they are asked for."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._done: set[Stage] = set()
        self._answers: dict[str, tuple[Tensor | None, Bound | None]] = {}

    def compute(self, stage: Stage) -> None:
        if stage not in self._done:
            self._side.compute(stage)

    def certify(self, stage: Stage) -> None:
        if stage not in self._done:
            self._side.certify(stage)
            self._done.add(stage)
            self._answers |= {n: self._side.take(n) for n in {**self._side.found, **self._side.bounds}}

    def take(self, name: str) -> tuple[Tensor | None, Bound | None]:
        return self._answers.get(name, (None, None))


class SwiftJudge(Judge):
    """A judge that remembers the reference's own pass of each probe, which no candidate changes."""

    def _own(self, setting: Setting) -> tuple[Any, Mapping[str, tuple[int, ...]]]:
        if self._key not in self._remembered:
            own, shapes = super()._own(setting)
            self._remembered[self._key] = _Remembered(own), shapes
        return self._remembered[self._key]

    def __init__(self, network: Network, dtype: str) -> None:
        super().__init__(network, dtype)
        self._remembered: dict[int, Any] = {}
        self._key = 0

    def referee(self, *_args: Any, **_options: Any) -> dict[str, Referee]:
        """Nobody: torch stays within its bounds on these networks, as the right ones show, which are judged with it."""
        return {}

    def each(
        self, params: Mapping[str, Array], x: Array, y: Array, candidate: Trace, *, lean: bool = False
    ) -> Iterator[Item]:
        """As the judge's own; a probe's arrays must live as long as the judge, for they are what it is known by.

        Never ``lean``: the reference's bounds would be those of the first candidate.
        """
        self._key = id(x)
        yield from super().each(params, x, y, candidate, lean=False)

    def checks(self, probe: Probe, run: Run, *, strict_kinks: bool = False) -> tuple[Check, ...]:
        """Every check."""
        return judge_run(self, probe, run, strict_kinks=strict_kinks)[0]

    def reference(self, probe: Probe, run: Run) -> dict[str, Array]:
        """What the reference's own pass gives, by name."""
        items = self.items(probe.params, probe.x, probe.y, run.trace)
        return {item.quantity.name: item.end_to_end.value for item in items if item.end_to_end is not None}


@dataclass(frozen=True)
class Bench:
    """One network in one dtype: its probes, its right runs, its judge."""

    network: Network
    dtype: str
    probes: tuple[Probe, ...]
    runs: tuple[Run, ...]
    judge: SwiftJudge

    @cached_property
    def references(self) -> tuple[dict[str, Array], ...]:
        """Torch's own numbers on every probe."""
        return tuple(self.judge.reference(p, r) for p, r in zip(self.probes, self.runs, strict=True))

    def statuses(self, candidate: Network, *, strict_kinks: bool = False) -> dict[str, str]:
        """The worst status of every quantity over the probes.

        A run that gives the right one's very bits is right as that one is, and not judged once more.
        """
        worst: dict[str, str] = {}
        for probe, right in zip(self.probes, self.runs, strict=True):
            run = candidate.run(probe.params, probe.x, probe.y)
            if same(run, right):
                continue
            for check in self.judge.checks(probe, run, strict_kinks=strict_kinks):
                known = worst.get(check.name)
                if known is None or SEVERITY.index(check.status) > SEVERITY.index(known):
                    worst[check.name] = check.status
        return worst


def same(run: Run, right: Run) -> bool:
    """Whether two runs are the same to the bit, and changed nothing in place."""
    return (
        not run.mutations
        and run.failure is None
        and run.trace.keys() == right.trace.keys()
        and all(bit_identical(run.trace[name], right.trace[name]) for name in right.trace)
    )


def blamed(statuses: Mapping[str, str]) -> frozenset[str]:
    """The quantities that are wrong in themselves."""
    return frozenset(name for name, status in statuses.items() if status in BLAMED)


def kinks(statuses: Mapping[str, str]) -> frozenset[str]:
    """The quantities that differ by another subgradient only."""
    return frozenset(name for name, status in statuses.items() if status == "kink")


def statuses_only() -> None:
    """Leave out of every later comparison in this process what only a reader needs; for a campaign's own processes."""
    comparing.picture = lambda *_args, **_options: None  # type: ignore[assignment]  # another signature on purpose
    comparing.measure = _outside


def _outside(candidate: Array, reference: Array, allowed: Array) -> Comparison:
    """How many elements are off, and nothing else: where and how far decides nothing."""
    count = int(np.count_nonzero(excess(candidate, reference, allowed)[1] > 1))
    nan = float("nan")
    return Comparison(
        max_abs_error=nan, used=float(count > 0), mismatched=count, elements=candidate.size, worst_index=None,
        candidate=nan, reference=nan, allowed=nan, passing_atol=nan, passing_rtol=nan,
    )  # fmt: skip


@cache
def bench(name: str, dtype: str) -> Bench:
    """The bench of a network by name, over its default probes."""
    network = network_of(name)
    probes = probe_sets.probe_set(network, dtype=dtype)
    runs = tuple(network.run(p.params, p.x, p.y) for p in probes)
    return Bench(network, dtype, probes, runs, SwiftJudge(network, dtype))
