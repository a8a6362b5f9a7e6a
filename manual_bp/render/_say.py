"""What every view says of a report, in the same words: the verdict, the first wrong step, what is wrong where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from manual_bp.render import _text
from manual_bp.report import SEVERITY, Check, Comparison, Finding, Report, Status, StepInfo, worst_per_quantity

#: Symbol and word of a status; views add a colour.
SYMBOL: dict[Status, str] = {
    "pass": "✓", "wrong": "✗", "inherited": "↳", "kink": "∧",
    "missing": "?", "extra": "+", "mismatch": "≠", "nonfinite": "!",
}  # fmt: skip  # a table
WORD: dict[Status, str] = {status: "right" if status == "pass" else status for status in SEVERITY}
WORD["nonfinite"] = "not finite"

#: Statuses that say something of the quantity itself and not of an earlier one.
OWN_FAULT: frozenset[Status] = frozenset({"wrong", "nonfinite", "mismatch", "missing", "extra"})

_FINDING = {
    "wrong": "Wrong",
    "plumbing": "Plumbing",
    "mutation": "Mutation",
    "reference": "Reference",
    "coverage": "Coverage",
}


def not_right_alone(check: Check) -> bool:
    """Whether a quantity inherits its error though nothing says that it is right in itself: its note tells why."""
    alone = check.isolated
    return check.status == "inherited" and bool(check.note) and (alone is None or alone.mismatched > 0)


@dataclass(frozen=True)
class Story:
    """A report as it is told. Quantities are in execution order, each with its worst check over the probes."""

    report: Report

    @cached_property
    def quantities(self) -> tuple[Check, ...]:
        return worst_per_quantity(self.report)

    @cached_property
    def network(self) -> tuple[StepInfo, ...]:
        """The steps, their operations without what only repeats torch's defaults."""
        return tuple(replace(step, op=_text.operation(step.op)) for step in self.report.steps)

    @cached_property
    def steps(self) -> dict[str, StepInfo]:
        return {step.name: step for step in self.network}

    @cached_property
    def culprits(self) -> list[Check]:
        """Quantities that are wrong themselves, the first wrong one first."""
        faults = OWN_FAULT | {"kink"} if self.report.strict_kinks else OWN_FAULT
        own = [check for check in self.quantities if check.status in faults]
        return sorted(own, key=lambda check: check.name != self.report.first_wrong)

    @cached_property
    def first(self) -> Check | None:
        """The first wrong quantity, if any quantity is wrong."""
        named = (check for check in self.quantities if check.name == self.report.first_wrong)
        return next(named, self.culprits[0] if self.culprits else None)

    @cached_property
    def inherited(self) -> list[Check]:
        return [check for check in self.quantities if check.status == "inherited"]

    @cached_property
    def kinks(self) -> list[Check]:
        return [check for check in self.quantities if check.status == "kink"]

    @cached_property
    def counts(self) -> dict[Status, int]:
        """How many quantities (not checks) have each status that occurs, the worst first."""
        found = [check.status for check in self.quantities]
        return {status: found.count(status) for status in SEVERITY if status in found}

    @property
    def symbol(self) -> str:
        return SYMBOL["pass" if self.report.ok else "wrong"]

    @property
    def word(self) -> str:
        return ("RIGHT" if self.report.partial or not self.quantities else "ALL RIGHT") if self.report.ok else "WRONG"

    @property
    def verdict(self) -> str:
        """One sentence after the word: what came out."""
        report, total = self.report, len(self.quantities)
        name = report.network
        if not total:
            return f"{name}: nothing was compared"
        partly = " of those reported" if report.partial else ""
        if report.ok:
            what = f"all {_text.count(total, 'quantity', 'quantities')}{partly} agree with {self.reference}"
            many = self.counts.get("kink", 0)
            verb = "differs" if many == 1 else "differ"
            kinks = f"; {many} {verb} only where the derivative is a matter of choice" if many else ""
            return f"{name}: {what}{kinks}"
        if not self.culprits:
            return f"{name}: {self._without_culprit()}"
        own = len(self.culprits)
        first = f"first {self.culprits[0].name}" if own > 1 else self.culprits[0].name
        rest = f"; {len(self.inherited)} more inherited it" if self.inherited else ""
        what = "missing" if all(check.status == "missing" for check in self.culprits) else "wrong"
        wrong = f"{own} of {_text.count(total, 'quantity', 'quantities')} {'is' if own == 1 else 'are'} {what}"
        return f"{name}: {wrong} ({first}){rest}"

    def _without_culprit(self) -> str:
        texts = [finding.text for finding in self.report.findings] or ["the whole is not"]
        return f"each step is right by itself, but {texts[0]}"

    @property
    def reference(self) -> str:
        return f"torch {self.report.environment.get('torch') or '(version unknown)'}"

    @property
    def setting(self) -> list[str]:
        """What was compared, fact by fact."""
        report = self.report
        probes = [probe.name for probe in report.probes] or list(dict.fromkeys(check.probe for check in report.checks))
        elements = sum(found.elements for check in report.checks if (found := comparison(check)))
        return [
            *([report.title] if report.title not in ("", report.network) else []),
            report.dtype,
            f"seed {report.seed}",
            f"{_text.count(len(probes), 'probe')} ({_text.listed(probes, 4)})" if probes else "no probe",
            f"{_text.count(len(self.quantities), 'quantity', 'quantities')}, {_text.count(elements, 'element')}",
            f"against {self.reference}",
        ]

    def of(self, name: str) -> list[Check]:
        """The checks of a quantity, one a probe."""
        return self._by_name.get(name, [])

    def where_seen(self, check: Check) -> str:
        """``on both probes``, ``on 1 of 3 probes (ties)``; empty when there was only one probe."""
        checks = self.of(check.name)
        seen = [c.probe for c in checks if c.status == check.status]
        if len(checks) < 2:
            return ""
        if len(seen) == len(checks):
            return "on both probes" if len(seen) == 2 else f"on all {len(seen)} probes"
        return f"on {len(seen)} of {len(checks)} probes ({_text.listed(seen, 4)})"

    def step_title(self, check: Check) -> str:
        """``a1 = ReLU(), backward pass``; for a sum of shares, whose they are."""
        if readers := self.readers(check):
            return f"the gradient of {_tensor(check)}, the sum of what {_text.both(readers)} send back"
        step = self.steps.get(check.step)
        if step and step.role == "input" and check.kind == "value":
            return f"the input {check.step}"
        name = f"{check.step} = {step.op}" if step and step.op and step.role != "input" else check.step
        return ", ".join(filter(None, [name, phase(check)]))

    def readers(self, check: Check) -> list[str]:
        """The steps that send back a share of this gradient, where there are several; none of them made it alone."""
        if check.kind != "gradient":
            return []
        found = [step.name for step in self.network if _tensor(check) in step.inputs]
        return found if len(found) > 1 else []

    def changed(self, check: Check) -> bool:
        """Whether it is wrong because the candidate wrote into what it was given."""
        told = (f.text for f in self.report.findings if f.kind == "mutation" and f.name == check.name)
        return check.status == "wrong" and check.note in told

    def shape(self, check: Check) -> str:
        """Its shape, with N for a batch that differs from probe to probe."""
        return _text.common_shape([check.shape, *(other.shape for other in self._by_name[check.name])])

    @cached_property
    def _by_name(self) -> dict[str, list[Check]]:
        found: dict[str, list[Check]] = {}
        for check in self.report.checks:
            found.setdefault(check.name, []).append(check)
        return found

    def what_is_off(self, check: Check) -> str:
        """One sentence on a quantity that is not right, without the reason."""
        found, seen = comparison(check), self.where_seen(check)
        if check.status == "mismatch" and check.note:
            return " ".join(
                filter(None, [check.name, check.note, seen])
            )  # the note reads "has shape ...", "is float32 ..."
        if found is None or check.status in _BARE:
            what = "was changed in place" if self.changed(check) else f"is {_BARE.get(check.status, check.status)}"
            return " ".join(filter(None, [f"{check.name} {what}", seen])) + _note(check)
        share = f"{found.mismatched:,} of {_text.count(found.elements, 'element')}".replace(",", " ")
        if check.status == "nonfinite":
            said = f": {check.note}" if check.note else " is not finite where it should be"
            return f"{check.name}{said}{', ' if check.note and seen else ' '}{seen}".rstrip()
        if check.kink and not found.mismatched:
            many = (
                f"{check.name} differs in {_text.count(check.kink.elements, 'element')} at points without a derivative"
            )
            return f"{many}{' ' + seen if seen else ''}{_note(check)}"
        size = _text.error(found.max_abs_error)
        return " ".join(filter(None, [f"{check.name} is off in {share}", seen])) + f", by up to {size}{_note(check)}"

    @property
    def power(self) -> str:
        """What this run could have seen, in one line; empty when nobody measured it."""
        power = self.report.power
        if power is None:
            return ""
        if power.text:
            return power.text
        missed = f"; none shows {_text.listed(power.unseen, 5)}" if power.unseen else ""
        best = "; alone: " + _text.listed([f"{k} {v}" for k, v in power.by_probe.items()], 6) if power.by_probe else ""
        origin = f" ({power.origin})" if power.origin else ""
        return f"these probes reveal {power.revealed} of {power.planted} planted mistakes{origin}{best}{missed}"

    @property
    def blind(self) -> list[str]:
        """What no probe could have shown; what another probe shows is only counted."""
        seen = Counter(text for probe in self.report.probes for text in dict.fromkeys(probe.blind))
        total = len(self.report.probes)
        always = [text for text, count in seen.items() if count == total]
        alike: dict[str, list[str]] = {}  # what is said of several steps is said once: its first word is the name
        for text in always:
            alike.setdefault(text.partition(" ")[2], []).append(text.partition(" ")[0])
        told = []
        for said, names in alike.items():
            also = f"likewise {_text.listed([n.strip(':') for n in names[1:]], 5)}" if names[1:] else ""
            aside = "; ".join(part for part in ("on every probe" if total > 1 else "", also) if part)
            told.append(f"{names[0]} {said}{f' ({aside})' if aside else ''}")
        if others := len(seen) - len(always):
            each = "a single probe, covered" if others == 1 else "single probes, each covered"
            told.append(f"{_text.count(others, 'blind spot')} of {each} by another probe")
        return told

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """Kind in words and finding; without those that only repeat a wrong quantity."""
        told = {check.name: check.note for check in self.culprits}
        found = [f for f in self.report.findings if not (f.kind in ("wrong", "coverage") and f.name in told)]
        return [(_FINDING[f.kind], f) for f in found if f.text != told.get(f.name, "")]

    def about(self, check: Check) -> list[tuple[str, Finding]]:
        """The findings that say why this quantity is not right: its own, and an accident of the step that makes it."""
        accidents = ("wrong", "mutation", "plumbing")
        return [
            (kind, found)
            for kind, found in self.findings
            if found.name == check.name or (found.kind in accidents and found.step == check.step)
        ]


