"""Small pictures of where the errors of a quantity sit: planes of at most 16 x 16 cells, the worst plane first."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from manual_bp.measure import excess
from manual_bp.report import Picture, Plane
from manual_bp.trace import Array

Against = Literal["isolated", "end_to_end"]

#: Cells a side; larger planes are pooled into blocks, each shown by its worst element.
CELLS = 16


def picture(
    candidate: Array,
    reference: Array,
    allowed: Array,
    *,
    against: Against = "end_to_end",
    planes: int | None = None,
) -> Picture | None:
    """A picture of a quantity; None for an empty one.

    The last two axes are a plane; a vector is one row, and a matrix (N, features) one plane. Of many planes the
    worst are kept: four where all is well, sixteen where something is not.
    """
    if candidate.size == 0:
        return None
    view = candidate.shape if candidate.ndim >= 2 else (1, max(1, candidate.size))
    rows, cols = view[-2:]
    count = math.prod(view[:-2])
    c = candidate.reshape(count, rows, cols)
    r = reference.reshape(count, rows, cols)
    a = np.broadcast_to(allowed, candidate.shape).reshape(count, rows, cols)
    worst = np.array([excess(c[i], r[i], a[i])[1].max() for i in range(count)])
    keep = planes or (4 if worst.max() <= 1.0 else 16)
    # worst first; a stable order among equals
    order = np.argsort(-np.nan_to_num(worst, nan=np.inf), kind="stable")[:keep]
    chosen = tuple(_plane(c[i], r[i], a[i], np.unravel_index(i, view[:-2] or (1,)), len(view) - 2) for i in order)
    return Picture(against=against, planes_total=count, planes=chosen)


def _plane(c: Array, r: Array, a: Array, index: tuple[np.intp, ...], leading: int) -> Plane:
    rows, cols = c.shape
    block = (-(-rows // CELLS), -(-cols // CELLS))
    high, wide = -(-rows // block[0]), -(-cols // block[1])
    error, used = excess(c, r, a)
    # where nothing is outside its bound, the largest plain error is the more telling element
    rank = np.where(np.isnan(used), np.inf, used) + 1e-300 * np.nan_to_num(error, posinf=0.0)
    cells = []
    for i in range(high):
        for j in range(wide):
            top, left = i * block[0], j * block[1]
            part = rank[top : top + block[0], left : left + block[1]]
            y, x = np.unravel_index(int(part.argmax()), part.shape)
            cells.append((top + int(y), left + int(x)))
    at = tuple(int(i) for i in index)[:leading]
    return Plane(
        label=_label(at),
        index=at,
        rows=high,
        cols=wide,
        block=block,
        candidate=tuple(_short(c[cell]) for cell in cells),
        reference=tuple(_short(r[cell]) for cell in cells),
        used=tuple(_short(used[cell], digits=3) for cell in cells),
    )


def _short(value: Any, *, digits: int = 9) -> float:
    """A number as a picture needs it: enough digits for float32, few enough for a small record."""
    return float(f"{float(value):.{digits}g}")


def _label(index: tuple[int, ...]) -> str:
    names = {1: ("plane",), 2: ("sample", "channel"), 3: ("sample", "channel", "depth")}.get(len(index), ())
    if not names:
        return ", ".join(map(str, index))
    return ", ".join(f"{name} {i}" for name, i in zip(names, index, strict=True))
