"""A chain that is reported step by step, and the logits' gradient beside it as (p - y) / n: both are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from manual_bp import Report, tap, verify

Array = np.ndarray
SHARP = 4.0  # so that the right class's share is near 1


def chain(params: Any, x: Tensor, y: Tensor) -> Tensor:
    logits = tap("logits", x @ params["W"])
    counts = tap("counts", tap("norm_logits", logits - logits.max(1, keepdim=True).values).exp())
    probs = tap("probs", counts / tap("counts_sum", counts.sum(1, keepdim=True)))
    logprobs = tap("logprobs", probs.log())
    if y.dim() == 2:
        return -(logprobs * y).sum(1).mean()
    return -logprobs.gather(1, y[:, None]).mean()


def judged(dtype: str, seed: int, *, steps: bool, hot: bool, slip: float = 1.0) -> Report:
    rng = np.random.default_rng(seed)
    x, weight = SHARP * rng.normal(size=(8, 6)), rng.normal(size=(6, 5))
    classes = (x @ weight).argmax(1)

    def mine(params: Any, x: Array, y: Array) -> dict[str, Array]:
        weight, n = params["W"], x.dtype.type(len(x))
        one_hot = y if hot else np.eye(5, dtype=x.dtype)[y]
        logits = x @ weight
        counts = np.exp(logits - logits.max(1, keepdims=True))
        total = counts.sum(1, keepdims=True)
        probs = counts / total
        found = {"logits": logits, "counts": counts, "counts_sum": total, "probs": probs}
        if steps:
            found["probs.grad"] = dp = -one_hot / probs / n
            found["counts_sum.grad"] = ds = -(dp * counts).sum(1, keepdims=True) / total**2
            found["counts.grad"] = dp / total + ds
        found["logits.grad"] = delta = (probs * x.dtype.type(slip) - one_hot) / n
        return found | {"W.grad": x.T @ delta, "x.grad": delta @ weight.T}

    y = np.eye(5)[classes] if hot else classes
    return verify(mine, chain, x=x, y=y, params={"W": weight}, dtype=dtype, seed=seed, probes=["given"])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize("steps", [True, False])
def test_the_short_form_is_right_and_said(steps: bool, hot: bool, dtype: str) -> None:
    notes = set()
    for seed in range(6):
        report = judged(dtype, seed, steps=steps, hot=hot)
        assert report.ok, str(report)
        notes |= {check.note for check in report.checks if check.name == "logits.grad"}
    assert "accepted: (p − y) / n, softmax and cross-entropy derived as one" in notes
    off = judged(dtype, 1, steps=steps, hot=hot, slip=1 + {"float64": 1e-13, "float32": 1e-5}[dtype])
    assert {check.name for check in off.checks if check.status == "wrong"} == {"logits.grad"}
