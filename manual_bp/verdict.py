"""From the checks of all probes to one verdict: the first wrong quantity, counts, findings."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from manual_bp import __version__
from manual_bp.compare import settle
from manual_bp.report import (
    HARMLESS,
    Check,
    Finding,
    Power,
    ProbeInfo,
    Referee,
    Report,
    StepInfo,
    count_statuses,
    worst_per_quantity,
)
from manual_bp.trace import GRAD, Failure, Mutation

#: Statuses that begin a mistake (an inherited difference never does).
FAULTY = frozenset({"wrong", "nonfinite", "mismatch", "missing"})


def make_report(
    *,
    network: str,
    dtype: str,
    seed: int,
    checks: Iterable[Check],
    steps: tuple[StepInfo, ...],
    probes: tuple[ProbeInfo, ...],
    findings: tuple[Finding, ...] = (),
    power: Power | None = None,
    notes: tuple[str, ...] = (),
    title: str = "",
    command: str = "",
    strict_kinks: bool = False,
    partial: bool = False,
    torch_version: str | None = None,
) -> Report:
    """Assemble a report; its verdict is "fail" if any check is neither right nor a kink."""
    checks = tuple(checks)
    fail = any(check.status not in HARMLESS for check in checks)
    report = Report(
        network=network,
        dtype=dtype,
        seed=seed,
        verdict="fail" if fail else "pass",
        first_wrong=None,
        environment=environment(torch_version),
        counts=count_statuses(checks),
        checks=checks,
        steps=steps,
        probes=probes,
        findings=findings,
        power=power,
        notes=notes,
        title=title,
        command=command,
        strict_kinks=strict_kinks,
        partial=partial,
    )
    return without_unseen_pictures(replace(report, first_wrong=first_wrong(report)))


def without_unseen_pictures(report: Report) -> Report:
    """The report with the pictures that a view shows: of what is wrong itself, and of each quantity's worst probe.

    A large network has hundreds of quantities times probes, nearly all of them right: their pictures would be most of
    the record.
    """
    shown = {id(check) for check in worst_per_quantity(report)}
    checks = tuple(
        check if check.picture is None or check.status in FAULTY or id(check) in shown else replace(check, picture=None)
        for check in report.checks
    )
    return replace(report, checks=checks)


def first_wrong(report: Report) -> str | None:
    """The first quantity in execution order that is wrong in itself; if there is none, one that is off end to end."""
    rows = worst_per_quantity(report)
    for statuses in (FAULTY, {"extra", "inherited"}):
        for check in rows:
            if check.status in statuses:
                return check.name
    return None


def environment(torch_version: str | None = None) -> Mapping[str, str | None]:
    """Versions that the numbers depend on."""
    import numpy as np

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch_version,
        "manual_bp": __version__,
    }


def with_mutations(checks: tuple[Check, ...], mutations: tuple[Mutation, ...]) -> tuple[Check, ...]:
    """Mark what a step produces as wrong where the step changed an array that it was given.

    On a branch a step may produce nothing alone, only a share of its input's gradient: then that one is marked.
    """
    marked = list(checks)
    for mutation in mutations:
        backward = mutation.phase == "backward"
        text = f"{mutation.step} changed {mutation.argument} in place in its {mutation.phase} pass"
        shares = {name + GRAD for name in mutation.inputs} if backward else set()
        mine = [c.step == mutation.step and c.name.endswith(GRAD) == backward and c.kind != "parameter" for c in marked]
        touched = mine if any(mine) else [c.name in shares for c in marked]
        if any(touched):
            first = touched.index(True)
            marked[first] = replace(marked[first], status="wrong", note=text)
    return tuple(marked)


def mutation_findings(mutations: tuple[Mutation, ...], probe: str) -> list[Finding]:
    """One finding for each step that changed its arguments."""
    return [
        Finding(
            kind="mutation",
            name=m.step if m.phase == "forward" else m.step + GRAD,
            step=m.step,
            text=f"{m.step} changes {m.argument} in place in its {m.phase} pass; later readers see other numbers",
            probes=(probe,),
        )
        for m in mutations
    ]


def refereed(
    checks: Sequence[Check], verdicts: Mapping[str, Referee], probe: str
) -> tuple[tuple[Check, ...], list[Finding]]:
    """The checks with what the referee says of them: what is the reference's fault is not held against the candidate.

    Nor is what the reference made of its fault afterwards: where every step is right in itself, nothing is inherited.
    """
    judged, findings = [], []
    for check in checks:
        verdict = verdicts.get(check.name)
        check = replace(check, referee=verdict) if verdict else check
        if verdict is not None and verdict.fault == "reference" and check.status == "wrong":
            text = (
                f"torch's own {check.name} is {verdict.reference:.3g} bounds from the {verdict.precision} result, "
                f"the candidate's {verdict.candidate:.3g}: the reference is at fault here"
            )
            check = replace(check, status="pass", note=text)
            findings.append(Finding(kind="reference", name=check.name, step=check.step, text=text, probes=(probe,)))
        judged.append(check)
    if findings:
        judged = settle(judged, because=f"the reference is at fault at {findings[0].name}, and this follows from it")
    return tuple(judged), findings


def failure_finding(failure: Failure, probe: str) -> Finding:
    """A step that raised."""
    return Finding(
        kind="wrong",
        name=failure.step if failure.phase == "forward" else failure.step + GRAD,
        step=failure.step,
        text=f"the {failure.phase} pass of {failure.step} raised {failure.error}",
        probes=(probe,),
    )


def merge_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings that say the same of several probes, said once."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = (finding.kind, finding.name, finding.text)
        known = merged.get(key)
        merged[key] = replace(known, probes=(*known.probes, *finding.probes)) if known else finding
    return tuple(merged.values())
