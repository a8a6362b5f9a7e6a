"""Layers of a chain that work on their input in place: whoever keeps that array has other numbers from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from manual_bp.report import Check, Diagnosis, Finding, Report, count_statuses
from manual_bp.trace import Array
from manual_bp.verdict import first_wrong, merge_findings


@dataclass
class InPlace:
    """What was seen to be changed while a chain ran.

    Attributes
    ----------
    seen
        By the name of the output of a layer that changed its input: what to say of it.
    """

    seen: dict[str, str] = field(default_factory=dict)

    def look(self, before: Array, after: Array, name: str, layer: str) -> None:
        """Compare a layer's input before its forward pass with the same array after it."""
        if not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
            self.seen[name] = f"{layer} changes its input in place; what is kept of it is no longer what it was"

    def blamed(self, report: Report, places: Callable[[str], str]) -> Report:
        """The report in which the output of each such layer is wrong, and nothing else because of it."""
        if not any(check.name in self.seen for check in report.checks):
            return report
        checks = tuple(_marked(check, self.seen, places) for check in report.checks)
        probes = tuple(dict.fromkeys(check.probe for check in checks))
        found = [Finding(kind="mutation", name=n, step=n, text=text, probes=probes) for n, text in self.seen.items()]
        findings = merge_findings((*report.findings, *found))
        changed = replace(report, verdict="fail", checks=checks, findings=findings, counts=count_statuses(checks))
        return replace(changed, first_wrong=first_wrong(changed))


def _marked(check: Check, seen: Mapping[str, str], places: Callable[[str], str]) -> Check:
    text = seen.get(check.name)
    if text is None or check.status not in ("pass", "kink", "inherited"):
        return check  # where its numbers are wrong as well, they are what is to be told
    found = Diagnosis(
        name=text,
        identifier="in-place",
        evidence="the bits of its input before and after its forward pass differ",
        confidence="certain",
        leftover=0.0,
        hint="work on a copy: x = x * mask, not x *= mask",
        location=places(check.name),
    )
    return replace(check, status="wrong", note=text, diagnosis=found, picture=None)