#: What the note of an extra quantity begins with, and `_BARE` says already.
_UNKNOWN = "the reference has no such quantity"

_BARE = {"missing": "missing", "extra": "unknown to the reference", "mismatch": "of the wrong shape or dtype"}


def comparison(check: Check) -> Comparison | None:
    """The comparison that decided: the step alone, unless only the whole pass is off (a step fed the wrong tensor)."""
    if check.status == "wrong" and check.isolated and not check.isolated.mismatched and not check.kink:
        return check.end_to_end or check.isolated
    return check.isolated or check.end_to_end


def phase(check: Check) -> str:
    """``forward pass``, ``backward pass``, ``update`` or ``parameters``."""
    if check.status == "extra":
        return "not in the network"
    words = {"value": "forward pass", "update": "update", "parameter": "parameters"}
    return words.get(check.kind, "backward pass")


def part(check: Check) -> str:
    """The part of the pass that a quantity is listed under: parameters belong to the forward pass."""
    return "forward pass" if check.kind == "parameter" and check.status != "extra" else phase(check)


def cause(check: Check) -> str:
    """The diagnosis in words with how sure it is; empty when there is none."""
    found = check.diagnosis
    if found is None:
        return ""
    if found.confidence == "ambiguous":
        others = f", or {_text.listed(found.alternatives, 4)}" if found.alternatives else ""
        return f"{found.name}{others} (each explains it equally well)"
    if found.confidence == "unexplained":
        return found.name + (f": {found.residual}" if found.residual else "")
    return f"{found.name} (certain)"


