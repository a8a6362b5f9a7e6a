"""How far two arrays are apart, in units of what is allowed, in chunks that stay in cache."""

from __future__ import annotations

import numpy as np

from manual_bp.report import Comparison, Element
from manual_bp.trace import Array

#: Elements a chunk: three float64 arrays of it fit a second-level cache.
CHUNK = 1 << 15

#: How many of the worst elements a comparison lists.
WORST = 5


def excess(candidate: Array, reference: Array, allowed: Array) -> tuple[Array, Array]:
    """Per element |candidate - reference|, and that in units of ``allowed``.

    Equal numbers are 0 apart, also two NaNs and two infinities of one sign; a number that is not finite beside
    another one is infinitely far. 0 / 0 counts as 0: no error where none is allowed.
    """
    with np.errstate(all="ignore"):
        error = np.abs(candidate.astype(np.float64) - reference)
        same = (candidate == reference) | (np.isnan(candidate) & np.isnan(reference))
        error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
        finite = np.isfinite(candidate) & np.isfinite(reference)
        used = np.where(error == 0, 0.0, np.where(finite, error / allowed, np.inf))
    return error, used


def outside(candidate: Array, reference: Array, allowed: Array) -> Array:
    """Mask of the elements that are further apart than allowed."""
    return excess(candidate, reference, allowed)[1] > 1.0


def measure(candidate: Array, reference: Array, allowed: Array) -> Comparison:
    """Compare two arrays of one shape element by element.

    Parameters
    ----------
    candidate, reference
        Of one shape, any floating dtype.
    allowed
        Largest permitted |candidate - reference|, float64, of the same shape (or broadcast against it).
    """
    size = candidate.size
    if size == 0:
        nan = float("nan")
        return Comparison(
            max_abs_error=0.0, used=0.0, mismatched=0, elements=0, worst_index=None,
            candidate=nan, reference=nan, allowed=nan, passing_atol=0.0, passing_rtol=0.0,
        )  # fmt: skip
    c, r = candidate.reshape(-1), reference.reshape(-1)
    a = np.broadcast_to(allowed, candidate.shape).reshape(-1)
    worst_used, worst_at, largest, mismatched, rtol = -1.0, 0, 0.0, 0, 0.0
    found: list[tuple[float, int]] = []
    for start in range(0, size, CHUNK):
        part = slice(start, start + CHUNK)
        error, used = excess(c[part], r[part], a[part])
        at = int(used.argmax())
        if used[at] > worst_used or (used[at] == worst_used == 0.0 and error[at] > largest):
            worst_used, worst_at = float(used[at]), start + at
        largest = max(largest, float(error.max()))
        bad = used > 1.0
        count = int(np.count_nonzero(bad))
        if count:
            mismatched += count
            top = (
                np.argpartition(-used, min(WORST, used.size - 1))[:WORST] if used.size > WORST else np.arange(used.size)
            )
            found += [(float(used[i]), start + int(i)) for i in top if bad[i]]
            found = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:WORST]
        with np.errstate(all="ignore"):
            relative = np.where(error == 0, 0.0, error / np.abs(r[part]))
        rtol = max(rtol, float(np.nan_to_num(relative, nan=np.inf, posinf=np.inf).max()))
    worst = element(candidate, reference, allowed, worst_at)
    return Comparison(
        max_abs_error=largest,
        used=worst_used,
        mismatched=mismatched,
        elements=size,
        worst_index=worst.index,
        candidate=worst.candidate,
        reference=worst.reference,
        allowed=worst.allowed,
        passing_atol=largest,
        passing_rtol=rtol,
        worst=tuple(element(candidate, reference, allowed, at) for _, at in found),
    )


def element(candidate: Array, reference: Array, allowed: Array, flat: int) -> Element:
    """One element of a comparison, by its flat position."""
    index = tuple(int(i) for i in np.unravel_index(flat, candidate.shape))
    limit = np.broadcast_to(allowed, candidate.shape)[index]
    return Element(
        index=index, candidate=float(candidate[index]), reference=float(reference[index]), allowed=float(limit)
    )
