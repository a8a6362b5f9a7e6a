"""Every block of the README runs as it stands: Python in order, shell commands with the installed command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Your own backward pass in five minutes")[1].split("\n## ")[0]
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)

#: Headings of the section's parts, and the blocks below each.
PARTS = re.split(r"^(?=\*\*A)", SECTION, flags=re.MULTILINE)[1:]


def run(kind: str, text: str, folder: Path) -> None:
    """One block, in the folder in which the blocks before it ran."""
    named = re.match(r"# (\w+\.py)\n", text)
    if kind == "python" and named:
        (folder / named[1]).write_text(text, encoding="utf-8")
    elif kind == "python":
        exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})
    else:
        for line in text.splitlines():
            shell(line, folder)


def shell(line: str, folder: Path) -> None:
    """One command line, by this interpreter's own manual_bp and pytest."""
    program, *arguments = line.split()
    module = {"manual-bp": "manual_bp", "pytest": "pytest"}[program]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "reference")])}
    options = ["-p", "manual_bp.pytest_plugin"] if program == "pytest" and not plugin_installed() else []
    done = subprocess.run(
        [sys.executable, "-m", module, *options, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def plugin_installed() -> bool:
    """Whether pytest finds the plugin by itself."""
    from importlib.metadata import entry_points

    return any(point.value == "manual_bp.pytest_plugin" for point in entry_points(group="pytest11"))


@pytest.mark.parametrize("part", PARTS, ids=[re.sub(r"\W+", "-", p.split("**")[1]).strip("-") for p in PARTS])
def test_the_blocks_of_a_part_run_as_they_stand(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert blocks
    for kind, text in blocks:
        run(kind, text, tmp_path)


def test_no_block_is_left_out_and_none_is_long() -> None:
    kept = [
        block
        for part in PARTS
        for block in re.findall(r"^```(?:python|sh)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    ]
    assert kept == [text for _, text in BLOCKS]
    assert len(PARTS) == 6
    for text in kept:
        code = [line for line in text.splitlines() if line.strip() and not line.startswith(("import", "from"))]
        assert len(code) <= 20