def tolerance(found: Comparison) -> str:
    """The tolerance that would have passed."""
    atol = f"atol={_text.error(found.passing_atol)}" if _finite(found.passing_atol) else ""
    rtol = f"rtol={_text.error(found.passing_rtol)}" if _finite(found.passing_rtol) else ""
    if not atol and not rtol:
        return "none: no tolerance accepts it"
    return f"{atol} alone, or {rtol} alone" if atol and rtol else f"{atol or rtol} alone"


def referee(check: Check) -> str:
    """Which side a higher precision blames; empty when none was asked."""
    judge = check.referee
    if judge is None:
        return ""
    blame = {
        "candidate": "the candidate is the one that is off",
        "reference": "torch is the one that is off",
        "both": "both are off",
        "neither": "neither is off",
    }[judge.fault]
    sides = f"candidate at {_text.error(judge.candidate)}, torch at {_text.error(judge.reference)} of the bound"
    return f"{blame} ({judge.precision}: {sides})"


def _tensor(check: Check) -> str:
    return check.name.removesuffix(".grad")


def _note(check: Check) -> str:
    """What is to be said of a quantity besides; nothing that its diagnosis says in the same words."""
    if check.status == "extra":
        return check.note.removeprefix(_UNKNOWN)
    said = check.diagnosis is not None and check.diagnosis.name == check.note
    return f": {check.note}" if check.note and not said else ""


def _finite(number: float) -> bool:
    return number == number and abs(number) != float("inf")
