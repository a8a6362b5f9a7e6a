"""``python -m tests.benchmarks [NAME [options]]``: one benchmark, or all of them, each in a process of its own.

Each is a module ``bench_NAME`` with a ``main(arguments) -> exit code``: 1 if something is over its limit.
"""

from __future__ import annotations

import subprocess
import sys

#: What a name runs.
BENCHMARKS = {
    "engine": ["bench_engine", "--peers"],
    "growth": ["bench_engine", "--growth", "--only", "a"],
    "judge": ["bench_judge"],
    "memory": ["bench_memory"],
    "diff": ["bench_diff"],
    "startup": ["bench_startup"],
}


def main(arguments: list[str]) -> int:
    """The worst exit code of those that were asked for."""
    names = [arguments[0]] if arguments and arguments[0] in BENCHMARKS else [] if arguments else [*BENCHMARKS]
    if not names:
        sys.stderr.write(f"usage: python -m tests.benchmarks [{{{','.join(BENCHMARKS)}}} [--help]]\n")
        return 2
    codes = []
    for name in names:
        module, *options = BENCHMARKS[name]
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", *options, *arguments[1:]]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
