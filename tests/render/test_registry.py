"""The registry of views: lazy, complete, and clear about what it does not know."""

import subprocess
import sys

import pytest
from builders import EXAMPLES, all_right, unrotated_kernel

from manual_bp import report_json
from manual_bp.errors import ManualBPError
from manual_bp.render import FORMATS, format_for, render, save

TEXTS = ["full", "concise", "json", "markdown", "junit"]


@pytest.mark.parametrize("format", TEXTS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_view_takes_every_report_and_is_a_pure_function_of_its_json(name, format):
    report = EXAMPLES[name]()
    text = render(report, format, width=80)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert render(report_json.loads(report_json.dumps(report)), format, width=80) == text


@pytest.mark.parametrize("format", TEXTS)
@pytest.mark.parametrize("name", ["unrotated kernel", "forgotten mask", "nan", "untidy", "residual", "large"])
def test_every_view_names_every_wrong_quantity(name, format):
    report = EXAMPLES[name]()
    text = render(report, format)
    wrong = {check.name for check in report.checks if check.status not in ("pass", "kink", "inherited")}
    assert wrong
    assert [name for name in wrong if name not in text] == []


def test_an_unknown_format_is_one_clear_error():
    with pytest.raises(ManualBPError, match="there is no format 'pdf'") as caught:
        render(all_right(), "pdf")
    assert all(name in str(caught.value) for name in FORMATS)


def test_the_name_of_a_file_decides(tmp_path):
    assert {format_for(f"x{end}") for end in (".txt", ".log", ".json", ".md", ".xml", ".HTML")} == set(FORMATS)
    path = save(unrotated_kernel(), tmp_path / "report.md")
    assert path.read_text(encoding="utf-8") == render(unrotated_kernel(), "markdown")
    assert save(unrotated_kernel(), tmp_path / "r.txt", format="concise").read_text(encoding="utf-8").count("\n") == 2
    with pytest.raises(ManualBPError, match=r"report\.pdf does not say which format"):
        save(all_right(), tmp_path / "report.pdf")


def test_only_the_view_that_needs_it_imports_rich_and_none_imports_numpy_or_torch():
    program = """
import sys
from manual_bp import report_json
from manual_bp.render import render, look_for
report = report_json.loads(sys.stdin.read())
look_for(sys.stdout)
for format in ("json", "concise", "markdown", "junit"):
    render(report, format)
heavy = {"rich", "jinja2", "click", "numpy", "torch"} & set(sys.modules)
assert not heavy, heavy
render(report, "full")
assert {"rich", "jinja2", "click", "numpy", "torch"} & set(sys.modules) == {"rich"}
"""
    text = report_json.dumps(unrotated_kernel())
    subprocess.run([sys.executable, "-c", program], input=text, text=True, check=True)
