"""The derivation on the command line, in the record, and as a chapter of the page."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp.cli import cli
from manual_bp.errors import ManualBPError
from manual_bp.kept import Kept
from manual_bp.lesson import chapter, explain
from manual_bp.networks import get
from manual_bp.probes import probe
from manual_bp.render import render
from manual_bp.report_json import dumps, loads
from manual_bp.runner import judge_network


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def test_one_quantity_with_its_equation_and_numbers() -> None:
    text = run("explain", "three-layer", "a1.grad", "--probe", "ties", "--color", "never")
    (step,) = explain(get("three-layer"), "a1.grad", probe=probe(get("three-layer"), "ties"))
    assert " ".join(step.equation.split()) in " ".join(text.split())
    assert step.worked[0].label in text
    assert "z1.grad" not in text


def test_the_whole_derivation_answers_the_question() -> None:
    text = run("explain", "three-layer", "--color", "never")
    assert text.index("How does the error go on") < text.index("∂L/∂x") < text.index("The answer")


def test_a_file_is_written_without_colours(tmp_path) -> None:
    target = tmp_path / "lesson.txt"
    run("explain", "kernel-gradient", "-o", str(target), "--color", "always")
    assert "\x1b" not in target.read_text(encoding="utf-8")
    assert "0.094061" in target.read_text(encoding="utf-8")


def test_json_for_programs() -> None:
    steps = json.loads(run("explain", "three-layer", "--format", "json"))
    assert [step["name"] for step in steps if step["name"]] == [
        q.name for q in get("three-layer").quantities() if q.kind != "parameter"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("three-layer", "a1.gard"), "did you mean a1.grad"),
        (("three-laye",), "did you mean three-layer"),
        (("three-layer", "--probe", "tie"), "did you mean ties"),
    ],
)
def test_a_name_that_is_not_known_is_answered_with_a_close_one(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ManualBPError, match=said):
        run("explain", *arguments)


def test_torch_is_not_loaded() -> None:
    code = (
        "import sys; from manual_bp.cli import cli\n"
        "cli.main(['explain', 'three-layer', 'a1.grad'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


# ---------------------------------------------------------------------------- in the record and beside it


def test_the_record_takes_the_lesson_along_and_the_page_has_its_chapter() -> None:
    network, ties = get("three-layer"), probe(get("three-layer"), "ties")
    report = judge_network(network, [ties])
    assert 'id="lesson"' not in render(report, "html")
    told = replace(report, lesson=chapter(network, ties))
    again = loads(dumps(told))
    assert again == told
    assert render(again, "html") == render(told, "html")
    assert "what about the other 3" not in render(report, "html")
    assert "the other three get exactly 0" in render(again, "html")
    assert not any(worked.terms for step in again.lesson for worked in step.worked)


def test_compare_fills_it_only_where_an_output_shows_it(tmp_path) -> None:
    page, note = tmp_path / "report.html", tmp_path / "report.md"
    run("compare", "kernel-gradient", "--probe", "printed", "--color", "never", "-o", str(page), "-o", str(note))
    assert 'id="lesson"' in page.read_text(encoding="utf-8")
    assert "0.094061" in page.read_text(encoding="utf-8")
    record = json.loads(run("compare", "kernel-gradient", "--probe", "printed", "--format", "json"))
    assert record["lesson"]


def test_whole_arrays_are_kept_of_what_differs_or_of_everything(tmp_path) -> None:
    network, ties = get("three-layer"), probe(get("three-layer"), "ties")
    right, all_of_it = Kept(), Kept(everything=True)
    judge_network(network, [ties], keep=right)
    assert right.arrays == {}
    judge_network(network, [ties], keep=all_of_it)
    with np.load(all_of_it.write(tmp_path / "arrays.npz"), allow_pickle=False) as file:
        trace = network.run(ties.params, ties.x, ties.y).trace
        for name, array in trace.items():
            np.testing.assert_array_equal(file[f"ties/{name}/candidate"], array)
            difference = np.abs(file[f"ties/{name}/candidate"] - file[f"ties/{name}/expected"])
            assert (difference <= file[f"ties/{name}/allowed"]).all()


def test_where_to_keep_arrays_is_checked_before_the_work(tmp_path) -> None:
    from click import UsageError

    with pytest.raises(UsageError, match=r"does not end in \.npz"):
        run("compare", "--keep-arrays", "arrays.txt")
    with pytest.raises(UsageError, match="needs --keep-arrays"):
        run("compare", "--keep-all")
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(ManualBPError, match="it is a folder"):
        run("compare", "--keep-arrays", str(tmp_path / "a.npz"))


def test_the_record_keeps_a_picture_of_each_quantity_once() -> None:
    network = get("three-layer")
    report = judge_network(network, [probe(network, name) for name in ("ties", "seed-1")])
    pictured = [check.name for check in report.checks if check.picture]
    assert sorted(pictured) == sorted({check.name for check in report.checks})
