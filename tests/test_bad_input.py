"""What cannot be used, from the outside: each case is one clear sentence and exit code 2, or a status in the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from manual_bp.case import CaseError, load_case
from manual_bp.cli import cli
from manual_bp.errors import ManualBPError

ROOT = Path(__file__).parents[1]

CASES = """
import sys

import numpy as np
import torch
from torch import nn

from manual_bp import Case

torch.manual_seed(0)
rng = np.random.default_rng(0)
reference = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
x, y = rng.standard_normal((5, 4)), rng.standard_normal((5, 2))
data = {"reference": reference, "x": x, "y": y, "loss": nn.MSELoss()}


def right(p, x, y):
    z = x @ p["0.weight"].T + p["0.bias"]
    h = np.maximum(z, 0)
    return {"0": z, "1": h, "2": h @ p["2.weight"].T + p["2.bias"]}


def endless(p, x, y, calls=[]):
    calls.append(1)
    if len(calls) > WHEN:
        print("endless", file=sys.stderr, flush=True)
        while True:
            pass
    return right(p, x, y)


def of(candidate, **options):
    return Case(candidate=candidate, **{**data, **options})


def returning(value):
    return of(lambda p, x, y: value)


def leaves(p, x, y):
    raise SystemExit(3)


def weights(p, x):
    return x @ p["w"]


raises = of(lambda p, x, y: p["W9"])
exits = of(leaves)
nothing, scalar, listed, empty = returning(None), returning(3.0), returning([1, 2]), returning({})
ragged, text, whole = returning({"0": [[1, 2], [3]]}), returning({"0": "z"}), returning({7: np.ones(3)})
absent, nested = returning({"0": None}), returning({"0": {"value": 1.0}})
a_dict = {"candidate": right}
names = returning({"0.wieght.grad": np.ones((3, 4))})
twice = returning({"0.bias.grad": np.ones(3), "d0.bias": np.ones(3)})
dropout = of(right, reference=nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)))
recurrent = of(right, reference=nn.LSTM(4, 3, 2, dropout=0.1))
attention = of(right, reference=nn.MultiheadAttention(4, 2, dropout=0.1))
random = of(right, reference=lambda params, x: nn.functional.dropout(x @ params["w"]), params={"w": np.ones((4, 2))})
a_class = of(right, reference=nn.Linear)
misshapen, integers, words = of(right, x=np.ones((5, 7))), of(right, x=np.ones((5, 4), int)), of(right, x="x")
not_finite, half = of(right, x=np.full((5, 4), np.nan)), of(right, dtype="float16")
probes, probe = of(right, probes=3), of(right, probes=["sed-1"])
mapped, laid_out = of(right, names={"W": "fc1.weight"}), of(right, layouts={"W": "IO"})
no_candidate, vector = of(None), of(right, loss=nn.MSELoss(reduction="none"))
tensors = of(lambda p, x, y: {k: torch.as_tensor(v) for k, v in right(p, x, y).items()})
in_place = of(right, reference=nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)))
float16 = of(lambda p, x, y: {k: v.astype(np.float16) for k, v in right(p, x, y).items()})
nan = of(lambda p, x, y: {**right(p, x, y), "0": np.full((5, 3), np.nan)})
shape = of(lambda p, x, y: {**right(p, x, y), "0": right(p, x, y)["0"].T})
layout = of(right, layouts={"1": "CN"})
inf = of(lambda p, x, y: {**right(p, x, y), "loss": np.float64("inf")})
meant = of(lambda p, x, y: {**right(p, x, y), "D1": np.ones((5, 3))})
never = of(endless)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad")
    for name, when in (("cases", 1), ("at_once", 0)):
        (path / f"{name}.py").write_text(CASES.replace("WHEN", str(when)), encoding="utf-8")
    return path


