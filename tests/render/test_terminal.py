"""What must be true of the terminal view of any report, at any width."""

import re
from dataclasses import replace

import pytest
from builders import EXAMPLES, all_right, forgotten_mask, large, nan, report, residual, tie, unrotated_kernel, untidy
from rich.cells import cell_len
from rich.padding import Padding
from rich.text import Text

from manual_bp.render import Look, render
from manual_bp.render.terminal import facts, printed
from manual_bp.report import Finding

ANSI = re.compile(r"\x1b\[([0-9;]*)m")
WIDTHS = [40, 60, 80, 100, 120, 160, 200]


def full(report, width=80, **look):
    return render(report, "full", width=width, **look)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_line_is_longer_than_the_width_nor_ends_in_blanks(name, width):
    for line in full(EXAMPLES[name](), width).splitlines():
        assert cell_len(line) <= width, line
        assert line == line.rstrip(), line


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("width", WIDTHS)
def test_color_adds_nothing_but_color(name, width):
    plain, colored = full(EXAMPLES[name](), width), full(EXAMPLES[name](), width, color=True)
    assert "\x1b" not in plain
    assert ANSI.sub("", colored) == plain
    codes = {code for found in ANSI.findall(colored) for code in found.split(";")}
    # Neither black, white nor bright colours, no backgrounds: readable on light and dark.
    assert codes <= {"0", "1", "2", "31", "32", "33", "35"}
    assert {"1", "2"} <= codes


@pytest.mark.parametrize("name", EXAMPLES)
def test_ascii_when_the_stream_has_nothing_else(name):
    text = full(EXAMPLES[name](), unicode=False)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [80, 200])
def test_the_answers_come_in_the_order_they_are_asked(width):
    text = full(unrotated_kernel(), width)
    asked = ["✗ WRONG", "First wrong  z1 = Conv2d", "Why          the kernel is not rotated", "Must be", "Network",
             "Quantities", "✗ wrong  x.grad", "Would pass", "Power", "Blind spot", "Run again"]  # fmt: skip
    places = [text.index(phrase) for phrase in asked]
    assert places == sorted(places)
    assert text.splitlines()[-1] == "✗ WRONG  three-layer: 1 of 16 quantities is wrong (x.grad)"


def test_the_first_screen_says_what_is_wrong_and_why():
    top = "\n".join(full(unrotated_kernel()).splitlines()[:16])
    phrases = ["WRONG", "x.grad", "backward pass", "off in 93 of 128 elements on both probes", "torch 2.13.0"]
    phrases += ["the kernel is not rotated", "(certain)", "w[..., ::-1, ::-1]", "my_network.py:41"]
    for phrase in phrases:
        assert phrase in " ".join(top.split()), phrase


def test_numbers_of_the_worst_element_are_there():
    text = full(unrotated_kernel())
    check = next(c for c in unrotated_kernel().checks if c.name == "x.grad")
    worst = check.isolated.worst[0]
    row = next(line for line in text.splitlines() if line.startswith("    ["))
    assert row.strip().split("   ")[0] == f"[{', '.join(map(str, worst.index))}]"
    assert f"{worst.candidate:.6g}" in row
    assert f"{worst.reference:.6g}" in row
    assert "and 88 more elements outside the bound" in text
    assert "atol=0.139 alone, or rtol=74 alone" in text


def test_every_quantity_has_its_row_in_execution_order():
    text = full(all_right(), 160)
    places = [text.index(f"✓  {name} ") for name in dict.fromkeys(check.name for check in all_right().checks)]
    assert places == sorted(places)
    assert text.index("forward pass") < text.index("✓  z1 ") < text.index("backward pass") < text.index("✓  x.grad")


def test_what_is_right_is_quiet_and_what_is_wrong_is_loud():
    lines = full(forgotten_mask(), color=True).splitlines()
    right = next(line for line in lines if "z3.weight.grad" in line and "right" in line)
    wrong = next(line for line in lines if "z1.grad" in line and "2×1×6×6" in line)
    inherited = next(line for line in lines if "z1.weight.grad" in line and "inherited" in line)
    assert "\x1b[2mz3.weight.grad\x1b[0m" in right
    assert "\x1b[1;31mz1.grad\x1b[0m" in wrong
    assert "\x1b[35mz1.weight.grad\x1b[0m" in inherited
    network = next(line for line in lines if "backward" in line and "x.grad" in line)
    assert "\x1b[1;31m✗ wrong\x1b[0m" in network
    assert "\x1b[32m✓\x1b[0m" in network
    assert lines[0].startswith("\x1b[1;31m✗ WRONG\x1b[0m  three-layer")


