"""Whole views, letter by letter; ``python tests/render/test_golden.py`` writes them anew."""

from pathlib import Path

import pytest
from builders import EXAMPLES, all_right, forgotten_mask, unrotated_kernel

from manual_bp.render import render, render_diff

FOLDER = Path(__file__).parent / "golden"

VIEWS = {
    "unrotated-80.txt": lambda: render(unrotated_kernel(), "full", width=80),
    "unrotated-200.txt": lambda: render(unrotated_kernel(), "full", width=200),
    "mask-100-color.ansi": lambda: render(forgotten_mask(), "full", width=100, color=True),
    "right-160.txt": lambda: render(all_right(), "full", width=160),
    "tie-80.txt": lambda: render(EXAMPLES["tie"](), "full", width=80),
    "nan-80-ascii.txt": lambda: render(EXAMPLES["nan"](), "full", width=80, unicode=False),
    "residual-100.txt": lambda: render(EXAMPLES["residual"](), "full", width=100),
    "untidy.log": lambda: render(EXAMPLES["untidy"](), "concise"),
    "unrotated.md": lambda: render(unrotated_kernel(), "markdown"),
    "mask.xml": lambda: render(forgotten_mask(), "junit"),
    "diff-80.txt": lambda: render_diff(forgotten_mask(), unrotated_kernel(), width=80),
}


@pytest.mark.parametrize("name", VIEWS)
def test_the_view_is_the_one_that_was_looked_at(name):
    assert VIEWS[name]() == (FOLDER / name).read_text(encoding="utf-8")


def test_no_golden_file_is_left_over():
    assert {path.name for path in FOLDER.iterdir()} == set(VIEWS)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, view in VIEWS.items():
        (FOLDER / name).write_text(view(), encoding="utf-8")
