"""Zeros of a ReLU and ties of a pooling in the built-in layers: what is a choice passes as one, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from manual_bp import nn
from manual_bp._torch_side import judge as torch_judge
from manual_bp.network import Network, Node, chain
from manual_bp.nn import Array, Cache, Gradients
from manual_bp.runner import judge_run
from tests.isolation_bench import DTYPES, judged, probe


@dataclass(frozen=True)
class SlopeAtZero(nn.ReLU):
    slope: float = 1.0

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        return Gradients(
            (upstream * np.where(cache > 0, 1, np.where(cache == 0, self.slope, 0)).astype(upstream.dtype),)
        )

    def forward(self, params, /, *inputs: Array) -> tuple[Array, Cache]:
        return super().forward(params, *inputs)[0], inputs[0]


def rectified() -> Network:
    return chain("kink", {"a": nn.ReLU(), "z": nn.Linear(4, 1)}, nn.MSELoss(), (4,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("slope", "status"), [(0.0, None), (0.5, "kink"), (1.0, "kink"), (1.5, "wrong"), (-0.1, "wrong")]
)
def test_at_zero_any_value_between_nothing_and_the_whole_gradient_is_right(dtype, slope, status):
    network, x = rectified(), np.array([[0.0, -0.0, 1.0, -1.0]])
    p = probe(network, dtype=dtype, x=x)
    found = judged(network, network.with_layer("a", SlopeAtZero(slope=slope)), p)
    assert found == ({} if status is None else {"x.grad": status})
    if status == "kink":
        assert judged(network, network.with_layer("a", SlopeAtZero(slope=slope)), p, strict_kinks=True) == {
            "x.grad": "wrong"
        }


def test_a_kink_names_its_elements_and_what_torch_does_there():
    network = rectified()
    p = probe(network, x=np.array([[0.0, 2.0, 1.0, -1.0]]))
    candidate = network.with_layer("a", SlopeAtZero()).run(p.params, p.x, p.y)
    checks, _ = judge_run(torch_judge.Judge(network, "float64"), p, candidate, strict_kinks=False)
    (check,) = [c for c in checks if c.status == "kink"]
    assert check.kink.elements == 1
    assert check.kink.indices == ((0, 0),)
    assert "at 0 is 0" in check.kink.convention


@dataclass(frozen=True)
class Pool(nn.MaxPool2d):
    """Max pooling whose ties are handled otherwise."""

    ties: str = field(default="shared", kw_only=True)

    def forward(self, params, /, *inputs: Array) -> tuple[Array, Cache]:
        return super().forward(params, *inputs)[0], inputs[0]

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x = cache
        dx = np.zeros_like(x)
        for n, c, i, j in np.ndindex(upstream.shape):
            (h, w), (s, t) = self.window.kernel, self.window.stride
            area = (n, c, slice(i * s, i * s + h), slice(j * t, j * t + w))
            winners = x[area] == x[area].max()
            g, k = upstream[n, c, i, j], winners.sum()
            if self.ties == "shared":
                dx[area] += np.where(winners, g / x.dtype.type(k), 0)
            elif self.ties == "last":
                at = np.argwhere(winners)[-1]
                dx[area][tuple(at)] += g
            elif self.ties == "all":
                dx[area] += np.where(winners, g, 0)
            elif self.ties == "too much":
                dx[area] += np.where(winners, g / x.dtype.type(k) * x.dtype.type(1.001), 0)
        return Gradients((dx,))


def pooled(kernel: int = 2, stride: int = 2) -> Network:
    side = (4 - kernel) // stride + 1
    return chain(
        "pool",
        {"p": nn.MaxPool2d(kernel, stride), "f": nn.Flatten(), "z": nn.Linear(side * side, 1)},
        nn.MSELoss(),
        (1, 4, 4),
    )


TIED = {
    "all equal": np.zeros((2, 1, 4, 4)),
    "pairs": np.array([[1, 1, 0, 2], [0, 1, 2, 2], [3, 0, -1, -1], [3, 3, -1, -2]], float).reshape(1, 1, 4, 4),
    "signed zeros": np.where(np.arange(16).reshape(1, 1, 4, 4) % 3 == 0, -0.0, 0.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("windows", [(2, 2), (2, 1), (3, 1)], ids=["disjoint", "overlapping", "much overlapping"])
@pytest.mark.parametrize("x", TIED.values(), ids=TIED)
@pytest.mark.parametrize(
    ("ties", "status"), [("shared", "kink"), ("last", "kink"), ("all", "wrong"), ("too much", "wrong")]
)
def test_ties_may_share_a_gradient_but_not_multiply_it(dtype, windows, x, ties, status):
    network = pooled(*windows)
    p = probe(network, dtype=dtype, x=x)
    candidate = network.with_layer("p", Pool(*windows, ties=ties))
    assert judged(network, network, p) == {}
    assert judged(network, candidate, p) == {"x.grad": status}
    assert judged(network, candidate, p, strict_kinks=True) == {"x.grad": "wrong"}


@pytest.mark.parametrize(("ties", "status"), [("shared", "kink"), ("last", "kink"), ("all", "wrong")])
def test_ties_beside_a_skip_connection(ties, status):
    """x is pooled and also handed on: what the other branch contributes must not hide a gradient that is multiplied."""
    network = Network(
        name="beside",
        nodes=(
            Node("p", nn.MaxPool2d(3, 1, padding=1), ("x",)),
            Node("s", nn.Add(), ("p", "x")),
            Node("a", nn.Tanh(), ("s",)),
        ),
        loss=nn.MSELoss(),
        input_shape=(1, 4, 4),
    )
    p = probe(network, x=TIED["all equal"])

    @dataclass(frozen=True)
    class Padded(Pool):
        def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
            wide = np.pad(cache, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
            return Gradients((super().backward(wide, upstream).inputs[0][..., 1:-1, 1:-1],))

    assert judged(network, network.with_layer("p", Padded(3, 1, padding=1, ties=ties)), p) == {"x.grad": status}
