"""One line a finding."""

import pytest
from builders import EXAMPLES, all_right, forgotten_mask, tie, untidy

from manual_bp.render import render


@pytest.mark.parametrize("make", [all_right, tie])
def test_a_pass_is_one_line(make):
    text = render(make(), "concise")
    assert text.startswith("all right: three-layer: all 16 quantities agree with torch 2.13.0")
    assert text.count("\n") == 1


def test_a_finding_can_be_found_with_grep():
    lines = render(forgotten_mask(), "concise").splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        "three-layer:ties: z1.grad: wrong (first wrong): off in 2 of 72 elements on 1 of 2 probes (ties), by up to"
    )
    assert "worst [1, 0, 0, 2] -0.044378 should be 0" in lines[0]
    assert "the ReLU mask is missing" in lines[0]
    assert lines[1] == "wrong: three-layer: 1 of 16 quantities is wrong (z1.grad); 3 more inherited it"


def test_other_findings_have_their_lines():
    text = render(untidy(), "concise")
    assert "three-layer:digits: z3.bias.grad: missing (first wrong): the candidate did not report it\n" in text
    assert "three-layer:digits: a2: plumbing: a2 is right for its input" in text
    assert "three-layer:-: x: mutation: " in text


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_line_is_a_line(name):
    report = EXAMPLES[name]()
    lines = render(report, "concise").splitlines()
    assert len(lines) <= len(report.checks) + len(report.findings) + 1
    assert not [line for line in lines if "\x1b" in line]
    assert render(report, "concise", unicode=False).isascii()


def test_color_is_on_the_verdict_alone():
    assert "\x1b[31mwrong\x1b[0m: three-layer" in render(forgotten_mask(), "concise", color=True)
