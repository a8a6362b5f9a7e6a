"""What chooses nothing has no kinks to look for; what may choose is looked at, wherever it makes its choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from manual_bp import tap, verify
from manual_bp_torch import stochastic

Array = np.ndarray

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "layer norm": lambda x: functional.layer_norm(x, (4,)),
    "batch norm": lambda x: functional.batch_norm(x, None, None, training=True),
    "rms norm": lambda x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6),
    "gelu": functional.gelu,
    "silu": functional.silu,
    "causal attention": lambda x: (
        functional.softmax((x @ x.mT).masked_fill(torch.ones(3, 3).triu(1) > 0, -9e9), -1) @ x
    ),
    "cross entropy": lambda x: functional.cross_entropy(x, torch.tensor([0, 2, 1])),
    "binary cross entropy": lambda x: functional.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.3)),
    "chosen rows": lambda x: functional.embedding(torch.tensor([0, 2, 2]), x)[:, torch.tensor([1, 1, 0])],
}

CHOOSING: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "a mask": lambda x: x * (x > 0),
    "a whole number": lambda x: x - x.long(),
    "a quotient that is rounded": lambda x: x - torch.div(x, 0.5, rounding_mode="floor"),
    "in Python": lambda x: torch.stack([v if v > 0 else 0 * v for v in x.reshape(-1)]).reshape(x.shape),
    "a number of Python's": lambda x: x * float(np.sign(x.detach().sum().item())),
    "in lists": lambda x: x * torch.tensor(np.sign(x.tolist())),
    "in NumPy": lambda x: x * torch.from_numpy(np.sign(x.detach().numpy())),
    "in NumPy, by itself": lambda x: x * torch.from_numpy(np.sign(np.asarray(x.detach()))),
}


def runs(function: Callable[[Tensor], Tensor]) -> int:
    """How often a program is run to see how rounding moves it, and where it has no derivative."""
    x = torch.linspace(-1, 1.3, 12, dtype=torch.float64).reshape(3, 4)
    count = 0

    def run(nudge: stochastic.Nudge) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        leaf = nudge(x.clone()).requires_grad_()
        y = function(leaf)
        upstream = torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape) + 0.3
        return {"y": y.detach(), "x.grad": torch.autograd.grad((y * y * upstream).sum(), leaf)[0]}

    stochastic.spread(run, u=2.0**-24, eta=0.0, operands={"x.grad": x})
    return count


@pytest.mark.parametrize("kind", list(SMOOTH))
def test_what_chooses_nothing_is_run_for_its_rounding_alone(kind: str) -> None:
    mask = kind == "causal attention"  # made of numbers, in the program itself: nobody knows of which
    assert (runs(SMOOTH[kind]) > 1 + stochastic.SAMPLES) == mask


@pytest.mark.parametrize("kind", list(CHOOSING))
def test_what_may_choose_is_run_to_either_side(kind: str) -> None:
    assert runs(CHOOSING[kind]) > 1 + stochastic.SAMPLES


class Chosen(torch.autograd.Function):
    """ReLU, with a mask that NumPy makes on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(np.maximum(x.detach().numpy(), 0))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:  # type: ignore[override]  # torch takes any number of them
        (x,) = ctx.saved_tensors
        return upstream * torch.from_numpy(1.0 * (x.detach().numpy() > 0)).to(upstream.dtype)


@pytest.mark.parametrize(("at_zero", "expected"), [(0.0, {"pass"}), (1.0, {"kink"}), (2.0, {"wrong"})])
@pytest.mark.parametrize("relu", [torch.relu, Chosen.apply], ids=["torch", "NumPy"])
def test_a_kink_is_one_wherever_the_choice_is_made(
    relu: Callable[[Tensor], Tensor], at_zero: float, expected: set[str]
) -> None:
    def candidate(_params: Any, x: Array, y: Array) -> dict[str, Array]:
        return {"x.grad": y * np.where(x == 0, at_zero, x > 0)}

    x, y = np.array([[0.0, 1.0, -1.0, 0.0]]), np.array([[1.0, -2.0, 0.5, 3.0]])
    report = verify(candidate, lambda x: tap("a", relu(x)), x=x, y=y, params={}, probes=None)
    assert {check.status for check in report.checks if check.name == "x.grad"} == expected
