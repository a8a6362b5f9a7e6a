"""Torch's numbers in a file: used without torch where they fit to the bit, never where anything is other."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import manual_bp
from manual_bp import networks, nn, probes
from manual_bp.errors import ManualBPError
from manual_bp.reference_file import ReferenceFile, answers
from manual_bp.runner import judge_network

NAME = "three-layer"


def chosen(*, seed=0, dtype="float64", names=("digits", "ties")):
    network = networks.get(NAME)
    return network, [probes.probe(network, name, seed=seed, dtype=dtype) for name in names]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "answers.npz"
    network, made = chosen()
    report = judge_network(network, made, reference=ReferenceFile(str(path)))
    assert report.ok
    return path, report


def answered(path, network, made, dtype="float64"):
    file = ReferenceFile(str(path))
    file.setting(network, dtype)
    return answers(file, network, made)


def test_the_report_is_the_same_with_and_without_torch(written):
    path, fresh = written
    network, made = chosen()
    judge = object()  # would fail if it were asked
    again = judge_network(network, made, reference=ReferenceFile(str(path)), judge=judge)
    assert again == fresh


def test_other_numbers_are_not_answered(written):
    path, _ = written
    assert answered(path, *chosen()) is not None
    assert answered(path, *chosen(seed=1)) is None
    assert answered(path, *chosen(dtype="float32"), dtype="float32") is None
    network, (digits, ties) = chosen()
    weight = digits.params["z1.weight"]
    for other in (
        replace(digits, params={**digits.params, "z1.weight": np.nextafter(weight, 9)}),
        replace(digits, x=np.nextafter(digits.x, 9)),
        replace(digits, y=1 - digits.y),
    ):
        assert answered(path, network, [other, ties]) is None


def test_another_network_of_the_same_name_is_not_answered(written):
    path, _ = written
    network, made = chosen()
    assert answered(path, network.with_layer("a1", nn.LeakyReLU(0.0)), made) is None


def test_an_edited_reference_or_another_torch_is_not_answered(written, monkeypatch):
    path, _ = written
    for name in ("_sources", "_torch_release"):
        with monkeypatch.context() as patched:
            patched.setattr(f"manual_bp.reference_file.{name}", lambda: "other")
            assert answered(path, *chosen()) is None


def test_a_wrong_pass_is_judged_by_torch_and_not_kept(tmp_path):
    class Wrong(nn.Sigmoid):
        def backward(self, cache, upstream, /):
            return nn.Gradients((upstream * 1.5,))

    path = tmp_path / "answers.npz"
    network, made = chosen(names=("digits",))
    faulty = network.with_layer("a3", Wrong())
    file = ReferenceFile(str(path))
    file.setting(faulty, "float64")
    report = judge_network(network, made, candidate=faulty, reference=file)
    assert report.first_wrong == "z3.grad"
    assert json.loads(np.load(path)["about"].tobytes())["answers"] == {}


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "bit", "foreign", "array", "pickle", "folder"])
def test_a_file_of_another_kind_is_refused_and_left_alone(written, tmp_path, damage):
    path = tmp_path / "other.npz"
    data = bytearray(written[0].read_bytes())
    if damage == "text":
        path.write_text("not a zip file")
    elif damage == "empty":
        path.touch()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "foreign":
        np.savez(path, z1=np.ones(3))
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    elif damage == "pickle":
        np.savez(path, about=np.array([{}], dtype=object), numbers=np.ones(3))
    else:
        path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    why = "is a directory" if damage == "folder" else "it is of another kind, or damaged"
    said = f"{path} holds no reference of manual-bp: {why}. give the name of a new file"
    with pytest.raises(ManualBPError, match=re.escape(said)):
        ReferenceFile(str(path))
    assert (path.read_bytes() if path.is_file() else None) == before


def test_the_command_does_without_torch_until_a_line_of_the_engine_is_broken(tmp_path):
    """A copy of the package, so that a line of its engine can be broken between two runs with one file."""
    home, block = tmp_path / "home", tmp_path / "block"
    package = Path(manual_bp.__file__).parent
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, home / "manual_bp", ignore=skipped)
    shutil.copytree(package.parent / "reference" / "manual_bp_torch", home / "manual_bp_torch", ignore=skipped)
    # looking for torch is allowed, importing it is not
    block.mkdir()
    (block / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('torch.'):\n"
        "            raise SystemExit(77)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )

    def compare(*, torch=True):
        path = os.pathsep.join(map(str, [home] if torch else [block, home]))
        command = [sys.executable, "-m", "manual_bp", "compare", "--probe", "digits", "--reference", "answers.npz"]
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    first = compare()
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "answers.npz").is_file()
    again = compare(torch=False)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    sigmoid = home / "manual_bp" / "nn" / "_activation.py"
    text = sigmoid.read_text()
    assert text.count("y * (1 - y)") == 1
    sigmoid.write_text(text.replace("y * (1 - y)", "y * (1 + y)"))
    assert compare(torch=False).returncode == 77  # it asks for torch
    broken = compare()
    assert broken.returncode == 1, broken.stderr
    assert "z3.grad" in broken.stdout
    sigmoid.write_text(text)
    mended = compare()
    assert (mended.returncode, mended.stdout) == (0, first.stdout)
