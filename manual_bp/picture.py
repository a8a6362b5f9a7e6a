"""Small pictures of where the errors of a quantity sit: planes of at most 16 x 16 cells, the worst plane first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from manual_bp.measure import CHUNK, PLANES, Survey, excess
from manual_bp.report import Picture, Plane
from manual_bp.trace import Array

Against = Literal["isolated", "end_to_end"]

#: Cells a side; larger planes are pooled into blocks, each shown by its worst element.
CELLS = 16

#: Elements of the chosen planes up to which they are kept until their picture is drawn.
LARGE = 1 << 12


def picture(
    candidate: Array,
    reference: Array,
    allowed: Array,
    *,
    against: Against = "end_to_end",
    planes: int | None = None,
    seen: Survey | None = None,
    times: float = 1.0,
) -> Picture | None:
    """A picture of a quantity; None for an empty one.

    The last two axes are a plane; a vector is one row, and a matrix (N, features) one plane. Of many planes the
    worst are kept: four where all is well, sixteen where something is not. ``seen`` is what is known already of arrays
    that are right; then what is allowed may be given as an array ``times`` a number.
    """
    if candidate.size == 0:
        return None
    view = candidate.shape if candidate.ndim >= 2 else (1, max(1, candidate.size))
    rows, cols = view[-2:]
    count = math.prod(view[:-2])
    c, r = (side.reshape(count, rows, cols) for side in (candidate, reference))
    limit = np.asarray(allowed)
    a = (
        limit.reshape(1, 1, 1)
        if limit.size == 1
        else np.broadcast_to(limit, candidate.shape).reshape(count, rows, cols)
    )
    order = _order(c, r, a, planes) if seen is None or planes else _first(seen, count)
    c, r = c[order], r[order]
    if seen is not None and seen.error is not None and seen.used is not None:
        sides = [of.reshape(count, rows, cols)[order] for of in (seen.error, seen.used)]
    else:
        sides = [(a if len(a) == 1 else a[order]) * a.dtype.type(times)]

    def cells() -> _Cells:
        error, used = sides if len(sides) == 2 else excess(c, r, sides[0])
        return _cells(c, r, error, used)

    def draw() -> tuple[Plane, ...]:
        return _planes(*cells(), order, view[:-2])

    # few elements may as well be kept as they are until somebody looks at the picture; of many, their worst ones
    later = draw if c.size <= LARGE else partial(_planes, *cells(), order, view[:-2])
    return _LaterPicture(against=against, planes_total=count, draw=later)


#: The numbers of the worst element of each cell of each plane (candidate, reference, share of what is allowed); how
#: many cells a plane has, and how large one is.
_Cells = tuple[list[Array], tuple[int, int], tuple[int, int]]


class _LaterPicture(Picture):
    """A picture that is drawn when somebody looks at it: a report over many probes shows few of them."""

    def __init__(
        self,
        *,
        against: Against,
        planes_total: int,
        planes: tuple[Plane, ...] = (),
        draw: Callable[[], tuple[Plane, ...]] | None = None,
    ) -> None:
        drawn = {"planes": planes} if draw is None else {"_draw": draw}
        self.__dict__.update(against=against, planes_total=planes_total, **drawn)

    def __getattr__(self, name: str) -> tuple[Plane, ...]:
        if name != "planes" or "_draw" not in self.__dict__:
            raise AttributeError(name)
        self.__dict__["planes"] = planes = self.__dict__.pop("_draw")()
        return tuple(planes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and _parts(self) == _parts(other)

    def __hash__(self) -> int:
        return hash(_parts(self))

    def __reduce__(self) -> tuple[Callable[..., Picture], tuple[object, ...]]:
        return _drawn, _parts(self)


def _parts(picture: Picture) -> tuple[object, ...]:
    return picture.against, picture.planes_total, picture.planes


def _drawn(against: Against, planes_total: int, planes: tuple[Plane, ...]) -> Picture:
    return Picture(against=against, planes_total=planes_total, planes=planes)


def _first(seen: Survey, count: int) -> Array:
    """The worst planes that were seen, and, where those are few, the first of the others."""
    found = list(seen.worst_planes)[:PLANES]
    others = (plane for plane in range(count) if plane not in seen.worst_planes)
    return np.array([*found, *itertools.islice(others, min(PLANES, count) - len(found))])


def _order(c: Array, r: Array, a: Array, planes: int | None) -> Array:
    """The worst planes of all, worst first; a stable order among equals."""
    worst = _worst_of_planes(c, r, a)
    if c.size <= CHUNK or worst.max() > 1.0 - 1e-6:
        worst = _worst_of_planes(c, r, a, exactly=True)
    keep = planes or (PLANES if worst.max() <= 1.0 else 16)
    return np.argsort(-np.nan_to_num(worst, nan=np.inf), kind="stable")[:keep]


def _worst_of_planes(c: Array, r: Array, a: Array, *, exactly: bool = False) -> Array:
    """The largest error of each plane, in units of what is allowed; a few planes at a time.

    In the arrays' own precision, which is fast and off by a few roundings, or ``exactly``.
    """
    count, rows, cols = c.shape
    worst = np.empty(count)
    several = max(1, CHUNK // (rows * cols))
    for start in range(0, count, several):
        part = slice(start, start + several)
        limit = a if len(a) == 1 else a[part]
        with np.errstate(all="ignore"):
            used = np.subtract(c[part], r[part], dtype=np.float64 if c.dtype.kind != "f" else None)
            finite = not exactly and np.isfinite(used.sum())
            if finite:
                np.divide(used, limit, out=used, casting="same_kind")
                # 0 / 0, an error of 0 where none is allowed, is NaN and counts as 0
                worst[part] = np.fmax(np.fmax.reduce(used, axis=(1, 2)), -np.fmin.reduce(used, axis=(1, 2)))
        if not finite:
            worst[part] = excess(c[part], r[part], limit)[1].reshape(len(used), -1).max(axis=1)
            np.nan_to_num(worst[part], copy=False, nan=np.inf)
    return np.nan_to_num(worst, nan=0.0)


def _cells(c: Array, r: Array, error: Array, used: Array) -> _Cells:
    """The worst element of each cell, in arrays of their own."""
    count, rows, cols = c.shape
    block = (-(-rows // CELLS), -(-cols // CELLS))
    high, wide = -(-rows // block[0]), -(-cols // block[1])
    sides = [side.reshape(count, -1) for side in (c, r, used)]
    if block != (1, 1):
        # where nothing is outside its bound, the largest plain error is the more telling element
        rank = np.where(np.isnan(used), np.inf, used) + 1e-300 * np.where(np.isfinite(error), error, 0.0)
        padded = np.full((count, high * block[0], wide * block[1]), -1.0)
        padded[:, :rows, :cols] = rank
        cells = padded.reshape(count, high, block[0], wide, block[1]).transpose(0, 1, 3, 2, 4)
        inside = cells.reshape(count, high, wide, -1).argmax(axis=-1)
        top, left = np.arange(high)[:, None] * block[0], np.arange(wide) * block[1]
        at = ((top + inside // block[1]) * cols + left + inside % block[1]).reshape(count, -1)
        sides = [np.take_along_axis(side, at, axis=1) for side in sides]
    return sides, (high, wide), block


def _planes(
    sides: list[Array], cells: tuple[int, int], block: tuple[int, int], order: Array, leading: tuple[int, ...]
) -> tuple[Plane, ...]:
    """The chosen planes as a report holds them."""
    # enough digits for float32, and few enough for a small record
    numbers = [_shorter(side, digits) for side, digits in zip(sides, (9, 9, 3), strict=True)]
    planes = []
    for i, flat in enumerate(order):
        index = tuple(int(n) for n in np.unravel_index(flat, leading or (1,)))[: len(leading)]
        candidate, reference, share = (tuple(side[i]) for side in numbers)
        planes.append(
            Plane(
                label=_label(index),
                index=index,
                rows=cells[0],
                cols=cells[1],
                block=block,
                candidate=candidate,
                reference=reference,
                used=share,
            )
        )
    return tuple(planes)


def _shorter(numbers: Array, digits: int) -> list[list[float]]:
    """The numbers rounded to so many digits; a whole number over an exact power of ten is the nearest to its text."""
    a = numbers.astype(np.float64)
    if a.size <= 128:
        return [[float(f"{number:.{digits}g}") if number else number for number in row] for row in a.tolist()]
    with np.errstate(all="ignore"):
        shift = digits - 1 - np.floor(np.log10(np.abs(a)))
        steps = np.nan_to_num(shift).clip(-22, 22).astype(int)
        up, down = _TENS[steps.clip(0)], _TENS[(-steps).clip(0)]
        out = np.rint(a * up / down) / up * down
    unusual = (np.abs(shift) > 22) & np.isfinite(a) & (a != 0)
    plain = ~np.isfinite(a) | (a == 0)
    out[plain] = a[plain]
    if unusual.any():
        out[unusual] = [float(f"{number:.{digits}g}") for number in a[unusual].tolist()]
    found: list[list[float]] = out.tolist()
    return found


#: 1, 10, ..., 10²², which are exact.
_TENS = np.array([float(10**k) for k in range(23)])


def _label(index: tuple[int, ...]) -> str:
    names = {1: ("plane",), 2: ("sample", "channel"), 3: ("sample", "channel", "depth")}.get(len(index), ())
    if not names:
        return ", ".join(map(str, index))
    return ", ".join(f"{name} {i}" for name, i in zip(names, index, strict=True))
