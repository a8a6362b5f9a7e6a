"""What a lesson consists of: plain data of the record, so that a terminal and a page show the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["question", "forward", "backward", "update", "answer"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A small table of numbers of the run; ``marked`` are the (row, column) places that matter."""

    title: str
    rows: tuple[tuple[float, ...], ...]
    marked: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Worked:
    """One element of a quantity, computed before the reader's eyes.

    Attributes
    ----------
    label
        Which element: symbol and index.
    expression
        The equation with the run's numbers in it, to four digits. It can be evaluated, unless it ends in "...".
    result
        The element as it stands in the trace.
    terms
        Where the expression is a sum of products: the factors of each term that is not 0, in full precision. The
        record of a comparison leaves them out.
    note
        What to see in it, one sentence; may be empty.
    """

    label: str
    expression: str
    result: float
    terms: tuple[tuple[float, ...], ...] = ()
    grids: tuple[Grid, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LessonStep:
    """One quantity of the derivation (or a question or an answer, where ``name`` is empty).

    Attributes
    ----------
    name, symbol, shape
        The quantity.
    phase
        Where in the derivation it stands.
    title
        A headline.
    equation, equation_latex, source
        The formula as text and LaTeX, and where it stands.
    prose
        Why it is so, one paragraph each.
    worked
        The formula with the run's own numbers.
    """

    title: str
    phase: Phase
    name: str = ""
    symbol: str = ""
    shape: tuple[int, ...] = ()
    equation: str = ""
    equation_latex: str = ""
    source: str = ""
    prose: tuple[str, ...] = ()
    worked: tuple[Worked, ...] = ()
