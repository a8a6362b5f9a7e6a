"""JUnit XML as CI systems read it."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from builders import EXAMPLES, all_right, forgotten_mask, tie

from manual_bp.render import render
from manual_bp.report import Finding


def junit(report):
    text = render(report, "junit")
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>\n')
    return ET.fromstring(text.encode())


@pytest.mark.parametrize("name", EXAMPLES)
def test_one_case_a_quantity_and_probe_and_the_counts_agree(name):
    report = EXAMPLES[name]()
    root = junit(report)
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert len(cases) >= len(report.checks)
    for node in (root, suite):
        assert node.get("tests") == str(len(cases))
        assert node.get("failures") == str(len(suite.findall("testcase/failure")))
        assert node.get("errors") == node.get("skipped") == "0"
    failed = sum(check.status not in ("pass", "kink") for check in report.checks)
    assert len(suite.findall("testcase/failure")) >= failed
    assert (len(suite.findall("testcase/failure")) == 0) == report.ok


def test_the_numbers_stand_in_the_text_of_the_failure():
    case = junit(forgotten_mask()).find("testsuite/testcase[@name='z1.grad'][@classname='three-layer.ties']")
    failure = case.find("failure")
    assert failure.get("type") == "wrong"
    assert "ReLU mask is missing" in failure.get("message")
    for phrase in (
        "2 of 72 elements off",
        "[1, 0, 0, 2] candidate -0.044378 should be 0",
        "must be: ∂L/∂z⁽¹⁾",
        "would pass: atol=",
    ):
        assert phrase in failure.text
    inherited = junit(forgotten_mask()).find(
        "testsuite/testcase[@name='x.grad'][@classname='three-layer.ties']/failure"
    )
    assert inherited.get("type") == "inherited"


def test_a_kink_passes_unless_kinks_are_strict():
    path = "testsuite/testcase[@name='a1.grad'][@classname='three-layer.ties']"
    kink = junit(tie()).find(path)
    assert kink.find("failure") is None
    assert "first maximum of the window" in kink.find("system-out").text
    strict = replace(tie(), strict_kinks=True, verdict="fail")
    assert junit(strict).find(path).find("failure").get("type") == "kink"


def test_a_failure_that_no_quantity_shows_is_a_failed_case():
    finding = Finding(kind="mutation", name="x", step="z1", text="x was changed in place")
    root = junit(replace(all_right(), verdict="fail", findings=(finding,)))
    assert root.find("testsuite/testcase[@name='Mutation: x']/failure").text == "x was changed in place"
    root = junit(replace(all_right(), verdict="fail"))
    assert root.find("testsuite/testcase[@name='verdict']/failure") is not None
