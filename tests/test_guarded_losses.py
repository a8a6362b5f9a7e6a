"""A small number inside of a logarithm is accepted however the reference is written, and nothing else with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import verify
from manual_bp.guards import recognised
from manual_bp.report import Report

RNG = np.random.default_rng(2)
X, CLASSES, BITS = RNG.standard_normal((5, 4)), np.array([0, 1, 2, 3, 1]), np.array([1.0, 0, 1, 1, 0])
WEIGHT = torch.tensor([1.0, 2, 3, 4])
CROSS_ENTROPY = nn.functional.cross_entropy
BINARY = nn.functional.binary_cross_entropy


def softmax(scale: float = 1.0, mean: bool = True, eps: float = 1e-9) -> Callable[[Any, Any, Any], dict[str, Any]]:
    """The loss of probabilities, ``eps`` inside of the logarithm; its gradient is ``scale`` times the right one."""

    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        e = np.exp(x - x.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        n = np.arange(len(x))
        losses, dx = -np.log(p[n, y] + p.dtype.type(eps)), scale * (p - np.eye(4, dtype=p.dtype)[y])
        return {"loss": losses.mean() if mean else losses.sum(), "x.grad": dx / len(x) if mean else dx}

    return mine


def sigmoid(params: Any, x: Any, y: Any) -> dict[str, Any]:
    p = 1 / (1 + np.exp(-x))
    eps = p.dtype.type(1e-8)
    loss = -(y * np.log(p + eps) + (1 - y) * np.log(1 - p + eps)).mean()
    return {"loss": loss, "x.grad": (p - y) / p.size}


def written(function: Callable[..., Any], **options: Any) -> Callable[[Any, Any], Any]:
    return lambda x, y: function(x, y, **options)


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_reference_that_calls_the_function(dtype: str) -> None:
    verify(softmax(), written(CROSS_ENTROPY), x=X, y=CLASSES, dtype=dtype).raise_if_wrong()
    verify(softmax(), nn.Identity(), loss=CROSS_ENTROPY, x=X, y=CLASSES, dtype=dtype).raise_if_wrong()
    total = written(CROSS_ENTROPY, reduction="sum")
    verify(softmax(mean=False), nn.Identity(), loss=total, x=X, y=CLASSES, dtype=dtype).raise_if_wrong()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_two_classes(dtype: str) -> None:
    z = RNG.standard_normal(5)
    logits = written(nn.functional.binary_cross_entropy_with_logits)
    verify(sigmoid, nn.Identity(), loss=nn.BCEWithLogitsLoss(), x=z, y=BITS, dtype=dtype).raise_if_wrong()
    verify(sigmoid, logits, x=z, y=BITS, dtype=dtype).raise_if_wrong()
    verify(sigmoid, lambda x, y: BINARY(torch.sigmoid(x), y), x=z, y=BITS, dtype=dtype).raise_if_wrong()


def test_what_the_report_says_of_it() -> None:
    report = verify(softmax(), written(CROSS_ENTROPY), x=X, y=CLASSES)
    assert {c.note for c in report.checks if c.name == "loss"} == {"accepted: log(p + 1e-09)"}


def test_a_mistake_beside_it_is_none_the_less_one() -> None:
    assert blamed(verify(softmax(scale=2.0), written(CROSS_ENTROPY), x=X, y=CLASSES)) == {"x.grad"}
    assert blamed(verify(softmax(mean=False), written(CROSS_ENTROPY), x=X, y=CLASSES)) == {"loss", "x.grad"}
    assert blamed(verify(softmax(eps=1e-3), written(CROSS_ENTROPY), x=X, y=CLASSES)) == {"loss"}


@pytest.mark.parametrize("options", [{"weight": WEIGHT.double()}, {"label_smoothing": 0.1}, {"ignore_index": 1}])
def test_another_loss_is_not_taken_for_the_plain_one(options: Any) -> None:
    assert "loss" in blamed(verify(softmax(), written(CROSS_ENTROPY, **options), x=X, y=CLASSES))


def test_no_examples_tell_no_loss() -> None:
    nothing = np.zeros((0, 4))
    assert recognised((), ["softmax"], "x", nothing, np.zeros(0, dtype=int), u=2.0**-53) is None


def network(
    rows: bool, *, reported: bool = False, wrong: str = "", eps: float = 1e-8
) -> Callable[[Any, Any, Any], dict[str, Any]]:
    """A dense layer, probabilities, and the guarded loss, whose own gradient need not be reported."""

    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        z = x @ params["0.weight"].T + params["0.bias"]
        e = np.exp(z)
        a = e / e.sum(1, keepdims=True) if rows else e / (1 + e)
        guard = a.dtype.type(eps)
        of_each = y * np.log(a + guard) + (0 if rows else (1 - y) * np.log(1 - a + guard))
        count = len(x) if rows else a.size
        da = -(y / (a + guard) - (0 if rows else (1 - y) / (1 - a + guard))) / count
        dz = a * (da - (da * a).sum(1, keepdims=True)) if rows else da * a * (1 - a)
        dz = 1.001 * dz if wrong == "0.grad" else dz
        given = {"1": a, "loss": -of_each.sum() / count, "0.grad": dz, "0.weight.grad": dz.T @ x}
        given["0.bias.grad"] = dz.sum(0) * (2 if wrong == "0.bias.grad" else 1)
        return given | ({"1.grad": da} if reported else {})

    return mine


def judged(rows: bool, dtype: str, **options: Any) -> Report:
    module = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1) if rows else nn.Sigmoid())
    y = np.eye(3)[[0, 1, 2, 2, 1]] if rows else RNG.integers(0, 2, (5, 3)).astype(float)
    loss = (lambda a, y: -(y * torch.log(a)).sum(1).mean()) if rows else nn.BCELoss()
    return verify(network(rows, **options), module, loss=loss, x=X, y=y, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rows", [False, True], ids=["two classes", "written out"])
def test_what_follows_from_its_gradient_is_accepted_as_well(rows: bool, dtype: str) -> None:
    judged(rows, dtype, eps=1e-5).raise_if_wrong()
    assert blamed(judged(rows, dtype, eps=1e-5, wrong="0.bias.grad")) == {"0.bias.grad"}


def test_however_small_it_is_and_reported_or_not() -> None:
    judged(True, "float64", reported=True).raise_if_wrong()
    judged(False, "float64").raise_if_wrong()
    assert blamed(judged(False, "float64", wrong="0.grad")) == {"0.grad"}
