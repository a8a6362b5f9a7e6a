"""The example reports are what this version says: each record is run again, and its views are made anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from manual_bp.render import render
from manual_bp.report_json import read
from manual_bp.report_schema import schema
from tests.gallery.__main__ import FOLDER, SHOWN, committed, views
from tests.gallery.examples import EXAMPLES
from tests.gallery.pictures import DIGEST, PICTURE, current
from tests.gallery.same import differences

AGAIN = "make gallery writes it anew; look at what has changed"

#: What each example is there to show.
FIRST_WRONG = {
    "right": None, "unrotated-kernel": "x.grad", "forgotten-mask": "z1.grad", "tie": None, "nan": "z1.grad",
}  # fmt: skip  # a table


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_new_run_says_the_same(name: str) -> None:
    found = differences(read(FOLDER / f"{name}.json"), EXAMPLES[name].report())
    # which of several equally right probes has its picture kept is decided by rounding
    assert [what for what in found if ", picture: " not in str(what)] == [], AGAIN


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_views_are_those_of_the_record_letter_by_letter(name: str) -> None:
    for ending, text in views(read(FOLDER / f"{name}.json")).items():
        assert (FOLDER / f"{name}{ending}").read_text(encoding="utf-8") == text, f"{name}{ending}: {AGAIN}"


def test_each_example_shows_what_it_is_there_for() -> None:
    for name, report in committed().items():
        assert report.first_wrong == FIRST_WRONG[name], name
        Draft202012Validator(schema()).validate(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    by_name = {check.name: check for check in committed()["tie"].checks}
    assert by_name["a1.grad"].status == "kink"


def test_the_picture_is_that_of_the_page() -> None:
    assert current(FOLDER, render(committed()[SHOWN], "html")), AGAIN
    assert (FOLDER / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_left_over_and_it_stays_small() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    endings = views(committed()[SHOWN])
    assert files == {PICTURE, DIGEST} | {name + ending for name in EXAMPLES for ending in endings}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000


def test_the_readme_shows_files_that_are_there() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    shown = [part.split(")")[0] for part in text.split("](reports/gallery/")[1:]]
    assert PICTURE in shown
    assert [name for name in shown if not (FOLDER / name).exists()] == []


def test_another_number_is_a_difference_and_another_version_is_none() -> None:
    report = committed()[SHOWN]
    assert differences(report, replace(report, environment={"torch": "9.9"})) == []
    wrong = next(check for check in report.checks if check.status == "wrong")
    assert wrong.isolated is not None
    other = replace(wrong, isolated=replace(wrong.isolated, max_abs_error=wrong.isolated.max_abs_error * 1.001))
    changed = replace(report, checks=tuple(other if check is wrong else check for check in report.checks))
    assert len(differences(report, changed)) == 1
