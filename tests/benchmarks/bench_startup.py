"""How long commands take from start to exit, beside ``python -c "import torch"``.

    python -m tests.benchmarks.bench_startup [--rounds N] [--cpu]

Medians of whole processes, in turn. The first three rows are what the others are held against. Bytecode is kept, as it
is where a package was installed, whatever PYTHONDONTWRITEBYTECODE says here: the first run of each is not timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from click import echo


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something is over its limit."""
    parser = argparse.ArgumentParser(prog="bench_startup", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--cpu", action="store_true", help="processor time in place of wall time, on a busy machine")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        record, kept = Path(folder, "report.json"), Path(folder, "reference.npz")
        ours = [sys.executable, "-m", "manual_bp"]
        compare = [*ours, "compare"]
        subprocess.run([*compare, "--reference", str(kept), "-o", str(record)], check=True, capture_output=True)
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "import numpy": [sys.executable, "-c", "import numpy"],
            "import torch": [sys.executable, "-c", "import torch"],
            "import manual_bp": [sys.executable, "-c", "import manual_bp"],
            "compare": compare,
            "compare --reference": [*compare, "--reference", str(kept)],
            "networks": [*ours, "networks"],
            "--help": [*ours, "--help"],
            "render": [*ours, "render", str(record)],
            "diff": [*ours, "diff", str(record), str(record)],
        }
        times = measured(commands, options.rounds, cpu=options.cpu)
    bare, numpy, torch = (times[name] for name in ("python", "import numpy", "import torch"))
    limits = {
        "import manual_bp": (times["import manual_bp"] / numpy, 1.2, "x import numpy"),
        "compare": (times["compare"] / torch, 0.85, "x import torch (goal 0.75)"),
    }
    limits |= {name: (times[name] - bare, 0.3, "s over python") for name in list(times)[5:]}
    echo(f"whole processes, median of {options.rounds}, {'processor' if options.cpu else 'wall'} time")
    for name, taken in times.items():
        found = limits.get(name)
        row = f"{name:22}{1e3 * taken:8.0f} ms"
        echo(row if found is None else f"{row}{found[0]:8.2f} {found[2]}, limit {found[1]}{_over(found[0], found[1])}")
    return int(any(value > limit for value, limit, _ in limits.values()))


def measured(commands: dict[str, list[str]], rounds: int, *, cpu: bool) -> dict[str, float]:
    """Median seconds of each command, all of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            taken = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise RuntimeError(f"{name} left with {process.returncode}")
            if turn:
                times[name].append(usage.ru_utime + usage.ru_stime if cpu else taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _over(value: float, limit: float) -> str:
    return "  OVER" if value > limit else ""


if __name__ == "__main__":
    sys.exit(main())
