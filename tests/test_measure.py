"""The measuring of a comparison: chunks, threads and shortcuts give what measuring every element gives."""

import threading

import numpy as np
import pytest

from manual_bp import measure as module
from manual_bp.measure import excess, measure, outside


def naive(candidate, reference, allowed):
    """Every element by itself, in plain Python floats."""
    allowed = np.broadcast_to(allowed, candidate.shape)
    rows = []
    for flat in range(candidate.size):
        index = tuple(int(i) for i in np.unravel_index(flat, candidate.shape))
        c, r, a = float(candidate[index]), float(reference[index]), float(allowed[index])
        if c == r or (np.isnan(c) and np.isnan(r)):
            error = used = relative = 0.0
        elif not (np.isfinite(c) and np.isfinite(r)):
            error = used = relative = np.inf
        else:
            error = abs(c - r)
            used = np.inf if a == 0 else error / a
            relative = np.inf if r == 0 else error / abs(r)
        rows.append((used, error, relative, flat, index))
    wrong = sorted((row for row in rows if row[0] > 1), key=lambda row: (-row[0], row[3]))
    peak = max(row[0] for row in rows)
    at = min((row for row in rows if row[0] == peak), key=lambda row: (0 if peak else -row[1], row[3]))
    return {
        "used": peak,
        "max_abs_error": max(row[1] for row in rows),
        "passing_rtol": max(row[2] for row in rows),
        "mismatched": len(wrong),
        "worst_index": at[4],
        "worst": [row[4] for row in wrong[: module.WORST]],
    }


def assert_as_naive(candidate, reference, allowed):
    found, right = measure(candidate, reference, allowed), naive(candidate, reference, allowed)
    for name in ("used", "max_abs_error", "passing_rtol", "mismatched", "worst_index"):
        assert getattr(found, name) == right[name], name
    assert [element.index for element in found.worst] == right["worst"]
    assert found.elements == candidate.size
    np.testing.assert_array_equal(outside(candidate, reference, allowed), excess(candidate, reference, allowed)[1] > 1)


def pair(seed, dtype, size=4000, *, errors="rounding"):
    rng = np.random.default_rng(seed)
    r = (rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 3, size)).astype(dtype)
    r[rng.random(size) < 0.3] = 0
    u = np.finfo(dtype).eps
    allowed = (np.abs(r) * 4 * u + (rng.random(size) < 0.9) * u).astype(dtype)
    if errors == "rounding":
        c = (r * (1 + u * rng.integers(-2, 3, size))).astype(dtype)
    elif errors == "none":
        c = r.copy()
    elif errors == "few":
        c = r.copy()
        c[rng.integers(0, size, 7)] += rng.standard_normal(7).astype(dtype)
    elif errors == "all":
        c = (r + 1).astype(dtype)
    else:
        c = r.copy()
        bad = rng.integers(0, size, 12)
        c[bad[:6]] = [np.nan, np.inf, -np.inf, np.nan, np.inf, 0]
        r[bad[3:9]] = [np.nan, np.inf, -np.inf, np.nan, np.inf, 1]
    return c, r, allowed


@pytest.fixture(autouse=True)
def _little_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 256)
    monkeypatch.setattr(module, "SHARED", 3000)


@pytest.mark.parametrize("errors", ["rounding", "none", "few", "all", "nonfinite"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, 256, 257, 2000, 4000])
def test_is_what_measuring_every_element_gives(dtype, errors, size):
    for seed in range(3):
        assert_as_naive(*(array[:size] for array in pair(seed, dtype, errors=errors)))


@pytest.mark.parametrize("size", [5, 4000])
def test_an_allowed_error_of_another_shape_or_dtype(size):
    c, r, a = pair(1, np.float32, size - size % 5)
    assert_as_naive(c, r, a.astype(np.float64))
    assert_as_naive(c, r, np.float64(1e-6) * np.ones(()))
    assert_as_naive(c, r, np.zeros(1))
    assert_as_naive(c.reshape(-1, 5), r.reshape(-1, 5), a[:5])
    assert_as_naive(c.reshape(5, -1).T, r.reshape(5, -1).T, a.reshape(5, -1).T)
    assert_as_naive(c.reshape(-1, 5), r.reshape(-1, 5), np.full(5, np.inf))


def test_integers_and_a_scalar():
    c, r = np.arange(3000), np.arange(3000)
    c[2999] += 1
    assert_as_naive(c, r, np.zeros(()))
    assert_as_naive(np.array(1.0), np.array(1.5), np.array(0.25))
    assert measure(np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 3))).elements == 0


def test_the_largest_of_many_equal_errors_is_exact_though_rounded_while_looking():
    # in float32 both differences are 1; in float64 the later one is larger
    r = np.full(4000, 1e-9, dtype=np.float32)
    c = np.ones(4000, dtype=np.float32)
    r[3500] = -1e-9
    assert_as_naive(c, r, np.full(4000, 3.0, dtype=np.float32))


def test_a_single_wrong_element_is_found_wherever_it_is():
    for at in (0, 255, 256, 1999, 2047, 2048, 3999):
        c, r, a = pair(2, np.float32)
        c[at] = r[at] + np.float32(1e-3) + abs(r[at])
        assert_as_naive(c, r, a)


def test_two_threads_leave_none_behind():
    before = threading.active_count()
    measure(*pair(3, np.float64))
    assert threading.active_count() == before


def test_a_single_bound_beyond_float32_is_no_overflow() -> None:
    a = np.arange(6.0)
    assert measure(a, a + 1, np.broadcast_to(np.array(1e300), a.shape)).mismatched == 0
    assert measure(a, a + 1, np.broadcast_to(np.array(0.5), a.shape)).mismatched == 6
