"""The record survives its JSON, and what is not a record is refused in one sentence."""

import json
import math
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from builders import EXAMPLES, HOSTILE, all_right, nan, unrotated_kernel

from manual_bp import report_json, report_schema
from manual_bp.errors import ManualBPError
from manual_bp.report import SCHEMA_VERSION

EVERY = pytest.mark.parametrize("name", EXAMPLES)


def _refuse(name):
    raise AssertionError(f"a bare {name} is no JSON")


@EVERY
def test_a_report_survives_its_json(name):
    report = EXAMPLES[name]()
    text = report_json.dumps(report)
    again = report_json.loads(text, origin="memory")
    assert report_json.to_dict(again) == report_json.to_dict(report)
    assert report_json.dumps(again) == text


@EVERY
def test_the_json_is_strict_ascii_and_one_check_a_line(name):
    report = EXAMPLES[name]()
    text = report_json.dumps(report)
    data = json.loads(text, parse_constant=_refuse)
    assert text.isascii()
    assert data["schema_version"] == SCHEMA_VERSION
    lines = [line for line in text.splitlines() if line.startswith('  {"probe": ')]
    assert len(lines) == len(report.checks)


def test_the_layout_is_the_one_that_other_programs_read():
    data = report_json.to_dict(unrotated_kernel())
    assert list(data)[:9] == [
        "schema_version", "network", "dtype", "seed", "verdict", "first_wrong", "environment", "counts", "checks",
    ]  # fmt: skip
    assert set(data["environment"]) == {"python", "numpy", "torch", "manual_bp"}
    check = next(check for check in data["checks"] if check["name"] == "x.grad")
    assert {"probe", "name", "kind", "step", "shape", "dtype", "status", "rule", "equation"} <= set(check)
    numbers = {"max_abs_error", "used", "mismatched", "worst_index", "candidate", "reference", "allowed"}
    assert numbers <= set(check["isolated"])
    assert numbers <= set(check["end_to_end"])
    assert {"name", "evidence", "confidence"} <= set(check["diagnosis"])
    assert data["checks"][0]["diagnosis"] is None


def test_what_is_not_finite_is_a_string():
    isolated = next(c for c in report_json.to_dict(nan())["checks"] if c["name"] == "a3.grad")["isolated"]
    assert isolated["candidate"] == "NaN"
    assert isolated["used"] == "Infinity"
    check = next(c for c in report_json.loads(report_json.dumps(nan())).checks if c.name == "a3.grad")
    assert math.isnan(check.isolated.candidate)
    assert check.isolated.used == math.inf


def test_numbers_of_numpy_become_plain_ones():
    report = all_right()
    isolated = replace(
        report.checks[0].isolated, used=np.float64(0.5), mismatched=np.int64(3), allowed=np.float32(0.25), elements=7
    )
    odd = replace(report, checks=(replace(report.checks[0], isolated=isolated), *report.checks[1:]))
    read = report_json.loads(report_json.dumps(odd)).checks[0].isolated
    assert (read.used, read.mismatched, read.allowed) == (0.5, 3, 0.25)
    assert type(read.used) is float
    assert type(read.mismatched) is int


def test_every_example_satisfies_the_published_schema():
    published = json.loads(files("manual_bp.render").joinpath("report.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(published)
    validator.check_schema(published)
    for make in EXAMPLES.values():
        validator.validate(json.loads(report_json.dumps(make())))


def test_the_published_schema_is_the_one_of_the_dataclasses():
    published = files("manual_bp.render").joinpath("report.schema.json").read_text(encoding="utf-8")
    assert published == report_schema.dumps(), (
        "run: python -m manual_bp.report_schema > manual_bp/render/report.schema.json"
    )


def test_reading_needs_only_what_the_schema_requires():
    data = report_json.to_dict(unrotated_kernel())
    required = report_schema.schema()["required"]
    least = report_json.from_dict({key: data[key] for key in required})
    assert report_json.to_dict(least)["checks"] == data["checks"]
    assert least.power is None


def test_fields_of_a_later_version_are_ignored():
    data = report_json.to_dict(all_right())
    data["moods"] = ["cheerful"]
    data["checks"][0]["mood"] = {"deep": [1]}
    assert report_json.from_dict(data) == report_json.from_dict(report_json.to_dict(all_right()))


# ------------------------------------------------------------------------------------------------ refusals


def _message(text, origin="old.json"):
    with pytest.raises(ManualBPError) as caught:
        report_json.loads(text, origin=origin)
    message = str(caught.value)
    assert message.startswith(origin)
    assert "\n" not in message
    assert len(message) < 300
    return message


def test_a_truncated_report_is_refused_wherever_it_ends():
    text = report_json.dumps(nan())
    for end in range(0, len(text) - 2, 97):
        message = _message(text[:end])
        assert "empty" in message or "ends in the middle" in message or "not JSON" in message, (end, message)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("hello", "is not JSON"),
        ("[1, 2]", "no schema_version"),
        ('{"version": 3}', "no schema_version"),
        ("null", "no schema_version"),
        ('{"schema_version": 99}', "schema_version 99; this manual-bp reads up to 1"),
        ('{"schema_version": 0}', "lacks network"),
        ('{"schema_version": "1"}', "lacks network"),
        ('{"schema_version": 1, "seed": NaN}', "bare NaN"),
        ('{"schema_version": 1, "seed": -Infinity}', "bare -Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ('{"schema_version": ' + "9" * 5000 + "}", "not strict JSON"),
    ],
)
def test_foreign_texts_are_refused(text, told):
    assert told in _message(text)


