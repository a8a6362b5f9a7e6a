"""A lesson for a terminal: equation, source, reasons, and the same equation in the run's own numbers.

Prose and formulas are wrapped, tables of numbers stand side by side where the width allows. What matters in a table is
marked by brackets, so that it is seen without colours too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from manual_bp.render import _text
from manual_bp.render._colors import QUIET, TITLE
from manual_bp.render._look import Look
from manual_bp.render.terminal import PROSE, printed
from manual_bp.report_lesson import Grid, LessonStep, Worked

if TYPE_CHECKING:
    from rich.console import RenderableType

_STRONG = "bold"
_MARKED = "bold green"
_GAP = 4


def render(lesson: Sequence[LessonStep], look: Look) -> str:
    """The lesson as text; ANSI colours and characters beyond ASCII only if the look has them."""
    width = min(look.width, PROSE)
    parts: list[RenderableType] = []
    for number, step in enumerate(_text.tidy(tuple(lesson), unicode=look.unicode), start=1):
        parts += _step(step, f"{number}/{len(lesson)}  " if len(lesson) > 1 else "", width)
    return printed(parts, look).rstrip("\n") + "\n"


def _step(step: LessonStep, number: str, width: int) -> Iterator[Text]:
    yield from _wrapped(number + step.title, width, 0, TITLE)
    if step.name:
        shape = " x ".join(map(str, step.shape)) or "one number"
        yield from _wrapped(f"{step.phase} · {step.name} · {shape}", width, 2, QUIET)
    yield Text()
    if step.equation:
        yield from _wrapped(step.equation, width, 4, _STRONG, formula=True)
        yield from _wrapped(step.source, width, 4, QUIET)
        yield Text()
    for paragraph in step.prose:
        yield from _wrapped(paragraph, width, 2)
        yield Text()
    for worked in step.worked:
        yield from _worked(worked, width)
    if step.worked:
        yield Text()


def _worked(worked: Worked, width: int) -> Iterator[Text]:
    for line in _side_by_side(worked.grids, width - 4):
        yield Text.assemble("    ", line)
    result = f"{worked.result + 0.0:.4g}"
    numbers = worked.label if worked.expression == result else f"{worked.label} = {worked.expression}"
    yield from _wrapped(f"{numbers} = {result}", width, 4, formula=True)
    yield from _wrapped(worked.note, width, 8, QUIET)


def _wrapped(text: str, width: int, indent: int, style: str = "", *, formula: bool = False) -> Iterator[Text]:
    """Lines of at most ``width`` columns; a formula's stand further in after the first."""
    hanging = indent + (4 if formula else 0)
    for line in textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield Text(line, style)


def _side_by_side(grids: Sequence[Grid], width: int) -> Iterator[Text]:
    """As many tables in a row as fit."""
    row: list[list[Text]] = []
    for grid in grids:
        block = _block(grid, width)
        if row and sum(_width(other) + _GAP for other in row) + _width(block) > width:
            yield from _beside(row)
            row = []
        row.append(block)
    if row:
        yield from _beside(row)


def _beside(blocks: list[list[Text]]) -> Iterator[Text]:
    for k in range(max(map(len, blocks))):
        line = Text()
        for block in blocks:
            part = block[k].copy() if k < len(block) else Text()
            line.append_text(part)
            line.append(" " * (_width(block) + _GAP - len(part)))
        yield line
    yield Text()


def _width(block: list[Text]) -> int:
    return max(map(len, block))


def _block(grid: Grid, width: int) -> list[Text]:
    """Title and numbers, with fewer digits where they would not fit; each cell has room for a marked one's brackets."""
    cells: list[list[str]] = []
    room = 0
    for digits in (3, 2, 1):
        cells = [[f"{value + 0.0:.{digits}g}" for value in row] for row in grid.rows]
        room = max((len(cell) for row in cells for cell in row), default=0)
        if max(map(len, cells), default=0) * (room + 2) <= width:
            break
    lines = [Text(line, QUIET) for line in textwrap.wrap(grid.title, width)]
    for r, row in enumerate(cells):
        line = Text()
        for c, cell in enumerate(row):
            marked = (r, c) in grid.marked
            line.append(
                f"[{cell}]".rjust(room + 2) if marked else f"{cell} ".rjust(room + 2), _MARKED if marked else ""
            )
        lines.append(line)
    return lines
