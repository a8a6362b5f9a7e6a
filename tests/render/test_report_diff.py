"""Two reports: better, worse, new, still wrong, gone."""

from dataclasses import replace

import pytest
from builders import EXAMPLES, all_right, forgotten_mask, tie, unrotated_kernel, untidy
from rich.cells import cell_len

from manual_bp.render import render_diff
from manual_bp.report_diff import compare_reports


def changes(old, new):
    found = compare_reports(old, new)
    return {c.name: c.change for c in found.changes if c.change != "same"}


def test_what_was_mended_is_better():
    found = compare_reports(forgotten_mask(), all_right())
    assert changes(forgotten_mask(), all_right()) == dict.fromkeys(
        ["z1.grad", "x.grad", "z1.weight.grad", "z1.bias.grad"], "better"
    )
    assert not found.worse
    assert found.changes[0].name == "z1"
    assert len(found.of("same")) == 12


def test_what_broke_is_worse_whatever_else_was_mended():
    found = compare_reports(forgotten_mask(), unrotated_kernel())
    assert [c.name for c in found.of("worse")] == ["x.grad"]
    assert [c.why for c in found.of("worse")] == ["inherited → wrong"]
    assert found.worse


def _scaled(report, factor):
    def scale(check):
        found = check.isolated
        return replace(check, isolated=replace(found, used=found.used * factor)) if check.status == "wrong" else check

    return replace(report, checks=tuple(map(scale, report.checks)))


@pytest.mark.parametrize(("factor", "change"), [(1.5, "still"), (1 / 1.5, "still"), (3, "worse"), (1 / 3, "better")])
def test_an_error_that_grows_or_shrinks(factor, change):
    assert changes(unrotated_kernel(), _scaled(unrotated_kernel(), factor)) == {"x.grad": change}


def test_more_probes_that_show_it_are_worse():
    one = replace(unrotated_kernel(), checks=tuple(
        replace(c, status="pass") if c.probe == "ties" and c.name == "x.grad" else c for c in unrotated_kernel().checks
    ))  # fmt: skip
    assert changes(one, unrotated_kernel()) == {"x.grad": "worse"}
    assert compare_reports(one, unrotated_kernel()).of("worse")[0].why == "shown by 1 → 2 probes"
    assert changes(unrotated_kernel(), one) == {"x.grad": "better"}


def test_new_and_gone():
    fewer = replace(all_right(), checks=tuple(c for c in all_right().checks if c.name != "a2"))
    assert changes(fewer, all_right()) == {"a2": "new"}
    assert not compare_reports(fewer, all_right()).worse
    assert changes(all_right(), fewer) == {"a2": "gone"}
    without = replace(forgotten_mask(), checks=tuple(c for c in forgotten_mask().checks if c.name != "z1.grad"))
    assert compare_reports(without, forgotten_mask()).worse


def test_other_settings_are_named():
    other = replace(all_right(), seed=7, dtype="float32", environment={**all_right().environment, "torch": "2.9.0"})
    assert compare_reports(all_right(), other).differences == (
        "dtype: float64 → float32",
        "seed: 0 → 7",
        "torch: 2.13.0 → 2.9.0",
    )


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_view_fits_and_names_what_changed(name, width):
    text = render_diff(untidy(), EXAMPLES[name](), width=width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "\x1b" not in text
    assert render_diff(untidy(), EXAMPLES[name](), width=width, unicode=False).isascii()


def test_the_view_says_the_verdict_first():
    assert render_diff(forgotten_mask(), all_right()).startswith("✓ BETTER  0 worse, 4 better\n")
    assert render_diff(all_right(), forgotten_mask()).startswith("✗ WORSE  4 worse, 0 better\n")
    assert render_diff(tie(), tie()).startswith("= UNCHANGED  0 worse, 0 better\n")
    assert "seed: 0 → 7" in render_diff(tie(), replace(tie(), seed=7))
