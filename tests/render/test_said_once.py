"""What every view says of an input that was changed and of an unknown name: one sentence, once, in words that fit."""

from dataclasses import replace

import pytest
from builders import checks_of, report
from example_numbers import three_layer
from html_reader import page_of

from manual_bp.render import FORMATS, render
from manual_bp.report import Diagnosis, Finding, Report

CHANGED = "the candidate changed 'x', which it was given, in place; work on a copy"
UNKNOWN = "the reference has no such quantity"


def changed() -> Report:
    checks = checks_of("digits", three_layer(0), three_layer(0), set())
    why = Diagnosis(name=CHANGED, evidence="the array's bits before and after differ", confidence="certain")
    wrong = replace(checks[0], name="x", step="x", status="wrong", note=CHANGED, diagnosis=why)
    wrong = replace(wrong, isolated=None, end_to_end=None)
    finding = Finding(kind="mutation", name="x", step="x", text=CHANGED, probes=("digits",))
    return report([wrong, *checks[1:]], findings=(finding,))


def unknown(note: str) -> Report:
    checks = checks_of("digits", three_layer(0), three_layer(0), set())
    none = {"isolated": None, "end_to_end": None, "diagnosis": None, "equation": "", "symbol": ""}
    extra = replace(checks[1], name="dZ1", step="", kind="value", status="extra", note=note, **none)
    return report([*checks, extra])


@pytest.mark.parametrize("format", ["full", "concise", "markdown"])
def test_an_input_that_was_changed_is_told_of_once(format):
    text = " ".join(render(changed(), format, width=200).split())
    about = text.partition("Quantities")[0] if format == "full" else text
    assert "was changed in place" in about
    assert about.count(CHANGED) == 1
    assert "mutation" not in about.lower()


def test_the_page_calls_it_an_input_and_no_step_that_computes():
    page = page_of(changed())
    assert "The input x was changed in place" in page.text
    assert "computes x" not in page.text
    assert "x forward pass" not in page.text


@pytest.mark.parametrize("more", ["", "; did you mean 'z1.grad'?"])
def test_an_unknown_name_is_no_step_of_the_network(more):
    page = page_of(unknown(UNKNOWN + more))
    assert "dZ1 is not a quantity of this network" in page.text
    assert "computes dZ1" not in page.text
    assert f"dZ1 is unknown to the reference{more}" in page.text
    assert f"dZ1 is unknown to the reference{more}" in render(unknown(UNKNOWN + more), "full")


@pytest.mark.parametrize("format", FORMATS)
def test_every_view_has_them(format):
    assert "dZ1" in render(unknown(UNKNOWN), format)
    assert "changed" in render(changed(), format)
