"""What a pass leaves in a BatchNorm is judged where it is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import verify
from manual_bp.errors import ManualBPError
from manual_bp.report import Report

X = np.random.default_rng(0).standard_normal((5, 4))


def statuses(report: Report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


def batch_norm(momentum: float = 0.1, ddof: int = 1, extra: float = 0.0) -> Callable[[Any, Any], dict[str, Any]]:
    def candidate(params: Any, x: Any) -> dict[str, Any]:
        m, v = x.mean(0), x.var(0)
        return {
            "output": params["weight"] * (x - m) / np.sqrt(v + 1e-5) + params["bias"],
            "running_mean": (1 - momentum) * params["running_mean"] + momentum * (m + extra),
            "running_var": (1 - momentum) * params["running_var"] + momentum * x.var(0, ddof=ddof),
        }

    return candidate


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_statistics_are_judged_where_they_are_reported(dtype: str) -> None:
    report = verify(batch_norm(), nn.BatchNorm1d(4), x=X, dtype=dtype)
    assert report.ok, str(report)
    assert {"running_mean", "running_var"} <= statuses(report).keys()
    assert not [note for note in report.notes if "running statistics" in note]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_running_statistics_are_found(dtype: str) -> None:
    def wrong(*of: Any, **options: Any) -> set[str]:
        report = verify(batch_norm(*of, **options), nn.BatchNorm1d(4), x=X, dtype=dtype)
        assert "bug in manual-bp" not in str(report)
        return {check.name for check in report.checks if check.status == "wrong"}

    assert wrong(ddof=0) == {"running_var"}
    assert wrong(momentum=0.9) == {"running_mean", "running_var"}
    assert wrong(extra=1e-4) == {"running_mean"}


def test_running_statistics_of_a_layer_inside() -> None:
    def candidate(params: Any, x: Any) -> dict[str, Any]:
        z = x @ params["0.weight"].T + params["0.bias"]
        m, v = z.mean(0), z.var(0, ddof=1)
        return {"1.running_mean": 0.9 * params["1.running_mean"] + 0.1 * m,
                "1.running_var": 0.9 * params["1.running_var"] + 0.1 * v,
                "1.num_batches_tracked": params["1.num_batches_tracked"] + 1}  # fmt: skip  # one dictionary

    report = verify(candidate, nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), x=X, dtype="float32")
    assert report.ok, str(report)
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= statuses(report).keys()


def test_in_evaluation_they_stay() -> None:
    def candidate(params: Any, x: Any) -> dict[str, Any]:
        m, v = params["running_mean"], params["running_var"]
        return {"output": (x - m) / np.sqrt(v + 1e-5) * params["weight"] + params["bias"], "running_mean": m}

    assert verify(candidate, nn.BatchNorm1d(4).eval(), x=X).ok
    changed = verify(lambda p, x: {**candidate(p, x), "running_mean": x.mean(0)}, nn.BatchNorm1d(4).eval(), x=X)
    assert statuses(changed)["running_mean"] == "wrong"


def test_a_note_says_that_running_statistics_are_not_reported() -> None:
    report = verify(lambda p, x: {"output": batch_norm()(p, x)["output"]}, nn.BatchNorm1d(4), x=X)
    assert report.ok
    assert "running statistics (running_mean, running_var) are not judged unless they are reported" in report.notes


def test_running_statistics_without_a_bound_are_left_alone() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            return x - x.mean(0)

    report = verify(lambda p, x: {"output": x - x.mean(0), "mean": 0.9 * p["mean"] + 0.1 * x.mean(0)}, Own(), x=X)
    assert report.ok, str(report)
    assert "running statistics (mean) are not judged" in report.notes
    with pytest.raises(ManualBPError, match="nothing that can be judged"):
        verify(lambda p, x: {"mean": p["mean"]}, Own(), x=X)


# ---------------------------------------------------------------------- other right formulas


def _in_one_pass(x: np.ndarray) -> np.ndarray:
    n = len(x)
    return ((x * x).sum(0) - n * x.mean(0) ** 2) / (n - 1)


def _welford(x: np.ndarray) -> np.ndarray:
    mean, squares = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k, row in enumerate(x, 1):
        step = row - mean
        mean = mean + step / x.dtype.type(k)
        squares = squares + step * (row - mean)
    return squares / x.dtype.type(len(x) - 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variance", [_in_one_pass, _welford])
def test_the_variance_may_cancel_as_that_of_the_output_may(variance: Any, dtype: str) -> None:
    def candidate(params: Any, x: Any, factor: float = 1.0) -> dict[str, Any]:
        return {"running_var": 0.5 * params["running_var"] + 0.5 * factor * variance(x)}

    module = nn.BatchNorm1d(4, momentum=0.5)
    for seed in range(8):
        x = np.random.default_rng(seed).standard_normal((12, 4)) + 100.0
        assert verify(candidate, module, x=x, dtype=dtype).ok
    wrong = verify(lambda p, x: candidate(p, x, 11 / 12), module, x=x - 100.0, probes=None, dtype=dtype)
    assert statuses(wrong) == {"running_var": "wrong"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.999, 1.0])
def test_a_part_of_the_way_may_be_added(momentum: float, dtype: str) -> None:
    def candidate(params: Any, x: Any, extra: float = 0.0) -> dict[str, Any]:
        m, old, new = x.dtype.type(momentum), params["running_mean"], x.mean(0)
        return {"running_mean": old + m * (new - old) + x.dtype.type(extra)}

    module = nn.BatchNorm1d(4, momentum=momentum)
    module.running_mean = torch.tensor([1.0, -30.0, 0.3, 7.0])
    for seed in range(8):
        x = np.random.default_rng(seed).standard_normal((12, 4)) * 1e-3
        assert verify(candidate, module, x=x, dtype=dtype).ok
    wrong = verify(lambda p, x: candidate(p, x, 1e-3), module, x=x, dtype=dtype)
    assert statuses(wrong) == {"running_mean": "wrong"}
