"""The record of one comparison: frozen dataclasses, and the JSON that other programs read.

Every view of a report (terminal, HTML, Markdown, JUnit, the JSON itself) is a pure function of
:class:`Report`. The JSON is strict: NaN and infinities are written as the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"``. Fields are added, never renamed; ``schema_version`` grows only
when a reader of the old version would misread the new one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from manual_bp.report_lesson import LessonStep

SCHEMA_VERSION = 1

Status = Literal["pass", "wrong", "inherited", "kink", "missing", "extra", "mismatch", "nonfinite"]
Kind = Literal["value", "gradient", "parameter", "parameter_gradient", "update"]
Verdict = Literal["pass", "fail"]

#: From the worst to the best; the first that occurs over the probes is the one a summary row shows.
SEVERITY: tuple[Status, ...] = ("wrong", "nonfinite", "mismatch", "missing", "extra", "inherited", "kink", "pass")

#: Statuses with which a report's verdict is "pass".
HARMLESS: frozenset[Status] = frozenset({"pass", "kink"})


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element of a quantity: where it is, what both sides say, how far they may be apart."""

    index: tuple[int, ...]
    candidate: float
    reference: float
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity held against one expectation (isolated, or end to end).

    Attributes
    ----------
    max_abs_error
        Largest |candidate - reference|.
    used
        Largest error / allowed; at most 1 when all is well, so 0.3 leaves 70 % headroom.
    mismatched, elements
        How many elements are further apart than allowed, and how many there are.
    worst_index, candidate, reference, allowed
        The element with the largest ``used`` and its numbers (None and NaN when there is no element).
    passing_atol, passing_rtol
        The smallest absolute (relative) tolerance alone that would have let every element pass.
    worst
        The worst elements outside the bound, at most five, worst first.
    """

    max_abs_error: float
    used: float
    mismatched: int
    elements: int
    worst_index: tuple[int, ...] | None
    candidate: float
    reference: float
    allowed: float
    passing_atol: float
    passing_rtol: float
    worst: tuple[Element, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A picture of one two-dimensional slice; a cell larger than one element shows its worst element.

    ``candidate``, ``reference`` and ``used`` hold ``rows * cols`` numbers, row by row.
    """

    label: str
    index: tuple[int, ...]
    rows: int
    cols: int
    block: tuple[int, int]
    candidate: tuple[float, ...]
    reference: tuple[float, ...]
    used: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Where the errors of a quantity sit: some of its planes (the worst one first), at most 16 x 16 cells each.

    ``against`` says which comparison it shows; ``planes_total`` how many planes the quantity has.
    """

    against: Literal["isolated", "end_to_end"]
    planes_total: int
    planes: tuple[Plane, ...]


@dataclass(frozen=True, kw_only=True)
class Kink:
    """Elements at a point without a derivative, where another valid subgradient was reported."""

    elements: int
    indices: tuple[tuple[int, ...], ...]
    convention: str


@dataclass(frozen=True, kw_only=True)
class Referee:
    """Distance of both sides from a higher-precision result, in units of the one-sided bound."""

    precision: str
    candidate: float
    reference: float
    fault: Literal["candidate", "reference", "both", "neither"]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The mistake that explains a wrong quantity on every probe, or the word that none does.

    ``name`` is in plain words; ``identifier`` stable for programs ("kernel-not-rotated"); ``confidence`` one of
    "certain" (explains all, nothing else does), "ambiguous" (several explain equally: ``alternatives``),
    "unexplained" (``residual`` says what the difference looks like).
    """

    name: str
    evidence: str
    confidence: Literal["certain", "ambiguous", "unexplained"]
    identifier: str = ""
    leftover: float = float("nan")
    hint: str = ""
    location: str = ""
    alternatives: tuple[str, ...] = ()
    residual: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """The judgement of one quantity on one probe.

    Attributes
    ----------
    probe, name, kind, step
        ``step`` is the operation that produces the quantity (for a gradient: the one whose backward pass does).
    symbol, equation, equation_latex, source
        How it is written, the formula it must satisfy (plain text and LaTeX), and where that stands.
    status, rule, note
        ``rule`` is "certified: ..." or "calibrated: ..."; ``note`` one sentence for a reader, where there is
        one to say.
    """

    probe: str
    name: str
    kind: Kind
    step: str
    shape: tuple[int, ...]
    dtype: str
    status: Status
    rule: str = ""
    symbol: str = ""
    equation: str = ""
    equation_latex: str = ""
    source: str = ""
    note: str = ""
    isolated: Comparison | None = None
    end_to_end: Comparison | None = None
    kink: Kink | None = None
    referee: Referee | None = None
    diagnosis: Diagnosis | None = None
    picture: Picture | None = None


