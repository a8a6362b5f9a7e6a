"""Two dumps array by array, without torch and without a network: what is the same, close, different, missing, extra."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manual_bp.dumps._dump import Dump
from manual_bp.dumps._manifest import EXPECTED, GIVEN, Entry
from manual_bp.dumps._stored import to_torch
from manual_bp.errors import ManualBPError
from manual_bp.measure import CHUNK
from manual_bp.trace import Array

#: "same": equal everywhere; "close": within the tolerance; the others are differences.
State = Literal["same", "close", "different", "shape", "dtype", "missing", "extra"]


@dataclass(frozen=True, kw_only=True)
class ArrayDiff:
    """One array of either dump.

    ``mismatched`` elements are outside of the tolerance; ``worst_index`` is the one that is furthest outside, with the
    values ``old`` and ``new``. ``ulp`` is the largest distance in units of the last place, for two floating arrays of
    one dtype; ``max_rel_error`` the largest |old - new| / |old|. A number beside NaN is infinitely far from it.
    """

    name: str
    state: State
    old_shape: tuple[int, ...] | None
    new_shape: tuple[int, ...] | None
    old_dtype: str = ""
    new_dtype: str = ""
    elements: int = 0
    mismatched: int = 0
    max_abs_error: float = math.nan
    max_rel_error: float = math.nan
    ulp: int | None = None
    worst_index: tuple[int, ...] | None = None
    old: float = math.nan
    new: float = math.nan

    @property
    def ok(self) -> bool:
        """Whether it is the same, or close enough."""
        return self.state in ("same", "close")


@dataclass(frozen=True, kw_only=True)
class DumpDiff:
    """Every array of either dump: those of the old one in its order, then those that only the new one has."""

    old: str
    new: str
    arrays: tuple[ArrayDiff, ...]
    atol: float
    rtol: float

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return all(array.ok for array in self.arrays)


def compare_dumps(old: Dump, new: Dump, *, atol: float = 0.0, rtol: float = 0.0) -> DumpDiff:
    """Compare two dumps by the names of their arrays; equal means |old - new| <= atol + rtol |old|, NaN equals NaN.

    Of a fixture the program's numbers count, or PyTorch's where no program has filled it in; what both fixtures give
    counts as well.

    Raises
    ------
    ManualBPError
        A tolerance that is negative or NaN, or two dumps without one name in common.
    """
    for name, value in (("atol", atol), ("rtol", rtol)):
        if not value >= 0:
            raise ManualBPError(f"{name} is {value}", hint="give 0 or a positive number")
    both = old.manifest is not None and new.manifest is not None
    a, b = _quantities(old, both), _quantities(new, both)
    if not a.keys() & b.keys():
        first = f"{', '.join(list(a)[:3])}; {', '.join(list(b)[:3])}"
        raise ManualBPError(
            f"{old.path} and {new.path} have no array in common ({first})", hint="use the same names in both"
        )
    names = [*a, *(name for name in b if name not in a)]
    rows = tuple(compare_arrays(name, a.get(name), b.get(name), atol=atol, rtol=rtol) for name in names)
    return DumpDiff(old=str(old.path), new=str(new.path), arrays=rows, atol=atol, rtol=rtol)


def _quantities(dump: Dump, with_given: bool) -> Mapping[str, Array]:
    found = dump.candidate() or dump.part(EXPECTED)
    if with_given or not found:
        found = {**dump.part(GIVEN), **found}
    if dump.manifest is None:
        return found
    entries: dict[str, Entry] = {entry.name: entry for entry in (*dump.manifest.given, *dump.manifest.wanted)}
    for name, array in found.items():
        entry = entries.get(name)
        # a fixture in channels-last holds the same numbers as one in torch's order
        if entry is not None and array.shape == entry.shape:
            with contextlib.suppress(ManualBPError, ValueError):
                found[name] = to_torch(array, entry, dump.manifest, entry.layout)
    return found


def compare_arrays(name: str, old: Array | None, new: Array | None, *, atol: float, rtol: float) -> ArrayDiff:
    """Compare two arrays of one name; either may be absent, not both."""
    shapes = (old.shape if old is not None else None, new.shape if new is not None else None)
    dtypes = (str(old.dtype) if old is not None else "", str(new.dtype) if new is not None else "")
    if old is None or new is None or shapes[0] != shapes[1]:
        state: State = "extra" if old is None else "missing" if new is None else "shape"
        return ArrayDiff(
            name=name, state=state, old_shape=shapes[0], new_shape=shapes[1], old_dtype=dtypes[0], new_dtype=dtypes[1]
        )
    found = _measure(old.reshape(-1), new.reshape(-1), atol, rtol)
    # with a tolerance another precision is expected; without one it is a difference
    state = (
        "different" if found.mismatched
        else "dtype" if dtypes[0] != dtypes[1] and not (atol or rtol)
        else "close" if found.max_abs_error > 0
        else "same"
    )  # fmt: skip  # four cases below one another
    at = found.worst
    return ArrayDiff(
        name=name,
        state=state,
        old_shape=shapes[0],
        new_shape=shapes[1],
        old_dtype=dtypes[0],
        new_dtype=dtypes[1],
        elements=old.size,
        mismatched=found.mismatched,
        max_abs_error=found.max_abs_error,
        max_rel_error=found.max_rel_error,
        ulp=found.ulp,
        worst_index=tuple(int(i) for i in np.unravel_index(at, old.shape)) if old.size else None,
        old=float(old.reshape(-1)[at]) if old.size else math.nan,
        new=float(new.reshape(-1)[at]) if old.size else math.nan,
    )


@dataclass(kw_only=True)
class _Found:
    mismatched: int = 0
    max_abs_error: float = 0.0
    max_rel_error: float = 0.0
    ulp: int | None = None
    worst: int = 0


def _measure(old: Array, new: Array, atol: float, rtol: float) -> _Found:
    """Two vectors of one length, in chunks that stay in cache; what is equal bit by bit costs one look."""
    counted = old.dtype == new.dtype and old.dtype.kind == "f"
    found = _Found(ulp=0 if counted else None)
    furthest = -math.inf
    for start in range(0, old.size, CHUNK):
        a, b = old[start : start + CHUNK], new[start : start + CHUNK]
        unequal = (a != b) & ~((a != a) & (b != b))
        if not unequal.any():
            continue
        error, allowed, relative = _errors(a, b, unequal, atol, rtol)
        # integers beyond 2^53 may differ by less than float64 can tell
        outside = (error > allowed) | (unequal & (error == 0))
        found.mismatched += int(np.count_nonzero(outside))
        with np.errstate(invalid="ignore"):  # inf - inf
            excess = np.where(unequal, np.nan_to_num(error - allowed, nan=np.inf, posinf=np.inf), -np.inf)
        at = int(excess.argmax())
        if excess[at] > furthest:
            furthest, found.worst = float(excess[at]), start + at
        found.max_abs_error = max(found.max_abs_error, float(error.max()))
        found.max_rel_error = max(found.max_rel_error, float(relative.max()))
        if counted:
            found.ulp = max(found.ulp or 0, _ulps(a[unequal], b[unequal]))
    return found


def _errors(a: Array, b: Array, unequal: Array, atol: float, rtol: float) -> tuple[Array, Array, Array]:
    """|a - b|, what is allowed, and |a - b| / |a|; infinite where only one of both is a number."""
    with np.errstate(all="ignore"):
        wide = a.astype(np.float64)
        size = np.abs(wide)
        error = np.where(unequal, np.abs(wide - b.astype(np.float64)), 0.0)
        odd = unequal & ~(np.isfinite(a) & np.isfinite(b))
        error[odd] = np.inf
        allowed = np.where(odd, 0.0, atol + rtol * size)
        relative = np.where(odd, np.inf, np.where(unequal, error / size, 0.0))
    return error, allowed, np.nan_to_num(relative, nan=0.0, posinf=np.inf)


def _ulps(a: Array, b: Array) -> int:
    """The largest number of steps between two floating numbers; 0 and -0 are one number, NaN counts like infinity."""
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    sign = unsigned.type(1 << (8 * a.dtype.itemsize - 1))

    def place(x: Array) -> Array:
        """The number's place among all, as an unsigned integer; both zeros are in the middle."""
        bits = np.where(np.isnan(x), np.inf, x).astype(x.dtype).view(unsigned)
        return np.asarray(np.where(bits & sign, sign - (bits & ~sign), sign + bits))

    i, j = place(a), place(b)
    return int((np.maximum(i, j) - np.minimum(i, j)).max())