@pytest.mark.parametrize("width", [80, 100, 160, 200])
def test_a_report_that_is_right_shows_each_equation(width):
    text = full(all_right(), width)
    assert all(check.equation in text for check in all_right().checks)
    assert "First wrong" not in text
    assert text.splitlines()[0] == text.splitlines()[-1]
    assert text.startswith("✓ ALL RIGHT  three-layer: all 16 quantities agree with torch 2.13.0")
    assert text.count("\n") < 65


def test_less_important_columns_go_first():
    heads = {
        width: next(x for x in full(unrotated_kernel(), width).splitlines() if "quantity" in x) for width in WIDTHS
    }
    assert heads[40].split() == ["quantity", "of", "allowed", "verdict"]
    assert heads[80].split() == ["step", "quantity", "shape", "error", "of", "allowed", "verdict"]
    assert all(word in heads[160] for word in ("written", "worst at", "probe", "whole pass"))


# ------------------------------------------------------------------------------------------------ the network


def test_a_chain_is_drawn_across_with_the_first_wrong_step_marked():
    lines = full(forgotten_mask(), 80).splitlines()
    at = lines.index("Network")
    names, operations, forward, backward, weights, marker = lines[at + 1 : at + 7]
    column = names.index("a1")
    assert operations[column:].startswith("ReLU")
    assert forward[column] == "✓"
    assert backward[column:].startswith("✗ wrong")
    assert marker[column] == "▲"
    assert "first wrong: z1.grad (backward pass of a1)" in marker
    assert weights[names.index("z1") :].startswith("↳ inherited")
    assert backward.split()[:3] == ["backward", "x.grad", "←"]


def test_operations_are_left_out_where_the_chain_would_not_fit_across():
    lines = full(forgotten_mask(), 70).splitlines()
    at = lines.index("Network")
    assert lines[at + 1].split() == ["x", "z1", "a1", "a2", "z3", "a3", "loss"]
    assert lines[at + 2].startswith("forward  x ─")
    lines = full(forgotten_mask(), 50).splitlines()
    assert lines[lines.index("Network") + 1].split() == ["step", "forward", "backward", "weights"]


def test_a_graph_with_branches_is_drawn_down_with_its_rails():
    lines = full(residual(), 100).splitlines()
    at = lines.index("Network")
    rows = {line.split()[0]: line for line in lines[at + 2 : at + 13]}
    assert "●─╮" in rows["stem"]
    assert "● │" in rows["layer1.0.conv1"]
    assert "●─┼─╮" in rows["layer1.0.add"]
    assert "●─┼─┼─╮" in rows["branch_a"]
    assert "●─┼─╯ │" in rows["branch_b"]
    assert "●─┴───╯" in rows["cat"]
    assert "← branch_a, branch_b, stem" in full(residual(), 160)
    assert "✗ wrong" in rows["layer1.0.conv1"]
    assert rows["layer1.0.conv1"].endswith("◀ first wrong")


def test_a_long_network_is_folded_where_all_is_right():
    text = full(large(), 80)
    steps = re.findall(r"⋮ (\d+) steps?, all right", text)
    network = text[text.index("Network") : text.index("Quantities")].splitlines()
    assert sum(map(int, steps)) + len([x for x in network if x.startswith("  ") and "⋮" not in x]) - 1 == 61
    rows = text[text.index("Quantities") : text.index("\n\n✗ wrong")].splitlines()
    hidden = sum(int(number) for number in re.findall(r"⋮ (\d+) quantit", "\n".join(rows)))
    shown = [row for row in rows if re.search(r"  [✓✗]  ", row)]
    assert hidden + len(shown) == 180
    assert text.count("\n") < 260


# ------------------------------------------------------------------------------------------------ details


def test_the_number_of_details_is_capped_and_the_rest_is_named():
    text = full(large(), 100)
    assert len(re.findall(r"^✗ wrong  ", text, re.MULTILINE)) == 3
    assert "8 more wrong quantities: " in text


def test_the_picture_shows_where_the_errors_sit():
    check = next(c for c in unrotated_kernel().checks if c.name == "x.grad")
    plane = check.picture.planes[0]
    lines = full(unrotated_kernel(), 80).splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip().startswith("where: batch 1, channel 0"))
    for row, line in enumerate(lines[at + 1 : at + 1 + plane.rows]):
        cells = re.findall("..", line[4:].ljust(2 * plane.cols))
        off = [cell.strip() != "·" for cell in cells]
        assert off == [used > 1 for used in plane.used[row * plane.cols : (row + 1) * plane.cols]]


def test_pooled_cells_say_so_and_small_planes_are_shown_in_numbers():
    assert "a cell is the worst of 2×2 elements" in full(residual(), 160)
    text = full(forgotten_mask(), 160)
    assert re.search(r"candidate +should be\n +· · ██", text)
    assert "0.0575" in text


