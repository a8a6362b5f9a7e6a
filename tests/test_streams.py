"""Standard streams that are closed, or lead to where there is no room: the exit code is the comparison's all the same.

Python has None for a closed stream, and the next file that is opened gets its number.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are closed by the shell")

#: What must hold while a case runs: nobody else has the numbers of the streams, here and in what is started from here.
CASE = """
import os
import subprocess
import sys

import numpy as np
from torch import nn

from manual_bp import Case

with open("log.txt", "w") as log:
    os.write(1, b"a library of C's")
    os.write(2, b"a library of C's")
    log.write(str(log.fileno()))
subprocess.run([sys.executable, "-c", "import sys; assert None not in (sys.stdin, sys.stdout, sys.stderr)"], check=True)
case = Case(
    reference=nn.Linear(2, 1),
    x=np.ones((3, 2)),
    y=np.zeros((3, 1)),
    loss=nn.MSELoss(),
    candidate=lambda p, x, y: {"output": SIGN x @ p["weight"].T + p["bias"]},
)
"""


def run(arguments: list[str], streams: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command with its streams redirected as the shell writes it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "reference")])}
    shell = ["sh", "-c", f'"$@" {streams}', "sh", sys.executable, "-m", "manual_bp", *arguments]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_a_list_with_closed_streams(streams: str, tmp_path: Path) -> None:
    done = run(["networks"], streams, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("three-layer" in done.stdout) == (">&-" not in streams.replace("2>&-", ""))


@pytest.mark.parametrize(
    "streams",
    [
        "2>&-",
        "<&- >&- 2>&-",
        pytest.param(
            "2>/dev/full",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device without room is there on Linux"),
        ),
    ],
)
@pytest.mark.parametrize("arguments", [["compare", "nope"], ["networks", "--nope"]])
def test_an_error_that_nobody_can_read_is_an_error(arguments: list[str], streams: str, tmp_path: Path) -> None:
    """The first is raised while torch's libraries are being loaded, where Python's own way out ends in a crash."""
    done = run(arguments, streams, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(("sign", "code"), [("+", 0), ("-", 1)])
@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-"])
def test_a_comparison_with_closed_streams(streams: str, sign: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "case.py").write_text(CASE.replace("SIGN", sign), encoding="utf-8")
    done = run(["compare", "case.py", "--format", "markdown", "-o", "report.md"], streams, tmp_path)
    assert (done.returncode, done.stderr) == (code, "")
    assert int((tmp_path / "log.txt").read_text(encoding="utf-8")) > 2
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("#")


def test_a_built_in_network_without_stderr(tmp_path: Path) -> None:
    done = run(["compare", "kernel-gradient"], "2>&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ALL RIGHT" in done.stdout