@dataclass(frozen=True, kw_only=True)
class StepInfo:
    """One node of the network's graph: ``inputs`` are names of steps (or ``x``), ``op`` reads like torch's repr."""

    name: str
    op: str
    inputs: tuple[str, ...]
    role: Literal["input", "layer", "loss", "update"] = "layer"
    shape: tuple[int, ...] = ()
    params: tuple[str, ...] = ()
    symbol: str = ""
    equation: str = ""
    equation_latex: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class ProbeInfo:
    """One set of weights, inputs and targets; ``blind`` lists what it could not have shown, and why."""

    name: str
    description: str
    batch: int
    seed: int
    blind: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Power:
    """What this run could have seen: planted mistakes that its probes reveal.

    ``by_probe`` counts what each probe reveals alone; ``unseen`` names the classes of mistakes none reveals;
    ``origin`` says how it was computed.
    """

    planted: int
    revealed: int
    by_probe: Mapping[str, int] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    origin: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to say that is more than one quantity's number.

    ``kind``: "wrong", "plumbing" (a right step that was fed the wrong tensor), "mutation" (inputs changed in place),
    "reference" (the reference left its own bound), "coverage" (not reported).
    """

    kind: Literal["wrong", "plumbing", "mutation", "reference", "coverage"]
    name: str
    step: str
    text: str
    probes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one comparison found; see the module for the JSON."""

    network: str
    dtype: str
    seed: int
    verdict: Verdict
    first_wrong: str | None
    environment: Mapping[str, str | None]
    counts: Mapping[str, int]
    checks: tuple[Check, ...]
    steps: tuple[StepInfo, ...] = ()
    probes: tuple[ProbeInfo, ...] = ()
    findings: tuple[Finding, ...] = ()
    power: Power | None = None
    notes: tuple[str, ...] = ()
    lesson: tuple[LessonStep, ...] = ()
    title: str = ""
    command: str = ""
    strict_kinks: bool = False
    partial: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def ok(self) -> bool:
        """Whether every quantity that was compared is right (a kink counts as right)."""
        return self.verdict == "pass"

    def raise_if_wrong(self) -> None:
        """Raise AssertionError with the readable report, unless everything is right."""
        if not self.ok:
            raise AssertionError("\n" + str(self))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report; the path's suffix says the format (.json, .html, .md, .xml, .txt, .log)."""
        from manual_bp.render import save

        return save(self, path)

    def __str__(self) -> str:
        from manual_bp.render import render

        return render(self, "full", width=120)

    def _repr_html_(self) -> str:
        from manual_bp.render.html import notebook

        return notebook(self)


def worst_per_quantity(report: Report) -> tuple[Check, ...]:
    """One check a quantity, the worst over the probes, in execution order.

    Worst is the most severe status. Of several right checks it is the one that used most of what is allowed; of
    several wrong ones the first, whose numbers are the most natural: the real data come first.
    """
    order: list[str] = []
    best: dict[str, Check] = {}
    for check in report.checks:
        known = best.get(check.name)
        if known is None:
            order.append(check.name)
            best[check.name] = check
        elif _badness(check) > _badness(known):
            best[check.name] = check
    return tuple(best[name] for name in order)


def _badness(check: Check) -> tuple[int, float]:
    comparison = check.isolated or check.end_to_end
    used = comparison.used if comparison and check.status in HARMLESS else 0.0
    return -SEVERITY.index(check.status), used if used == used else float("inf")


def count_statuses(checks: tuple[Check, ...]) -> dict[str, int]:
    """How often each status occurs, all eight of them, also those that do not occur."""
    return {status: sum(check.status == status for check in checks) for status in reversed(SEVERITY)}
