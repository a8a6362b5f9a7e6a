"""The whole report, for a terminal."""
from __future__ import annotations
from manual_bp.render._look import Look
from manual_bp.report import Report


def render(report: Report, look: Look) -> str:
    """A placeholder until the real view arrives."""
    return f"{report.verdict} {report.network} first wrong: {report.first_wrong}\n"
