"""A table that never wraps: where columns do not fit, the least important ones go, then the first is shortened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from manual_bp.render import _text


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. ``keep``: columns with a lower number go first; ``least``: may be shortened to that width."""

    head: str
    cells: Sequence[str]
    styles: Sequence[str] = ()
    right: bool = False
    keep: int = 9
    least: int | None = None

    @property
    def width(self) -> int:
        return max([cell_len(self.head), *map(cell_len, self.cells)])

    @property
    def narrowest(self) -> int:
        return self.width if self.least is None else min(self.width, self.least)


def fit(columns: Sequence[Column], width: int, gap: int = 2) -> list[tuple[Column, int]]:
    """The columns that fit into ``width``, each with the width it gets. Empty columns go without a word."""
    kept = [column for column in columns if any(column.cells)]
    while len(kept) > 1 and sum(column.narrowest for column in kept) + gap * (len(kept) - 1) > width:
        kept.remove(min(kept, key=lambda column: column.keep))
    spare = width - gap * (len(kept) - 1) - sum(column.narrowest for column in kept)
    widths: dict[int, int] = {}
    for column in sorted(kept, key=lambda column: -column.keep):  # the most important grows first
        grown = min(column.width, column.narrowest + max(spare, 0))
        spare -= grown - column.narrowest
        widths[id(column)] = min(grown, width)
    return [(column, widths[id(column)]) for column in kept]


def lines(layout: Sequence[tuple[Column, int]], *, indent: int = 0, gap: int = 2, head: bool = True) -> Iterator[Text]:
    """The head (dim), then each row, as one line of text each."""
    if head:
        yield _row([(c.head, "dim", c.right, w) for c, w in layout], indent, gap)
    for i in range(max((len(c.cells) for c, _ in layout), default=0)):
        yield _row([(c.cells[i], c.styles[i] if c.styles else "", c.right, w) for c, w in layout], indent, gap)


def rows(columns: Sequence[Column], picked: slice) -> list[Column]:
    """The columns with some of their rows, under the same head."""
    return [replace(column, cells=column.cells[picked], styles=column.styles[picked]) for column in columns]


def _row(cells: Sequence[tuple[str, str, bool, int]], indent: int, gap: int) -> Text:
    line = Text(" " * indent)
    for position, (cell, style, right, width) in enumerate(cells):
        shown = cell if cell_len(cell) <= width else set_cell_size(_text.shorten(cell, width), width)
        padding = " " * (width - cell_len(shown))
        line.append(padding if right else "")
        line.append(shown, style)
        if position < len(cells) - 1:
            line.append(("" if right else padding) + " " * gap)
    line.rstrip()
    return line
