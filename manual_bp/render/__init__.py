"""The views of a report, each a pure function of it, each imported only when it is asked for.

``render(report, "full")`` is the text for a terminal; ``FORMATS`` lists the others. What a stream can show (its width,
colours, characters) is :func:`look_for`'s to say, so that the same report and the same look give the same text.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from manual_bp.errors import ManualBPError
from manual_bp.render._look import Look, look_for

if TYPE_CHECKING:
    from manual_bp.report import Report

__all__ = ["FORMATS", "Look", "format_for", "look_for", "render", "render_diff", "save"]

#: Every format, and what it is for.
FORMATS = {
    "full": "the whole report, for a terminal",
    "concise": "one line a finding, for editors and logs",
    "json": "the record itself, for programs",
    "markdown": "a pull-request comment or CI summary",
    "junit": "JUnit XML, one test case a quantity",
    "html": "one self-contained file for a browser",
}

_SUFFIXES = {
    ".txt": "full",
    ".log": "concise",
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
    ".xml": "junit",
    ".html": "html",
    ".htm": "html",
}


def render(report: Report, format: str, *, width: int = 160, color: bool = False, unicode: bool = True) -> str:
    """The report as text in one of :data:`FORMATS`, ending in a line break.

    ``width`` (columns), ``color`` (ANSI) and ``unicode`` (False: ASCII only) matter to ``full`` and ``concise``.

    Raises
    ------
    ManualBPError
        When there is no such format.
    """
    look = Look(width=width, color=color, unicode=unicode)
    return _view(format)(report, look)


def render_diff(old: Report, new: Report, *, width: int = 160, color: bool = False, unicode: bool = True) -> str:
    """What got better, what worse and what is new from ``old`` to ``new``, for a terminal."""
    from manual_bp.render.diff import render as render_changes
    from manual_bp.report_diff import compare_reports

    return render_changes(compare_reports(old, new), Look(width=width, color=color, unicode=unicode))


def format_for(path: str | os.PathLike[str]) -> str:
    """The format that a file's name asks for (``report.md``: markdown); ManualBPError when none does."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        known = ", ".join(f"{ending} ({name})" for ending, name in _SUFFIXES.items())
        raise ManualBPError(f"the name {path} does not say which format to write", hint=f"end it in one of {known}")
    return _SUFFIXES[suffix]


def save(report: Report, path: str | os.PathLike[str], *, format: str | None = None) -> Path:
    """Write the report to a file, in the format its name asks for unless ``format`` is given; returns the path."""
    from manual_bp.files import write_text

    return write_text(path, render(report, format or format_for(path)))


def _view(format: str) -> Callable[[Report, Look], str]:
    if format not in FORMATS:
        raise ManualBPError(f"there is no format {format!r}", hint="choose one of " + ", ".join(FORMATS))
    module = import_module("manual_bp.render." + {"full": "terminal"}.get(format, format))
    if format in ("full", "concise"):
        view: Callable[[Report, Look], str] = module.render
        return view
    alone: Callable[[Report], str] = module.render
    return lambda report, look: alone(report)
