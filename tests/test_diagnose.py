"""The mistake behind a wrong quantity is named: rightly, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp import networks, probes, report_json
from manual_bp.cli.diagnose import command
from manual_bp.diagnose import Effort, Graph, diagnose
from manual_bp.nn import Array, Layer
from manual_bp.runner import judge_network
from tests.diagnosis_bench import NETWORKS, Wrong, WrongLoss, cases

#: Between words of which one is enough.
OR = " OR "

Change = Callable[[Array, Array, Any, Any], Array]


def _back(layer: Layer, params: Any, x: Array, g: Array) -> Any:
    _, cache = layer.forward(params, x)
    return layer.backward(cache, g)


def _layer(network: str, step: str) -> Any:
    return NETWORKS[network].node(step).layer


def _mean(x: Array) -> Any:
    return x.mean(axis=(0, 2), keepdims=True)


def _variance(x: Array) -> Any:
    return x.var(axis=(0, 2), keepdims=True)


CONV, DENSE, MEAN = "bench-conv", "bench-dense", "bench-mean"
C, D = _layer(CONV, "conv"), _layer(CONV, "deep")

#: network, step, result, quantity, what the mistake is, words of which one must be in the name
MISTAKES: list[tuple[str, str, str, str, Change, str]] = [
    (
        CONV,
        "conv",
        "dx",
        "x.grad",
        lambda r, x, p, g: _back(C, {**p, "weight": p["weight"][..., ::-1, :].copy()}, x, g).inputs[0],
        "kernel OR flipped",
    ),
    (
        CONV,
        "deep",
        "dx",
        "relu.grad",
        lambda r, x, p, g: _back(D, {**p, "weight": p["weight"][..., ::-1, ::-1].copy()}, x, g).inputs[0],
        "not rotated",
    ),
    (
        CONV,
        "deep",
        "dx",
        "relu.grad",
        lambda r, x, p, g: _back(D, {**p, "weight": p["weight"].swapaxes(0, 1).copy()}, x, g).inputs[0],
        "exchanged",
    ),
    (CONV, "deep", "dx", "relu.grad", lambda r, x, p, g: np.roll(r, 1, axis=2), "previous row"),
    (CONV, "deep", "dx", "relu.grad", lambda r, x, p, g: r[:, ::-1], "reverse order"),
    (CONV, "deep", "dx", "relu.grad", lambda r, x, p, g: r * (x > 0), "mask"),
    (
        CONV,
        "deep",
        "dx",
        "relu.grad",
        lambda r, x, p, g: _back(D, p, x, g.mean(axis=0, keepdims=True).repeat(len(g), 0)).inputs[0],
        "mean over all example",
    ),
    (
        CONV,
        "deep",
        "weight",
        "deep.weight.grad",
        lambda r, x, p, g: _back(D, p, x[:, :, ::-1].copy(), g).params["weight"],
        "flipped",
    ),
    (CONV, "deep", "weight", "deep.weight.grad", lambda r, x, p, g: r / g[0, 0].size, "divided by"),
    (
        CONV,
        "deep",
        "weight",
        "deep.weight.grad",
        lambda r, x, p, g: _back(D, p, np.maximum(x - 0 * x, 0) * 0 + np.roll(x, 1, 0), g).params["weight"],
        "previous example",
    ),
    (
        CONV,
        "deep",
        "weight",
        "deep.weight.grad",
        lambda r, x, p, g: _back(D, p, x, g * (np.arange(len(g)) == 0)[:, None, None, None]).params["weight"],
        "first example",
    ),
    (CONV, "deep", "weight", "deep.weight.grad", lambda r, x, p, g: r.swapaxes(0, 1), "exchanged"),
    (CONV, "deep", "weight", "deep.weight.grad", lambda r, x, p, g: r + 0.001 * p["weight"], "0.001 times deep.weight"),
    (
        CONV,
        "deep",
        "bias",
        "deep.bias.grad",
        lambda r, x, p, g: g.sum(axis=(0, 2, 3)) / len(g),
        "mean over the examples OR number of examples",
    ),
    (CONV, "deep", "bias", "deep.bias.grad", lambda r, x, p, g: g[..., -1].sum(axis=(0, 2)), "last column"),
    (CONV, "deep", "bias", "deep.bias.grad", lambda r, x, p, g: g.max(axis=(0, 2, 3)), "maximum"),
    (CONV, "conv", "y", "conv", lambda r, x, p, g: C.forward({**p, "weight": np.abs(p["weight"])}, x)[0], "absolute"),
    (CONV, "conv", "y", "conv", lambda r, x, p, g: r - 2 * p["bias"][:, None, None], "bias"),
    (
        CONV,
        "conv",
        "y",
        "conv",
        lambda r, x, p, g: C.forward(
            p, np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")[:, :, :-2, :-2].copy()
        )[0],
        "",
    ),
    (CONV, "relu", "dx", "conv.grad", lambda r, x, p, g: g * (x < 1), ""),
    (CONV, "relu", "dx", "conv.grad", lambda r, x, p, g: g * np.abs(x), "|x|"),
    (CONV, "relu", "dx", "conv.grad", lambda r, x, p, g: g * (x[:, ::-1] > 0), "reverse order"),
    (
        CONV,
        "relu",
        "y",
        "relu",
        lambda r, x, p, g: np.maximum(x, 0) ** 2,
        "squared OR square OR multiplied by the input",
    ),
    (CONV, "tanh", "dx", "deep.grad", lambda r, x, p, g: g * np.tanh(x), "y"),
    (CONV, "tanh", "dx", "deep.grad", lambda r, x, p, g: g * (1 - np.abs(np.tanh(x))), "abs OR absolute"),
    (CONV, "tanh", "dx", "deep.grad", lambda r, x, p, g: g * (1 - np.tanh(x)) * (1 + 0 * x), "y"),
    (CONV, "pool", "dx", "tanh.grad", lambda r, x, p, g: -r, "sign"),
    (CONV, "pool", "y", "pool", lambda r, x, p, g: r.swapaxes(2, 3), "transposed"),
    (CONV, "fc", "dx", "flat.grad", lambda r, x, p, g: r @ np.diag(np.ones(r.shape[1])) * len(g), "number of examples"),
    (CONV, "fc", "dx", "flat.grad", lambda r, x, p, g: np.sign(g) @ p["weight"], "sign"),
    (
        CONV,
        "fc",
        "weight",
        "fc.weight.grad",
        lambda r, x, p, g: (x.T @ g).reshape(r.shape),
        "order OR another OR filled OR read",
    ),
    (CONV, "fc", "weight", "fc.weight.grad", lambda r, x, p, g: g.T @ np.maximum(x, 0), "cut off at 0 OR clipped"),
    (
        CONV,
        "flat",
        "dx",
        "pool.grad",
        lambda r, x, p, g: g.reshape(len(g), 2, 2, 3).transpose(0, 3, 1, 2) if r.shape[1:] == (3, 2, 2) else r,
        "order",
    ),
    (DENSE, "norm", "dx", "fc1.grad", lambda r, x, p, g: r * (len(x) / (len(x) - 1)), ""),
    (DENSE, "norm", "weight", "norm.weight.grad", lambda r, x, p, g: (g * (x - _mean(x))).sum((0, 2)), "missing"),
    (
        DENSE,
        "norm",
        "y",
        "norm",
        lambda r, x, p, g: (x - _mean(x)) / (np.sqrt(_variance(x)) + 1e-5) * p["weight"][:, None] + p["bias"][:, None],
        "ε",
    ),
    (
        DENSE,
        "norm",
        "y",
        "norm",
        lambda r, x, p, g: (
            (x - x.mean(axis=2, keepdims=True)) / np.sqrt(_variance(x) + 1e-5) * p["weight"][:, None]
            + p["bias"][:, None]
        ),
        "runs over OR number of",
    ),
    (
        DENSE,
        "silu",
        "dx",
        "norm.grad",
        lambda r, x, p, g: g * (1 / (1 + np.exp(-x))) * (1 - x * (1 - 1 / (1 + np.exp(-x)))),
        "sign",
    ),
    (DENSE, "silu", "y", "silu", lambda r, x, p, g: x * np.tanh(x), "tanh"),
    (DENSE, "sig", "dx", "fc2.grad", lambda r, x, p, g: g * (1 / (1 + np.exp(-x))) ** 2, "y"),
    (DENSE, "sig", "dx", "fc2.grad", lambda r, x, p, g: g * np.exp(-x), "e^−x"),
    (DENSE, "fc2", "y", "fc2", lambda r, x, p, g: x @ p["weight"] + p["bias"], "transposed"),
    (DENSE, "fc2", "dx", "down.grad", lambda r, x, p, g: g @ p["weight"].T, "transposed"),
    (DENSE, "fc2", "dx", "down.grad", lambda r, x, p, g: g @ p["weight"][::-1], "flipped"),
    (DENSE, "fc2", "bias", "fc2.bias.grad", lambda r, x, p, g: np.roll(r, 1), "previous"),
    (
        DENSE,
        "fc2",
        "weight",
        "fc2.weight.grad",
        lambda r, x, p, g: g.T.astype(np.float16).astype(np.float64) @ x,
        "float16",
    ),
    (MEAN, "mean", "dx", "conv.grad", lambda r, x, p, g: 4 * r, "four times OR division OR missing"),
    (MEAN, "mean", "y", "mean", lambda r, x, p, g: r * 4 / 3, ""),
    (MEAN, "leaky", "dx", "mean.grad", lambda r, x, p, g: np.where(x > 0, g, -0.2 * g), "sign"),
    (MEAN, "leaky", "y", "leaky", lambda r, x, p, g: np.where(x > 0, 0.2 * x, x), "exchanged OR slope OR inverted"),
    (
        MEAN,
        "soft",
        "dx",
        "fc.grad",
        lambda r, x, p, g: (lambda s: s * (g - (g * s).mean(1, keepdims=True)))(
            np.exp(x) / np.exp(x).sum(1, keepdims=True)
        ),
        "mean",
    ),
]


@pytest.mark.parametrize("row", range(len(MISTAKES)))
def test_a_mistake_that_is_in_no_catalogue_is_named_rightly_or_not_at_all(row: int) -> None:
    name, step, what, quantity, change, words = MISTAKES[row]
    network = NETWORKS[name]
    candidate = network.with_layer(step, Wrong(network.node(step).layer, what, change))
    found = cases(network, candidate, quantity)
    if not any(case.wrong for case in found):
        pytest.fail("the mistake changes nothing")
    diagnosis = diagnose(Graph.of(network), found)
    told = " | ".join([diagnosis.name, *diagnosis.alternatives])
    if diagnosis.confidence == "unexplained":
        assert not words, f"not named: {diagnosis.residual}"
        assert diagnosis.residual
    else:
        assert any(w in told for w in words.split(OR)), told
        assert diagnosis.leftover <= 1.0


LOSSES: list[tuple[str, str, Callable[[Array, Array, Array], Array], str]] = [
    (DENSE, "dx", lambda r, p, t: (p - t) / p.size, "half OR 2 is OR missing"),
    (DENSE, "dx", lambda r, p, t: r * p.shape[1], "number of OR divided"),
    (DENSE, "dx", lambda r, p, t: 2 * (p + t) / p.size, "sign"),
    (DENSE, "y", lambda r, p, t: np.abs(p - t).mean(), "L1Loss OR abs"),
    (DENSE, "y", lambda r, p, t: ((p - t).sum()) ** 2 / p.size, "square"),
    (CONV, "dx", lambda r, p, t: r * len(p), "1/N OR number of"),
    (CONV, "dx", lambda r, p, t: np.roll(r, 1, axis=1), "previous OR off by one"),
    (MEAN, "dx", lambda r, p, t: r * p, "p (1 OR the prediction"),
]


@pytest.mark.parametrize("row", range(len(LOSSES)))
def test_a_mistake_in_the_loss_is_named(row: int) -> None:
    name, what, change, words = LOSSES[row]
    network = NETWORKS[name]
    candidate = network.with_layer("loss", WrongLoss("mean", network.loss, what, change))
    quantity = "loss" if what == "y" else f"{network.output}.grad"
    diagnosis = diagnose(Graph.of(network), cases(network, candidate, quantity))
    assert any(w in " ".join([diagnosis.name, *diagnosis.alternatives]) for w in words.split(OR)), diagnosis


def test_noise_is_not_explained() -> None:
    network = NETWORKS[CONV]
    noisy = Wrong(D, "dx", lambda r, x, p, g: r * (1 + 0.1 * np.random.default_rng(r.size).standard_normal(r.shape)))
    found = cases(network, network.with_layer("deep", noisy), "relu.grad")
    diagnosis = diagnose(Graph.of(network), found)
    assert diagnosis.confidence == "unexplained"
    assert diagnosis.name.startswith("no single mistake")


@pytest.mark.parametrize(("roundings", "said"), [(2, True), (2000, False)])
def test_rounding_like_that_of_the_largest_element_is_told_from_a_mistake(roundings: float, said: bool) -> None:
    """As FFT does it: all elements are as far off as the largest may be."""
    network = NETWORKS[CONV]

    def mixed(r: Array, x: Array, p: Any, g: Array) -> Array:
        noise = np.random.default_rng(r.size).uniform(-1, 1, r.shape)
        return r + roundings * np.finfo(r.dtype).eps / 2 * np.abs(r).max() * noise

    found = cases(network, network.with_layer("deep", Wrong(D, "dx", mixed)), "relu.grad")
    tight = [replace(c, allowed=np.asarray(c.allowed) * 1e-3, wrong=True) for c in found]
    diagnosis = diagnose(Graph.of(network), tight)
    assert diagnosis.confidence == "unexplained"
    assert ("of the largest element" in diagnosis.name) == said == ("FFT" in diagnosis.hint)


def test_a_fitted_factor_needs_the_same_number_on_every_probe() -> None:
    network = NETWORKS[CONV]
    steady = Wrong(D, "weight", lambda r, x, p, g: 0.37 * r)
    diagnosis = diagnose(Graph.of(network), cases(network, network.with_layer("deep", steady), "deep.weight.grad"))
    assert diagnosis.identifier == "constant-factor"
    assert "fitted" in diagnosis.evidence
    moving = Wrong(D, "weight", lambda r, x, p, g: r * (0.3 + 0.1 * np.abs(x).mean()))
    diagnosis = diagnose(Graph.of(network), cases(network, network.with_layer("deep", moving), "deep.weight.grad"))
    assert diagnosis.confidence == "unexplained"


def test_without_its_own_hypothesis_a_mistake_is_not_given_a_wrong_name() -> None:
    network = NETWORKS[CONV]
    change = MISTAKES[1][4]
    found = cases(network, network.with_layer("deep", Wrong(D, "dx", change)), "relu.grad")
    diagnosis = diagnose(Graph.of(network), found, effort=Effort(without=frozenset({"kernel-not-rotated"})))
    assert diagnosis.confidence == "unexplained"


def test_two_mistakes_at_once_are_found_with_more_effort() -> None:
    network = NETWORKS[DENSE]
    layer = network.node("fc2").layer
    both = Wrong(layer, "weight", lambda r, x, p, g: (g.T @ x[:, ::-1]) / len(x))
    found = cases(network, network.with_layer("fc2", both), "fc2.weight.grad")
    assert diagnose(Graph.of(network), found).confidence == "unexplained"
    diagnosis = diagnose(Graph.of(network), found, effort=Effort(pairs=True, seconds=30))
    assert "two mistakes at once" in diagnosis.name
    assert "flipped" in diagnosis.name
    assert "number of examples" in diagnosis.name


def test_a_transposed_result_is_named_although_its_shape_differs() -> None:
    network = NETWORKS[CONV]
    layer = network.node("fc").layer
    found = cases(network, network, "fc.weight.grad")
    turned = [replace(c, reported=c.reported.T.copy(), allowed=np.zeros(0), wrong=True) for c in found]
    assert layer.out_features != layer.in_features
    diagnosis = diagnose(Graph.of(network), turned)
    assert diagnosis.identifier == "transposed"


def test_float32_is_diagnosed_as_well() -> None:
    network = NETWORKS[CONV]
    found = cases(network, network.with_layer("deep", Wrong(D, "dx", MISTAKES[1][4])), "relu.grad", "float32")
    assert diagnose(Graph.of(network), found).identifier == "kernel-not-rotated"


def test_a_report_says_what_the_mistake_is_and_where() -> None:
    network = networks.get("three-layer")
    wrong = Wrong(network.node("a1").layer, "dx", lambda r, x, p, g: g)
    chosen = [probes.probe(network, name, batch=2) for name in ("digits", "seed-1")]
    report = judge_network(network, chosen, candidate=network.with_layer("a1", wrong))
    (check, *_) = [c for c in report.checks if c.name == "z1.grad"]
    assert check.diagnosis is not None
    assert check.diagnosis.identifier == "mask-missing"
    assert "diagnosis_bench.py:" in check.diagnosis.location
    assert check.diagnosis.hint
    assert any(f.kind == "wrong" and f.name == "z1.grad" for f in report.findings)
    again = report_json.loads(report_json.dumps(report))
    assert again.checks[0].diagnosis == report.checks[0].diagnosis


def test_a_search_that_fails_leaves_the_verdict_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise ZeroDivisionError("of a mistake that was tried")

    monkeypatch.setattr("manual_bp.diagnose._diagnose.diagnose", fail)
    network = networks.get("three-layer")
    faulty = network.with_layer("a3", Wrong(network.node("a3").layer, "dx", lambda r, x, p, g: -r))
    report = judge_network(network, [probes.probe(network, "ties")], candidate=faulty)
    assert report.first_wrong == "z3.grad"
    (found,) = {check.diagnosis for check in report.checks if check.diagnosis}
    assert found.confidence == "unexplained"
    assert "of a mistake that was tried" in found.evidence


def test_what_is_right_has_no_diagnosis() -> None:
    network = networks.get("three-layer")
    report = judge_network(network, [probes.probe(network, "digits")])
    assert report.ok
    assert all(c.diagnosis is None for c in report.checks)


def test_the_command_compares_again_by_the_command_of_a_report(tmp_path: Any) -> None:
    path = tmp_path / "report.json"
    run = CliRunner().invoke(command, ["three-layer", "--probe", "digits", "-o", str(path)], standalone_mode=False)
    assert run.return_value == 0, run.output
    assert json.loads(path.read_text())["command"].startswith("manual-bp compare three-layer")
    again = CliRunner().invoke(command, [str(path), "--format", "concise"], standalone_mode=False)
    assert again.return_value == 0, again.output
    assert "three-layer" in again.output
