"""Whether two records say the same but for rounding and versions, which differ from machine to machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from manual_bp.report import Check, Comparison, Plane, Report

#: Relative difference of numbers that rounding alone sets apart.
CLOSE = 1e-6


def differences(one: Report, other: Report) -> list[str]:
    """What two reports say differently, each as one sentence."""
    return list(_differences(said(one), said(other), "the report"))


def said(report: Report) -> dict[str, Any]:
    """What a report says for sure: no versions, of what is right no errors, of what is wrong no order among equals."""
    return {
        "network": (report.network, report.title, report.dtype, report.seed),
        "verdict": (report.verdict, report.first_wrong, dict(report.counts)),
        "steps": report.steps,
        "probes": report.probes,
        "findings": report.findings,
        "notes": report.notes,
        "lesson": [
            (step.title, step.equation, step.prose, [(w.label, w.result, w.note) for w in step.worked])
            for step in report.lesson
        ],
        "checks": {f"{check.probe}/{check.name}": _check(check) for check in report.checks},
    }


def _check(check: Check) -> dict[str, Any]:
    found = check.diagnosis
    return {
        "what": (check.kind, check.step, check.shape, check.dtype, check.status, check.symbol, check.equation),
        "rule": (check.rule, check.equation_latex, check.source),
        "isolated": _comparison(check.isolated),
        "end_to_end": _comparison(check.end_to_end),
        "kink": check.kink,
        "diagnosis": found and (found.name, found.identifier, found.confidence, found.hint, found.location),
        "picture": sorted(map(_plane, check.picture.planes)) if check.picture else None,
    }


def _comparison(found: Comparison | None) -> Any:
    if found is None or not found.mismatched:
        return found and found.elements
    return found.elements, found.mismatched, found.max_abs_error, found.used


def _plane(plane: Plane) -> tuple[Any, ...]:
    return plane.index, plane.rows, plane.cols, plane.block, plane.candidate, plane.reference


def _differences(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, float) and isinstance(other, float):
        same = math.isclose(one, other, rel_tol=CLOSE, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
        if not same:
            yield f"{where}: {one!r} and {other!r}"
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            yield from _differences(one.get(key), other.get(key), f"{where}, {key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _differences(a, b, f"{where}[{i}]")
    elif one != other:
        yield f"{where}: {one!r} and {other!r}"
