"""Choices at kinks of one program: what is strict about one stays so beside any other, and none is too many."""

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
BESIDE = np.array([1.0, 0.0, 2.0, -1.0])


def wrong(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


def judged(claims: dict[str, Any], reference: Callable[..., Tensor], dtype: str, **given: Any) -> Report:
    """Without probes: gradients as they are claimed."""
    return verify({n: np.asarray(g, dtype) for n, g in claims.items()}, reference, probes=None, dtype=dtype, **given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("others", [[], [-1.0], [1.0]], ids=["all tied", "one below", "one above"])
def test_a_slope_beyond_the_kink_where_torch_has_zeros_only(others: list[float], dtype: str) -> None:
    x = np.array([0.0, 0.0, *others])
    for slope, expected in ((0.0, set()), (0.5, set()), (1.0, set()), (1.5, {"x.grad"}), (30.0, {"x.grad"})):
        claims = {"x.grad": np.where(x == 0, slope, x > 0)}
        assert wrong(judged(claims, lambda params, x: torch.relu(x + 0).sum(), dtype, x=x)) == expected, slope


BESIDES: dict[str, tuple[Callable[[Tensor], Tensor], Array]] = {
    "nothing": (lambda b: torch.relu(b).sum(), BESIDE > 0),
    "a fit": (lambda b: ((tap("r", 1.0 * b) - b.detach()) ** 2).sum(), 0 * BESIDE),
    "two in a row": (lambda b: torch.relu(torch.relu(b)).sum(), BESIDE > 0),
    "a mask of numbers": (lambda b: (b * torch.where(b > 0, 1.0, 0.5)).sum(), np.where(BESIDE > 0, 1, 0.5)),
    "a function that is not known": (lambda b: (b * torch.heaviside(b.detach(), 0 * b.detach())).sum(), BESIDE > 0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BESIDES)
def test_what_stands_beside_it_excuses_nothing(name: str, dtype: str) -> None:
    other, own = BESIDES[name]

    def reference(params: Any, x: Tensor) -> Tensor:
        z = x - 1.0  # [0, 0]: each ReLU gives between 0 and 1, and both share the 3 of the maximum
        return torch.relu(z).sum() + 3.0 * z.amax() + other(params["b"])

    beside = {"b.grad": own} | ({"r": BESIDE, "r.grad": own} if name == "a fit" else {})
    for claim, expected in (((1.5, 3.0), set()), ((2.5, 2.5), set()), ((4.0, 4.0), {"x.grad"})):
        report = judged({"x.grad": claim, **beside}, reference, dtype, x=np.ones(2), params={"b": BESIDE})
        assert wrong(report) == expected, claim


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slope_written_as_numbers_is_one_choice(dtype: str) -> None:
    def reference(params: Any, x: Tensor) -> Tensor:
        z = x + params["b"]
        return 3.0 * (z * torch.where(z > 0, 1.0, 0.5)).sum()

    x, b = np.array([0.0, 1.0, -1.0, 2.0]), np.array([0.0, -1.0, 2.0, 1.0])
    one, other = (3 * np.where(x + b > 0, 1, at) for at in (0.8, 0.55))
    assert not wrong(judged({"x.grad": one, "b.grad": one}, reference, dtype, x=x, params={"b": b}))
    assert len(wrong(judged({"x.grad": one, "b.grad": other}, reference, dtype, x=x, params={"b": b}))) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["x.grad", "b.grad"])
def test_of_two_that_must_be_equal_one_is_wrong_though_the_other_is_torchs(name: str, dtype: str) -> None:
    def reference(params: Any, x: Tensor) -> Tensor:
        return torch.relu(tap("z", x + params["b"])).sum()

    claims = {"z": np.zeros(2), "x.grad": [0.5, 0.0], "b.grad": [0.5, 0.0]}
    given = {"x": np.zeros(2), "params": {"b": np.zeros(2)}}
    assert not wrong(judged(claims, reference, dtype, **given))
    assert wrong(judged({**claims, name: [0.5, 0.5]}, reference, dtype, **given)) == {name}


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_elements_with_choices_in_a_row(dtype: str) -> None:
    def twice(params: Any, x: Tensor) -> Tensor:  # the gradient is a product of two choices, so all of [0, 1] is valid
        return torch.relu(functional.softshrink(x, 1.0)).sum()

    share = np.random.default_rng(1).random(16)
    assert not wrong(judged({"x.grad": share}, twice, dtype, x=np.full(16, -1.0)))
    assert wrong(judged({"x.grad": share + 1}, twice, dtype, x=np.full(16, -1.0)))

    def reference(params: Any, x: Tensor) -> Tensor:
        c = torch.minimum(torch.maximum(x, torch.full_like(x, -1.0)), torch.full_like(x, 2.0))
        m = torch.minimum(torch.fmax(c, params["w"]), x)
        return m + torch.relu(c - m)

    x = np.array([-2.0, -1, 2, 2, 0, 2, -2, 1, -1, 3, -3, 3, 2, 2, -1, 1])
    w = np.array([1.0, 1, 0, 0, 0, 0, 0, -1, 1, 1, -1, 0, -1, 1, -1, -1])
    slopes = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1.0])  # all of them ends of ranges
    y = np.array([1.0, -2, 1, 2, 1, 1, 1, -1, 2, 1, 1, 1, 1, 1, 1, -1])
    assert not wrong(judged({"x.grad": y * slopes}, reference, dtype, x=x, y=y, params={"w": w}))


@pytest.mark.parametrize("share", [1e-8, 1e-10, 1e-12])
def test_a_choice_that_moves_next_to_nothing_is_not_in_the_way(share: float) -> None:
    w = np.array([[1.0, 0, 1], [-1, -1, -1], [0, 1, -1]])

    def reference(params: Any, x: Tensor) -> Tensor:
        z = x @ params["w"]  # [1, 1, 0]: two equal squares, and a ReLU at 0
        return torch.relu(z).sum() / 4 + share * (z * z).amax(1).sum()

    dz = np.array([[share + 0.25, share + 0.25, 0.125]])
    for by, expected in ((0.0, set()), (0.2, {"x.grad"})):
        claims = {"x.grad": (dz + np.array([0, 0, by])) @ w.T}
        assert wrong(judged(claims, reference, "float64", x=np.array([[1.0, 0, 1]]), params={"w": w})) == expected
