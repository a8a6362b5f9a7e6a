"""What a comparison says that it could not have seen, and whether that is so."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import Report, networks, probes, verify
from manual_bp.runner import judge_network

Arrays = dict[str, np.ndarray]


def told(report: Report) -> set[str]:
    """What none of the probes shows."""
    return set.intersection(*(set(probe.blind) for probe in report.probes))


def own_pass(module: nn.Module, loss: Any, **changes: Any) -> Any:
    """A candidate with torch's numbers; the gradients in ``changes`` (dots written as __) go through a function."""

    def candidate(params: Arrays, x: Any, y: Any) -> Arrays:
        mine = copy.deepcopy(module)
        mine.load_state_dict({**mine.state_dict(), **{n: torch.from_numpy(a) for n, a in params.items()}})
        data = torch.tensor(x, requires_grad=True)
        loss(mine(data), y).backward()
        found = {"x.grad": data.grad.numpy(), **{f"{n}.grad": p.grad.numpy() for n, p in mine.named_parameters()}}
        for name, change in changes.items():
            found[name.replace("__", ".")] = change(found[name.replace("__", ".")])
        return found

    return candidate


def total(output: Any, _y: Any) -> Any:
    return output.sum()


def test_a_built_in_network_says_it_of_its_probes() -> None:
    network = networks.get("three-layer")
    report = judge_network(network, [probes.probe(network, "digits", seed=0, dtype="float64", batch=1)])
    assert "one example: sums and means over the batch are the same" in told(report)
    assert "z1 has one channel in and one out: mixed-up channels look right" in told(report)


def test_what_somebody_brings_along_is_looked_at_too() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.MaxPool2d(2)).double()
    nn.init.constant_(module[0].bias, 10)  # nothing is cut off, and no two zeros tie
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8))
    report = verify(own_pass(module, total), module, x=x, loss=total, probes=None)
    assert report.ok, str(report)
    assert told(report) == {
        "one example: sums and means over the batch are the same",
        "0 has one channel in and one out: mixed-up channels look right",
        "1 has no input of exactly 0: >= for > looks right",
        "2.grad is the same everywhere: transposed or permuted gradients look right",
        "2 has no window with equal maxima: any rule for ties looks right",
    }
    assert "Blind spot" in str(report)


def test_more_data_leaves_nothing_to_say() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)).double()
    x = np.random.default_rng(0).standard_normal((2, 2, 8, 8))
    candidate = own_pass(module, lambda output, y: (output * torch.from_numpy(y)).sum())
    report = verify(candidate, module, x=x)
    assert report.ok, str(report)
    assert told(report) == set()


def test_a_gradient_of_nothing_but_rounding_is_named_and_passes_as_zero() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    x, y = np.random.default_rng(0).standard_normal((6, 3)), np.random.default_rng(1).standard_normal((6, 2))
    loss = nn.MSELoss()

    def judged(change: Any) -> Report:
        candidate = own_pass(module, lambda output, y: loss(output, torch.from_numpy(y)), **{"0__bias__grad": change})
        return verify(candidate, module, x=x, y=y, loss=loss)

    blind = "0.bias.grad is zero but for rounding: any other result as small looks right"
    for change in (np.array, np.zeros_like, np.negative):
        report = judged(change)
        assert report.ok, str(report)
        assert told(report) == {blind}
    assert {c.name for c in judged(lambda g: g + 1e-6).checks if c.status == "wrong"} == {"0.bias.grad"}


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.LayerNorm([4, 28, 28])], ids=["batch", "layer"])
def test_a_mean_below_rounding_is_named_and_a_shifted_gradient_shows_it(layer: nn.Module) -> None:
    rng = np.random.default_rng(0)
    shape = (8, 4, 28, 28)
    x, upstream = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    axes = (0, 2, 3) if isinstance(layer, nn.BatchNorm2d) else (1, 2, 3)
    upstream -= upstream.mean(axes, keepdims=True) * np.float32(1 - 1e-4)  # next to nothing is left of its mean

    def without_mean(params: Arrays, x: Any, y: Any) -> Arrays:
        mean, spread = x.mean(axes, keepdims=True, dtype=np.float64), x.astype(np.float64).std(axes, keepdims=True)
        xhat = (x - mean) / np.sqrt(spread**2 + layer.eps)
        weight = params["weight"].reshape(1, 4, 1, 1) if layer.weight.ndim == 1 else params["weight"]
        g = y * weight
        dx = (g - xhat * (g * xhat).mean(axes, keepdims=True)) / np.sqrt(spread**2 + layer.eps)
        return {"x.grad": dx.astype(np.float32)}

    given = verify(without_mean, layer, x=x, y=upstream, probes=None)
    assert given.ok, str(given)
    (name,) = (text.partition(":")[0] for text in told(given) if "the mean of the gradient is smaller" in text)
    assert name
    report = verify(without_mean, layer, x=x, y=upstream, probes=["seed-2"])
    assert "seed-2" in {c.probe for c in report.checks if c.status == "wrong"}


def test_what_is_said_of_several_steps_is_said_once() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()).double()
    x = np.random.default_rng(0).standard_normal((3, 3))
    report = verify(own_pass(module, total), module, x=x, loss=total, probes=None)
    text = " ".join(str(report).split())
    assert "1 has no input of exactly 0: >= for > looks right (likewise 3)" in text
    assert "3 has no input" not in text


def test_equal_maxima_of_different_windows_are_no_tie() -> None:
    module = nn.MaxPool2d(2).double()
    x = np.array([[1.0, 0, 1, 0], [0, -1, -1, 0], [1, -1, 0, 0.5], [0, -1, 0.5, 0.25]]).reshape(1, 1, 4, 4)

    def judged(x: np.ndarray) -> Report:
        return verify(
            lambda _params, x, _y: {"output": x.reshape(1, 1, 2, 2, 2, 2).max((3, 5))}, module, x=x, probes=None
        )

    blind = "output has no window with equal maxima: any rule for ties looks right"
    untied = np.where(x == 0.5, [[0, 0, 0, 0.5], [0, 0, 0, 0.6], [0, 0, 0, 0.7], [0, 0, 0.8, 0]], x)
    assert blind in told(judged(untied)), "1 is the maximum of three windows"
    assert blind not in told(judged(x))
