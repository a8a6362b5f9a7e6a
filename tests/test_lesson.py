"""The numbers of a lesson are the run's own, and its sums come out."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from manual_bp import nn
from manual_bp.errors import ManualBPError
from manual_bp.lesson import LessonStep, Worked, explain
from manual_bp.network import chain
from manual_bp.networks import NETWORKS, SEEDS, get
from manual_bp.probes import probe, probe_names
from manual_bp.render._look import Look
from manual_bp.render.lesson import render

SMALL = [name for name in NETWORKS if name not in ("vgg-block", "vgg11")]
FUNCTIONS = {"exp": math.exp, "log": math.log, "tanh": math.tanh, "max": max, "abs": abs}


def lesson(network: str, name: str, quantity: str | None = None) -> tuple[LessonStep, ...]:
    return explain(get(network), quantity, probe=probe(get(network), name))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", [0, "ties", "seed-1"])
def test_every_quantity_is_explained_with_its_own_number(name: str, kind: int | str) -> None:
    network = get(name)
    example = probe(network, kind if isinstance(kind, str) else probe_names(network)[kind])
    trace = network.run(example.params, example.x, example.y).trace
    steps = {step.name: step for step in explain(network, probe=example) if step.name}
    assert list(steps) == [q.name for q in network.quantities() if q.kind != "parameter"]
    for quantity, step in steps.items():
        assert step.equation, quantity
        assert step.worked, quantity
        assert step.shape == trace[quantity].shape
        for worked in step.worked:
            if worked.label.startswith(("ℓ", "share of")):
                continue
            found = re.search(r"\[([0-9,]+)\]$", worked.label)
            index = tuple(int(i) for i in found[1].split(",")) if found else ()
            assert worked.result == float(trace[quantity][index]), (quantity, worked.label)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", [0, "ties", "seed-1"])
def test_the_sums_come_out_in_full_precision_and_as_printed(name: str, kind: int | str) -> None:
    network = get(name)
    example = probe(network, kind if isinstance(kind, str) else probe_names(network)[kind])
    for step in explain(network, probe=example):
        for worked in step.worked:
            if worked.terms:
                products = [math.prod(term) for term in worked.terms]
                size = math.fsum(map(abs, products))
                assert abs(math.fsum(products) - worked.result) <= 1e-13 * size, (step.name, worked.label)
            if "..." not in worked.expression:
                printed(step.name, worked)


def printed(name: str, worked: Worked) -> None:
    """Four digits a number: each is off by at most 1/2000 of its size, a product of three by at most 3/2000."""
    value = evaluated(worked.expression)
    numbers = [abs(float(n)) for n in re.findall(r"[0-9.]+(?:e[-+]?[0-9]+)?", worked.expression)]
    size = math.fsum(abs(math.prod(term)) for term in worked.terms) or max(abs(worked.result), *numbers, 0.0)
    assert abs(value - worked.result) <= 2e-3 * size, (name, worked.label, worked.expression, value, worked.result)


def evaluated(expression: str) -> float:
    assert re.fullmatch(r"[-+*/·().,0-9e ]*|.*(exp|log|max|tanh|abs)\(.*", expression), expression
    return float(eval(expression.replace("·", "*"), {"__builtins__": {}}, FUNCTIONS))  # the lesson's own text


# ---------------------------------------------------------------------------- the questions of the seeds


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_has_its_question_first_and_its_answer_last(name: str) -> None:
    steps = lesson(name, "asymmetric")
    assert (steps[0].phase, steps[-1].phase) == ("question", "answer")
    assert steps[0].title.endswith("?")
    assert len(" ".join(steps[-1].prose)) > 200


@pytest.mark.parametrize("name", ["digits", "ties", "batch"])
def test_what_the_winner_gets_and_what_about_the_other_three(name: str) -> None:
    example = probe(get("three-layer"), name)
    trace = get("three-layer").run(example.params, example.x, example.y).trace
    (step,) = explain(get("three-layer"), "a1.grad", probe=example)
    winner, *others = step.worked[:4]
    window, back = winner.grids
    assert len(window.rows) == len(window.rows[0]) == 2
    ((r, c),) = window.marked
    assert window.rows[r][c] == max(max(row) for row in window.rows)
    assert back.rows[r][c] == winner.result
    assert sum(value == 0 for row in back.rows for value in row) == 3
    assert [other.expression for other in others] == ["0", "0", "0"]
    assert "the other three get exactly 0" in winner.note
    # the largest of the errors that came back to the pooling, which is (a3 - y) w3 by equation (8)
    assert abs(winner.result) == np.abs(trace["a2.grad"]).max()
    answer = lesson("three-layer", name)[-1].prose[0]
    product, result = re.findall(r"= (\([-0-9.e ]+\)(?: / [0-9]+)? · [-()0-9.e]+) = ([-0-9.e]+),", answer)[0]
    assert evaluated(product) == pytest.approx(float(result), rel=2e-3)
    assert float(result) == pytest.approx(winner.result, rel=1e-3)


def test_a_tie_is_said_and_shown_where_there_is_one() -> None:
    tied = [worked for worked in lesson("two-conv-pooled", "ties", "c1.grad")[0].worked if "tie" in worked.note]
    assert len(tied) == 1
    window, back = (np.array(grid.rows) for grid in tied[0].grids)
    assert np.sum(window == window.max()) > 1
    assert np.argmax(back != 0) == np.argmax(window)
    assert np.count_nonzero(back) == 1
    assert not any("tie" in worked.note for worked in lesson("two-conv-pooled", "seed-1", "c1.grad")[0].worked)


def test_windows_that_share_a_winner_add_up() -> None:
    network = chain("own", {"pool": nn.MaxPool1d(2, stride=1), "out": nn.Flatten()}, nn.HalfSquaredError(), (1, 4))
    example = probe(network, "seed-1")
    x = np.array([[[0.0, 5.0, 1.0, 0.5]]])
    example = replace(example, x=x, y=np.zeros((1, 3)))
    (step,) = explain(network, "x.grad", probe=example)
    assert step.worked[0].result == 10
    assert step.worked[0].terms == ((5.0,), (5.0,))
    assert "it wins 2 windows" in step.worked[0].note


def test_the_shortcut_of_equation_7_gives_the_same_number() -> None:
    (step,) = lesson("three-layer", "digits", "z3.grad")
    product, shortcut = step.worked
    assert product.result == shortcut.result
    assert "equation (7)" in shortcut.note


def test_the_gradient_of_a_kernel_is_the_sum_over_all_patches() -> None:
    (step,) = lesson("kernel-gradient", "printed", "x1.weight.grad")
    (worked,) = step.worked
    assert round(worked.result, 6) == 0.094061  # the largest of the four that the seed prints
    assert len(worked.terms) == 4
    assert "12 of 16 terms are 0" in worked.note
    delta, image = worked.grids
    assert math.fsum(d * x for a, b in zip(delta.rows, image.rows, strict=True) for d, x in zip(a, b, strict=True)) == (
        pytest.approx(worked.result, rel=1e-14)
    )


def test_the_gradient_of_the_image_meets_the_rotated_kernel() -> None:
    example = probe(get("three-layer"), "asymmetric")
    (step,) = explain(get("three-layer"), "x.grad", probe=example)
    delta, kernel = step.worked[0].grids
    np.testing.assert_array_equal(kernel.rows, example.params["z1.weight"][0, 0, ::-1, ::-1])
    assert np.sum(np.array(delta.rows) * np.array(kernel.rows)) == pytest.approx(step.worked[0].result, rel=1e-13)


def test_the_shares_of_several_readers_add_up() -> None:
    (step,) = lesson("design-residual", "seed-1", "relu1.grad")
    *shares, total = step.worked
    assert [term for (term,) in total.terms] == [share.result for share in shares]
    assert {share.label for share in shares} == {f"share of {total.label}"}
    assert len(shares) == 3


# ---------------------------------------------------------------------------- one quantity, other networks


def test_a_parameter_can_be_asked_for_and_an_unknown_name_is_answered() -> None:
    (step,) = lesson("three-layer", "digits", "z1.weight")
    assert step.worked[0].grids[0].rows == tuple(
        tuple(row) for row in probe(get("three-layer"), "digits").params["z1.weight"][0, 0].tolist()
    )
    with pytest.raises(ManualBPError, match=r"no quantity 'a1\.gard'\. did you mean a1\.grad"):
        lesson("three-layer", "digits", "a1.gard")


def test_a_network_of_ones_own_with_a_layer_that_is_not_known() -> None:
    class Double(nn.Layer):
        def forward(self, params: nn.Params, /, *inputs: nn.Array) -> tuple[nn.Array, nn.Cache]:
            return 2 * inputs[0], None

        def backward(self, cache: nn.Cache, upstream: nn.Array, /) -> nn.Gradients:
            return nn.Gradients((2 * upstream,))

    network = chain("own", {"d": Double(), "fc": nn.Linear(3, 2)}, nn.MSELoss(), (3,))
    steps = explain(network, probe=probe(network, "seed-1"))
    assert [step.name for step in steps][:3] == ["x", "d", "fc"]
    assert all(step.phase != "question" for step in steps)


# ---------------------------------------------------------------------------- in the terminal


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_screen_and_nothing_is_lost(width: int) -> None:
    steps = lesson("three-layer", "digits")
    text = render(steps, Look(width=width))
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for step in steps:
        for paragraph in (*step.prose, step.title):
            assert " ".join(paragraph.split()) in " ".join(words)


def test_what_is_marked_is_seen_without_colours() -> None:
    (step,) = lesson("three-layer", "digits", "a1.grad")
    text = render((step,), Look(width=80))
    ((r, c),) = step.worked[0].grids[0].marked
    assert f"[{step.worked[0].grids[0].rows[r][c]:.3g}]" in text
    assert "\x1b" not in text
    assert "\x1b[" in render((step,), Look(width=80, color=True))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = render(lesson("three-layer", "digits"), Look(width=80, unicode=False))
    assert text.isascii()
    assert "dL/da(1)" in text
