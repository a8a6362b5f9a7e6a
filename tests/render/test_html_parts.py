"""What the HTML page is made of: formulas, the layout of the network, the drawing of it."""

import re
from dataclasses import replace

import pytest
from builders import EXAMPLES, steps, unrotated_kernel

from manual_bp.render._graph_layout import MOST_PLACES, arrange
from manual_bp.render._graph_svg import abbreviated, graph
from manual_bp.render._mathml import formula
from manual_bp.render._say import Story
from manual_bp.report import StepInfo

# ------------------------------------------------------------------------------------ formulas


def test_a_formula_becomes_mathml():
    text = formula(r"\frac{\partial L}{\partial x} = g \ast \mathbb{1}[z > 0]", "plain")
    assert text.startswith('<math display="block">')
    assert "<mfrac>" in text
    assert "𝟙" in text
    assert "&gt;" in text
    assert "plain" not in text


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac{", r"\begin{align} x", r"\text{<img src=x onerror=alert(1)>}", r"\text{<script>alert(1)</script>}",
        r"\unicode{x}", r"\bogus x", "{" * 3000, "x" * 3000,
    ],
)  # fmt: skip  # one line each
def test_what_cannot_be_converted_is_shown_as_plain_text(latex):
    assert formula(latex, "a < b") == '<span class="formula">a &lt; b</span>'


@pytest.mark.parametrize(
    "latex", [r"\href{javascript:alert(1)}{x}", r"\style{color:red}{x}", r"\class{brand}{x}", r"\color{red;x}{y}"]
)
def test_attributes_that_could_do_more_than_draw_are_dropped(latex):
    text = formula(latex, "plain")
    assert text.startswith("<math")
    assert not re.search("javascript|href|style=|class=|color", text)


def test_without_latex_the_equation_is_text():
    assert formula("", "∂L/∂x = <g>") == '<span class="formula">∂L/∂x = &lt;g&gt;</span>'


# ------------------------------------------------------------------------------------ layout


def test_a_chain_is_one_straight_line():
    layout = arrange({"x": (), "a": ("x",), "b": ("a",), "c": ("b",)})
    assert layout.layer == {"x": 0, "a": 1, "b": 2, "c": 3}
    assert set(layout.lane.values()) == {0}
    assert set(layout.routes.values()) == {()}


def test_a_residual_branch_runs_beside_the_steps_that_it_skips():
    layout = arrange({"x": (), "a": ("x",), "b": ("a",), "c": ("b",), "add": ("c", "a")})
    assert layout.routes["a", "add"] == (1, 1)
    assert [layout.lane[name] for name in "xabc"] == [0, 0, 0, 0]


def test_no_line_runs_through_a_step():
    network = {f"s{i}": tuple(f"s{j}" for j in range(i) if (i * 7 + j * 5) % 3 == 0 or j == i - 1) for i in range(14)}
    layout = arrange(network)
    boxes = {(layout.layer[name], layout.lane[name]) for name in network}
    assert len(boxes) == len(network)
    for (source, target), route in layout.routes.items():
        places = list(enumerate(route, layout.layer[source] + 1))
        assert len(route) == layout.layer[target] - layout.layer[source] - 1
        assert boxes.isdisjoint(places)


def test_circles_unknown_names_and_doubled_inputs_are_no_trouble():
    layout = arrange({"a": ("c", "nobody"), "b": ("a", "a"), "c": ("b",)})
    assert layout.layer == {"a": 0, "b": 1, "c": 2}
    assert set(layout.routes) == {("a", "b"), ("b", "c")}


def test_the_longest_links_of_a_dense_network_are_counted_and_not_drawn():
    layout = arrange({f"s{i}": tuple(f"s{j}" for j in range(i)) for i in range(60)})
    assert layout.dropped > 0
    assert sum(map(len, layout.routes.values())) <= MOST_PLACES
    assert len(layout.routes) + layout.dropped == 60 * 59 // 2


# ------------------------------------------------------------------------------------ the drawing


def drawn(report):
    view = graph(Story(report), {})
    assert view
    return view


def test_every_step_has_a_box_with_its_verdict():
    view = drawn(unrotated_kernel())
    assert [node.title for node in view.nodes] == ["x", "z1", "a1", "a2", "z3", "a3", "loss"]
    assert [node.verdict for node in view.nodes][:3] == ["input", "✗ wrong", "✓ right"]
    assert [node.title for node in view.nodes if node.first] == ["z1"]
    assert [mark.text for mark in view.nodes[1].parameters] == ["✓ weight.grad", "✓ bias.grad"]


def test_the_first_wrong_gradient_is_marked_on_its_arrow():
    (arrow,) = [arrow for arrow in drawn(unrotated_kernel()).arrows if arrow.first]
    assert arrow.direction == "backward"
    assert arrow.label
    assert arrow.label.text == "✗ x.grad"
    assert arrow.tone == "bad"


def test_a_first_wrong_without_an_arrow_is_marked_on_its_step():
    view = drawn(EXAMPLES["untidy"]())
    assert [node.verdict for node in view.nodes if node.first] == ["first wrong · ? missing"]


def test_what_no_step_produces_is_drawn_as_an_input():
    bare = [step for step in steps() if step.role != "input"]
    view = graph(Story(report_with(bare)), {})
    assert view
    assert [node.title for node in view.nodes][:2] == ["x", "z1"]


def test_boxes_stay_inside_the_drawing_and_apart():
    view = drawn(EXAMPLES["residual"]())
    corners = [(node.x, node.y, node.x + node.width, node.y + node.height) for node in view.nodes]
    for x0, y0, x1, y1 in corners:
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= view.width
        assert y1 <= view.height
    for i, (ax0, ay0, ax1, ay1) in enumerate(corners):
        for bx0, by0, bx1, by1 in corners[i + 1 :]:
            assert ax1 <= bx0 or bx1 <= ax0 or ay1 <= by0 or by1 <= ay0


def report_with(infos: list[StepInfo]):
    return replace(unrotated_kernel(), steps=tuple(infos))


@pytest.mark.parametrize(
    ("name", "width", "told"),
    [
        ("conv1", 10, "conv1"),
        ("layer1.0.conv1", 14, "layer1.0.conv1"),
        ("features.block0.sublayer3.linear", 16, "f.b0.s3.linear"),
        ("features.block0.sublayer3.projection", 12, "….projection"),
    ],
)
def test_long_module_names_keep_their_numbers(name, width, told):
    assert abbreviated(name, width) == told
