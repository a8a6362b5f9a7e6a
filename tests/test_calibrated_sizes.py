"""Calibrated tolerances follow each operation's own reductions: they do not grow with what stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from manual_bp import Report, verify
from manual_bp.trace import Array


def selu(alpha: float, scale: float) -> Any:
    def run(params: dict[str, Array], x: Array, upstream: Array) -> dict[str, Array]:
        a, s = x.dtype.type(alpha), x.dtype.type(scale)
        grown = a * (np.exp(np.minimum(x, 0)) - 1)  # cancels near 0, and is how it is written
        slope = s * np.where(x > 0, 1, grown + a)
        return {"output": (s * np.where(x > 0, x, grown)).astype(x.dtype), "x.grad": upstream * slope.astype(x.dtype)}

    return run


RIGHT = (1.6732632423543772, 1.0507009873554805)


def of(run: Any, module: nn.Module, x: Array, dtype: str, **options: Any) -> Report:
    upstream = np.random.default_rng(1).standard_normal(x.shape)
    return verify(run, module, x=x, y=upstream, dtype=dtype, **options)


def reported(report: Report) -> set[str]:
    """Statuses of what a candidate reports that does not report everything."""
    return {c.status for c in report.checks} - {"missing"}


@pytest.mark.parametrize("shape", [(4, 6), (256, 256)])
def test_a_constant_with_three_digits_is_wrong_at_every_size(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    assert of(selu(*RIGHT), nn.SELU(), x, "float32", probes=None).ok
    report = of(selu(1.67, 1.05), nn.SELU(), x, "float32", probes=None)
    assert {c.name for c in report.checks if c.status == "wrong"} == {"output", "x.grad"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_textbook_formula_of_selu_is_right(scale: float, dtype: str) -> None:
    assert of(selu(*RIGHT), nn.SELU(), scale * np.random.default_rng(0).standard_normal((5, 7)), dtype).ok


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_that_torch_holds_in_float32_is_no_mistake(dtype: str) -> None:
    def run(params: dict[str, Array], x: Array, upstream: Array, *, divisor: float = 6.0) -> dict[str, Array]:
        y = np.clip(x / x.dtype.type(6) + x.dtype.type(0.5), 0, 1)
        return {
            "output": y,
            "x.grad": np.where((x > -3) & (x < 3), upstream / x.dtype.type(divisor), 0).astype(x.dtype),
        }

    x = np.random.default_rng(0).standard_normal((4, 6))
    assert of(run, nn.Hardsigmoid(), x, dtype).ok
    assert not of(lambda *given: run(*given, divisor=6.001), nn.Hardsigmoid(), x, dtype).ok


@pytest.mark.parametrize("seed", range(4))
def test_the_products_of_a_bilinear_layer_are_counted(seed: int) -> None:
    def run(params: dict[str, Array], x: Array, upstream: Array) -> dict[str, Array]:
        w, half = params["bilinear.weight"], x.shape[1] // 2
        a, b = x[:, :half], x[:, half:]
        y = np.zeros((len(x), len(w)), x.dtype)
        for i in range(half):
            for j in range(half):  # one sum after the other
                y += np.outer(a[:, i] * b[:, j], w[:, i, j])
        return {"output": y + params["bilinear.bias"]}

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bilinear = nn.Bilinear(64, 64, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.bilinear(*x.chunk(2, 1))
            return found

    rng = np.random.default_rng(seed)
    params = {"bilinear.weight": rng.standard_normal((2, 64, 64)), "bilinear.bias": rng.standard_normal(2)}
    given = {"x": 3 + rng.standard_normal((4, 128)), "y": rng.standard_normal((4, 2)), "params": params}
    report = verify(run, Halves(), **given, dtype="float32", probes=None)
    assert reported(report) == {"pass"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_probability_that_is_moved_stays_one(dtype: str) -> None:
    """A saturated sigmoid, moved by a rounding, would be above 1, and the loss refuse it."""

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(20 * self.fc(x))

    def run(params: dict[str, Array], x: Array, y: Array) -> dict[str, Array]:
        z = x @ params["fc.weight"].T + params["fc.bias"]
        with np.errstate(over="ignore", divide="ignore"):
            p = 1 / (1 + np.exp(-20 * z))
            loss = -(y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100)).mean()
        return {"fc": z, "loss": np.asarray(loss, x.dtype)}

    rng = np.random.default_rng(0)
    x, y = 3 * rng.standard_normal((6, 4)), (rng.random((6, 3)) > 0.5).astype(float)
    params = {"fc.weight": rng.standard_normal((3, 4)), "fc.bias": rng.standard_normal(3)}
    report = verify(
        run,
        Steep(),
        x=x,
        y=y,
        params=params,
        loss=functional.binary_cross_entropy,
        dtype=dtype,
    )
    assert reported(report) == {"pass"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_variance_that_is_moved_stays_positive(dtype: str) -> None:
    class Spread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.softplus(x)

    def run(params: dict[str, Array], x: Array, y: Array) -> dict[str, Array]:
        v = np.log1p(np.exp(x))
        eps = x.dtype.type(1e-6)
        return {"output": v, "loss": (np.log(np.maximum(v, eps)) + y * y / np.maximum(v, eps)).mean() / 2}

    x = np.linspace(-30, 3, 24).reshape(4, 6)
    report = verify(
        run, Spread(), x=x, y=np.ones_like(x), dtype=dtype, probes=None,
        loss=lambda v, t: functional.gaussian_nll_loss(torch.zeros_like(v), t, v),
    )  # fmt: skip  # one call
    assert reported(report) == {"pass"}


@pytest.mark.parametrize(("beta", "threshold"), [(1.0, 20.0), (3.0, 5.0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_beyond_its_threshold_softplus_is_torchs_own_short_cut(beta: float, threshold: float, dtype: str) -> None:
    def reference(params: Any, x: Tensor) -> Tensor:
        return functional.softplus(x, beta, threshold)

    def exact(times: float) -> Callable[..., dict[str, Array]]:
        def run(params: Any, x: Array, upstream: Array) -> dict[str, Array]:
            b = x.dtype.type(beta)
            return {"output": np.logaddexp(0, b * x) / b, "dx": times * upstream / (1 + np.exp(-b * x))}

        return run

    x = np.linspace(-5, 2 * threshold / beta, 48).reshape(6, 8)
    assert reported(verify(exact(1.0), reference, x=x, params={}, dtype=dtype)) == {"pass"}
    off = verify(exact(1.0 + 1e-5), reference, x=x, params={}, dtype=dtype)
    assert {check.name for check in off.checks if check.status == "wrong"} == {"x.grad"}


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(("n", "m"), [(33, 100), (200, 601)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_places_between_elements_round_relative_to_the_length(n: int, m: int, corners: bool, dtype: str) -> None:
    def run(_params: dict[str, Array], x: Array, upstream: Array, *, shift: float = 0.0) -> dict[str, Array]:
        one, i = x.dtype.type, np.arange(m, dtype=x.dtype)
        place = i * one(n - 1) / one(m - 1) if corners else np.maximum((i + one(0.5)) * one(n) / one(m) - one(0.5), 0)
        place = np.minimum(place + one(shift), one(n - 1))
        low = np.minimum(place.astype(int), n - 1)
        high, t = np.minimum(low + 1, n - 1), (place - low).astype(x.dtype)
        dx = np.zeros_like(x)
        np.add.at(dx, (0, 0, low), (upstream * (1 - t))[0, 0])
        np.add.at(dx, (0, 0, high), (upstream * t)[0, 0])
        return {"output": x[:, :, low] * (1 - t) + x[:, :, high] * t, "x.grad": dx}

    x = np.random.default_rng(0).standard_normal((1, 1, n))
    module = nn.Upsample(size=m, mode="linear", align_corners=corners)
    assert verify(run, module, x=x, dtype=dtype).ok
    report = verify(partial(run, shift=1e-2), module, x=x, dtype=dtype)
    assert {c.name for c in report.checks if c.status == "wrong"} == {"output", "x.grad"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_inverse_alpha_that_torch_holds_in_float32_is_no_mistake(dtype: str) -> None:
    def run(_params: dict[str, Array], x: Array, upstream: Array, *, alpha: float = 0.7) -> dict[str, Array]:
        a = x.dtype.type(alpha)
        below = np.minimum(x, 0) / a
        return {
            "output": np.where(x > 0, x, a * np.expm1(below)),
            "x.grad": upstream * np.where(x > 0, 1, np.exp(below)).astype(x.dtype),
        }

    x = np.random.default_rng(0).standard_normal((4, 6))
    assert of(run, nn.CELU(0.7), x, dtype).ok
    assert not of(partial(run, alpha=0.7001), nn.CELU(0.7), x, dtype).ok
