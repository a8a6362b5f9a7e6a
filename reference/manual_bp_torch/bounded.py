"""Least squares between bounds: whether numbers within their ranges, some of which add up, make given ones."""

from __future__ import annotations

import numpy as np

from manual_bp.trace import Array

#: How often, for each number, the set of those that stand on a bound may change.
_TURNS = 12

#: A slope of the sum of squares below this, relative to what it is made of, is none.
_FLAT = 1e-12


def least_squares(a: Array, r: Array, low: Array, high: Array) -> Array:
    """``x`` between ``low`` and ``high`` with the least ``|a x - r|``, by an active set (Stark and Parker 1995).

    Parameters
    ----------
    a, r
        ``(rows, columns)`` and ``(rows,)``, each row divided by how far it may be off: at a largest residual of at most
        1 nothing better is looked for.
    low, high
        ``(columns,)``; 0 lies between them, and is where the search begins.
    """
    start = np.clip(np.zeros(len(low)), low, high)
    inside = (low < start) & (start < high)
    found = _search(a, r, start, low, high, inside)
    if _worst(a, r, found) <= 1.0 or not inside.any():
        return found
    # from there on one by one: what moves little beside another may stand in the way of it
    other = _search(a, r, start, low, high, np.zeros_like(inside))
    return other if _worst(a, r, other) < _worst(a, r, found) else found


def _worst(a: Array, r: Array, x: Array) -> float:
    return float(np.abs(r - a @ x).max(initial=0.0))


def _search(a: Array, r: Array, x: Array, low: Array, high: Array, free: Array) -> Array:
    """From ``x``, where some numbers are free to begin with; those that promise most are freed."""
    free = free.copy()
    scale = np.sqrt((a * a).sum(0))
    idle = np.zeros(len(x), dtype=bool)  # leave their bound only to come back: by rounding alone
    freed = -1
    for _ in range(_TURNS * (len(x) + 1)):
        if free.any():
            before = x
            x, stopped = _step(a, r, x, low, high, free)
            if stopped.any():
                if freed >= 0 and stopped[freed] and x[freed] == before[freed]:
                    idle[freed] = True
                free &= ~stopped
                freed = -1
                continue
        residual = r - a @ x
        if not len(residual) or np.abs(residual).max() <= 1.0:
            break
        slope = a.T @ residual
        wanted = np.where(x <= low, slope, np.where(x >= high, -slope, np.abs(slope))) * (~free & ~idle & (low < high))
        wanted = np.where(wanted > _FLAT * scale * np.linalg.norm(residual), wanted, 0.0)
        wanted /= np.where(scale > 0, scale, 1.0)
        if not (wanted > 0).any():
            break
        freed = int(wanted.argmax())
        free[freed] = True
    return x


def _step(a: Array, r: Array, x: Array, low: Array, high: Array, free: Array) -> tuple[Array, Array]:
    """To the least squares of the free numbers, or as far as their bounds let them; and which of them stop there."""
    step = np.zeros_like(x)
    for _ in range(2):  # the second time what rounding left
        step[free] += np.linalg.lstsq(a[:, free], r - a @ (x + step), rcond=1e-13)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, (high - x) / step, np.where(step < 0, (low - x) / step, np.inf))
    room = np.where(free, room, np.inf)
    far = min(1.0, float(room.min()))
    moved = np.clip(x + far * step, low, high)
    stopped = free & (room <= far) & (far < 1.0)
    return np.where(stopped, np.where(step > 0, high, low), moved), stopped


def components(a: Array) -> list[tuple[Array, Array]]:
    """Rows and columns of ``a`` that have to do with each other, as pairs of indices; what has a column at least."""
    there = a != 0
    left = np.ones(a.shape[1], dtype=bool)
    found = []
    for first in range(a.shape[1]):
        if not left[first]:
            continue
        columns = np.zeros_like(left)
        columns[first] = True
        while True:
            rows = there[:, columns].any(1)
            more = there[rows].any(0) | columns
            if (more == columns).all():
                break
            columns = more
        left &= ~columns
        found.append((np.flatnonzero(rows), np.flatnonzero(columns)))
    return found
