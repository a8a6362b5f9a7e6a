"""The record itself, for programs; its JSON Schema is ``report.schema.json`` beside this file."""

from __future__ import annotations

from manual_bp import report_json
from manual_bp.report import Report


def render(report: Report) -> str:
    """Strict JSON; see :mod:`manual_bp.report_json`."""
    return report_json.dumps(report)