def _leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from _leaves(value[0], (*path, 0))
    else:
        yield path


def test_a_wrong_type_is_refused_at_every_place():
    good = report_json.to_dict(unrotated_kernel())
    data = {**good, "checks": [check for check in good["checks"] if check["name"] == "x.grad"][:1]}
    paths = list(_leaves(data))
    assert len(paths) > 80
    for path in paths:
        spoiled = json.loads(json.dumps(data))
        place = spoiled
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = {"hand": "edited"} if path[-1] not in ("counts", "by_probe") else 3
        with pytest.raises(ManualBPError) as caught:
            report_json.from_dict(spoiled, origin="edited.json")
        assert str(path[-1] if path[-1] != 0 else path[-2]) in str(caught.value), path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(verdict="maybe"), 'verdict must be one of pass, fail, not "maybe"'),
        (lambda d: d.update(verdict="pass"), "its verdict is pass, but x.grad is not right"),
        (lambda d: d.update(first_wrong="nowhere"), "first_wrong names nowhere, which no check judges"),
        (lambda d: d.update(seed=True), "seed must be a whole number, not true"),
        (lambda d: d.update(seed=1.5), "seed must be a whole number, not 1.5"),
        (lambda d: d.update(schema_version=0), "schema_version must be at least 1"),
        (lambda d: d["checks"][0].pop("status"), "checks[0] lacks status"),
        (lambda d: d["checks"][0]["isolated"].update(used="much"), "checks[0].isolated.used must be a number"),
        (lambda d: d["checks"][0]["isolated"].update(used=10**400), "checks[0].isolated.used is too large a number"),
        (lambda d: d["checks"][0].update(shape=[1, "2"]), "checks[0].shape[1] must be a whole number"),
        (lambda d: d.update(counts={"pass": "all"}), "counts.pass must be a whole number"),
    ],
)
def test_a_report_changed_by_hand_is_refused_with_the_place(change, told):
    data = report_json.to_dict(unrotated_kernel())
    change(data)
    assert told in _message(json.dumps(data))


def test_a_picture_with_too_few_numbers_is_refused():
    data = report_json.to_dict(unrotated_kernel())
    at = next(i for i, check in enumerate(data["checks"]) if check["picture"])
    data["checks"][at]["picture"]["planes"][0]["used"].pop()
    assert f"checks[{at}].picture.planes[0] must hold 8 x 8 numbers" in _message(json.dumps(data))


def test_a_lone_surrogate_is_read_as_the_replacement_character():
    data = report_json.to_dict(all_right())
    data["network"] = "a\ud800b"
    assert report_json.loads(json.dumps(data)).network == "a\ufffdb"


def test_files(tmp_path):
    path = tmp_path / "deep" / "report.json"
    report_json.write(unrotated_kernel(), path)
    assert report_json.to_dict(report_json.read(path)) == report_json.to_dict(unrotated_kernel())
    for content, told in [(b"\xff\xfe\x00", "is not UTF-8"), (b"{", "ends in the middle")]:
        path.write_bytes(content)
        with pytest.raises(ManualBPError, match=told):
            report_json.read(path)
    with pytest.raises(ManualBPError, match=r"cannot read .*none\.json"):
        report_json.read(tmp_path / "none.json")


def test_hostile_names_survive_the_json_unchanged():
    report = report_json.loads(report_json.dumps(EXAMPLES["hostile"]()))
    assert report.checks[0].name == HOSTILE + "z1"
