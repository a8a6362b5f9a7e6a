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
