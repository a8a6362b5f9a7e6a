"""Where a function written in torch has no derivative: every valid subgradient is a kink, and nothing else passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from manual_bp import Report, tap, verify

Array = np.ndarray
X = np.array([[0.0, 1.0, -1.0, 0.0], [2.0, 0.0, 1.0, 1.0]])
UPSTREAM = np.array([[1.0, -2.0, 0.5, 3.0], [0.7, 1.5, -1.0, 2.0]])

#: A function of one number, its derivative right and left of 0.
POINTWISE: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "relu": (torch.relu, 1.0, 0.0),
    "abs": (torch.abs, 1.0, -1.0),
    "leaky relu": (lambda x: functional.leaky_relu(x, 0.1), 1.0, 0.1),
    "clamp": (lambda x: x.clamp(min=0), 1.0, 0.0),
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), 1.0, 0.0),
    "where": (lambda x: torch.where(x > 0, x, 0.2 * x), 1.0, 0.2),
}


def statuses(report: Report, name: str) -> set[str]:
    return {check.status for check in report.checks if check.name == name}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", list(POINTWISE))
def test_between_the_slopes_is_a_kink_and_beyond_them_wrong(kind: str, dtype: str) -> None:
    function, right, left = POINTWISE[kind]

    def judged(at_zero: float) -> Report:
        def candidate(_params: Any, x: Array, y: Array) -> dict[str, Array]:
            slope = np.where(x == 0, at_zero, np.where(x > 0, right, left)).astype(x.dtype)
            return {"x.grad": y * slope}

        return verify(candidate, lambda x: tap("a", function(x)), x=X, y=UPSTREAM, params={}, dtype=dtype, probes=None)

    for at_zero in (left, right, (left + right) / 2):
        assert statuses(judged(at_zero), "x.grad") <= {"pass", "kink"}
    assert {s for at in (left, right) for s in statuses(judged(at), "x.grad")} >= {"kink"}
    width = right - left
    for at_zero in (right + 0.5 * width, left - 0.5 * width, 5.0, -3.0):
        assert statuses(judged(at_zero), "x.grad") == {"wrong"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["max", "amax"])
def test_tied_maxima_share_one_gradient(kind: str, dtype: str) -> None:
    function = (lambda x: x.max(1).values) if kind == "max" else (lambda x: x.amax(1))
    x, y = np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 2.0], [3.0, 3.0, 3.0]]), np.array([1.0, -0.5, 0.7])

    def judged(shares: Callable[[Array], Array]) -> Report:
        def candidate(_params: Any, x: Array, y: Array) -> dict[str, Array]:
            tied = (x == x.max(1, keepdims=True)).astype(x.dtype)
            return {"x.grad": (y[:, None] * shares(tied)).astype(x.dtype)}

        return verify(candidate, lambda x: tap("m", function(x)), x=x, y=y, params={}, dtype=dtype, probes=None)

    def only(which: int) -> Callable[[Array], Array]:
        def shares(tied: Array) -> Array:
            out = np.zeros_like(tied)
            for row, t in zip(out, tied, strict=True):
                row[np.flatnonzero(t)[which]] = 1
            return out

        return shares

    for right in (only(0), only(-1), lambda t: t / t.sum(1, keepdims=True)):
        assert statuses(judged(right), "x.grad") <= {"pass", "kink"}
    for wrong in (lambda t: t, lambda t: 0.9 * only(0)(t), lambda t: 3 * t):
        assert statuses(judged(wrong), "x.grad") == {"wrong"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_kink_behind_a_product_that_nobody_reports(dtype: str) -> None:
    x, w = np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, 1.0], [-1.0, 1.0]])  # x w is 0 at [0, 0]
    y = np.array([[1.0, 0.5], [2.0, -1.0], [0.3, 0.8]])

    def judged(at_zero: float) -> Report:
        def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
            z = x @ params["w"]
            dz = y * np.where(z == 0, at_zero, z > 0).astype(x.dtype)
            return {"a": np.maximum(z, 0), "x.grad": dz @ params["w"].T, "w.grad": x.T @ dz}

        def reference(params: Any, x: Tensor) -> Tensor:
            return tap("a", torch.relu(x @ params["w"]))

        return verify(candidate, reference, x=x, y=y, params={"w": w}, dtype=dtype, probes=None)

    assert judged(0.0).counts["pass"] == len(judged(0.0).checks)
    for valid in (1.0, 0.5):
        assert {s for n in ("x.grad", "w.grad") for s in statuses(judged(valid), n)} == {"kink"}
    for wrong in (5.0, -1.0):
        assert {s for n in ("x.grad", "w.grad") for s in statuses(judged(wrong), n)} == {"wrong"}


def test_strict_kinks_make_another_choice_a_difference() -> None:
    def candidate(_params: Any, x: Array, y: Array) -> dict[str, Array]:
        return {"x.grad": y * (x >= 0)}

    for strict, expected in ((False, "kink"), (True, "wrong")):
        report = verify(candidate, lambda x: tap("a", torch.relu(x)), x=X, y=UPSTREAM, params={}, strict_kinks=strict)
        assert statuses(report, "x.grad") == {expected, "pass"}


@pytest.mark.parametrize("value", [1.0, 6.0, -3.0])
def test_a_kink_at_any_number_and_at_a_single_element(value: float) -> None:
    x = np.array([[value, 0.3, 0.7]])

    def candidate(_params: Any, x: Array, y: Array) -> dict[str, Array]:
        return {"x.grad": y * (x >= value)}

    for reference in (lambda x: tap("a", x.clamp(min=value)), lambda x: tap("a", torch.relu(x - value))):
        report = verify(candidate, reference, x=x, y=np.ones((1, 3)), params={}, probes=None)
        assert statuses(report, "x.grad") <= {"pass", "kink"}


def test_of_many_equal_maxima_any_may_win() -> None:
    def candidate(_params: Any, x: Array, y: Array) -> dict[str, Array]:
        dx = np.zeros_like(x)
        for row, maximum, upstream in zip(dx, x, y, strict=True):
            row[np.flatnonzero(maximum == maximum.max())[-1]] = upstream
        return {"x.grad": dx}

    for seed in range(8):
        x = np.random.default_rng(seed).integers(-2, 3, (4, 6)).astype(float)
        report = verify(candidate, lambda x: tap("m", x.max(1).values), x=x, params={}, probes=None)
        assert report.ok, str(report)


#: Of those that a range from random samples alone was too narrow for.
SEEDS_OF_ALARMS = (0, 6, 11)


class Layers(nn.Module):
    """Hidden layers whose ReLUs are functions: all between the output and a weight is one step, kinks in a row."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(6, 6) for _ in range(hidden)])
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = functional.relu(layer(x))
        return self.last(x)


