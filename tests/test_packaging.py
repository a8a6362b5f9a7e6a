"""What a user installs: built without network, with all its data, and working where nothing of the checkout is near."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import manual_bp

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = {"manual_bp": ROOT / "manual_bp", "manual_bp_torch": ROOT / "reference" / "manual_bp_torch"}


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, away from the checkout: no PYTHONPATH, no configuration of pip, no network."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "COV_"))}
    environment = kept | {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def build(source: Path, out: Path) -> dict[str, Path]:
    """Wheel and source distribution, made by the backend itself, so nothing is fetched."""
    run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=source)
    return {path.suffix: path for path in out.iterdir()}


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def python(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel in it. What the wheel needs (torch is large) is lent by the
    environment that runs the tests; its .pth files, an editable install among them, have no effect from there."""
    home = tmp_path_factory.mktemp("fresh") / "with a space"
    venv.create(home, with_pip=False, symlinks=True)
    paths = sysconfig.get_paths(scheme="venv", vars={"base": str(home), "platbase": str(home)})
    python = Path(paths["scripts"]) / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q", built[".whl"], cwd=home)
    lent = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    (Path(paths["purelib"]) / "lent.pth").write_text("\n".join(lent), encoding="utf-8")
    return python


def test_the_wheel_holds_every_file_of_both_packages(built: dict[str, Path]) -> None:
    files = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names(built[".whl"]) if ".dist-info/" not in name} == files


def test_the_wheel_holds_the_data_and_the_marks_for_type_checkers(built: dict[str, Path]) -> None:
    data = {"manual_bp/data/digits.npz", "manual_bp/render/report.schema.json"}
    assert names(built[".whl"]) >= data | {"manual_bp/py.typed", "manual_bp_torch/py.typed"}


def test_the_wheel_says_what_it_is(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as archive:
        (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
    assert metadata["Version"] == manual_bp.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert licence.startswith("MIT License")


def test_the_source_distribution_builds_the_same_wheel(built: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(built[".gz"]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "tests" / "conftest.py").is_file()
    assert names(build(source, tmp_path / "dist")[".whl"]) == names(built[".whl"])


def test_the_command_runs_where_it_is_installed(python: Path, tmp_path: Path) -> None:
    command = python.parent / "manual-bp"
    assert "compare" in run(command, "--help", cwd=tmp_path).stdout
    assert run(python, "-m", "manual_bp", "--help", cwd=tmp_path).stdout.startswith("Usage: ")


def test_both_packages_and_the_data_are_found_where_they_are_installed(python: Path, tmp_path: Path) -> None:
    script = (
        "import manual_bp, manual_bp_torch, importlib.resources as r;"
        "print(manual_bp.__file__, manual_bp_torch.__file__, r.files('manual_bp') / 'data' / 'digits.npz', sep='\\n')"
    )
    for line in run(python, "-W", "error", "-c", script, cwd=tmp_path).stdout.splitlines():
        assert Path(line).is_relative_to(python.parent.parent)
        assert Path(line).is_file()


def test_pytest_finds_the_plugin_where_it_is_installed(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
    (tmp_path / "reports").mkdir()  # somebody's own folder of a name that this repository uses too
    done = run(python, "-m", "pytest", "--trace-config", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "1 passed" in done.stdout
    assert f"manual-bp-{manual_bp.__version__} at {python.parent.parent}" in done.stdout


def test_the_pins_are_versions_that_the_project_asks_for() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(r.name): r for r in map(Requirement, (line for line in lines if line[:1] not in "#"))}
    extras = PROJECT["optional-dependencies"]
    direct = [*PROJECT["dependencies"], *extras["dev"], *extras["campaigns"], *extras["safetensors"]]
    for wanted in (r for r in map(Requirement, direct) if r.name != PROJECT["name"]):
        (pin,) = pins[canonicalize_name(wanted.name)].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), f"{wanted} excludes the pinned {pin.version}"
