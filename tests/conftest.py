"""What holds for every test: one thread a process, and examples that do not change from run to run in CI."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

# Read when NumPy and torch are loaded, so this has to come first. make test runs several processes, and the order of
# a sum must not depend on how many threads there are.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
if "torch" in sys.modules:  # some other plugin was faster
    sys.modules["torch"].set_num_threads(1)

# What colours or widens the output of one machine would change what the tests of the views see.
for variable in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"):
    os.environ.pop(variable, None)

# A shared machine can be slow at any moment: no deadlines.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def _seed() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a file of tests makes as it is imported is the same whichever files came before it, in whatever order."""
    if isinstance(collector, pytest.Module):
        _seed()


@pytest.fixture(autouse=True)
def _the_same_weights_in_any_order() -> None:
    """A module that a test makes has the same weights whichever tests ran before it."""
    _seed()
