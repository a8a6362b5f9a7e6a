"""From a report to one that names the mistakes, and acquits what only an operand that was overwritten makes wrong."""

from __future__ import annotations

from dataclasses import replace

from manual_bp.diagnose import Evidence, attach
from manual_bp.report import Report, count_statuses
from manual_bp.verdict import first_wrong


def with_causes(report: Report, evidence: Evidence | None) -> Report:
    """The report with the mistakes named, where they can be."""
    return report if evidence is None else attach(_without_acquitted(report, evidence), evidence)


def _without_acquitted(report: Report, evidence: Evidence) -> Report:
    """The report in which what is right itself, but for an operand that was overwritten later, inherits that."""
    wrong = {check.name for check in report.checks if check.status == "wrong"}
    told = {name: found[0] for name in wrong if (found := evidence.acquitted(name)) is not None}
    notes = {name: f"is right over the whole pass: {text.partition(': ')[2]}" for name, text in told.items()}
    if not notes:
        return report
    checks = tuple(
        replace(c, status="inherited", note=notes[c.name]) if c.status == "wrong" and c.name in notes else c
        for c in report.checks
    )
    changed = replace(report, checks=checks, counts=count_statuses(checks))
    return replace(changed, first_wrong=first_wrong(changed))
