"""What is to be said of a candidate besides its numbers: arguments it changed, quantities it kept to itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from manual_bp.compare import Item
from manual_bp.report import Check, Finding
from manual_bp.trace import GRAD, Mutation, Trace
from manual_bp.verdict import with_mutations


def blame_mutation(
    checks: tuple[Check, ...], items: tuple[Item, ...], name: str, text: str, probe: str
) -> tuple[Check, ...]:
    """A changed argument is a wrong quantity, whether the candidate reported it or not."""
    if any(check.name == name for check in checks):
        return tuple(replace(c, status="wrong", note=text) if c.name == name else c for c in checks)
    item = next((item for item in items if item.quantity.name == name), None)
    if item is None:
        return with_mutations(checks, (Mutation(name, "forward", name),))
    value = item.isolated.value if item.isolated else np.zeros(())
    quantity = item.quantity
    blamed = Check(
        probe=probe,
        name=name,
        kind=quantity.kind,
        step=quantity.step,
        shape=value.shape,
        dtype=str(value.dtype),
        status="wrong",
        note=text,
    )
    return (blamed, *checks)


def coverage(items: tuple[Item, ...], trace: Trace, probe: str) -> list[Finding]:
    """What the candidate kept to itself."""
    own = [item.quantity for item in items if item.quantity.kind != "parameter" and item.quantity.name != "x"]
    silent = [q.name for q in own if q.name not in trace]
    findings = []
    if not any(name.endswith(GRAD) for name in trace):
        text = "the candidate reports no gradient at all: its backward pass was not judged"
        findings.append(Finding(kind="coverage", name="", step="", text=text, probes=(probe,)))
    if silent:
        shown = ", ".join(silent[:12]) + (f" and {len(silent) - 12} more" if len(silent) > 12 else "")
        text = (
            f"{len(own) - len(silent)} of {len(own)} quantities were reported; not judged by themselves, only as "
            f"part of what follows them: {shown}"
        )
        findings.append(Finding(kind="coverage", name="", step="", text=text, probes=(probe,)))
    return findings
