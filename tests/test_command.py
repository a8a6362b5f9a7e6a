"""The command as people run it: a process of its own, its exit code, what it writes and where."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp import networks
from manual_bp.cli import cli
from manual_bp.cli._settings import default_map
from manual_bp.errors import ManualBPError

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, cwd: Path, source: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = f"{source}:{ROOT / 'reference'}"
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
        **environment,
    }
    command = [sys.executable, "-m", "manual_bp", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def strict(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"bare {constant} in the JSON")

    return json.loads(text, parse_constant=refuse)


def test_without_arguments_the_three_layer_network_agrees(tmp_path: Path) -> None:
    found = run("compare", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    assert "ALL RIGHT" in found.stdout
    assert "\x1b" not in found.stdout
    for quantity in networks.get("three-layer").quantities():
        assert quantity.name in found.stdout
        assert quantity.symbol in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_json_can_be_read_by_another_program(tmp_path: Path) -> None:
    found = run("compare", "--probe", "digits", "--dtype", "float32", "--format", "json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    record = strict(found.stdout)
    assert record["schema_version"] == 1
    assert (record["verdict"], record["first_wrong"], record["dtype"]) == ("pass", None, "float32")
    names = [check["name"] for check in record["checks"]]
    assert names == [q.name for q in networks.get("three-layer").quantities()]
    assert {"max_abs_error", "used", "mismatched", "worst_index"} <= set(record["checks"][3]["isolated"])


def broken_copy(folder: Path, file: str, old: str, new: str) -> Path:
    """The package with one line changed."""
    shutil.copytree(ROOT / "manual_bp", folder / "manual_bp", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "manual_bp" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "first_wrong"),
    [
        ("nn/_linear.py", "delta.dot(weight)", "(-delta).dot(weight)", "flat.grad"),
        ("nn/_loss_binary.py", "(p - t) / np.maximum", "(t - p) / np.maximum", "a3.grad"),
        ("nn/_activation.py", "Gradients((np.asarray(upstream * (y * (1 - y))),))", "Gradients(())", "z3.grad"),
    ],
)
def test_one_broken_line_of_a_backward_pass_turns_it_red(
    tmp_path: Path, file: str, old: str, new: str, first_wrong: str
) -> None:
    source = broken_copy(tmp_path, file, old, new)
    found = run("compare", "--probe", "digits", "-o", "report.json", cwd=tmp_path, source=source)
    assert found.returncode == 1, found.stderr
    assert "WRONG" in found.stdout
    assert strict((tmp_path / "report.json").read_text(encoding="utf-8"))["first_wrong"] == first_wrong


def bad_weights(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.npz"
    rng = np.random.default_rng(0)
    params = networks.get("three-layer").initial(rng)
    if kind == "foreign":
        params = {"layer.weight": np.ones(3)}
    if kind == "shape":
        params["z1.weight"] = params["z1.weight"][0]
    if kind == "dtype":
        params = {name: a.astype(np.float32) for name, a in params.items()}
    if kind == "nan":
        params["z1.bias"][:] = np.nan
    if kind == "pickled":
        np.savez(path, **{"z1.weight": np.array([{"a": 1}], dtype=object)})
    elif kind == "text":
        path.write_text("no archive")
    elif kind != "absent":
        np.savez(path, **params)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "three-leyer"], "did you mean three-layer"),
        (["compare", "--batch", "1000000"], "larger than the data"),
        (["compare", str(ROOT / "README.md")], "README.md is neither a case (.py) nor a dump"),
        (["compare", str(ROOT / "reports/gallery/tie.json")], "a report is shown by manual-bp render"),
        (["compare", "--probe", "digit"], "did you mean digits"),
        (["compare", "-o", "report.docx"], "does not say which format"),
        (["compare", "nosuch.py"], "there is no file nosuch.py"),
        (["render", "nosuch.json"], "cannot read nosuch.json"),
        *((["compare", "--weights", f"{kind}.npz"], kind) for kind in ("absent", "foreign", "shape", "dtype", "nan")),
        *((["compare", "--weights", f"{kind}.npz"], kind) for kind in ("pickled", "text", "truncated")),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    if "--weights" in arguments:
        bad_weights(tmp_path, arguments[-1].removesuffix(".npz"))
    before = sorted(p.name for p in tmp_path.iterdir())
    found = run(*arguments, cwd=tmp_path)
    assert found.returncode == 2, found.stdout
    assert found.stdout == ""
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1, found.stderr
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_the_networks_as_json_are_all_or_the_one_that_is_asked_for() -> None:
    every = strict(CliRunner().invoke(cli, ["networks", "--format", "json"]).stdout)
    assert every == networks.NETWORKS
    one = CliRunner().invoke(cli, ["networks", "three-layer", "--format", "json"])
    assert strict(one.stdout) == {"three-layer": networks.get("three-layer").title}
    unknown = CliRunner().invoke(cli, ["networks", "four-layer", "--format", "json"])
    assert "did you mean three-layer" in str(unknown.exception)


def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in ("file/report.json", "."):
        found = run("compare", "--format", "json", "-o", path, cwd=tmp_path)
        assert found.returncode == 2
        assert "cannot write" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "case.py", "-o", "case.py", "--format", "json"], "cannot write case.py: it is what is read here"),
        (["compare", "case.py:case", "-o", "link.json"], "cannot write link.json: it is what is read here"),
        (["compare", "d.npz", "-o", "./d.npz", "--format", "html"], "cannot write ./d.npz: it is what is read here"),
        (["compare", "--weights", "d.npz", "--keep-arrays", "d.npz"], "cannot write d.npz: it is what is read here"),
        (["compare", "--reference", "n.npz", "--keep-arrays", "n.npz"], "cannot write n.npz twice"),
        (["compare", "-o", "r.json", "-o", "sub/../r.json"], "cannot write sub/../r.json twice"),
        (["render", "r.json", "-o", "r.json", "--format", "html"], "cannot write r.json: it is what is read here"),
        (["train", "case.py", "-o", "case.py"], "cannot write case.py: it is what is read here"),
        (["fuzz", "--networks", "1", "--save", "case.py"], "case.py is not a folder"),
        (["explain", "three-layer", "-o", "page.html"], "page.html is neither. end it in .txt or .json"),
    ],
)
def test_no_output_takes_the_place_of_what_is_read(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("case.py", "d.npz", "r.json"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.json").symlink_to("case.py")
    found = run(*arguments, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: ")
    assert said in found.stderr
    assert [(tmp_path / name).read_text() for name in ("case.py", "d.npz", "r.json")] == ["case.py", "d.npz", "r.json"]


TOO_LONG = "a" * 300  # the system refuses to look for it


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "-o", f"{TOO_LONG}.json"],
        ["compare", "--reference", f"{TOO_LONG}.npz"],
        ["compare", f"{TOO_LONG}.npz"],
        ["compare", f"{TOO_LONG}.py"],
        ["diff", f"{TOO_LONG}.json", TOO_LONG],
        ["export", "three-layer", "--no-expected", "-o", TOO_LONG],
        ["export", "three-layer", "--no-expected", "-o", f"{TOO_LONG}.npz"],
        ["fuzz", "--networks", "1", "--save", TOO_LONG],
        ["new", f"{TOO_LONG}.py"],
        ["train", "-o", f"{TOO_LONG}.json"],
    ],
)
def test_a_name_that_the_system_refuses_is_a_sentence(tmp_path: Path, arguments: list[str]) -> None:
    found = run(*arguments, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert len(found.stderr.splitlines()) == 1, found.stderr
    assert found.stderr.startswith("error: ")


def test_without_a_folder_to_be_in_there_are_no_settings(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, shutil; shutil.rmtree({str(gone)!r}); from manual_bp.cli import main; main()"
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, "networks"], cwd=gone, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("target", "option", "why"),
    [
        ("case.py", ["--batch", "3"], "the examples are those of the file"),
        ("case.py", ["--weights", "absent.npz"], "the weights are those of the file"),
        ("case.py", ["--partial"], "it belongs to a dump"),
        ("case.py", ["--power"], "it plants mistakes in the layers of the built-in networks"),
        ("dump.npz", ["--dtype", "float32"], "the numbers in the file have their own"),
        ("dump.npz", ["--seed", "1"], "the numbers are in the file"),
        ("dump.npz", ["--probe", "digits"], "a dump is one probe"),
        ("dump.npz", ["--keep-arrays", "k.npz"], "a dump holds the whole arrays already"),
        ("saved.case.npz", ["--reference", "r.npz"], "it is for the built-in networks"),
        ("three-layer", ["--fixture", "f.npz"], "it belongs to a dump"),
        ("three-layer", ["--case", "case.py"], "it belongs to a dump"),
    ],
)
def test_an_option_that_would_not_be_heeded_is_refused(target: str, option: list[str], why: str) -> None:
    found = CliRunner().invoke(cli, ["compare", target, *option])
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"Error: {option[0]} is of no use here: {why}" in found.stderr


def test_run_again_says_what_the_command_line_said(tmp_path: Path) -> None:
    (tmp_path / "case.py").write_text(CASE_THAT_WRITES)
    options = ["--dtype", "float32", "--seed", "3", "--strict-kinks", "--probe", "given", "--probe", "seed-1"]
    found = run("compare", "case.py", *options, "--format", "json", cwd=tmp_path)
    assert strict(found.stdout)["command"].split() == ["manual-bp", "compare", "case.py", *options]


def test_files_get_the_format_their_name_says_and_render_needs_no_torch(tmp_path: Path) -> None:
    found = run("compare", "--probe", "digits", "-o", "a.json", "-o", "a.html", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "ALL RIGHT" in found.stdout
    assert (tmp_path / "a.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    for format_ in ("full", "concise", "markdown", "junit", "html"):
        view = run("render", "a.json", "--format", format_, cwd=tmp_path, source=tmp_path)
        assert view.returncode == 0, view.stderr
        assert view.stdout


def test_a_new_case_runs_and_a_broken_one_shows_its_own_traceback(tmp_path: Path) -> None:
    assert run("new", "case.py", cwd=tmp_path).returncode == 0
    assert run("new", "case.py", cwd=tmp_path).returncode == 2
    found = run("compare", "case.py", "--format", "concise", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    text = (tmp_path / "case.py").read_text(encoding="utf-8")
    (tmp_path / "wrong.py").write_text(text.replace("da1 * (z1 > 0)", "da1"), encoding="utf-8")
    found = run("compare", "wrong.py", "--format", "concise", cwd=tmp_path)
    assert found.returncode == 1
    assert "z1.grad: wrong (first wrong)" in found.stdout
    (tmp_path / "raises.py").write_text(text.replace("dz2 /= len(x)", "dz2 /= undefined"), encoding="utf-8")
    found = run("compare", "raises.py", cwd=tmp_path)
    assert found.returncode == 2
    assert "NameError" in found.stderr
    assert "raises.py" in found.stderr
    assert "verification.py" not in found.stderr


def test_colour_is_on_demand(tmp_path: Path) -> None:
    arguments = ("compare", "--probe", "digits")
    assert "\x1b[" in run(*arguments, "--color", "always", cwd=tmp_path).stdout
    assert "\x1b[" in run(*arguments, cwd=tmp_path, FORCE_COLOR="1").stdout
    assert "\x1b[" not in run(*arguments, cwd=tmp_path, FORCE_COLOR="1", NO_COLOR="1").stdout


def test_settings_of_the_project_are_defaults_that_the_command_line_beats(tmp_path: Path) -> None:
    settings = tmp_path / "pyproject.toml"
    settings.write_text('[tool.manual-bp]\ndtype = "float32"\nprobe = "digits"\nformat = "json"\n')
    (tmp_path / "sub").mkdir()
    record = strict(run("compare", cwd=tmp_path / "sub").stdout)
    assert (record["dtype"], [p["name"] for p in record["probes"]]) == ("float32", ["digits"])
    assert strict(run("compare", "--dtype", "float64", cwd=tmp_path).stdout)["dtype"] == "float64"
    assert strict(run("diagnose", "three-layer", cwd=tmp_path).stdout)["dtype"] == "float32"
    settings.write_text("[tool.manual-bp]\nstrict-kink = true\n")
    found = run("compare", cwd=tmp_path)
    assert found.returncode == 2
    assert "did you mean strict-kinks" in found.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tool = 3", ""),
        ("[tool]\nmanual-bp = 3", "tool.manual-bp is no table"),
        ("[[tool.manual-bp]]\nseed = 1", "tool.manual-bp is no table"),
        ("[tool.manual-bp]\ndtype = 'float16'", "dtype is 'float16'. give one of float32, float64"),
        ("[tool.manual-bp]\nseed = true", "seed is True. give a whole number from 0 on"),
        ("[tool.manual-bp]\nbatch = 0", "batch is 0. give a whole number from 1 on"),
        ("[tool.manual-bp]\nprobe = ['digits', 1]", "probe is ['digits', 1]. give a name, or a list of names"),
        ("[tool.manual-bp]\nstrict-kinks = 'yes'", "strict-kinks is 'yes'. give true or false"),
        ("[tool.manual-bp]\nformat = 'pdf'", "format is 'pdf'. give one of full, concise"),
        ("[tool.manual-bp]\ncolor = 1", "color is 1. give one of auto, always, never"),
        ("seed = ", "cannot read the settings in"),
    ],
)
def test_a_setting_that_will_not_do_is_said_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    if not said:
        assert default_map(tmp_path) == {"compare": {}}
        return
    with pytest.raises(ManualBPError) as caught:
        default_map(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)


def test_settings_that_cannot_be_read_are_in_the_way_of_nobody_who_does_not_need_them(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.manual-bp\nfoo")
    for command in ("--help", "compare --help", "diagnose -h", "networks", "--version"):
        found = run(*command.split(), cwd=tmp_path)
        assert (found.returncode, found.stderr) == (0, ""), command
    found = run("compare", cwd=tmp_path)
    assert found.returncode == 2
    assert "cannot read the settings in" in found.stderr


CASE_THAT_WRITES = """
import atexit
from pathlib import Path

import numpy as np
from torch import nn

from manual_bp import Case

log = open("log.txt", "w")
log.write("begun")
atexit.register(lambda: Path("end.txt").write_text("done"))
case = Case(
    reference=nn.Linear(2, 1),
    x=np.ones((3, 2)),
    y=np.zeros((3, 1)),
    loss=nn.MSELoss(),
    candidate=lambda p, x, y: {"output": x @ p["weight"].T + p["bias"]},
)
"""


def test_what_a_case_wrote_is_in_its_files_when_the_command_has_left(tmp_path: Path) -> None:
    (tmp_path / "writes.py").write_text(CASE_THAT_WRITES)
    done = run("compare", "writes.py:case", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log.txt").read_text() == "begun"
    assert (tmp_path / "end.txt").read_text() == "done"
