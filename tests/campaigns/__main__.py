"""``python -m tests.campaigns NAME [options]``: each campaign is a module with a ``main(arguments) -> exit code``."""

from __future__ import annotations

import os
import sys
from importlib import import_module

CAMPAIGNS = ("soak", "detection", "power", "diagnosis")


def main(arguments: list[str]) -> int:
    # read when NumPy and torch are loaded; one thread a process, so that sums do not depend on the machine
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    if not arguments or arguments[0] not in CAMPAIGNS:
        sys.stderr.write(f"usage: python -m tests.campaigns {{{','.join(CAMPAIGNS)}}} [--help]\n")
        return 2
    return int(import_module(f"tests.campaigns.{arguments[0]}").main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
