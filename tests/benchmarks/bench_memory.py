"""Peak memory of a fully judged comparison, in peaks of a torch training step of the same network.

    python -m tests.benchmarks.bench_memory

Each in processes of its own, of which the median counts: torch's threads make a step's peak swing by a third. A peak is
the largest resident size, less what it was when everything was loaded and built.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from click import echo

from tests.benchmarks.bench_diff import peak
from tests.benchmarks.bench_judge import both

#: Network, batch, most peaks of a step.
WORK = (("lenet", 64, None), ("vgg-block", 32, 3.0))

#: Processes for each.
RUNS = 5


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something is over its limit."""
    if arguments is None and len(sys.argv) == 4:
        return child(*sys.argv[1:])
    echo(f"peak memory over what is loaded, float32, median of {RUNS}")
    over = False
    for name, batch, limit in WORK:
        step, judged = (measured(which, name, batch) for which in ("step", "judged"))
        ratio = judged / step
        over |= limit is not None and ratio > limit
        said = "" if limit is None else f"  limit {limit}{'  OVER' if ratio > limit else ''}"
        sizes = f"step {step / 2**20:7.1f} MiB  judged {judged / 2**20:7.1f} MiB"
        echo(f"{name:12} batch {batch:<4}{sizes}{ratio:8.2f} x{said}")
    return int(over)


def measured(which: str, name: str, batch: int) -> int:
    command = [sys.executable, "-m", "tests.benchmarks.bench_memory", which, name, str(batch)]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(RUNS))
    return int(statistics.median(int(run.stdout) for run in runs))


def child(which: str, name: str, batch: str) -> int:
    """Print by how much the peak rises: a little network has run before, so that everything is loaded."""
    for work in both("three-layer", 4, "float32"):
        work()
    step, judged = both(name, int(batch), "float32")
    before = peak()
    for _ in range(2):
        (step if which == "step" else judged)()
    echo(peak() - before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
