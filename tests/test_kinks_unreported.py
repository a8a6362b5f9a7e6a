"""A choice at a kink that shows only in what follows, since the gradient there is not reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import Report, verify

Array = np.ndarray
NET = (3, 4, 4, 2)


def layers() -> nn.Sequential:
    a, b, c, d = NET
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))


def judged(
    at_zero: float, *, slip: float = 1.0, reported: bool = False, dtype: str = "float64", seed: int = 0
) -> Report:
    """A network whose ReLUs have this slope at 0; ``slip`` is a factor on a weight's gradient."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-2, 3, (5, NET[0])).astype(float), rng.integers(-2, 3, (5, NET[-1])).astype(float)

    def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
        w, b = ([params[f"{i}.{n}"] for i in (0, 2, 4)] for n in ("weight", "bias"))
        z0 = x @ w[0].T + b[0]
        a0 = np.maximum(z0, 0)
        z1 = a0 @ w[1].T + b[1]
        a1 = np.maximum(z1, 0)
        out = a1 @ w[2].T + b[2]
        d = (out - y) / np.asarray(y.size / 2, x.dtype)
        d1 = (d @ w[2]) * np.where(z1 == 0, at_zero, z1 > 0).astype(x.dtype)
        d0 = (d1 @ w[1]) * np.where(z0 == 0, at_zero, z0 > 0).astype(x.dtype)
        found = {"0": z0, "1": a0, "2": z1, "3": a1, "4": out, "4.grad": d, "x.grad": d0 @ w[0]}
        found |= {"0.weight.grad": d0.T @ x, "2.weight.grad": slip * d1.T @ a0, "4.weight.grad": d.T @ a1}
        return found | ({"2.grad": d1, "0.grad": d0, "1.grad": d1 @ w[1], "3.grad": d @ w[2]} if reported else {})

    return verify(candidate, layers(), x=x, y=y, loss=nn.MSELoss(), dtype=dtype, seed=seed)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("at_zero", [1.0, 0.5])
def test_another_valid_choice_is_no_mistake_in_what_follows(at_zero: float, dtype: str) -> None:
    for seed in range(3):
        report = judged(at_zero, dtype=dtype, seed=seed)
        assert report.ok, str(report)


def test_where_it_is_reported_it_is_a_kink_and_what_follows_is_right() -> None:
    report = judged(1.0, reported=True, seed=1)
    assert report.ok
    assert {c.name for c in report.checks if c.status == "kink" and c.kink is not None} == {"0.grad", "2.grad"}


def test_no_valid_choice_and_other_mistakes_are_seen_all_the_same() -> None:
    assert not judged(40.0).ok
    assert {c.name for c in judged(1.0, slip=1 + 1e-6).checks if c.status == "wrong"} == {"2.weight.grad"}
