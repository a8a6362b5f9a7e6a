"""A gradient that is zero by derivation may be written as zero, whatever the roundings of its operands add up to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from manual_bp import Report, verify

X = np.random.default_rng(0).standard_normal((6, 5))
UPSTREAM = 30 + np.random.default_rng(2).standard_normal((6, 3))


class Shares(nn.Module):
    """A softmax over the examples does not see what the bias adds to all of them alike."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.fc(x), 0)


def judged(bias_grad: Callable[[Any], Any], dtype: str) -> Report:
    def mine(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        z = x @ params["fc.weight"].T + params["fc.bias"]
        p = np.exp(z - z.max(0))
        p /= p.sum(0)
        dz = p * (upstream - (upstream * p).sum(0))
        return {"fc": z, "output": p, "fc.grad": dz, "fc.weight.grad": dz.T @ x, "fc.bias.grad": bias_grad(dz)}

    return verify(mine, Shares(), x=X, y=UPSTREAM, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_zero_by_derivation_is_right(dtype: str) -> None:
    exact = judged(lambda dz: np.zeros(3, dz.dtype), dtype)
    assert exact.ok
    assert any("exactly zero" in check.note for check in exact.checks)  # the sum of its rounded terms is another number
    assert judged(lambda dz: dz.sum(0), dtype).ok


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_near_zero_but_neither_is_wrong(dtype: str) -> None:
    assert judged(lambda dz: np.full(3, 1e-3, dz.dtype), dtype).first_wrong == "fc.bias.grad"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_zero_in_place_of_a_number_is_wrong(dtype: str) -> None:
    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        z = x @ params["weight"].T
        dz = 2 * (z - y) / z.size
        dw = dz.T @ x
        dw[1, 2] = 0
        return {"output": z, "loss": ((z - y) ** 2).mean(), "output.grad": dz, "weight.grad": dw}

    linear = nn.Linear(5, 3, bias=False)
    report = verify(mine, linear, x=X, y=np.ones((6, 3)), loss=nn.MSELoss(), dtype=dtype)
    assert report.first_wrong == "weight.grad"
