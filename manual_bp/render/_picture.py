"""Where the errors of a quantity sit: blocks for the shares, numbers where the plane is small enough to read."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

from manual_bp.render import _cells, _text
from manual_bp.render._colors import QUIET, STYLE
from manual_bp.report import Picture, Plane

#: A plane with at most this many columns and rows is shown in numbers too.
NUMBERS_UP_TO = 6

_STYLE = {_cells.WITHIN: QUIET, _cells.NOT_FINITE: STYLE["nonfinite"]}


def picture(found: Picture, width: int, planes: int = 1) -> Iterator[Text]:
    """The worst ``planes`` planes, side by side with the numbers where they are small; then what a cell means."""
    shown = found.planes[:planes]
    for plane in shown:
        yield Text(_cells.title(plane, found), QUIET)
        yield from _plane(plane, width)
    if shown:
        yield Text(_cells.LEGEND, QUIET)


def _plane(plane: Plane, width: int) -> Iterator[Text]:
    blocks = _blocks(plane)
    small = plane.block == (1, 1) and plane.rows <= NUMBERS_UP_TO and plane.cols <= NUMBERS_UP_TO
    numbers = [_numbers(plane, values) for values in (plane.candidate, plane.reference)] if small else []
    columns = [("", blocks), *zip(("candidate", "should be"), numbers, strict=False)]
    widths = [max(cell_len(head), *(text.cell_len for text in cells)) for head, cells in columns]
    if sum(widths) + 4 * (len(widths) - 1) > width:
        columns, widths = columns[:1], widths[:1]
    if len(columns) > 1:
        yield _beside([Text(head, QUIET) for head, _ in columns], widths)
    for row in zip(*(cells for _, cells in columns), strict=True):
        yield _beside(list(row), widths)


def _beside(parts: list[Text], widths: list[int]) -> Text:
    line = Text()
    for part, width in zip(parts, widths, strict=True):
        line.append_text(part)
        line.append(" " * (width - part.cell_len + 4))
    line.rstrip()
    return line


def _blocks(plane: Plane) -> list[Text]:
    return [_joined([Text(cell, _STYLE.get(cell, "red")) for cell in row]) for row in _cells.blocks(plane)]


def _numbers(plane: Plane, values: tuple[float, ...]) -> list[Text]:
    """The plane in numbers, those beyond the bound in red."""
    texts = [_short(value) for value in values]
    widest = max(map(len, texts))
    cells = [
        Text(text.rjust(widest) + " ", "red" if not share <= 1 else QUIET)
        for text, share in zip(texts, plane.used, strict=True)
    ]
    return [_joined(cells[i * plane.cols : (i + 1) * plane.cols]) for i in range(plane.rows)]


def _short(value: float) -> str:
    return f"{value + 0.0:.3g}" if math.isfinite(value) else _text.value(value)


def _joined(cells: list[Text]) -> Text:
    line = Text()
    for cell in cells:
        line.append_text(cell)
    return line
