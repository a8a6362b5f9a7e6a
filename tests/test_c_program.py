"""The three-layer network in C: exported, compiled, run, compared; and two mistakes planted in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from manual_bp import dumps, networks, probes
from manual_bp.report import Report

SOURCE = Path(__file__).parent / "c" / "three_layer.c"
CC = shutil.which("cc")

pytestmark = pytest.mark.skipif(CC is None, reason="there is no C compiler named cc")


def judged(folder: Path, dtype: str, *, mistake: int = 0) -> Report:
    """What a reader of the README does: export, compile, run, compare."""
    network = networks.get("three-layer")
    for name in ("ties", "saturation", "asymmetric"):
        fixture = dumps.fixture(network, probes.probe(network, name, dtype=dtype), expected=False)
        dumps.write(folder / "fixtures" / name, "bin", *fixture)
    found = sorted(map(str, (folder / "fixtures").iterdir()))
    program = folder / "three_layer"
    options = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-I", found[0], f"-DMISTAKE={mistake}"]
    built = subprocess.run(
        [str(CC), *options, "-o", str(program), str(SOURCE), "-lm"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    subprocess.run([str(program), *found], check=True)
    return dumps.judge_dump(folder / "fixtures")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_c_program_is_right(dtype: str, tmp_path: Path) -> None:
    report = judged(tmp_path, dtype)
    assert report.ok, report.first_wrong
    assert report.counts["pass"] == 3 * 23


def test_a_kernel_that_is_not_rotated_is_found(tmp_path: Path) -> None:
    report = judged(tmp_path, "float64", mistake=1)
    assert report.first_wrong == "x.grad"
    assert {check.name for check in report.checks if check.status != "pass"} == {"x.grad"}


def test_a_forgotten_mask_is_found(tmp_path: Path) -> None:
    report = judged(tmp_path, "float64", mistake=2)
    assert report.first_wrong == "z1.grad"
    assert {check.name for check in report.checks if check.status == "wrong"} == {"z1.grad"}
