"""Fixtures of a case of one's own, and its training: through the command line, as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp import dumps
from manual_bp.cli import cli
from manual_bp.errors import ManualBPError

ROOT = Path(__file__).parents[1]

CASE = """
import numpy as np
import torch
from torch import nn

from manual_bp import Case
from manual_bp.nn import SGD, Adam

torch.manual_seed(0)
rng = np.random.default_rng(0)
reference = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
names = {"W1": "0.weight", "b1": "0.bias", "h": "1", "W2": "2.weight", "b2": "2.bias", "out": "2"}
layouts = {"W1": "IO", "W2": "IO"}
data = {"x": rng.standard_normal((12, 4)), "y": rng.standard_normal((12, 2)), "loss": nn.MSELoss()}


def candidate(p, x, y):
    h = np.maximum(x @ p["W1"] + p["b1"], 0)
    out = h @ p["W2"] + p["b2"]
    dout = 2 * (out - y) / out.size
    dz = (dout @ p["W2"].T) * (h > 0)
    return {"loss": np.mean((out - y) ** 2), "dW1": x.T @ dz, "db1": dz.sum(0), "dW2": h.T @ dout, "db2": dout.sum(0)}


def update(p, g, state):
    for name in p:
        own = state.setdefault(name, {})
        d = g[name] + 0.01 * p[name]
        own["momentum_buffer"] = 0.9 * own["momentum_buffer"] + d if own else d
        p[name] = p[name] - 0.1 * own["momentum_buffer"]


def late(p, g, state):  # right once, and then the momentum is lost
    update(p, g, state)
    for name in p:
        state[name]["momentum_buffer"] = g[name] + 0.01 * p[name]


def careless(p, x, y):
    return {**candidate(p, x, y), "db1": 2 * candidate(p, x, y)["db1"]}


def silent(p, x, y):
    found = candidate(p, x, y)
    del found["dW2"]
    return found


def forgetful(p, g, state):
    return {name: p[name] - 0.1 * g[name] for name in p}


