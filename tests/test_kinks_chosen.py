"""Where a function has no derivative every reader, and every element, chooses for itself; together they must fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from manual_bp import Report, tap, verify

Array = np.ndarray
DTYPES = ("float64", "float32")


def wrong(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_readers_may_choose_differently_at_one_kink(dtype: str) -> None:
    def reference(params: Any, x: Tensor) -> Tensor:
        z = tap("z", x @ params["W"])
        return torch.cat([z.abs(), torch.where(z > 0, z, 0.1 * z)], 1)

    def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
        z, a, w = x @ params["W"], y[:, :2], y[:, 2:]
        dz = (a * np.where(z >= 0, 1, -1) + w * np.where(z > 0, 1, 0.1)).astype(x.dtype)
        return {"z": z, "x.grad": dz @ params["W"].T, "W.grad": x.T @ dz}

    x, params = np.array([[0.0, 1.0], [2.0, 0.0]]), {"W": np.eye(2)}
    for seed in (0, 2, 6, 7):
        assert verify(candidate, reference, x=x, params=params, probes=None, seed=seed, dtype=dtype).ok


def of_a_minimum(share: float, dtype: str) -> Report:
    """A minimum whose two sides get the gradient of a tie; the second one this share, the first all of it."""
    rng = np.random.default_rng(10)
    x, w, b = (rng.integers(-1, 2, shape).astype(float) for shape in ((5, 4), (4, 6), (6,)))

    def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
        z, b = x @ params["W"], params["b"]
        dz, db = y * (z <= b), y * ((z > b) + share * (z == b)).astype(x.dtype)
        return {"z": z, "z.grad": dz, "x.grad": dz @ params["W"].T, "W.grad": x.T @ dz, "b.grad": db.sum(0)}

    def reference(params: Any, x: Tensor) -> Tensor:
        return torch.minimum(tap("z", x @ params["W"]), params["b"])

    return verify(candidate, reference, x=x, params={"W": w, "b": b}, probes=None, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sides_of_a_minimum_share_one_gradient(dtype: str) -> None:
    assert of_a_minimum(0.0, dtype).ok
    assert wrong(of_a_minimum(1.0, dtype)) == {"b.grad"}


def of_kinks_that_add_up(shares: Callable[[Array], Array], dtype: str) -> Report:
    """Seven ReLUs and a maximum read one value."""

    def reference(params: Any, x: Tensor) -> Tensor:
        z = tap("z", x @ params["W"])
        kinks = sum((k + 1) * torch.relu(z) for k in range(7))
        return kinks + z.amax(1, keepdim=True).expand_as(z)

    def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
        z = x @ params["W"]
        tied = (z == z.max(1, keepdims=True)).astype(x.dtype)
        dz = 28 * y * (z > 0) + y.sum(1, keepdims=True) * shares(tied).astype(x.dtype)
        return {"z": z, "z.grad": dz.astype(x.dtype)}

    x, params = np.array([[0.0, 0.0, -1.0], [1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]), {"W": np.eye(3)}
    return verify(candidate, reference, x=x, params=params, probes=None, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_maxima_share_one_gradient_beside_other_kinks(dtype: str) -> None:
    assert of_kinks_that_add_up(lambda t: t / t.sum(1, keepdims=True), dtype).ok
    assert of_kinks_that_add_up(lambda t: t * (np.cumsum(t, 1) == 1), dtype).ok
    assert wrong(of_kinks_that_add_up(lambda t: t, dtype)) == {"z.grad"}


#: Functions of one number in torch: where they bend, the slopes left and right of it, the slope elsewhere.
BENT: dict[str, tuple[Callable[[Tensor], Tensor], dict[float, tuple[float, float]], Callable[[Array], Array]]] = {
    "relu": (torch.relu, {0.0: (0.0, 1.0)}, lambda z: z > 0),
    "abs": (abs, {0.0: (-1.0, 1.0)}, np.sign),
    "sign": (lambda z: z * z.sign(), {0.0: (-1.0, 1.0)}, np.sign),
    "mask": (lambda z: z * (z > 0), {0.0: (0.0, 1.0)}, lambda z: z > 0),
    "cast mask": (lambda z: (z >= 0).to(z.dtype) * z, {0.0: (0.0, 1.0)}, lambda z: z > 0),
    "two masks": (lambda z: z * (z > 0) + 0.25 * z * (z <= 0), {0.0: (0.25, 1.0)}, lambda z: np.where(z > 0, 1, 0.25)),
    "no mask": (lambda z: torch.where(~(z > 0), 0.0, z), {0.0: (0.0, 1.0)}, lambda z: z > 0),
    "both masks": (
        lambda z: torch.where((z > -1) & (z < 1), z, z.detach().sign()),
        {-1.0: (0.0, 1.0), 1.0: (1.0, 0.0)},
        lambda z: np.abs(z) < 1,
    ),
    "filled": (lambda z: z.masked_fill(z < 0, 0.0), {0.0: (0.0, 1.0)}, lambda z: z > 0),
    "in place": (lambda z: (z + 0).relu_(), {0.0: (0.0, 1.0)}, lambda z: z > 0),
    "slope": (lambda z: z * torch.where(z > 0, 1.0, 0.25), {0.0: (0.25, 1.0)}, lambda z: np.where(z > 0, 1, 0.25)),
    "clamp": (lambda z: z.clamp(-1, 2), {-1.0: (0.0, 1.0), 2.0: (1.0, 0.0)}, lambda z: (z > -1) & (z < 2)),
    "softshrink": (lambda z: functional.softshrink(z, 1.0), {-1.0: (1.0, 0.0), 1.0: (0.0, 1.0)}, lambda z: abs(z) > 1),
    "relu6": (functional.relu6, {0.0: (0.0, 1.0)}, lambda z: z > 0),
    "maximum": (lambda z: torch.maximum(z, 0.25 * z), {0.0: (0.25, 1.0)}, lambda z: np.where(z > 0, 1, 0.25)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", BENT)
def test_every_element_chooses_for_itself_between_the_slopes(kind: str, dtype: str) -> None:
    function, bends, slope = BENT[kind]

    def judged(beyond: float) -> Report:
        def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
            rng, z = np.random.default_rng(0), x @ params["W"]
            s = np.asarray(slope(z), dtype=float)
            for at, (left, right) in bends.items():
                low, high = min(left, right), max(left, right)
                s = np.where(z == at, low + (high - low) * (rng.random(z.shape) + beyond), s)
            dz = (y * s).astype(x.dtype)  # its gradient is not reported
            return {"x.grad": dz @ params["W"].T, "W.grad": x.T @ dz}

        x = np.array([[1.0, 0.0, 2.0, -1.0], [-1.0, 1.0, 0.0, 0.0], [2.0, 1.0, -2.0, 1.0], [0.0, 2.0, 0.0, -1.0]])
        w = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return verify(
            candidate, lambda params, x: function(x @ params["W"]), x=x, params={"W": w}, probes=None, dtype=dtype
        )

    assert judged(0.0).ok
    assert wrong(judged(1.0))


#: What takes the largest of each row, in torch.
LARGEST: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda z: z.max(1).values,
    "amax": lambda z: z.amax(1),
    "sort": lambda z: z.sort(1, descending=True).values[:, 0],
    "topk": lambda z: z.topk(1).values[:, 0],
    "kthvalue": lambda z: z.kthvalue(z.shape[1], 1).values,
    "max_pool1d": lambda z: functional.max_pool1d(z.unsqueeze(1), z.shape[1])[:, 0, 0],
    "max_pool2d": lambda z: functional.max_pool2d(z.reshape(-1, 1, 2, 2), 2).reshape(-1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LARGEST)
def test_equal_maxima_share_in_any_way_that_adds_up(kind: str, dtype: str) -> None:
    def judged(total: float) -> Report:
        def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
            z = x @ params["W"]
            tied = (z == z.max(1, keepdims=True)) * np.random.default_rng(0).random(z.shape)
            more = np.where((tied > 0).sum(1, keepdims=True) > 1, total, 1.0)
            dz = (y[:, None] * more * tied / tied.sum(1, keepdims=True)).astype(x.dtype)
            return {"x.grad": dz @ params["W"].T, "W.grad": x.T @ dz}

        x = np.array([[1.0, 1.0, 0.0], [2.0, -1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
        w = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
        return verify(
            candidate,
            lambda params, x: LARGEST[kind](x @ params["W"]),
            x=x,
            params={"W": w},
            probes=None,
            dtype=dtype,
        )

    assert judged(1.0).ok
    assert wrong(judged(2.0))
    assert wrong(judged(0.9))


def test_beside_a_kink_a_small_mistake_is_seen() -> None:
    """Jumps are no rounding: what is allowed elsewhere does not grow with them."""

    def judged(slip: float) -> Report:
        def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
            z = x @ params["W"]
            tied = (z == z.max(1, keepdims=True)).astype(x.dtype)
            dz = y * np.where(z > 0, 1, 0.25) + y.sum(1, keepdims=True) * tied * (np.cumsum(tied, 1) == 1)
            return {"x.grad": dz @ params["W"].T, "W.grad": x.T @ dz * (1 + slip)}

        def reference(params: Any, x: Tensor) -> Tensor:
            z = x @ params["W"]
            return functional.leaky_relu(z, 0.25) + z.topk(1, 1).values.expand_as(z)

        rng = np.random.default_rng(3)
        x, w = rng.integers(-1, 2, (4, 2)).astype(float), rng.integers(-1, 2, (2, 3)).astype(float)
        return verify(candidate, reference, x=x, params={"W": w}, probes=None)

    assert judged(0.0).ok
    assert wrong(judged(1e-9)) == {"W.grad"}


def test_equal_minima_of_a_gradient_that_nothing_else_adds_to() -> None:
    """A gradient of exactly zero beside it, which samples move by next to nothing, lets no other one pass."""

    def reference(params: Any, x: Tensor) -> Tensor:
        z = tap("z", x)
        return torch.minimum(z.amin(1, keepdim=True).expand_as(z), params["b"]) + torch.relu(z + 2)

    def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
        least = x.min(1, keepdims=True)
        kept = y * (least < params["b"])
        return {"z.grad": kept.sum(1, keepdims=True) * (x == least) + y * (x > -2), "b.grad": (y - kept).sum(0)}

    x, b = np.array([[1.0, 3.0, 2.0], [-2.0, -2.0, 0.0]]), np.full(3, 5.0)
    assert wrong(verify(candidate, reference, x=x, params={"b": b}, probes=None)) == {"z.grad"}


@pytest.mark.parametrize("seed", [2, 3])
def test_of_two_that_do_not_fit_together_it_is_the_one_that_is_wrong_elsewhere(seed: int) -> None:
    """A gradient whose mask was forgotten is right where nothing is masked, and at a kink as right as any other."""

    def reference(params: Any, x: Tensor) -> Tensor:
        return (1 - x @ params["w"]).clamp(min=0)

    def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
        return {"w.grad": -(x.T @ y), "x.grad": -np.outer(y * (x @ params["w"] < 1), params["w"])}

    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((4, 2)), rng.standard_normal(2)
    assert wrong(verify(candidate, reference, x=x, params={"w": w}, seed=seed)) == {"w.grad"}
