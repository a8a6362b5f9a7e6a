"""A view without colours: the lines that rich would print, without importing its console and tables.

To import those takes longer than to lay a whole report out, and most reports are read without colours: in a log, a
pipe, a file. That both ways give the same lines, a test says of every example at every width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Columns between a label and what it says.
_GAP = 2


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Labels on the left, text wrapped beside them.

    Attributes
    ----------
    rows
        Of each its label, its text and the text's style.
    label_style
        The style of all labels.
    left, right
        Columns that stay blank on either side.
    """

    rows: tuple[tuple[str, str, str], ...]
    label_style: str
    left: int
    right: int

    def __rich__(self) -> Padding:
        from rich.table import Table

        grid = Table.grid(padding=(0, _GAP), pad_edge=False)
        grid.add_column(no_wrap=True, style=self.label_style)
        grid.add_column(overflow="fold")
        for label, text, style in self.rows:
            grid.add_row(label, Text(text, style))
        return Padding(grid, (0, self.right, 0, self.left))

    def lines(self, width: int) -> Iterator[str]:
        """The same in ``width`` columns."""
        beside = self.left + max(cell_len(label) for label, _, _ in self.rows) + _GAP
        for label, text, _ in self.rows:
            first = " " * self.left + label
            for line in _wrapped(Text(text), width - beside - self.right):
                yield first + " " * (beside - cell_len(first)) + line
                first = ""


def printed(parts: Iterable[RenderableType], width: int) -> str:
    """The parts below one another, no line ending in blanks."""
    return "".join(f"{line.rstrip(' ')}\n" for part in parts for line in _lines(part, width))


def _lines(part: RenderableType, width: int) -> Iterator[str]:
    if isinstance(part, Facts):
        yield from part.lines(width)
    elif isinstance(part, Padding) and isinstance(part.renderable, Text):
        yield from [""] * part.top
        yield from (" " * part.left + line for line in _wrapped(part.renderable, width - part.left - part.right))
        yield from [""] * part.bottom
    elif isinstance(part, Text):  # a line of a table, which fits as it is
        yield part.plain
    elif part == "":
        yield ""
    else:
        raise TypeError(f"a view is made of texts, padded texts and facts, not of {type(part).__name__}")


def _wrapped(text: Text, width: int) -> list[str]:
    console: Console = None  # type: ignore[assignment]  # wrap() only asks it about texts set flush on both sides
    return [line.plain for line in text.wrap(console, width, overflow="fold")]