common = {**data, "reference": reference, "names": names, "layouts": layouts}
sgd = SGD(lr=0.1, momentum=0.9, weight_decay=0.01)
case = Case(candidate=candidate, optimizer=sgd, update=update, **common)
wrong_update = Case(candidate=candidate, optimizer=sgd, update=late, **common)
wrong_gradient = Case(candidate=careless, optimizer=sgd, **common)
no_gradient = Case(candidate=silent, optimizer=sgd, **common)
no_state = Case(candidate=candidate, optimizer=sgd, update=forgetful, **common)
no_optimizer = Case(candidate=candidate, **common)
of_torch = Case(candidate=candidate, optimizer=torch.optim.Adam(reference.parameters(), lr=0.01), **common)
upstream = Case(candidate=candidate, reference=reference, x=data["x"], names=names, layouts=layouts)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "reference")])}
    command = [sys.executable, "-m", "manual_bp", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def quickly(folder: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The same without a process of its own: exit code and output."""
    monkeypatch.chdir(folder)
    try:
        result = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    except ManualBPError as error:
        return 2, str(error)
    return int(result.return_value or 0), result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "case.py").write_text(CASE, encoding="utf-8")
    return tmp_path


def program(given: Mapping[str, Any], *, wrong: bool = False) -> dict[str, Any]:
    """What somebody's program makes of the fixture: the candidate above, in another place."""
    x, y = given["x"], given["y"]
    z = x @ given["W1"] + given["b1"]
    h = np.maximum(z, 0)
    out = h @ given["W2"] + given["b2"]
    dout = 2 * (out - y) / out.size
    dh = dout @ given["W2"].T
    dz = dh * (z > 0)
    loss = np.mean((out - y) ** 2)
    values = {"0": z, "h": h, "out": out, "loss": loss, "out.grad": dout, "h.grad": dh, "0.grad": dz}
    gradients = {"b1.grad": dz.sum(0), "b2.grad": dout.sum(0), "W2.grad": h.T @ dout, "x.grad": dz @ given["W1"].T}
    return {**values, **gradients, "W1.grad": x.T @ (dh if wrong else dz)}


def fill(path: Path, filled: Path, **options: Any) -> None:
    arrays = dict(np.load(path))
    given = {name.removeprefix("given/"): a for name, a in arrays.items() if name.startswith("given/")}
    found = {f"candidate/{name}": a for name, a in program(given, **options).items()}
    np.savez(filled, **arrays, **found)


def test_a_case_is_exported_filled_in_and_judged(folder: Path) -> None:
    done = run(folder, "export", "case.py", "-o", "out/fixture.npz")
    assert done.returncode == 0, done.stderr
    fixture = dumps.read(folder / "out/fixture.npz")
    manifest = fixture.manifest
    assert manifest is not None
    assert manifest.case == "../case.py"
    given = {entry.name: (entry.role, entry.layout) for entry in manifest.given}
    assert given["W1"] == ("parameter", "IO")
    assert given["y"] == ("target", None)
    assert fixture.arrays["given/W1"].shape == (4, 6)
    assert {"h", "out", "W1.grad", "x.grad", "loss"} <= {entry.name for entry in manifest.wanted}
    fill(folder / "out/fixture.npz", folder / "out/right.npz")
    fill(folder / "out/fixture.npz", folder / "out/wrong.npz", wrong=True)
    right = run(folder, "compare", "out/right.npz", "--format", "concise")
    assert right.returncode == 0, right.stdout + right.stderr
    assert "12 quantities" in right.stdout
    wrong = run(folder, "compare", "out/wrong.npz", "--format", "concise")
    assert wrong.returncode == 1
    assert "0.weight.grad: wrong (first wrong)" in wrong.stdout
    assert "1 of 12 quantities is wrong" in wrong.stdout


def test_what_a_program_leaves_out_is_missing_or_by_choice_part_of_what_follows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quickly(folder, "export", "case.py", "-o", "f.npz", monkeypatch=monkeypatch)[0] == 0
    fill(folder / "f.npz", folder / "d.npz")
    arrays = dict(np.load(folder / "d.npz"))
    del arrays["candidate/h"], arrays["candidate/h.grad"]
    np.savez(folder / "d.npz", **arrays)
    code, said = quickly(folder, "compare", "d.npz", "--format", "concise", monkeypatch=monkeypatch)
    assert code == 1
    assert "1: missing" in said
    code, said = quickly(folder, "compare", "d.npz", "--partial", "--format", "concise", monkeypatch=monkeypatch)
    assert code == 0, said
    arrays["candidate/W1.grad"], arrays["candidate/more"] = arrays["candidate/W1.grad"].T, np.zeros(2)
    np.savez(folder / "d.npz", **arrays)
    code, said = quickly(folder, "compare", "d.npz", "--partial", "--format", "concise", monkeypatch=monkeypatch)
    assert code == 1
    assert "0.weight.grad: mismatch" in said
    assert "more: extra" in said


def test_only_the_case_that_was_exported_is_run_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quickly(folder, "export", "case.py:case", "-o", "f.npz", monkeypatch=monkeypatch)[0] == 0
    fill(folder / "f.npz", folder / "d.npz")
    (folder / "case.py").write_text("raise SystemExit('ran')\n" + CASE, encoding="utf-8")
    code, said = quickly(folder, "compare", "d.npz", monkeypatch=monkeypatch)
    assert (code, "has changed" in said, "ran" in said) == (2, True, False)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/mine.py").write_text(CASE, encoding="utf-8")
    (folder / "case.py").unlink()
    code, said = quickly(folder, "compare", "d.npz", monkeypatch=monkeypatch)
    assert (code, "which is not there" in said, "--case" in said) == (2, True, True)
    told = ("compare", "d.npz", "--case", "elsewhere/mine.py:case", "--format", "concise")
    code, said = quickly(folder, *told, monkeypatch=monkeypatch)
    assert code == 0, said


def test_every_probe_of_a_case_as_a_folder_and_without_a_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--probe", "all", "--dtype", "float32", "-o", "all", "--form", "npz")
    assert quickly(folder, "export", "case.py:upstream", *options, monkeypatch=monkeypatch)[0] == 0
    paths = sorted((folder / "all").glob("*.npz"))
    assert [p.stem for p in paths] == ["faint", "given", "scales", "seed-1", "seed-2", "ties"]
    for path in paths:
        manifest = dumps.read(path).manifest
        assert manifest is not None
        assert {e.role for e in manifest.given} == {"parameter", "input", "upstream"}
        arrays = dict(np.load(path))
        expected = {n.replace("expected/", "candidate/"): a for n, a in arrays.items() if n.startswith("expected/")}
        np.savez(path, **arrays, **expected)
    code, said = quickly(folder, "compare", "all", "--format", "concise", monkeypatch=monkeypatch)
    assert code == 0, said
    code, said = quickly(folder, "export", "case.py:upstream", *options, monkeypatch=monkeypatch)
    assert (code, "that a program wrote" in said) == (2, True)
    assert "candidate/0" in np.load(paths[0]).files
    assert quickly(folder, "export", "case.py:upstream", *options, "--force", monkeypatch=monkeypatch)[0] == 0
    assert "candidate/0" not in np.load(paths[0]).files


def test_an_export_writes_over_nothing_of_the_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(folder / "weights.npz", w=np.ones(3))
    for target in ("case.py", "three-layer"):
        code, said = quickly(folder, "export", target, "-o", "weights.npz", monkeypatch=monkeypatch)
        assert (code, "is no fixture" in said, "--force" in said) == (2, True, True)
    assert np.load(folder / "weights.npz").files == ["w"]
    shutil.copy(folder / "weights.npz", folder / "kept.npz")
    assert quickly(folder, "export", "case.py", "-o", "kept.npz", "--force", monkeypatch=monkeypatch)[0] == 0
    assert dumps.read(folder / "kept.npz").manifest is not None
    folder_form = ("export", "case.py", "-o", "raw")
    assert quickly(folder, *folder_form, monkeypatch=monkeypatch)[0] == 0
    (folder / "raw/candidate/loss.bin").write_bytes(np.float64(1).tobytes())
    assert quickly(folder, *folder_form, monkeypatch=monkeypatch)[0] == 2
    assert (folder / "raw/candidate/loss.bin").is_file()
    assert quickly(folder, *folder_form, "--force", monkeypatch=monkeypatch)[0] == 0
    assert not (folder / "raw/candidate/loss.bin").exists()


# ---------------------------------------------------------------------------------------------------- training


def test_a_case_is_trained_with_an_update_of_its_own(folder: Path) -> None:
    done = run(folder, "train", "case.py", "--steps", "40", "--batch", "4", "-o", "record.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SGD(lr=0.1, momentum=0.9, weight_decay=0.01) beside an update of your own" in done.stdout
    assert "4 of 12 examples a step" in done.stdout
    assert "ALL RIGHT  40 steps" in done.stdout


def test_the_first_wrong_update_ends_it(folder: Path) -> None:
    done = run(folder, "train", "case.py:wrong_update", "--steps", "9")
    assert done.returncode == 1
    assert "WRONG  at step 1: 0.weight.momentum_buffer.new" in done.stdout


def test_a_wrong_gradient_ends_it_before_the_update(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = quickly(folder, "train", "case.py:wrong_gradient", "--steps", "9", monkeypatch=monkeypatch)
    assert code == 1
    assert "WRONG  at step 1: 0.bias.grad" in said
    assert "twice as large" in said


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torchs_own_optimiser_will_do_and_the_command_line_beats_the_case(
    dtype: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = quickly(
        folder, "train", "case.py:of_torch", "--steps", "30", "--dtype", dtype, "--lr", "0.02", monkeypatch=monkeypatch
    )
    assert code == 0, said
    assert f"Adam(lr=0.02) · {dtype}" in said
    losses = [float(line.split()[1]) for line in said.splitlines() if line.strip()[:1].isdigit()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_gradient", "reports no 'W2.grad'"),
        ("no_state", "has no 'momentum_buffer' for 'W1'"),
        ("no_optimizer", "the case has no optimizer"),
        ("upstream", "has no optimizer"),
    ],
)
def test_what_cannot_be_trained_is_said(name: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = quickly(folder, "train", f"case.py:{name}", "--steps", "3", monkeypatch=monkeypatch)
    assert code == 2
    assert words in said


def test_without_a_loss_there_is_nothing_to_train_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--steps", "3", "--optimizer", "sgd")
    code, said = quickly(folder, "train", "case.py:upstream", *options, monkeypatch=monkeypatch)
    assert (code, "no loss to train on" in said) == (2, True)
    code, said = quickly(folder, "train", "case.py", *options, "--batch", "13", monkeypatch=monkeypatch)
    assert (code, "there are 12 examples" in said) == (2, True)


def test_a_probe_outside_of_the_domain_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
import numpy as np
from torch import nn
from manual_bp import Case
p = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3))
own = {"reference": nn.Identity(), "x": p, "y": np.round(p), "loss": nn.BCELoss()}
case = Case(candidate=lambda params, x, y: {"output": x}, **own)
"""
    (folder / "domain.py").write_text(text, encoding="utf-8")
    options = ("--probe", "all", "-o", "probabilities", "--form", "npz")
    code, said = quickly(folder, "export", "domain.py", *options, monkeypatch=monkeypatch)
    assert code == 0, said
    assert [path.stem for path in (folder / "probabilities").iterdir()] == ["given"]
    assert "left out probe seed-1: the reference cannot work with it" in said
