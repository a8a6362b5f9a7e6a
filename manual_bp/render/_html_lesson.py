"""The lesson as a chapter of the page: each equation, and the same equation in the run's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from manual_bp.render import _text
from manual_bp.render._html_words import FormulaView
from manual_bp.render._mathml import formula
from manual_bp.report_lesson import Grid, LessonStep, Worked

PHASES = {
    "question": "The question",
    "forward": "Forward",
    "backward": "Backward",
    "update": "Update",
    "answer": "The answer",
}


@dataclass(frozen=True, kw_only=True)
class CellView:
    """One number of a grid."""

    text: str
    marked: bool


@dataclass(frozen=True, kw_only=True)
class GridView:
    """A small table of numbers."""

    title: str
    rows: tuple[tuple[CellView, ...], ...]


@dataclass(frozen=True, kw_only=True)
class WorkedView:
    """One element, computed: ``label = expression = result``."""

    label: str
    expression: str
    result: str
    grids: tuple[GridView, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class LessonView:
    """One step of the derivation; ``phase`` where a new part of it begins."""

    number: int
    phase: str
    title: str
    what: str
    formula: FormulaView | None
    prose: tuple[str, ...]
    worked: tuple[WorkedView, ...]


def chapter(lesson: Sequence[LessonStep]) -> tuple[LessonView, ...]:
    """The steps of a lesson as the template places them."""
    phases = ["", *(step.phase for step in lesson)]
    return tuple(
        _step(number, step, "" if step.phase == before else PHASES[step.phase])
        for number, (step, before) in enumerate(zip(lesson, phases, strict=False), start=1)
    )


def _step(number: int, step: LessonStep, phase: str) -> LessonView:
    view = None
    if step.equation or step.equation_latex:
        view = FormulaView(markup=Markup(formula(step.equation_latex, step.equation)), source=step.source)
    named = f"{step.symbol} ({step.name})" if step.symbol not in ("", step.name) else step.name
    return LessonView(
        number=number,
        phase=phase,
        title=step.title,
        what=f"{named}, {_text.shape(step.shape)}" if step.name else "",
        formula=view,
        prose=step.prose,
        worked=tuple(map(_worked, step.worked)),
    )


def _worked(worked: Worked) -> WorkedView:
    result = _text.value(worked.result + 0.0, 4)  # no -0
    same = worked.expression == result
    return WorkedView(
        label=worked.label,
        expression="" if same else worked.expression,
        result=result,
        grids=tuple(map(_grid, worked.grids)),
        note=worked.note,
    )


def _grid(grid: Grid) -> GridView:
    marked = set(grid.marked)
    rows = (
        tuple(CellView(text=_text.value(number + 0.0, 4), marked=(i, j) in marked) for j, number in enumerate(row))
        for i, row in enumerate(grid.rows)
    )
    return GridView(title=grid.title, rows=tuple(rows))
