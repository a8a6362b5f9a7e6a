"""A layer that is judged alone gets its mistakes named like one in a network: its upstream gradient is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import ManualBPError, Report, verify, verify_layer

X = np.random.default_rng(0).standard_normal((3, 4))


def named(report: Report, quantity: str) -> tuple[str, str]:
    found = next(c.diagnosis for c in report.checks if c.name == quantity and c.diagnosis is not None)
    return found.name, found.confidence


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class SiLU:
    """Its slope is σ(x) (1 + x (1 − σ(x)))."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong

    def forward(self, x: Any) -> Any:
        self.x = x
        return x * sigmoid(x)

    def backward(self, upstream: Any) -> Any:
        s = sigmoid(self.x)
        rest = {"": 1 - s, "one": 1, "rest": 0}[self.wrong]
        return upstream * s * (1 + self.x * rest)


REFERENCES = pytest.mark.parametrize("reference", [nn.SiLU(), nn.functional.silu, lambda x: x * torch.sigmoid(x)])


@REFERENCES
def test_a_function_of_one_tensor_is_a_layer(reference: Any) -> None:
    assert verify_layer(SiLU(), reference, x=X).ok
    assert verify_layer(SiLU("one"), reference, x=X).first_wrong == "x.grad"


@pytest.mark.parametrize("reference", [nn.SiLU(), nn.functional.silu])
@pytest.mark.parametrize(
    ("wrong", "name"),
    [("one", "the term σ(x) in 1 − σ(x) is missing"), ("rest", "the term x (1 − σ(x)) is missing")],
)
def test_what_is_wrong_in_the_slope_of_a_function_is_named(reference: Any, wrong: str, name: str) -> None:
    assert named(verify_layer(SiLU(wrong), reference, x=X), "x.grad") == (name, "certain")


def test_a_function_of_more_is_a_loss_and_torchs_own_may_be_either() -> None:
    with pytest.raises(ManualBPError, match=r"needs its target.*give y=\.\.\.; for a layer"):
        verify_layer(SiLU(), nn.functional.mse_loss, x=X)
    with pytest.raises(ManualBPError, match=r"needs its target.*lambda x"):
        verify_layer(SiLU(), torch.sigmoid, x=X)


def test_a_kernel_that_is_not_rotated_is_named_without_a_loss() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)

    def mine(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        def correlated(a: Any, w: Any) -> Any:
            padded = np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1)))
            return sum(padded[..., i : i + 6, j : j + 6] * w[0, 0, i, j] for i in range(3) for j in range(3))

        return {"output": correlated(x, params["weight"]), "dx": correlated(upstream, params["weight"])}

    report = verify(mine, conv, x=np.random.default_rng(1).standard_normal((2, 1, 6, 6)))
    name, confidence = named(report, "x.grad")
    assert "rotated" in name
    assert confidence == "certain"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_function_that_is_cut_off_far_out_shows_it(dtype: str) -> None:
    def mine(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        return {"output": np.clip(x, 0, 6), "dx": upstream * (x > 0)}

    for seed in range(5):
        report = verify(mine, nn.ReLU(), x=np.random.default_rng(seed).standard_normal((3, 4)), dtype=dtype, seed=seed)
        assert report.first_wrong == "output"
        assert {check.probe for check in report.checks if check.status == "wrong"} == {"scales"}


@pytest.mark.parametrize("fixed", [False, True])
def test_a_mean_over_examples_is_told_from_one_over_as_many_outputs_by_running_more_of_them(fixed: bool) -> None:
    def mine(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        if fixed and len(x) != 3:
            raise ValueError("made for three examples")
        output = x @ params["weight"].T + params["bias"]
        return {"output": output, "dx": upstream @ params["weight"], "bias.grad": upstream.mean(0)}

    report = verify(mine, nn.Linear(4, 3), x=X)
    name, confidence = named(report, "bias.grad")
    if fixed:
        assert confidence == "ambiguous"
    else:
        assert confidence == "certain"
        assert name.startswith("bias.grad is divided by the number of examples")


def test_a_mask_from_the_upstream_gradient_is_named_without_a_loss() -> None:
    def mine(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        return {"output": np.maximum(x, 0), "dx": upstream * (upstream > 0)}

    assert named(verify(mine, nn.ReLU(), x=X), "x.grad") == ("output.grad in place of the input x", "certain")
