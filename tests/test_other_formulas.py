"""Right code that is written another way than torch's, where the way tells: it is no mistake, and a mistake is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from manual_bp import Report, verify

DTYPES = ("float32", "float64")


def wrong(report: Report) -> list[tuple[str, str, str]]:
    return [(c.probe, c.name, c.status) for c in report.checks if c.status not in ("pass", "kink")]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e3, 1e6, 1e12])
def test_the_slope_of_silu_may_cancel(size: float, dtype: str) -> None:
    """y + σ (1 - y): 1 is lost beside a large y."""

    def silu(_: Any, x: Any, g: Any, factor: float = 1.0) -> dict[str, Any]:
        s = 1 / (1 + np.exp(-np.clip(x, -80, None)))
        y = x * s
        return {"output": y, "x.grad": g * (y + factor * s * (1 - y))}

    x = np.random.default_rng(0).standard_normal((6, 5)) * size
    report = verify(silu, nn.SiLU(), x=np.maximum(x, -60), dtype=dtype)
    assert not wrong(report)
    halved = verify(lambda p, x, g: silu(p, x, g, 1.001), nn.SiLU(), x=np.maximum(x, -60), dtype=dtype)
    assert {name for _, name, _ in wrong(halved)} == {"x.grad"}


def _shared(window: int, stride: int) -> Any:
    """Max pooling along rows that gives every one of equal maxima the same share."""

    def pool(_: Any, x: Any, g: Any, factor: float = 1.0) -> dict[str, Any]:
        y, dx = np.empty_like(g), np.zeros_like(x)
        for p in range(g.shape[-1]):
            seen = x[..., p * stride : p * stride + window]
            y[..., p] = seen.max(-1)
            winners = (seen == y[..., p : p + 1]).astype(x.dtype)
            share = winners / winners.sum(-1, keepdims=True) * x.dtype.type(factor)
            dx[..., p * stride : p * stride + window] += share * g[..., p : p + 1]
        return {"output": y, "x.grad": dx}

    return pool


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 1), (4, 3)])
def test_shares_of_equal_maxima_may_underflow(window: int, stride: int, dtype: str) -> None:
    pool, module = _shared(window, stride), nn.MaxPool1d(window, stride)
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (2, 3, 16)).astype(dtype)
    least = float(np.finfo(dtype).smallest_subnormal)
    g = rng.integers(-9, 10, (2, 3, (16 - window) // stride + 1)) * least
    assert not wrong(verify(pool, module, x=x, y=g, probes=None, dtype=dtype))
    more = verify(lambda p, x, g: pool(p, x, g, 4.0), module, x=x, y=g, probes=None, dtype=dtype)
    assert {name for _, name, _ in wrong(more)} == {"x.grad"}


@pytest.mark.parametrize("module", [nn.MaxPool1d(2), nn.MaxPool1d(3, 2, 1), nn.MaxPool2d(2), nn.MaxPool3d(2, 1)])
def test_an_empty_batch_may_be_pooled(module: nn.Module) -> None:
    axes = int(type(module).__name__[-2])

    def nothing(_: Any, x: Any, g: Any) -> dict[str, Any]:
        return {"output": np.zeros_like(g), "x.grad": np.zeros_like(x)}

    assert verify(nothing, module, x=np.zeros((0, 2, *(4,) * axes))).ok


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_window_of_padding_alone_has_no_gradient_to_give(dtype: str) -> None:
    """On a single column the taps of a row stand at -1, 1 and 3. Torch gives the gradient to the second row."""
    module = nn.MaxPool2d(3, (2, 3), padding=(0, 1), dilation=(1, 2), ceil_mode=True)

    def pool(_: Any, x: Any, g: Any, part: float = 0.0) -> dict[str, Any]:
        return {"output": np.full_like(g, -np.inf), "x.grad": x.dtype.type(part) * g + np.zeros_like(x)}

    x = np.random.default_rng(0).standard_normal((2, 2, 3, 1))
    assert not wrong(verify(pool, module, x=x, dtype=dtype, probes=None))
    some = verify(lambda p, x, g: pool(p, x, g, 0.5), module, x=x, dtype=dtype, probes=None)
    assert {name for _, name, _ in wrong(some)} == {"x.grad"}
