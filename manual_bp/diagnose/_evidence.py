"""What is kept of each probe while a candidate is judged, so that a wrong quantity can be diagnosed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from manual_bp.compare import Item
from manual_bp.network import TARGET
from manual_bp.report import Check, Diagnosis, Finding, Report
from manual_bp.trace import GRAD, Array

from ._overwritten import acquitted, overwritten
from ._probe import DIAGNOSED, KeptProbe
from ._words import hint_for

if TYPE_CHECKING:  # the search and its formulas are imported when there is something to be searched for
    from ._case import Case
    from ._diagnose import Effort
    from ._graph import Graph

#: Bytes of arrays that are held at most; probes on which nothing is wrong are given up first.
BUDGET = 1 << 28

#: Quantities that are diagnosed at most, in execution order.
MOST = 40

Progress = Callable[[str, int, int], None]
Locate = Callable[[str], str]
Shares = Callable[[str], Mapping[str, Array]]


_ASKED: ContextVar[tuple[Effort | None, Progress | None]] = ContextVar("asked", default=(None, None))


@contextmanager
def searching(effort: Effort, progress: Progress | None = None) -> Iterator[None]:
    """Every comparison inside searches with that effort and shows that progress, unless it is told otherwise."""
    token = _ASKED.set((effort, progress))
    try:
        yield
    finally:
        _ASKED.reset(token)


class Evidence:
    """Collects the probes of one comparison.

    Parameters
    ----------
    graph
        Who computes what from what, or what makes it when it is needed.
    more
        From the name of a quantity to further cases of it, where the candidate can be run again.
    locate
        From the name of a quantity to the place in the user's code that makes it.
    """

    def __init__(
        self,
        graph: Graph | Callable[[], Graph],
        *,
        more: Callable[[str], Iterable[Case]] | None = None,
        locate: Locate | None = None,
        budget: int = BUDGET,
    ) -> None:
        self._graph = graph
        self.more = more
        self.locate = locate
        self._budget = budget
        self._probes: list[KeptProbe] = []
        self._last: Mapping[str, Array] = {}

    @cached_property
    def graph(self) -> Graph:
        return self._graph() if callable(self._graph) else self._graph

    def add(
        self,
        probe: str,
        reported: Mapping[str, Array],
        y: object,
        items: Sequence[Item],
        checks: Sequence[Check],
        given: Mapping[str, Array] | None = None,
        shares: Shares | None = None,
    ) -> None:
        """Remember one probe: what the candidate reports, the target, what is expected, and the verdicts.

        ``given`` are parameters and buffers, as far as they are not reported; ``shares`` see `KeptProbe`.
        """
        known = {i.quantity.name: i.isolated.value for i in items if i.isolated is not None}
        own = {n: a for n, a in reported.items() if n not in known or a.shape == known[n].shape}
        values = {**(given or {}), **known, **own}
        if isinstance(y, np.ndarray):
            values[TARGET] = y
        made = KeptProbe(
            name=probe,
            values=values,
            reported=reported,
            items={i.quantity.name: i for i in items},
            statuses={c.name: c.status for c in checks},
            before=self._last,
            shares=shares,
        )
        self._last = values
        self._probes.append(made)
        while len(self._probes) > 1 and sum(p.size for p in self._probes) > self._budget:
            right = next((p for p in self._probes if not p.wrong), None)
            self._probes.remove(right if right is not None else self._probes[-1])

    def misshapen(self, probe: str, arrays: Mapping[str, Array]) -> None:
        """Arrays of a probe that were not judged, because they do not have the shape that was asked for."""
        self._probes = [
            replace(
                p,
                reported={**p.reported, **arrays},
                statuses={**p.statuses, **dict.fromkeys(arrays, "mismatch")},
            )
            if p.name == probe and arrays
            else p
            for p in self._probes
        ]

    def cases(self, name: str) -> list[Case]:
        """One quantity on every probe that was kept."""
        made = [(probe, case) for probe in self._probes if (case := self._case(name, probe)) is not None]
        cases = [case for _, case in made]
        if not name.endswith(GRAD) or not any(probe.shares for probe, _ in made):
            return cases
        from ._case import SHARE
        from ._search import formula_of

        if formula_of(self.graph, cases) is not None:
            return cases  # nothing is to be asked of torch where every reader's share is known by its formula
        shares = [probe.shares(name) if probe.shares else {} for probe, _ in made]
        # a rounding reads, and gives nothing back: nobody leaves its share out
        telling = {reader for own in shares for reader, share in own.items() if share.any()}
        return [
            replace(
                case, values={**case.values, **{SHARE + reader: a for reader, a in own.items() if reader in telling}}
            )
            for case, own in zip(cases, shares, strict=True)
        ]

    def overwritten(self, name: str) -> tuple[str, str] | None:
        """What to say of a quantity, and why, where one array was used for two."""
        return overwritten(name, self._probes) or self.acquitted(name)

    def acquitted(self, name: str) -> tuple[str, str] | None:
        """The same, if it is right itself, and only what it was computed from or into was overwritten."""
        return acquitted(name, self._probes, lambda: self.graph)

    def _case(self, name: str, probe: KeptProbe) -> Case | None:
        from ._case import Case

        item, reported = probe.items.get(name), probe.reported.get(name)
        expected = (item.isolated or item.end_to_end) if item else None
        if item is None or reported is None or expected is None:
            return None
        excused = None
        if item.kinks is not None and reported.shape == expected.value.shape:
            excused = item.kinks.mask & item.kinks.valid(reported)
        same = reported.shape == expected.value.shape
        status = probe.statuses.get(name)
        return Case(
            probe=probe.name,
            quantity=name,
            values=probe.values,
            reported=reported,
            right=expected.value,
            allowed=np.broadcast_to(expected.allowed, expected.value.shape) if same else np.zeros(0),
            wrong=status in DIAGNOSED and not (same and status == "mismatch"),  # of dtype: its note says it all
            excused=excused if excused is not None and excused.any() else None,
            before=probe.before,
            mended={
                n: i.isolated.value
                for n, i in probe.items.items()
                if i.isolated is not None and probe.statuses.get(n) in DIAGNOSED
            },
            whole={n: i.end_to_end for n, i in probe.items.items() if i.end_to_end is not None},
        )


def attach(
    report: Report, evidence: Evidence, *, effort: Effort | None = None, progress: Progress | None = None
) -> Report:
    """The report with a diagnosis for each wrong quantity, and a finding that says it."""
    asked = _ASKED.get()
    effort, progress = effort or asked[0], progress or asked[1]
    wrong = [c for c in report.checks if c.status in DIAGNOSED]
    if not wrong:
        return report
    names = list(dict.fromkeys(c.name for c in wrong))[:MOST]
    diagnoses: dict[str, Diagnosis] = {}
    for done, name in enumerate(names):
        if progress:
            progress(name, done, len(names))
        try:
            found = _one(name, [c for c in wrong if c.name == name], evidence, effort)
        except Exception as error:  # noqa: BLE001  # whatever a tried mistake runs into, the verdict stands
            found = _unsearched(error)
        if found is not None:
            diagnoses[name] = found
    if progress:
        progress("", len(names), len(names))
    checks = tuple(
        replace(c, diagnosis=diagnoses[c.name]) if c.status in DIAGNOSED and c.name in diagnoses else c
        for c in report.checks
    )
    said = tuple(
        _finding(name, found, [c for c in wrong if c.name == name])
        for name, found in diagnoses.items()
        if found.confidence != "unexplained"
    )
    return replace(report, checks=checks, findings=(*report.findings, *said))


def _unsearched(error: Exception) -> Diagnosis:
    """The search itself failed, which says nothing of the candidate."""
    return Diagnosis(
        name="the search for the mistake failed",
        evidence=f"{type(error).__name__}: {error}; this is a bug in manual-bp, please report it",
        confidence="unexplained",
    )


def _one(name: str, checks: Sequence[Check], evidence: Evidence, effort: Effort | None) -> Diagnosis | None:
    from ._diagnose import diagnose

    location = evidence.locate(name) if evidence.locate else ""
    notes = [c.note for c in checks if "in place" in c.note and not (c.isolated and c.isolated.mismatched)]
    if len(notes) == len(checks):
        return Diagnosis(
            name=notes[0],
            identifier="in-place",
            evidence=f"on {len(notes)} probe{'s' if len(notes) > 1 else ''}: the array's bits before and after differ",
            confidence="certain",
            leftover=0.0,
            hint=hint_for("in-place"),
            location=location,
        )
    cases = evidence.cases(name)
    if not any(case.wrong for case in cases):
        return None
    told = evidence.overwritten(name)
    if told is not None:
        return Diagnosis(
            name=told[0],
            identifier="in-place",
            evidence=told[1],
            confidence="certain",
            leftover=0.0,
            hint=hint_for("in-place"),
            location=location,
        )
    more = evidence.more
    return diagnose(
        evidence.graph, cases, effort=effort, more=(lambda: more(name)) if more else None, location=location
    )


def _finding(name: str, found: Diagnosis, checks: Sequence[Check]) -> Finding:
    others = f", or {', or '.join(found.alternatives[:3])}" if found.alternatives else ""
    return Finding(
        kind="wrong",
        name=name,
        step=checks[0].step,
        text=f"{found.name}{others}: {found.evidence}",
        probes=tuple(dict.fromkeys(c.probe for c in checks)),
    )
