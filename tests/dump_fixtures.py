"""Fixtures that a program filled in, for the tests of dumps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manual_bp import dumps, networks
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.probes import Probe, probe
from manual_bp.report import Report
from manual_bp.trace import Array

THREE = networks.get("three-layer")
FORMS: tuple[dumps.Form, ...] = ("npz", "safetensors", "bin")


def place(folder: Path, form: str) -> Path:
    return folder / ("fixture" if form == "bin" else f"fixture.{form}")


def answers(network: Network, made: Probe) -> dict[str, Array]:
    """What a right program finds: the engine's own pass."""
    trace = network.run(made.params, made.x, made.y).trace
    return {name: array for name, array in trace.items() if name != "x" and name not in made.params}


def filled(
    path: Path,
    form: dumps.Form,
    *,
    network: Network = THREE,
    name: str = "ties",
    change: Mapping[str, Array | None] | None = None,
    **options: Any,
) -> Path:
    """A fixture that a program filled in, right but for ``change`` (None: left out)."""
    made = probe(network, name, dtype=options.pop("dtype", "float64"))
    manifest, arrays = dumps.fixture(network, made, **options)
    found = {**answers(network, made), **(change or {})}
    candidate = {f"candidate/{n}": a for n, a in found.items() if a is not None}
    dumps.write(path, form, manifest, arrays)
    if form == "bin":
        for where, array in candidate.items():
            (path / f"{where}.bin").write_bytes(np.ascontiguousarray(array).tobytes())
    else:
        dumps.write(path, form, manifest, {**arrays, **candidate})
    return path


def statuses(report: Report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks if check.status != "pass"}


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ManualBPError) as caught:
        dumps.read(path)
    assert all(word in str(caught.value) for word in (path.name, *words)), caught.value
    assert caught.value.hint
