"""The arrows between the parts, and what no file may do; read from the source, so nothing has to be imported."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("manual_bp", "reference", "tests", "tools", "examples")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "manual_bp")]
ENGINE = [path for path in PACKAGE if path.is_relative_to(ROOT / "manual_bp" / "nn")]

MOST_LINES = 400
MOST_LINES_OF_TESTS = 420  # a table of cases does not get clearer by being cut in two
RUNS_CODE_WHEN_READ = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}


def at(path: Path, line: int, what: str | None) -> str:
    return f"{path.relative_to(ROOT)}:{line} {what}"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(path: Path, *, running: bool = False) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of every import; ``running`` leaves out what stands under TYPE_CHECKING."""
    package = list(path.relative_to(ROOT).parent.parts)
    todo: list[ast.AST] = [parsed(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # "from manual_bp import nn" imports manual_bp.nn
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        if running and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
        else:
            todo.extend(ast.iter_child_nodes(node))


def top(module: str) -> str:
    return module.partition(".")[0]


def test_there_is_something_to_look_at() -> None:
    assert len(PACKAGE) > 10
    assert len(ENGINE) > 5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import torch.nn as tnn", ["torch.nn"]),
        ("from ._layer import Layer", ["manual_bp.nn._layer.Layer"]),
        ("from .. import compare", ["manual_bp.compare"]),
        ("def f():\n    from torch import nn", ["torch.nn"]),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import os", ["os"]),
    ],
)
def test_the_reader_of_imports_sees(
    text: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "manual_bp" / "nn" / "file.py"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert [module for _, module in imports(path, running=True)] == found


def test_the_package_imports_no_torch() -> None:
    torch = {"torch", "manual_bp_torch"}
    assert [at(p, n, m) for p in PACKAGE for n, m in imports(p, running=True) if top(m) in torch] == []


def test_the_engine_imports_numpy_the_standard_library_and_itself() -> None:
    allowed = sys.stdlib_module_names | {"numpy"}
    found = [(p, n, m) for p in ENGINE for n, m in imports(p) if top(m) not in allowed]
    assert [at(*where) for where in found if not where[2].startswith("manual_bp.nn.")] == []


def test_nothing_reads_a_format_that_runs_code() -> None:
    assert [at(p, n, m) for p in SOURCES for n, m in imports(p) if top(m) in RUNS_CODE_WHEN_READ] == []
    unsafe = {("allow_pickle", "True"), ("weights_only", "False")}
    words = ((p, node) for p in SOURCES for node in ast.walk(parsed(p)) if isinstance(node, ast.keyword))
    assert [at(p, k.lineno, k.arg) for p, k in words if (k.arg, ast.unparse(k.value)) in unsafe] == []


def test_a_file_fits_into_one_head() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in SOURCES}
    most = {name: MOST_LINES_OF_TESTS if name.startswith("tests") else MOST_LINES for name in lengths}
    assert {name: lines for name, lines in lengths.items() if lines > most[name]} == {}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "manual_bp_torch", "numpy", "rich", "click", "jinja2", "latex2mathml", "hypothesis", "joblib"}
    script = f"import sys, manual_bp, manual_bp.pytest_plugin; print(*sorted(sys.modules.keys() & {heavy}))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("package", ["manual_bp", "manual_bp.nn", "manual_bp.diagnose"])
def test_each_public_name_is_what_the_type_checker_is_told(package: str) -> None:
    loaded = importlib.import_module(package)
    body = parsed(ROOT / package.replace(".", "/") / "__init__.py").body
    (block,) = (node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    told = {a.asname or a.name: n.module or "" for n in imported for a in n.names}
    assert told == loaded._HOME
    assert set(told) <= set(loaded.__all__)
    for name in loaded.__all__:
        assert getattr(loaded, name) is vars(loaded)[name]
    for name, module in told.items():
        home = module if package == "manual_bp" else f"{package}.{module}"
        assert getattr(loaded, name) is getattr(sys.modules[home], name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = loaded.nonsense
