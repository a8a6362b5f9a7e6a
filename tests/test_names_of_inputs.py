"""What has the name of an input: it is the input, or is told apart from it, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from manual_bp import tap, verify
from manual_bp.errors import ManualBPError


class Projected(nn.Module):
    """Its submodules are called like its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = (nn.Linear(3, 3, bias=False) for _ in range(2))

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.q(q) @ self.k(k).T
        return out


def test_a_submodule_that_is_called_like_an_input() -> None:
    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        q, k = (x[n] @ params[f"{n}.weight"].T for n in "qk")
        grads = {"q.weight.grad": (y @ k).T @ x["q"], "k.weight.grad": (y.T @ q).T @ x["k"]}
        return {"q.output": q, "k.output": k, "q.output.grad": y @ k, "output": q @ k.T, **grads}

    rng = np.random.default_rng(0)
    x = {"q": rng.standard_normal((4, 3)), "k": rng.standard_normal((5, 3))}
    verify(mine, Projected(), x=x).raise_if_wrong()

    def named_so(params: Any, x: Any, y: Any) -> dict[str, Any]:
        return {name.replace("q.output", "q"): a for name, a in mine(params, x, y).items()}

    def with_what_was_given(params: Any, x: Any, y: Any) -> dict[str, Any]:
        return {**mine(params, x, y), "q": x["q"]}

    with pytest.raises(ManualBPError, match=r"reports 'q', the name of an input and of a submodule.* as 'q.output'"):
        verify(named_so, Projected(), x=x)
    verify(with_what_was_given, Projected(), x=x).raise_if_wrong()


def test_a_tap_has_no_name_of_an_input_unless_it_is_the_input() -> None:
    x, params = np.ones((2, 3)), {"w": np.ones((3, 2))}

    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        return {"output": x @ params["w"], "w.grad": x.T @ y}

    verify(mine, lambda params, x: tap("x", x) @ params["w"], x=x, params=params).raise_if_wrong()
    with pytest.raises(ManualBPError, match="a tap is named 'x', as an input is"):
        verify(mine, lambda params, x: tap("x", 2 * x) @ params["w"], x=x, params=params)


def test_nor_where_a_checkpoint_computes_it_again() -> None:
    def part(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.tanh(tap("x", x) @ w)

    def reference(params: Any, x: torch.Tensor) -> Any:
        return checkpoint(part, x, params["w"], use_reentrant=False)

    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        out = np.tanh(x @ params["w"])
        return {"output": out, "w.grad": x.T @ (y * (1 - out * out))}

    rng = np.random.default_rng(1)
    verify(mine, reference, x=rng.standard_normal((4, 3)), params={"w": rng.standard_normal((3, 2))}).raise_if_wrong()
