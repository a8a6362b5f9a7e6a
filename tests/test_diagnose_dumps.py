"""The mistake behind a wrong number of a dump is named, without running the program that wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manual_bp import dumps, mutants, networks
from manual_bp.probes import probe
from manual_bp.report import Diagnosis, Report
from tests.dump_fixtures import answers, filled

PROBES = ("ties", "batch")


def _written_by(folder: Path, network: str, mistake: str, step: str, **options: object) -> Report:
    """The report on what a program with that mistake writes for two fixtures."""
    known = networks.get(network)
    candidate = mutants.get(mistake).plant(known, step)
    for name in PROBES:
        wrong = answers(candidate, probe(known, name))
        filled(folder / f"{name}.npz", "npz", network=known, name=name, change=wrong, expected=False)
    return dumps.judge_dump(folder, **options)  # type: ignore[arg-type]  # options of any type


def _said(report: Report, quantity: str) -> Diagnosis:
    found = {c.diagnosis for c in report.checks if c.name == quantity and c.status in ("wrong", "mismatch")}
    (diagnosis,) = found
    assert diagnosis is not None
    return diagnosis


@pytest.mark.parametrize(
    ("network", "mistake", "step", "quantity"),
    [
        ("two-conv-pooled", "conv-kernel-not-rotated", "zc2", "s1.grad"),
        ("three-layer", "relu-mask-forgotten", "a1", "z1.grad"),
        ("three-layer", "dw-batch-averaged", "z1", "z1.weight.grad"),
        ("design-batch-norm", "norm-mean-term-missing", "norm", "conv.grad"),
    ],
)
def test_what_a_dump_has_wrong_is_named(network: str, mistake: str, step: str, quantity: str, tmp_path: Path) -> None:
    diagnosis = _said(_written_by(tmp_path, network, mistake, step), quantity)
    assert diagnosis.identifier == mutants.get(mistake).hypothesis
    assert diagnosis.confidence == "certain"
    assert diagnosis.location == ""  # nobody knows where the program is


def test_what_was_left_out_is_written_out_of_what_was_written(tmp_path: Path) -> None:
    known = networks.get("three-layer")
    for name in PROBES:
        wrong = answers(known, probe(known, name))
        # fused: the gradient of z1 is never stored, and the kernel's gradient lacks the mask of the ReLU
        g, x = wrong["a1.grad"], probe(known, name).x
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))  # (N, 1, 6, 6, 3, 3)
        change = {"z1.grad": None, "z1.weight.grad": np.einsum("nopq,ncpqij->ocij", g, windows)}
        filled(tmp_path / f"{name}.npz", "npz", network=known, name=name, change=change, expected=False)
    diagnosis = _said(dumps.judge_dump(tmp_path, complete=False), "z1.weight.grad")
    assert "mask" in diagnosis.name


def test_an_array_of_another_shape_is_named_as_well(tmp_path: Path) -> None:
    known = networks.get("two-conv-two-hidden")
    turned = answers(known, probe(known, "batch"))["zh1.weight.grad"].T.copy()
    filled(tmp_path / "d.npz", "npz", network=known, name="batch", change={"zh1.weight.grad": turned}, expected=False)
    diagnosis = _said(dumps.judge_dump(tmp_path / "d.npz"), "zh1.weight.grad")
    assert diagnosis.identifier == "transposed"


def test_a_right_dump_has_no_diagnosis(tmp_path: Path) -> None:
    report = dumps.judge_dump(filled(tmp_path / "d.npz", "npz"))
    assert report.ok
    assert all(c.diagnosis is None for c in report.checks)
