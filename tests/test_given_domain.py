"""Probes stay where right code works: masks are masks, and where the reference has no numbers nothing is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manual_bp import tap, verify, verify_layer

Array = np.ndarray
RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 3))
MASK = 1.0 * (RNG.random((6, 5)) < 0.7)


def dropped(params: Any, x: Any) -> Tensor:
    return tap("d", tap("a", torch.relu(x[0] @ params["W"])) * x[1] / 0.8) @ params["U"]


def by_places(*, forgotten: bool = False) -> Any:
    def mine(params: Any, x: Any, do: Array) -> dict[str, Array]:
        data, mask = x
        z = data @ params["W"]
        d = np.maximum(z, 0) / x[0].dtype.type(0.8)
        d[mask == 0] = 0
        da = do @ params["U"].T / x[0].dtype.type(0.8)
        if not forgotten:
            da[mask == 0] = 0
        return {"d": d, "U.grad": d.T @ do, "a.grad": da, "W.grad": data.T @ (da * (z > 0))}

    return mine


def test_a_mask_of_numbers_beside_other_inputs_stays_one() -> None:
    params = {"W": RNG.standard_normal((3, 5)), "U": RNG.standard_normal((5, 2))}
    report = verify(by_places(), dropped, x=(X, MASK), params=params)
    assert report.ok, str(report)
    assert len(report.probes) == 6
    assert verify(by_places(forgotten=True), dropped, x=(X, MASK), params=params).first_wrong == "a.grad"


def test_the_only_input_is_drawn_anew_whatever_it_holds() -> None:
    xor = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def squared(params: Any, x: Array, do: Array) -> dict[str, Array]:
        return {"output": x @ params["weight"].T, "weight.grad": do.T @ (x * x)}  # of zeros and ones the same

    report = verify(squared, nn.Linear(2, 3, bias=False), x=xor)
    assert report.first_wrong == "weight.grad"


def test_where_the_reference_leaves_its_domain_a_drawn_probe_is_left_out() -> None:
    p, q = RNG.uniform(0.1, 1, (2, 4, 3))

    def divergence(x: Any) -> Tensor:
        return (x["p"] * tap("r", torch.log(x["p"]) - torch.log(x["q"]))).sum()

    def mine(sign: float) -> Any:
        def run(params: Any, x: Any, y: Any) -> dict[str, Array]:
            p, q = x["p"], x["q"]
            with np.errstate(all="ignore"):
                return {"r": np.log(p / q), "r.grad": sign * p, "q.grad": -p / q}

        return run

    report = verify(mine(1.0), divergence, x={"p": p, "q": q}, params={})
    assert report.ok, str(report)
    left_out = "is left out: the reference has gradients there that are not finite"
    assert any(note.startswith("probe seed-1") and note.endswith(left_out) for note in report.notes)
    assert verify(mine(-1.0), divergence, x={"p": p, "q": q}, params={}).first_wrong == "r.grad"


class Eager:
    """A layer that keeps its gradient and moves its weight as well."""

    def __init__(self) -> None:
        self.W = np.random.default_rng(1).standard_normal((3, 2))
        self.b = np.zeros(2)

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.W + self.b

    def backward(self, upstream: Array) -> Array:
        self.dW, self.db = self.x.T @ upstream, upstream.sum(0)
        dx = upstream @ self.W.T
        self.W = self.W - 0.1 * self.dW
        return dx


def test_a_layer_that_moves_its_weight_on_the_way_back_is_noted() -> None:
    report = verify_layer(Eager(), nn.Linear(3, 2), x=X)
    assert "Eager changes weight in its backward pass" in report.notes
    assert "Eager changes bias in its backward pass" not in report.notes
