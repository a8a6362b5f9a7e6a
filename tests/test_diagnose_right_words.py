"""What is said is true: axes by their names, no hypothesis that says nothing, no blame for what is right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import Report, tap, verify
from manual_bp.diagnose._axes import axes_words, axis_word
from manual_bp.render import render
from manual_bp.variants import Variant

RNG = np.random.default_rng(0)


def said(report: Report) -> dict[str, tuple[str, str]]:
    """What each mistake is called, and how sure that is."""
    return {c.name: (c.diagnosis.name, c.diagnosis.confidence) for c in report.checks if c.diagnosis is not None}


# ---------------------------------------------------------------------- what an axis is called


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("image", "example channel row column"),
        ("sequence", "example index of axis 1 index of axis 2 feature"),
        ("plain", "example index of axis 1 index of axis 2 index of axis 3"),
        ("kernel", "output channel input channel row column"),
    ],
)
def test_four_axes(kind: Any, words: str) -> None:
    assert " ".join(axis_word(kind, 4, axis) for axis in range(4)) == words


def test_axes_without_a_name_are_counted_together() -> None:
    assert axes_words("plain", 4, (0, 2, 3)) == "examples and indices of axes 2 and 3"
    assert axes_words("sequence", 4, (0, 1, 3)) == "examples, features and indices of axis 1"
    assert axes_words("image", 4, (0, 2, 3)) == "examples, rows and columns"


def linear(how: str) -> Any:
    def mine(params: Any, x: Any, do: Any) -> dict[str, Any]:
        weight, bias = params["weight"], params["bias"]
        db, dx = do.sum((0, 1)), do @ weight
        if how == "mean over time":
            db = do.mean(1).sum(0)
        if how == "time reversed":
            dx = dx[:, ::-1]
        if how == "features reversed":
            dx = dx[..., ::-1]
        dweight = np.einsum("bti,btj->ij", do, x)
        return {"output": x @ weight.T + bias, "weight.grad": dweight, "bias.grad": db, "x.grad": dx}

    return mine


@pytest.mark.parametrize(
    ("how", "quantity", "words"),
    [
        ("mean over time", "bias.grad", "divided by the number of positions of output.grad"),
        ("time reversed", "x.grad", "has its positions in reverse order"),
        ("features reversed", "x.grad", "flipped along its last axis"),
    ],
)
def test_behind_a_linear_layer_axis_1_is_a_position(how: str, quantity: str, words: str) -> None:
    found = said(verify(linear(how), nn.Linear(8, 3), x=RNG.standard_normal((2, 5, 8)), dtype="float64"))
    assert list(found) == [quantity]
    assert words in found[quantity][0]
    assert found[quantity][1] == "certain"


def test_behind_a_convolution_axis_1_is_a_channel_also_for_what_only_keeps_its_shape() -> None:
    reference = nn.Sequential(nn.Conv1d(3, 4, 1), nn.Tanh())

    def mine(params: Any, x: Any, do: Any) -> dict[str, Any]:
        weight = params["0.weight"][:, :, 0]
        y = np.einsum("oc,ncl->nol", weight, x) + params["0.bias"][:, None]
        return {"0": y, "1": np.tanh(y), "0.grad": (do * (1 - np.tanh(y) ** 2))[:, ::-1]}

    found = said(verify(mine, reference, x=RNG.standard_normal((2, 3, 5)), dtype="float64"))
    assert list(found) == ["0.grad"]
    assert "has its channels in reverse order" in found["0.grad"][0]


@pytest.mark.parametrize("d", [8, 4])
def test_the_root_that_scores_are_divided_by(d: int) -> None:
    """Where √d is a plain number the probes cannot tell the two apart, and both are named."""

    def reference(params: Any, x: Any) -> Any:
        q, k = tap("q", x @ params["Q"]), tap("k", x @ params["K"])
        return tap("s", q @ k.transpose(-1, -2) / math.sqrt(d))

    def mine(params: Any, x: Any, _: Any) -> dict[str, Any]:
        q, k = x @ params["Q"], x @ params["K"]
        return {"q": q, "k": k, "s": q @ k.swapaxes(-1, -2)}

    params = {name: RNG.standard_normal((6, d)) for name in "QK"}
    report = verify(mine, reference, x=RNG.standard_normal((2, 5, 6)), params=params)
    name, confidence = said(report)["s"]
    others = next(c.diagnosis.alternatives for c in report.checks if c.name == "s" and c.diagnosis is not None)
    missing = "s is multiplied by the root of the length of k's last axis: the division by it is missing"
    if d == 8:
        assert (name, confidence) == (missing, "certain")
    else:
        assert (name, confidence, others) == ("s is twice as large", "ambiguous", (missing,))


# ---------------------------------------------------------------------- hypotheses that say nothing


def recurrent(how: str) -> Any:
    """The backward pass of nn.RNN; its two biases have the same gradient in right code, too."""

    def mine(params: Any, x: Any, do: Any) -> dict[str, Any]:
        w, u = params["rnn.weight_ih_l0"], params["rnn.weight_hh_l0"]
        bias = params["rnn.bias_ih_l0"] + params["rnn.bias_hh_l0"]
        hs = [np.zeros((len(x), 4), x.dtype)]
        for t in range(x.shape[1]):
            hs.append(np.tanh(x[:, t] @ w.T + hs[-1] @ u.T + bias))
        dw, du, db, dh = np.zeros_like(w), np.zeros_like(u), np.zeros_like(bias), np.zeros_like(hs[0])
        for t in reversed(range(x.shape[1])):
            dz = (do[:, t] + dh) * (1 - hs[t + 1] ** 2)
            dw, du, db = dw + dz.T @ x[:, t], du + dz.T @ hs[t], db + dz.sum(0)
            dh = 0 * dh if how == "nothing through time" else dz @ u
        db = db / len(x) if how == "mean" else db
        return {"output": np.stack(hs[1:], 1), "rnn.weight_ih_l0.grad": dw, "rnn.weight_hh_l0.grad": du,
                "rnn.bias_ih_l0.grad": db, "rnn.bias_hh_l0.grad": db.copy()}  # fmt: skip

    return mine


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.rnn(x)[0]


def test_two_that_are_equal_in_right_code_do_not_explain_each_other() -> None:
    x = RNG.standard_normal((5, 4, 3))
    assert verify(recurrent(""), Recurrent(), x=x, dtype="float64").ok
    found = said(verify(recurrent("nothing through time"), Recurrent(), x=x, dtype="float64"))
    assert len(found) == 4
    assert {confidence for _, confidence in found.values()} == {"unexplained"}
    found = said(verify(recurrent("mean"), Recurrent(), x=x, dtype="float64"))
    words = "is divided by the number of examples: a mean where a sum is due"
    assert {n: name for n, (name, _) in found.items()} == {n: f"{n} {words}" for n in found}
    assert set(found) == {"rnn.bias_ih_l0.grad", "rnn.bias_hh_l0.grad"}


def test_a_gradient_that_is_another_one_still_is_told_so() -> None:
    def reference(params: Any, x: Any) -> Any:
        return tap("o", tap("h", torch.tanh(x @ params["W"])) ** 2)

    def mine(params: Any, x: Any, do: Any) -> dict[str, Any]:
        h = np.tanh(x @ params["W"])
        return {"h": h, "o": h * h, "do": do, "dh": do}

    found = said(verify(mine, reference, x=RNG.standard_normal((5, 4)), params={"W": RNG.standard_normal((4, 3))}))
    assert found == {"h.grad": ("h.grad is o.grad, passed on unchanged", "certain")}


# ---------------------------------------------------------------------- what was computed before its operand was lost


def residual(params: Any, x: Any) -> Any:
    a = tap("a", torch.tanh(x @ params["W1"]))
    return tap("o", tap("s", a + tap("b", torch.tanh(a @ params["W2"]))) @ params["W3"])


def test_what_was_computed_before_its_operand_was_overwritten_is_acquitted() -> None:
    def mine(params: Any, x: Any, do: Any) -> dict[str, Any]:
        a = np.tanh(x @ params["W1"])
        b = np.tanh(a @ params["W2"])
        ds = do @ params["W3"].T
        db, dz = ds, ds * (1 - b * b)
        da = ds
        da += dz @ params["W2"].T  # the right number, but in the array of ds and db
        return {"a": a, "b": b, "s": a + b, "o": (a + b) @ params["W3"], "ds": ds, "db": db, "da": da,
                "dW2": a.T @ dz, "dW1": x.T @ (da * (1 - a * a))}  # fmt: skip

    shapes = {"W1": (4, 3), "W2": (3, 3), "W3": (3, 2)}
    params = {name: RNG.standard_normal(shape) for name, shape in shapes.items()}
    report = verify(mine, residual, x=RNG.standard_normal((5, 4)), params=params)
    found = said(report)
    assert set(found) == {"s.grad"}
    assert found["s.grad"][0].startswith("s.grad holds a.grad: it was overwritten")
    assert report.counts["wrong"] == sum(check.name == "s.grad" for check in report.checks)
    inherited = {check.name: check.note for check in report.checks if check.status == "inherited"}
    assert set(inherited) == {"b.grad", "W2.grad", "a.grad"}
    lost = "it was computed from s.grad before that was overwritten with a.grad"
    assert inherited["W2.grad"] == f"is right over the whole pass: {lost}"
    held = "it was computed into the array of s.grad, which holds it now"
    assert inherited["a.grad"] == f"is right over the whole pass: {held}"
    shown = " ".join(render(report, "full", width=200).split())
    assert f"W2.grad: is right over the whole pass: {lost}" in shown
    assert "b.grad: right alone" in shown


def test_a_mistake_of_its_own_is_not_acquitted_beside_one_that_was_overwritten() -> None:
    def mine(params: Any, x: Any, do: Any) -> dict[str, Any]:
        a = np.tanh(x @ params["W1"])
        b = np.tanh(a @ params["W2"])
        ds = do @ params["W3"].T
        dz = ds * (1 - b * b)
        da = ds
        da += dz @ params["W2"].T
        return {"a": a, "b": b, "s": a + b, "o": (a + b) @ params["W3"], "ds": ds, "da": da, "dW2": 2 * a.T @ dz}

    shapes = {"W1": (4, 3), "W2": (3, 3), "W3": (3, 2)}
    params = {name: RNG.standard_normal(shape) for name, shape in shapes.items()}
    found = said(verify(mine, residual, x=RNG.standard_normal((5, 4)), params=params))
    assert "nothing is wrong" not in found["W2.grad"][0]


# ---------------------------------------------------------------------- a loss without a formula


def margin(params: Any, x: Any, y: Any) -> Any:
    """A hinge on the difference of two scores, with weight decay and a constant slope."""
    s, r = tap("s", x @ params["w"]), tap("r", x @ params["v"])
    d = tap("d", s - r)
    decay = 0.05 * (params["v"] ** 2).sum()
    return (0.5 + d).clamp(min=0).mean() + (torch.sin(r) * y).mean() + decay - 0.1 * r.sum() + (s**2).sum()


def margin_by_hand(wrong: str) -> Any:
    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        w, v = params["w"], params["v"]
        s, r = x @ w, x @ v
        d = s - r
        dd = (0.5 + d > 0) / d.size
        if wrong == "mask":
            dd = np.full_like(d, 1 / d.size)
        if wrong == "mean":
            dd = dd * d.size
        dr = np.cos(r) * y / r.size - dd - 0.1
        if wrong == "constant":
            dr = np.cos(r) * y / r.size - dd
        if wrong == "subtracted":
            dr = np.cos(r) * y / r.size - 0.1
        dv = x.T @ dr + 0.1 * v
        if wrong == "decay":
            dv = x.T @ dr
        return {"s": s, "r": r, "d": d, "dd": dd, "ds": dd + 2 * s, "dr": dr, "dw": x.T @ (dd + 2 * s), "dv": dv}

    return mine


@pytest.mark.parametrize(
    ("wrong", "quantity", "words"),
    [
        ("mask", "d.grad", "d.grad is the same on every probe, whatever it is computed from"),
        ("mean", "d.grad", "d.grad is multiplied by the number of all elements of d: a sum where a mean is due"),
        ("constant", "r.grad", "0.1 in each element is added to r.grad, or has to be subtracted and is not"),
        ("subtracted", "r.grad", "the share that comes back from d is missing"),
        ("decay", "v.grad", "the share that comes back from loss is missing"),
    ],
)
def test_a_term_is_not_said_to_be_added_that_may_be_missing_with_the_other_sign(
    wrong: str, quantity: str, words: str
) -> None:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((4, 3)), "v": rng.standard_normal((4, 3))}
    x, y = rng.standard_normal((7, 4)), rng.standard_normal((7, 3))
    assert verify(margin_by_hand(""), margin, x=x, y=y, params=params).ok
    report = verify(margin_by_hand(wrong), margin, x=x, y=y, params=params)
    assert said(report) == {quantity: (words, "certain")}


def test_a_count_of_positions_and_a_plain_number_are_told_as_two() -> None:
    """With indices as input no other number of positions can be tried."""

    def reference(params: Any, x: Any, y: Any) -> Any:
        z = tap("z", params["w"][x])
        return nn.functional.cross_entropy(z.reshape(-1, 5), y.reshape(-1))

    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        z = params["w"][x]
        e = np.exp(z - z.max(-1, keepdims=True))
        dz = e / e.sum(-1, keepdims=True) - np.eye(5)[y]
        return {"z": z, "dz": dz / len(x)}  # of 3 sequences, each of 4 positions

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (3, 4)), rng.integers(0, 5, (3, 4))
    report = verify(mine, reference, x=x, y=y, params={"w": rng.standard_normal((6, 5))})
    assert said(report)["z.grad"][1] == "ambiguous"
    found = next(c.diagnosis for c in report.checks if c.diagnosis is not None)
    assert {found.name, *found.alternatives} == {
        "z.grad is four times as large",
        "z.grad is multiplied by the number of indices of axis 1 of z: a sum where a mean is due",
    }


# ---------------------------------------------------------------------- windows


def pooled(of: Any, shares: Any) -> Any:
    """Pooling by windows of 3 x 3 at a stride of 2; on 7 x 7, the output has as many elements as a window."""

    def mine(params: Any, x: Any, g: Any) -> dict[str, Any]:
        y, dx = np.zeros_like(g), np.zeros_like(x)
        for i, j in np.ndindex(g.shape[2:]):
            at = (..., slice(2 * i, 2 * i + 3), slice(2 * j, 2 * j + 3))
            y[..., i, j] = of(x[at])
            dx[at] += shares(x[at]) * g[..., i : i + 1, j : j + 1]
        return {"output": y, "x.grad": dx}

    return mine


def summed(w: Any) -> Any:
    return w.sum((2, 3))


def largest(w: Any) -> Any:
    return w == w.max((2, 3), keepdims=True)


def test_the_factor_of_a_window_is_put_down_to_the_window() -> None:
    mean, most, x = nn.AvgPool2d(3, 2), nn.MaxPool2d(3, 2), RNG.standard_normal((2, 2, 7, 7))
    window, strides = "the number of elements of a window", "divided by the product of the strides everywhere"
    for module, of, shares, expected in (
        (mean, lambda w: summed(w) / 9, lambda w: 1.0, {"x.grad": f"x.grad is multiplied by {window}"}),
        (mean, summed, lambda w: 1 / 9, {"output": f"output is multiplied by {window}"}),
        (mean, lambda w: summed(w) / 4, lambda w: 1 / 4, {"output": strides, "x.grad": strides}),
        (most, lambda w: w.max((2, 3)), lambda w: largest(w) / 9, {"x.grad": f"x.grad is divided by {window}"}),
    ):
        found = said(verify(pooled(of, shares), module, x=x, probes=["given", "seed-1", "seed-2"]))
        assert {n: (name.partition(":")[0], sure) for n, (name, sure) in found.items()} == {
            n: (name, "certain") for n, name in expected.items()
        }


def test_a_result_that_is_cut_off_at_0_is_not_kept_above_a_small_number() -> None:
    found = said(
        verify(
            lambda p, x: {"output": np.maximum(x @ p["weight"].T, 0)},
            nn.Linear(4, 3, bias=False),
            x=RNG.standard_normal((5, 4)),
        )
    )
    assert found == {"output": ("output is cut off at 0", "certain")}


# ---------------------------------------------------------------------- losses


def loss_of(value: Any, slope: Any) -> Any:
    return lambda _, x, y: {"output": x, "loss": value(x, y), "output.grad": slope(x, y) / len(x)}


def test_a_class_is_not_kept_above_a_small_number() -> None:
    """What is to be ignored is counted as class 0."""

    def parts(x: Any, y: Any) -> tuple[Any, Any]:
        p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        return p, np.eye(x.shape[1])[np.maximum(y, 0)]

    mine = loss_of(lambda x, y: -np.log((parts(x, y)[0] * parts(x, y)[1]).sum(1)).mean(),
                   lambda x, y: parts(x, y)[0] - parts(x, y)[1])  # fmt: skip  # one call
    x, y = RNG.standard_normal((5, 4)), np.array([0, -100, 2, 3, -100])
    found = said(verify(mine, nn.Identity(), x=x, y=y, loss=nn.CrossEntropyLoss()))
    assert found == {"loss": ("the target is cut off at 0", "certain"),
                     "output.grad": ("the target is cut off at 0", "certain")}  # fmt: skip  # one mapping


def test_a_missing_term_is_not_called_a_missing_prediction() -> None:
    mine = loss_of(lambda p, y: -(y * np.log(p)).mean(), lambda p, y: (p - y) / p / p.shape[1])
    x, y = RNG.uniform(0.05, 0.95, (4, 3)), RNG.integers(0, 2, (4, 3)).astype(float)
    probes = [Variant(name=f"{i}", description="", params={}, x=x, y=y) for i, x in enumerate((x, x[::-1]))]
    found = said(verify(mine, nn.Identity(), x=x, y=y, loss=nn.BCELoss(), probes=probes))
    assert found["loss"] == ("the term (1 − t) log(1 − p) in the log-likelihood is missing", "certain")
    assert found["output.grad"][0] == "the factor 1 − the prediction output in p (1 − p) is missing"
