"""What a difference looks like that no hypothesis explains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from manual_bp.nn._layer import Array

from ._axes import Kind, axis_word
from ._case import Case, shown
from ._evaluate import ROUNDOFF
from ._words import count, number

#: Facts that are told at most.
MOST = 5


def describe(cases: Sequence[Case], kind: Kind) -> str:
    """Facts about the difference on the most telling probe, joined by semicolons."""
    case = cases[0]
    if case.reported.shape != case.right.shape:
        return f"the shape is {case.reported.shape}, it should be {case.right.shape}"
    facts = list(_facts(case, kind))
    return "; ".join(facts[:MOST])


def _facts(case: Case, kind: Kind) -> Iterator[str]:
    got, right, bad = case.claimed, np.asarray(case.right, np.float64), case.bad
    with np.errstate(all="ignore"):
        difference = got - right
        if not np.isfinite(got).all():
            yield f"{number(int((~np.isfinite(got)).sum()))} of {count(got.size, 'element')} are not finite"
        yield from _where(bad, kind)
        yield from _ratio(got, right, bad)
        yield from _size(difference, right, bad, case)
        yield from _rank(difference, kind)
        yield from _proportional(difference, case.values, case.quantity)


def _where(bad: Array, kind: Kind) -> Iterator[str]:
    off, size = int(bad.sum()), bad.size
    if size == 1:
        return
    many = f"{number(off)} of {count(size, 'element')} {'is' if off == 1 else 'are'} off"
    yield "every element is off" if off == size else many
    if off == size or not bad.ndim:
        return
    for axis, n in enumerate(bad.shape):
        if n < 2:
            continue
        hit = np.flatnonzero(bad.any(axis=tuple(i for i in range(bad.ndim) if i != axis)))
        if len(hit) < n:
            word = axis_word(kind, bad.ndim, axis)
            which = "only " + ", ".join(map(str, hit[:6])) + (" ..." if len(hit) > 6 else "")
            yield f"in {word} {which} of {n}"
            steps = np.unique(np.diff(hit))
            if len(hit) > 2 and len(steps) == 1 and steps[0] > 1:
                yield f"every {_ordinal(int(steps[0]))} {word}"
    if bad.ndim > 2:
        border = np.ones(bad.shape, bool)
        inside: Any = (..., *(slice(1, -1),) * (bad.ndim - 2))
        border[inside] = False
        if border.any() and not border.all():
            if not bad[~border].any():
                yield "only at the border"
            elif not bad[border].any():
                yield "nowhere at the border"


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third", 4: "fourth"}.get(n, f"{n}th")


def _ratio(got: Array, right: Array, bad: Array) -> Iterator[str]:
    use = bad & (right != 0)
    if bad.any() and not got[bad].any():
        yield "they are 0 there"
        return
    if use.sum() < 2:
        return
    ratio = got[use] / right[use]
    middle = float(np.median(ratio))
    spread = float(np.max(np.abs(ratio - middle))) if np.isfinite(ratio).all() else np.inf
    if abs(middle - 1) < 1e-3:
        if spread <= 1e-2 * abs(middle - 1):
            yield f"all of them are too {'large' if middle > 1 else 'small'} by the same relative {abs(middle - 1):.3g}"
    elif middle and spread <= 1e-6 * abs(middle):
        yield f"each of them is {middle:.6g} times the right one"
    elif np.isfinite(ratio).all() and float(np.max(np.abs(np.abs(ratio) - 1))) < 1e-9:
        yield "only signs differ"


def _size(difference: Array, right: Array, bad: Array, case: Case) -> Iterator[str]:
    scale = float(np.max(np.abs(right), initial=0.0))
    worst = float(np.max(np.abs(difference[np.isfinite(difference)]), initial=0.0))
    if scale and worst:
        relative = worst / scale
        yield f"by up to {relative:.2g} times the largest element"
        if case.dtype == "float64" and ROUNDOFF["float64"] * 1e3 < relative < 1e-6 and bad.mean() > 0.5:
            yield "the size of a rounding to float32 somewhere inside"
        elif 1e-6 <= relative < 2e-3 and bad.mean() > 0.5:
            yield "the size of a rounding to float16 or bfloat16, or of a small ε"


def _rank(difference: Array, kind: Kind) -> Iterator[str]:
    if difference.ndim < 2 or not np.isfinite(difference).all() or not difference.any():
        return
    for axis, n in enumerate(difference.shape):
        if n > 1 and difference.size > n:
            spread = float(np.max(np.ptp(difference, axis=axis)))
            if spread <= 1e-9 * float(np.max(np.abs(difference))):
                yield f"the same difference in every {axis_word(kind, difference.ndim, axis)}"
    matrix = (
        difference.reshape(len(difference), -1) if len(difference) > 1 else difference.reshape(difference.shape[-2], -1)
    )
    if 1 < min(matrix.shape) <= 256 and matrix.size <= 1 << 18:
        rank = int(np.linalg.matrix_rank(matrix, tol=1e-9 * float(np.linalg.norm(matrix))))
        if rank < min(matrix.shape):
            yield f"the difference has rank {rank}"


def _proportional(difference: Array, values: Mapping[str, Array], own: str) -> Iterator[str]:
    flat = difference.reshape(-1)
    norm = float(np.linalg.norm(flat))
    if not np.isfinite(norm) or not norm or flat.size < 3:
        return
    for name, value in values.items():
        if name == own or value.shape != difference.shape or value.dtype.kind != "f":
            continue
        other = np.asarray(value, np.float64).reshape(-1)
        size = float(np.linalg.norm(other))
        if size and np.isfinite(size) and abs(float(flat @ other)) >= (1 - 1e-9) * norm * size:
            yield f"the difference is {float(flat @ other) / size**2:.6g} times {shown(name)}"
