"""Mistakes in a formula as somebody else writes it, in several parts at once, or in a decision: named rightly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from manual_bp import nn
from manual_bp.diagnose import Graph, _thin, diagnose
from manual_bp.network import INPUT, Network, Node, chain
from manual_bp.nn import Array
from manual_bp.report import Diagnosis
from tests.diagnosis_bench import Wrong, WrongLoss, cases


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _dense(loss: Any, outputs: int = 5, **last: Any) -> Network:
    layers = {"fc1": nn.Linear(8, 6), "relu": nn.ReLU(), "fc2": nn.Linear(6, outputs)}
    return chain("dense", layers | last, loss, (8,))


def _of_loss(network: Network, what: str, change: Any) -> Diagnosis:
    candidate = network.with_layer("loss", WrongLoss(network.loss.reduction, network.loss, what, change))
    quantity = "loss" if what == "y" else f"{network.output}.grad"
    return diagnose(Graph.of(network), cases(network, candidate, quantity))


def _of_step(network: Network, step: str, what: str, quantity: str, change: Any) -> Diagnosis:
    candidate = network.with_layer(step, Wrong(network.node(step).layer, what, change))
    return diagnose(Graph.of(network), cases(network, candidate, quantity))


def test_cross_entropy_with_the_diagonal_of_the_softmax_jacobian_alone() -> None:
    found = _of_loss(_dense(nn.CrossEntropyLoss()), "dx", lambda r, p, t: -np.eye(5)[t] * (1 - _softmax(p)) / len(p))
    assert "Jacobian off its diagonal is missing" in found.name


def test_the_mean_reaches_one_term_only() -> None:
    found = _of_loss(_dense(nn.CrossEntropyLoss()), "dx", lambda r, p, t: _softmax(p) / len(p) - np.eye(5)[t])
    assert "one-hot target" in found.name
    assert found.confidence == "certain"


def test_the_derivative_of_the_sigmoid_again_behind_logits() -> None:
    s = _sigmoid
    found = _of_loss(_dense(nn.BCEWithLogitsLoss()), "dx", lambda r, p, t: (s(p) - t) * s(p) * (1 - s(p)) / p.size)
    assert "σ(z) (1 − σ(z))" in found.name


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def test_a_clipped_sigmoid_behind_logits() -> None:
    def change(_: Array, p: Array, t: Array) -> Array:
        return np.asarray((np.clip(_sigmoid(p), 1e-3, 1 - 1e-3) - t) / p.size)

    assert "clipped to [0.001" in _of_loss(_dense(nn.BCEWithLogitsLoss()), "dx", change).name


def test_a_divisor_that_counts_what_has_no_weight() -> None:
    weight = np.array([0.5, 2.0, 1.0, 3.0, 0.25])
    network = _dense(nn.CrossEntropyLoss(weight=tuple(weight)))

    def change(_: Array, p: Array, t: Array) -> Array:
        return np.asarray(weight[t][:, None] * (_softmax(p) - np.eye(5)[t]) / len(p))

    assert "divided by the number of examples, not by Σ w" in _of_loss(network, "dx", change).name


NORM = chain("norm", {"fc": nn.Linear(8, 6), "norm": nn.LayerNorm(6), "sig": nn.Sigmoid()}, nn.MSELoss(), (4, 8))


def _normed_back(x: Array, p: Any, g: Array, axes: Any) -> Array:
    s = 1 / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    x_hat, ghat = (x - x.mean(axes, keepdims=True)) * s, g * p["weight"]
    return np.asarray(s * (ghat - ghat.mean(axes, keepdims=True) - x_hat * (ghat * x_hat).mean(axes, keepdims=True)))


@pytest.mark.parametrize(("axes", "words"), [((1, 2), "positions and features"), ((1,), "over the positions")])
def test_a_normalisation_over_the_wrong_axes(axes: tuple[int, ...], words: str) -> None:
    found = _of_step(NORM, "norm", "dx", "fc.grad", lambda r, x, p, g: _normed_back(x, p, g, axes))
    assert found.name.startswith("all means run over the")
    assert words in found.name


def test_mean_and_variance_taken_for_constants() -> None:
    def change(_: Array, x: Array, p: Any, g: Array) -> Array:
        return np.asarray(g * p["weight"] / np.sqrt(x.var(-1, keepdims=True) + 1e-5))

    assert "the other terms are missing" in _of_step(NORM, "norm", "dx", "fc.grad", change).name

    def half(_: Array, x: Array, p: Any, g: Array) -> Array:
        g = g * p["weight"]
        return np.asarray((g - g.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5))

    assert "the share through the variance" in _of_step(NORM, "norm", "dx", "fc.grad", half).name


def test_the_derivative_of_the_next_step_back_multiplied_in_already() -> None:
    network = _dense(nn.MSELoss())
    found = _of_step(network, "fc2", "dx", "relu.grad", lambda r, x, p, g: (g @ p["weight"]) * (x > 0))
    assert found.name == "relu.grad is multiplied by the mask of relu already, which is for the next step back to do"


def test_a_forgotten_branch_is_named_by_its_step() -> None:
    nodes = (
        Node("fc1", nn.Linear(5, 5), (INPUT,)),
        Node("relu", nn.ReLU(), ("fc1",)),
        Node("fc2", nn.Linear(5, 5), ("relu",)),
        Node("add", nn.Add(), ("fc2", "relu")),
    )
    network = Network(name="skip", nodes=nodes, loss=nn.MSELoss(), input_shape=(5,))
    found = cases(network, network, "fc2.grad")
    x, g = "relu", "relu.grad"
    wrong = [
        replace(
            c, quantity=g, reported=c.values["fc2.grad"] @ c.values["fc2.weight"],
            right=c.values[g], allowed=np.full(c.values[x].shape, 1e-14), wrong=True,
        )
        for c in found
    ]  # fmt: skip
    diagnosis = diagnose(Graph.of(network), wrong)
    assert diagnosis.name == "the share that comes back from add is missing"


POOL = chain(
    "pool", {"conv": nn.Conv2d(1, 2, 3), "pool": nn.MaxPool2d(2), "flat": nn.Flatten()}, nn.MSELoss(), (1, 8, 8)
)


def test_an_upsampling_to_the_wrong_corner() -> None:
    found = _of_step(POOL, "pool", "dx", "conv.grad", lambda r, x, p, g: np.kron(g, np.array([[0, 0], [0, 1]])))
    assert found.name == "element [1, 1] of each window gets the error, not the winner"


def test_every_element_of_a_window_gets_a_hint_about_windows() -> None:
    found = _of_step(POOL, "pool", "dx", "conv.grad", lambda r, x, p, g: np.kron(g, np.ones((2, 2))))
    assert found.identifier == "winner-ignored"
    assert "ReLU" not in found.hint
    assert found.evidence.startswith("explains all ")


@dataclass(frozen=True)
class WrongStep(nn.Optimizer):
    """An optimiser whose new parameters are exchanged."""

    change: Any = None

    def step(self, params: Any, grads: Any, state: Any) -> Any:
        return {n: np.asarray(self.change(params[n], grads[n]), params[n].dtype) for n in params}, state


def test_decisions_of_an_update() -> None:
    adam = nn.Adam(lr=0.02, betas=(0.8, 0.95), eps=1e-3)

    def mixed(w: Array, g: Array) -> Array:
        return np.asarray(w - 0.02 * (0.05 * g / 0.2) / (np.sqrt(0.2 * g * g / 0.05) + 1e-3))

    def later(w: Array, g: Array) -> Array:
        return np.asarray(w - 0.02 * (0.2 * g / (1 - 0.8**2)) / (np.sqrt(0.05 * g * g / (1 - 0.95**2)) + 1e-3))

    network = replace(_dense(nn.MSELoss()), optimizer=adam)
    for change, words in ((mixed, "β₁ and β₂ are exchanged in the averages"), (later, "counted as the second one")):
        found = _of_update(network, WrongStep(change))
        assert words in found.name


def _of_update(network: Network, wrong: nn.Optimizer) -> Diagnosis:
    name = "fc2.weight.new"
    right = cases(network, network, "fc2.weight.grad")
    theta = [(c, c.values["fc2.weight"], c.values["fc2.weight.grad"]) for c in right]
    assert network.optimizer is not None
    made = [
        replace(
            c, quantity=name, reported=wrong.step({name: w}, {name: g}, {})[0][name],
            right=network.optimizer.step({name: w}, {name: g}, {})[0][name],
            allowed=np.full(w.shape, 1e-14), wrong=bool(g.any()),
        )
        for c, w, g in theta
    ]  # fmt: skip
    return diagnose(Graph.of(network), made)


def test_a_large_step_is_looked_at_through_a_few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thin, "LARGE", 10_000)
    network = chain(
        "large", {"conv": nn.Conv2d(24, 20, 3, padding=1), "flat": nn.Flatten()}, nn.MSELoss(), (24, 16, 16)
    )
    layer = network.node("conv").layer
    flipped = Wrong(
        layer, "dx", lambda r, x, p, g: _back(layer, {**p, "weight": p["weight"][..., ::-1, ::-1].copy()}, x, g)
    )
    found = cases(network, network.with_layer("conv", flipped), "x.grad")
    few = _thin.thin(found[0], Graph.of(network))
    assert few is not None
    assert few.reported.shape[1] == 3
    assert few.values["conv.weight"].shape == (20, 3, 3, 3)
    assert diagnose(Graph.of(network), found).identifier == "kernel-not-rotated"


def _back(layer: Any, params: Any, x: Array, g: Array) -> Array:
    return np.asarray(layer.backward(layer.forward(params, x)[1], g).inputs[0])


POOLED = chain(
    "pooled",
    {"conv": nn.Conv2d(1, 2, 3), "mean": nn.AvgPool2d(2), "flat": nn.Flatten(), "fc": nn.Linear(18, 2)},
    nn.MSELoss(),
    (1, 9, 9),  # the windows leave a row and a column over
)


def _windows(x: Array) -> Array:
    n, c = x.shape[:2]
    return x[:, :, :6, :6].reshape(n, c, 3, 2, 3, 2)


def test_the_maximum_in_place_of_a_mean() -> None:
    found = _of_step(POOLED, "mean", "y", "mean", lambda r, x, p, g: _windows(x).max(axis=(3, 5)))
    assert found.name == "the largest element of each window, not the mean"


def test_a_mean_whose_error_goes_to_one_element() -> None:
    # of 2x2 the first element would be a window of 1x1 as well
    network = POOLED.with_layer("mean", nn.AvgPool2d(3, stride=2))

    def change(right: Array, x: Array, _: Any, g: Array) -> Array:
        dx = np.zeros_like(right)
        dx[:, :, :6:2, :6:2] = g
        return dx

    found = _of_step(network, "mean", "dx", "conv.grad", change)
    assert found.name == "the whole error goes to the first element"


def test_an_upsampling_beyond_the_last_window() -> None:
    def change(_: Array, x: Array, p: Any, g: Array) -> Array:
        rows = np.minimum(np.arange(7) // 2, 2)
        return np.asarray(g[:, :, rows][:, :, :, rows] / 4)

    found = _of_step(POOLED, "mean", "dx", "conv.grad", change)
    assert found.name.startswith("the error is repeated beyond the last window")


def test_given_statistics_that_are_differentiated_all_the_same() -> None:
    norm = nn.BatchNorm1d(6, training=False)
    network = chain("given", {"fc": nn.Linear(8, 6), "norm": norm, "sig": nn.Sigmoid()}, nn.MSELoss(), (8,))

    def change(_: Array, x: Array, p: Any, g: Array) -> Array:
        s = 1 / np.sqrt(p["running_var"] + norm.eps)
        x_hat, ghat = (x - p["running_mean"]) * s, g * p["weight"]
        return np.asarray(s * (ghat - ghat.mean(axis=0) - x_hat * (ghat * x_hat).mean(axis=0)))

    found = _of_step(network, "norm", "dx", "fc.grad", change)
    assert found.name == "the statistics are differentiated as in training, but here they are given"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r, x, p, g: g * (_sigmoid(x) + x * (x * _sigmoid(x)) * (1 - x * _sigmoid(x))), "σ + x y (1 − y)"),
        (lambda r, x, p, g: g * (x * _sigmoid(x) + _sigmoid(x) * (1 - _sigmoid(x))), "y + σ (1 − σ)"),
    ],
)
def test_output_and_gate_of_silu_taken_for_each_other(change: Any, words: str) -> None:
    network = _dense(nn.MSELoss(), silu=nn.SiLU())
    assert words in _of_step(network, "silu", "dx", "fc2.grad", change).name
