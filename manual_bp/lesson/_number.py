"""Numbers as a lesson writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from manual_bp.nn import Array
from manual_bp.report_lesson import Grid, Worked

#: A sum shows at most so many terms, a grid at most so many rows and columns.
TERMS = 12
CELLS = 8

Index = tuple[int, ...]
Term = tuple[float, ...]


def num(value: Any) -> str:
    """Four significant digits; negative zero is zero."""
    return f"{float(value) + 0.0:.4g}"


def factor(value: Any) -> str:
    """A number within a product or after a minus sign."""
    text = num(value)
    return f"({text})" if text.startswith("-") or "e" in text else text


def at(symbol: str, index: Index) -> str:
    """symbol[i,j,...]."""
    written = f"({symbol})" if " " in symbol else symbol
    return f"{written}[{','.join(map(str, index))}]" if index else written


def largest(array: Array) -> Index:
    """Where the element of largest size is, the first of several."""
    if array.ndim == 0:
        return ()
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(np.abs(array))), array.shape))


def sum_of_products(
    label: str,
    terms: Iterable[Term],
    result: Any,
    *,
    grids: Sequence[Grid] = (),
    note: str = "",
    zeros: bool = False,
) -> Worked:
    """A sum with its terms written out; those that are 0 are counted instead, unless ``zeros`` are wanted."""
    every = tuple(terms)
    kept = every if zeros else tuple(term for term in every if math.prod(term) != 0)
    shown = [" · ".join(factor(value) for value in term) for term in kept[:TERMS]]
    if len(kept) == 1 and len(kept[0]) == 1:
        shown = [num(kept[0][0])]
    said = []
    if len(kept) > TERMS:
        shown.append("...")
        said.append(f"{len(kept)} terms are not 0, the first {TERMS} are shown")
    if len(every) > max(len(kept), 1):
        said.append(f"{len(every) - len(kept)} of {len(every)} terms are 0")
    return Worked(
        label=label,
        expression=" + ".join(shown) or "0",
        result=float(result),
        terms=kept,
        grids=tuple(grids),
        note="; ".join([*said, note] if note else said),
    )


def grid(
    title: str, plane: Array, *, around: tuple[int, int] | None = None, marked: Iterable[tuple[int, int]] = ()
) -> Grid:
    """A two-dimensional array as a grid; a large one is cut down to the surroundings of one place."""
    (top, bottom), (left, right) = (_part(n, around[axis] if around else 0) for axis, n in enumerate(plane.shape))
    if (bottom - top, right - left) != plane.shape:
        title += f", rows {top} to {bottom - 1} and columns {left} to {right - 1} of {plane.shape[0]}x{plane.shape[1]}"
    inside = [(r - top, c - left) for r, c in marked if top <= r < bottom and left <= c < right]
    part = plane[top:bottom, left:right]
    return Grid(title=title, rows=tuple(tuple(float(v) for v in row) for row in part), marked=tuple(inside))


def _part(length: int, place: int) -> tuple[int, int]:
    if length <= CELLS:
        return 0, length
    start = min(max(place - CELLS // 2, 0), length - CELLS)
    return start, start + CELLS


def as_plane(array: Array) -> Array:
    """One or two axes as rows and columns."""
    return array.reshape(1, -1) if array.ndim == 1 else array
