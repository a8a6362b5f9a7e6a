"""How fast two arrays are compared within their bounds, beside memcpy and torch.testing.assert_close.

python -m tests.benchmarks.bench_diff [--elements N] [--rounds N]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from click import echo

from manual_bp.measure import measure

LIMIT, GOAL, FASTER = 2.5, 2.0, 15.0


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something is over its limit."""
    parser = argparse.ArgumentParser(prog="bench_diff", description=__doc__.partition("\n")[0])
    parser.add_argument("--elements", type=float, default=1e8)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    n = int(options.elements)
    candidate, reference, allowed = arrays(n)
    copy = np.zeros_like(candidate)
    before = peak()
    found = measure(candidate, reference, allowed)
    extra = peak() - before
    assert not found.mismatched
    copying, comparing = in_turn(
        [lambda: np.copyto(copy, candidate), lambda: measure(candidate, reference, allowed)], options.rounds
    )
    import torch

    torch.set_num_threads(2)
    a, b = torch.from_numpy(candidate), torch.from_numpy(reference)
    (closing,) = in_turn([lambda: torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)], max(1, options.rounds // 3))
    echo(f"{n:.0e} float32 elements, median of {options.rounds}")
    echo(f"memcpy                      {1e3 * copying:8.0f} ms")
    ratio, faster = comparing / copying, closing / comparing
    echo(f"measure, with bounds        {1e3 * comparing:8.0f} ms  {ratio:6.2f} x memcpy, limit {LIMIT} (goal {GOAL})")
    echo(f"torch.testing.assert_close  {1e3 * closing:8.0f} ms  {faster:6.1f} x as long as measure, at least {FASTER}")
    echo(f"memory that measure adds    {extra / 2**20:8.1f} MiB")
    return int(ratio > LIMIT or faster < FASTER)


def arrays(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sides that differ by rounding, and bounds that say so."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(n, dtype=np.float32)
    candidate = reference * (1 + np.float32(6e-8) * rng.integers(-2, 3, n, dtype=np.int8))
    return candidate, reference, np.abs(reference) * np.float32(1e-6) + np.float32(1e-9)


def in_turn(steps: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each step."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def peak() -> int:
    """Largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