def by_hand(hidden: int, at_zero: float) -> Callable[..., dict[str, Array]]:
    def mine(params: Any, x: Array, y: Array) -> dict[str, Array]:
        masks, inputs = [], [x]
        for i in range(hidden):
            z = inputs[-1] @ params[f"hidden.{i}.weight"].T + params[f"hidden.{i}.bias"]
            masks.append(np.where(z == 0, at_zero, z > 0))
            inputs.append(np.maximum(z, 0))
        out = inputs[-1] @ params["last.weight"].T + params["last.bias"]
        d = 2 * (out - y) / out.size
        found = {"output": out, "loss": ((out - y) ** 2).mean(), "last.weight.grad": d.T @ inputs[-1]}
        d = d @ params["last.weight"]
        for i in reversed(range(hidden)):
            d = d * masks[i]
            found[f"hidden.{i}.weight.grad"] = d.T @ inputs[i]
            d = d @ params[f"hidden.{i}.weight"]
        return {**found, "x.grad": d}

    return mine


@pytest.mark.parametrize(
    ("hidden", "at_zero", "seeds"),
    [(2, 1.0, SEEDS_OF_ALARMS), (3, 0.5, SEEDS_OF_ALARMS[:1]), (3, 1.0, SEEDS_OF_ALARMS[1:2])],
)
def test_kinks_in_a_row_may_all_be_open(hidden: int, at_zero: float, seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        data = {"x": rng.standard_normal((5, 6)), "y": rng.standard_normal((5, 2))}

        def judged(slope: float, data: Any = data, seed: int = seed) -> Report:
            mine, reference = by_hand(hidden, slope), Layers(hidden)
            return verify(mine, reference, loss=nn.MSELoss(), seed=seed, probes=["ties"], **data)

        assert judged(at_zero).ok
        assert not judged(3.0).ok