def test_what_is_not_finite_is_shown():
    text = full(nan())
    assert "! not finite" in text
    assert "!!" in text
    assert "none: no tolerance accepts it" in text
    assert "1 of 2 elements is NaN" in " ".join(text.split())


def test_a_kink_is_told_with_its_elements_and_the_convention():
    told = " ".join(full(tie(), 100).split())
    assert "∧ kink a1.grad differs only where the function has no derivative" in told
    assert "6 elements on 1 of 2 probes (ties), [0, 0, 0, 4], [0, 0, 0, 5]" in told
    assert "torch gives the whole gradient to the first maximum of the window" in told
    assert "; 1 differs only where the derivative is a matter of choice" in told


def test_what_is_missing_extra_or_of_another_shape_says_so():
    told = " ".join(full(untidy()).split())
    assert "z3.bias.grad is missing: the candidate did not report it" in told
    assert "? missing z3.bias.grad" in told
    assert "≠ mismatch x.grad" in told
    assert "+ extra momentum" in told
    assert "not in the network" in told
    for finding in ("Plumbing a2 is right for its input", "Mutation x was changed", "Reference torch is 5.1 times"):
        assert finding in told


def test_a_right_step_that_was_fed_the_wrong_tensor():
    checks = [
        replace(c, status="wrong", isolated=all_right().checks[i].isolated)
        if c.name == "z1.grad" and c.status == "wrong"
        else c
        for i, c in enumerate(forgotten_mask().checks)
    ]
    text = "z1.grad is right for what it was given, but that is not a1.grad"
    told = full(report(checks, findings=(Finding(kind="plumbing", name="z1.grad", step="a1", text=text),)))
    assert "judged alone" not in told
    assert f"Plumbing {text}" in " ".join(told.split())
    assert "off in 2 of 72 elements" in told


def test_a_failure_without_a_wrong_quantity_says_why():
    finding = Finding(kind="mutation", name="x", step="z1", text="x was changed in place")
    failed = replace(all_right(), verdict="fail", findings=(finding,))
    assert full(failed).startswith("✗ WRONG  three-layer: each step is right by itself, but x was changed in place")


def test_what_no_probe_shows_is_named_and_what_another_shows_is_counted():
    one, other = unrotated_kernel().probes
    both = (replace(one, blind=("one channel", "no tie")), replace(other, blind=("one channel", "one example")))
    told = " ".join(full(replace(unrotated_kernel(), probes=both)).split())
    assert (
        "Blind spot one channel (on every probe) 2 blind spots of single probes, each covered by another probe" in told
    )
    alone = " ".join(full(nan()).split())
    assert "Blind spot no exact zero at a ReLU Run again" in alone


def test_parameters_are_listed_with_the_forward_pass():
    first = all_right().checks[0]
    weight = replace(first, name="z1.weight", kind="parameter")
    step = replace(first, name="z1.weight.new", kind="update", step="sgd")
    lines = full(report([weight, *all_right().checks, step]), 200).splitlines()
    parts = [line for line in lines if line in ("forward pass", "backward pass", "update", "parameters")]
    assert parts == ["forward pass", "backward pass", "update"]


def test_a_title_stands_with_the_settings():
    titled = full(replace(all_right(), title="one digit against another")).splitlines()
    assert titled[0].startswith("✓ ALL RIGHT  three-layer: all 16")
    assert titled[1].startswith("  one digit against another · float64")


def test_nothing_compared_is_not_all_right():
    empty = replace(all_right(), checks=(), steps=(), probes=())
    assert full(empty).startswith("✓ RIGHT  three-layer: nothing was compared")
    partial = full(replace(all_right(), partial=True))
    assert partial.startswith("✓ RIGHT  three-layer: all 16 quantities of those reported agree")


def test_a_gradient_of_several_readers_is_nobodys_alone():
    told = " ".join(full(EXAMPLES["residual"](), 160).split())
    assert "First wrong the gradient of stem, the sum of what layer1.0.conv1, layer1.0.add and cat send back" in told


@pytest.mark.parametrize("width", [40, 41, 57, 80, 200])
def test_hard_texts_are_wrapped_the_same_with_and_without_colors(width):
    texts = [
        "",
        " ",
        "a",
        "word " * 40,
        "x" * 137,
        "日本語の長い文 " * 12,
        "a  b   c" * 20,
        "é̂ " * 30,
        "  indented " + "y" * 90,
    ]
    rows = [(label, text, "red") for label in ("", "Label", "幅広い") for text in texts]
    padded = [Padding(Text(text, "red"), (i % 2, 0, i % 3 % 2, i)) for i, text in enumerate(texts)]
    parts = [*facts(rows, width), "", *padded, *facts(rows[:3], width, indent=4), Text("z" * 300), Text("  line  ")]
    plain, colored = (printed(parts, Look(width=width, color=color)) for color in (False, True))
    assert ANSI.sub("", colored) == plain
