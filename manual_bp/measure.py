"""How far two arrays are apart, in units of what is allowed, in chunks that stay in cache.

Nothing of an array's own size is made. Where an array is long, a chunk is only looked at: its largest error, its
largest error in units of what is allowed, and its largest relative error, in the arrays' own precision. Rounding is
monotone and small, so that shows whether the chunk holds an element that can change the result; only such elements
are measured, in float64. The result is that of measuring every element.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from manual_bp.report import Comparison, Element
from manual_bp.trace import Array

#: Elements a chunk: larger ones leave the second-level cache, in smaller ones Python's share of the time is large.
CHUNK = 1 << 17

#: Elements a chunk where two threads work: each waits for the other's hold on the interpreter at every operation.
CHUNK_OF_TWO = 1 << 18

#: Elements up to which each is measured at once, without looking first.
LITTLE = 1 << 12

#: How many of the worst elements a comparison lists.
WORST = 5

#: How many of the worst planes a survey names.
PLANES = 4

#: From so many elements on, two threads share the work (NumPy lets go of the interpreter inside its loops).
SHARED = 1 << 23

#: More than the rounding of the quotients that are only looked at: of a difference, of a quotient, of a factor.
_SLACK = 3e-7

#: Below it a float32 has fewer digits than that.
_TINY = 1e-30


def excess(candidate: Array, reference: Array, allowed: Array) -> tuple[Array, Array]:
    """Per element |candidate - reference|, and that in units of ``allowed``.

    Equal numbers are 0 apart, also two NaNs and two infinities of one sign; a number that is not finite beside
    another one is infinitely far. 0 / 0 counts as 0: no error where none is allowed.
    """
    with np.errstate(all="ignore"):
        error = np.abs(np.subtract(candidate, reference, dtype=np.float64))
        used = np.asarray(error / allowed)
        used[error == 0] = 0.0
        if not np.isfinite(error.sum()):
            same = (candidate == reference) | (np.isnan(candidate) & np.isnan(reference))
            error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
            finite = np.isfinite(candidate) & np.isfinite(reference)
            used = np.where(same, 0.0, np.where(finite, used, np.inf))
    return error, used


def outside(candidate: Array, reference: Array, allowed: Array) -> Array:
    """Mask of the elements that are further apart than allowed."""
    out = np.empty(candidate.shape, dtype=bool)
    if not candidate.size:
        return out
    c, r, flat = candidate.reshape(-1), reference.reshape(-1), out.reshape(-1)
    a = _flat(allowed, candidate.shape)
    for start in range(0, c.size, CHUNK):
        part = slice(start, start + CHUNK)
        np.greater(excess(c[part], r[part], a[part] if a.size > 1 else a)[1], 1.0, out=flat[part])
    return out


@dataclass
class _Worst:
    """What is known after some of the elements: flat positions, in ascending order of the elements taken in.

    ``plane`` elements in a row are a plane; ``top`` holds (largest share of what is allowed, plane) of the worst few,
    ``most`` of them.
    """

    plane: int
    most: int
    used: float = 0.0
    at: int = 0
    at_error: float = 0.0
    largest: float = 0.0
    relative: float = 0.0
    mismatched: int = 0
    found: list[tuple[float, int]] = field(default_factory=list)
    top: list[tuple[float, int]] = field(default_factory=list)

    def take(self, c: Array, r: Array, a: Array, positions: Array | range) -> tuple[Array, Array]:
        """Measure these elements, which lie at those positions."""
        error, used = excess(c, r, a)
        peak = float(error.max())
        if peak == 0.0:
            return error, used
        at = int(used.argmax())
        if used[at] == 0.0:  # where nothing counts, the largest plain error is the more telling element
            at = int(error.argmax())
        self._worse(float(used[at]), float(error[at]), int(positions[at]))
        self.largest = max(self.largest, peak)
        with np.errstate(all="ignore"):
            relative = error / np.abs(r)
        relative[error == 0] = 0.0
        peak = float(relative.max())
        self.relative = max(self.relative, peak if peak == peak else np.inf)  # NaN: the reference is not finite
        if used.max() > 1.0:
            bad = np.flatnonzero(used > 1.0)
            self.mismatched += bad.size
            if bad.size > WORST:
                bad = bad[used[bad] >= np.partition(used[bad], -WORST)[-WORST]]
                bad = bad[np.argsort(-used[bad], kind="stable")[:WORST]]
            self.found += [(float(used[i]), int(positions[i])) for i in bad]
            self.found = sorted(self.found, key=lambda pair: (-pair[0], pair[1]))[:WORST]
        return error, used

    def rank(self, used: Array, low: int, peak: float, unit: float = 1.0) -> None:
        """Take in the planes of the elements from ``low`` on; ``used`` and its ``peak`` in units of 1 / ``unit``."""
        peak /= unit
        if peak == 0.0 or (len(self.top) == self.most and (not self.most or peak <= self.top[-1][0])):
            return
        first = low // self.plane
        starts = np.arange(first * self.plane, low + used.size, self.plane) - low
        starts[0] = 0
        worst = np.fmax.reduceat(used, starts)
        best: dict[int, float] = {plane: share for share, plane in self.top}
        for i in _few_largest(worst):
            plane = first + int(i)
            best[plane] = max(best.get(plane, 0.0), float(worst[i]) / unit)
        self.top = _sorted((share, plane) for plane, share in best.items())

    def _worse(self, used: float, error: float, at: int) -> None:
        if used > self.used or (used == self.used == 0.0 and error > self.at_error):
            self.used, self.at, self.at_error = used, at, error

    def merge(self, later: _Worst) -> None:
        """Take in what is known of the elements that follow."""
        self._worse(later.used, later.at_error, later.at)
        self.largest, self.relative = max(self.largest, later.largest), max(self.relative, later.relative)
        self.mismatched += later.mismatched
        self.found = _sorted(self.found + later.found, WORST)
        best = dict.fromkeys((plane for _, plane in self.top + later.top), 0.0)
        for share, plane in self.top + later.top:
            best[plane] = max(best[plane], share)
        self.top = _sorted((share, plane) for plane, share in best.items())


def _few_largest(a: Array) -> Array:
    """Positions of the ``PLANES`` largest, of equal ones the first; NaN is none of them."""
    if a.size <= PLANES:
        return np.arange(a.size)
    a = np.fmax(a, 0.0)
    near = np.flatnonzero(a >= np.partition(a, -PLANES)[-PLANES])  # sorting all of them takes fifty times as long
    return near[np.argsort(-a[near], kind="stable")[:PLANES]]


def _sorted(pairs: Iterable[tuple[float, int]], most: int | None = None) -> list[tuple[float, int]]:
    """The largest first, of equal ones the earliest."""
    return sorted((pair for pair in pairs if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))[: most or PLANES]


def _flat(allowed: Array, shape: tuple[int, ...]) -> Array:
    """``allowed`` in one axis: as long as the arrays, or a single number."""
    allowed = np.asarray(allowed)
    if allowed.size > 1 and not any(allowed.strides):  # one number, seen everywhere
        allowed = allowed[(0,) * allowed.ndim]
    whole = allowed.size == 1 or allowed.shape == shape
    return allowed.reshape(-1) if whole else np.broadcast_to(allowed, shape).ravel()


def _scan(
    c: Array, r: Array, a: Array, times: float, plane: int, most: int, span: tuple[int, int], chunk: int
) -> _Worst:
    """Go through the elements of a span; ``a * times`` is allowed."""
    known = _Worst(plane, most)
    start, stop = span
    dtype = np.dtype(np.float32 if c.dtype == r.dtype == a.dtype == np.float32 else np.float64)
    buffers = np.empty((2, min(chunk, stop - start)), dtype)
    exact, factor = a.size == 1 and a[0] == 0, a.dtype.type(times)
    with np.errstate(all="ignore"):
        for low in range(start, stop, chunk):
            part = slice(low, min(low + chunk, stop))
            own, other, limit = c[part], r[part], a if a.size == 1 else a[part]
            if exact and np.array_equal(own, other):
                continue
            d, q = buffers[:, : own.size]
            np.subtract(own, other, out=d, dtype=dtype)
            np.abs(d, out=d)
            peak = float(np.maximum.reduce(d))
            if peak == 0.0:
                continue
            if not peak < np.inf:  # false for NaN as well
                used = known.take(own, other, limit * factor, range(low, part.stop))[1]
                known.rank(used, low, float(used.max()))
                continue
            # what is looked at: whether an element can be worse than the worst so far
            np.divide(d, limit, out=q, dtype=dtype)
            ratio = _largest(q)
            known.rank(q, low, ratio, times)
            flagged = _beyond(q, ratio, known.used * times, times)
            counts = ratio != 0.0 or known.used != 0.0
            np.divide(d, other, out=q, dtype=dtype)
            ratio = max(_largest(q), -_number(float(np.fmin.reduce(q))))
            flagged = _join(flagged, _beyond(q, ratio, known.relative, np.inf))
            if ratio <= 0.5:  # each subtraction was exact (Sterbenz)
                known.largest = max(known.largest, peak)
            elif peak >= known.largest * (1 - _SLACK):
                flagged = _join(flagged, np.flatnonzero(d >= peak))
            if not counts and peak > known.at_error:
                flagged = None
            if flagged is None:
                known.take(own, other, limit * factor, range(low, part.stop))
            elif flagged.size:
                share = limit if a.size == 1 else limit[flagged]
                known.take(own[flagged], other[flagged], share * factor, flagged + low)
    return known


def _largest(q: Array) -> float:
    """The largest number; NaN, which is 0 / 0, does not count."""
    return _number(float(np.fmax.reduce(q)))


def _number(found: float) -> float:
    return found if found == found else 0.0


def _beyond(q: Array, peak: float, best: float, counted: float) -> Array | None:
    """Positions where |q| may be the largest so far, or above what is counted; None for too many to single them out."""
    if peak <= min(best, counted) * (1 - _SLACK):
        return _NONE
    if peak < _TINY:  # the quotients may have underflowed
        return None
    at = np.flatnonzero(np.abs(q) >= min(max(best, peak), counted) * (1 - _SLACK))
    return None if at.size > q.size // 8 else at


_NONE = np.empty(0, dtype=np.intp)


def _join(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return None
    return np.union1d(a, b) if a.size and b.size else a if a.size else b


@dataclass(frozen=True)
class Survey:
    """A comparison, and what was seen on the way.

    Attributes
    ----------
    worst_planes
        The planes with the largest errors in units of what is allowed, the worst first, of equal ones the earliest;
        to a few roundings. Planes without any error are not among them.
    error, used
        Of every element, where the arrays are little.
    """

    comparison: Comparison
    worst_planes: tuple[int, ...] = ()
    error: Array | None = None
    used: Array | None = None


def measure(candidate: Array, reference: Array, allowed: Array) -> Comparison:
    """Compare two arrays of one shape element by element.

    Parameters
    ----------
    candidate, reference
        Of one shape, any floating dtype.
    allowed
        Largest permitted |candidate - reference|, of the same shape (or broadcast against it). Fastest where all three
        have one dtype.
    """
    return survey(candidate, reference, allowed).comparison


def survey(candidate: Array, reference: Array, allowed: Array, times: float = 1.0, *, planes: bool = True) -> Survey:
    """The same, and, if asked for, the worst planes (of the last two axes); ``allowed * times`` is allowed."""
    size = candidate.size
    if size == 0:
        nan = float("nan")
        return Survey(Comparison(
            max_abs_error=0.0, used=0.0, mismatched=0, elements=0, worst_index=None,
            candidate=nan, reference=nan, allowed=nan, passing_atol=0.0, passing_rtol=0.0,
        ))  # fmt: skip
    c, r, a = candidate.reshape(-1), reference.reshape(-1), _flat(allowed, candidate.shape)
    little = size <= min(LITTLE, CHUNK)
    if little and bool((c == r).all()):
        nothing = np.zeros(size)
        return Survey(_found(_Worst(size, 0), c, r, a, times, candidate.shape), (), nothing, nothing)
    if little or a.size == 1:
        a, times = a * a.dtype.type(times), 1.0
    if a.size == 1:
        with np.errstate(over="ignore"):  # what no float32 can hold is another number then
            narrow = a.astype(np.float32)
        a = narrow if narrow[0] == a[0] else a
    plane = candidate.shape[-1] * candidate.shape[-2] if candidate.ndim >= 2 else size
    most = min(PLANES, size // plane) if planes and size > plane else 0  # of a single plane there is nothing to tell
    error = used = None
    if little:
        known = _Worst(plane, most)
        error, used = known.take(c, r, a, range(size))
        known.rank(used, 0, known.used)
    elif size < SHARED:
        known = _scan(c, r, a, times, plane, most, (0, size), CHUNK)
    else:
        known = _in_two(c, r, a, times, plane, most)

    found = _found(known, c, r, a, times, candidate.shape)
    return Survey(found, tuple(plane for _, plane in known.top), error, used)


def _found(known: _Worst, c: Array, r: Array, a: Array, times: float, shape: tuple[int, ...]) -> Comparison:
    """What is known of all the elements, in the words of a report."""

    def element(flat: int) -> Element:
        limit = float(a[flat if a.size > 1 else 0] * a.dtype.type(times))
        index, rest = [], flat
        for length in reversed(shape):
            rest, at = divmod(rest, length)
            index.append(at)
        return Element(index=tuple(index[::-1]), candidate=float(c[flat]), reference=float(r[flat]), allowed=limit)

    worst = element(known.at)
    return Comparison(
        max_abs_error=known.largest,
        used=known.used,
        mismatched=known.mismatched,
        elements=c.size,
        worst_index=worst.index,
        candidate=worst.candidate,
        reference=worst.reference,
        allowed=worst.allowed,
        passing_atol=known.largest,
        passing_rtol=known.relative,
        worst=tuple(element(at) for _, at in known.found),
    )


def _in_two(c: Array, r: Array, a: Array, times: float, plane: int, most: int) -> _Worst:
    """The second half in a thread of its own."""
    from concurrent.futures import ThreadPoolExecutor  # brings logging along

    half = c.size // 2
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(_scan, c, r, a, times, plane, most, (half, c.size), CHUNK_OF_TWO)
        known = _scan(c, r, a, times, plane, most, (0, half), CHUNK_OF_TWO)
        known.merge(second.result())
    return known