def compare(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.chdir(folder)
    arguments = ["compare", f"cases.py:{name}", "--format", "concise"]
    try:
        result = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    except ManualBPError as error:
        return 2, str(error)
    return int(result.return_value or 0), result.output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "the candidate raised KeyError: \"no parameter 'W9': there are '0.weight'"),
        ("exits", "the candidate raised SystemExit: 3"),
        ("nothing", "returned nothing (None). return a dictionary"),
        ("scalar", "returned a float"),
        ("listed", "returned a list"),
        ("empty", "returned an empty dictionary"),
        ("ragged", "'0' is no array"),
        ("text", "'0' is an array of <U1"),
        ("absent", "the candidate's '0' is None. give a NumPy array"),
        ("nested", "the candidate's '0' is a dict. give a NumPy array"),
        ("a_dict", "defines no case 'a_dict': it is a dict"),
        ("whole", "named 7. names are strings"),
        ("names", "is a quantity of the reference. did you mean 0.weight.grad"),
        ("twice", "reports '0.bias.grad' twice, as '0.bias.grad' and 'd0.bias'"),
        ("dropout", "module '1' is a Dropout in training mode"),
        ("recurrent", "is a LSTM in training mode"),
        ("attention", "is a MultiheadAttention in training mode"),
        ("random", "the reference is random: a second pass gives another 'output'"),
        ("a_class", "the reference is the class Linear. call it"),
        ("misshapen", "the reference raised RuntimeError for x float64 (5, 7)"),
        ("integers", "the reference raised RuntimeError for x int64 (5, 4)"),
        ("integers", "give it an input that it can work with, such as x.astype(float)."),
        ("words", "the given 'x' is an array of <U1"),
        ("not_finite", "elements that are not finite"),
        ("half", "no dtype 'float16' to compare in"),
        ("probes", "probes is 3"),
        ("probe", "no probe 'sed-1'. choose from given, seed-1"),
        ("mapped", "names maps 'W' to 'fc1.weight', which the reference does not have. did you mean"),
        ("laid_out", "a layout is given for 'W', which the reference does not have"),
        ("no_candidate", "the candidate is a NoneType"),
        ("vector", "the loss is not a scalar but (5, 2)"),
    ],
)
def test_one_clear_sentence(name: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = compare(folder, name, monkeypatch)
    assert (code, words in " ".join(said.split())) == (2, True), said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("float16", "float16, expected float64"),
        ("nan", "15 of 15 elements are not finite"),
        ("inf", "loss: not finite (first wrong): it is inf, which is not finite"),
        ("shape", "has shape 3×5, expected 5×3 (transposed?)"),
        ("meant", "D1: extra (first wrong): the reference has no such quantity; did you mean '1.grad'?"),
        ("layout", "its layout 'CN' would be 3×5 in torch's order; leave its layout away"),
    ],
)
def test_a_status_in_the_report(name: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = compare(folder, name, monkeypatch)
    assert (code, words in said) == (1, True), said


@pytest.mark.parametrize("name", ["tensors", "in_place"])
def test_what_can_be_used_is(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = compare(folder, name, monkeypatch)
    assert code == 0, said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x = (", ['  File "FILE", line 1', "    x = (", "        ^", "SyntaxError: '(' was never closed"]),
        ("x = 1\0", ["SyntaxError: source code string cannot contain null bytes"]),
        (
            "import no_such_module",
            [
                "Traceback (most recent call last):",
                '  File "FILE", line 1, in <module>',
                "    import no_such_module",
                "ModuleNotFoundError: No module named 'no_such_module'",
            ],
        ),
    ],
)
def test_a_file_that_cannot_be_run_shows_its_own_lines_alone(text: str, shown: list[str], tmp_path: Path) -> None:
    path = tmp_path / "case.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CaseError, match=r"its own traceback is above") as caught:
        load_case(str(path))
    assert caught.value.traceback_text.splitlines() == [line.replace("FILE", str(path)) for line in shown]


@pytest.mark.parametrize(
    "arguments",
    [
        ["fuzz", "--networks", "1", "--time", "nan"],
        ["train", "--lr", "nan"],
        ["diagnose", "three-layer", "--seconds", "nan"],
        ["train", "--optimizer", "sgd", "--momentum", "NaN"],
        ["train", "--weight-decay", "-nan"],
    ],
)
def test_what_is_not_a_number_is_no_budget_and_no_rate(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    *_, name, value = arguments
    assert f"Error: Invalid value for '{name}': '{value}' is not a number." in result.stderr


def interrupted(folder: Path, target: str, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a comparison that gets Ctrl-C once its candidate does not end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "reference")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "manual_bp", "compare", target, *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a run in the background hands down that it ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no other thread runs yet
    )
    assert process.stdout is not None
    assert process.stderr is not None
    guard = threading.Timer(120, process.kill)  # a test that hangs says less than one that fails
    guard.start()
    try:
        said = process.stderr.readline()
        assert "endless" in said, said + process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    finally:
        guard.cancel()
        process.kill()
    return process.returncode, out, err


def test_a_candidate_that_never_ends_leaves_a_partial_report(folder: Path) -> None:
    code, out, err = interrupted(folder, "cases.py:never", "-o", "partial.json")
    assert code == 130
    assert "interrupted: the report holds what was done until then" in err
    assert "1 probe (given)" in out
    assert '"partial": true' in (folder / "partial.json").read_text(encoding="utf-8")


def test_one_that_never_reported_anything_shows_where_it_was(folder: Path) -> None:
    code, _, err = interrupted(folder, "at_once.py:never")
    assert code == 2
    assert "in endless" in err
    assert "interrupted before anything could be judged" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device without room is there on Linux only")
@pytest.mark.parametrize("command", [["networks"], ["--help"], ["networks", "--format", "json"]])
def test_no_room_for_the_output_is_a_sentence(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "manual_bp", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: No space left on device; write it to another place\n"
