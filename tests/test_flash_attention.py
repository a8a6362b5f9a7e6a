"""Attention whose backward pass computes the shares again, and Σ p (do·v) from the output that it has: as do·o."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from manual_bp import tap, verify

Array = np.ndarray


def by_softmax(x: Mapping[str, Tensor]) -> Tensor:
    q, k, v = x["q"], x["k"], x["v"]
    s = tap("s", q @ k.mT / q.shape[-1] ** 0.5)
    hidden = torch.triu(torch.ones(s.shape[-1], s.shape[-1], dtype=torch.bool), 1)
    return tap("p", torch.softmax(s.masked_fill(hidden, -torch.inf), -1)) @ v


def by_torch(x: Mapping[str, Tensor]) -> Tensor:
    return functional.scaled_dot_product_attention(x["q"], x["k"], x["v"], is_causal=True)


def flash(slip: float = 1.0, *, shown: bool = False) -> Callable[..., dict[str, Array]]:
    def run(_params: Any, x: Mapping[str, Array], do: Array) -> dict[str, Array]:
        q, k, v = x["q"], x["k"], x["v"]
        scale = q.dtype.type(q.shape[-1] ** -0.5)
        s = np.where(np.tri(q.shape[-2], dtype=bool), q @ k.swapaxes(-1, -2) * scale, -np.inf).astype(q.dtype)
        peak = s.max(-1, keepdims=True)
        p = np.exp(s - (peak + np.log(np.exp(s - peak).sum(-1, keepdims=True))))
        o = p @ v
        delta = (do * o).sum(-1, keepdims=True) * q.dtype.type(slip)
        dp = do @ v.swapaxes(-1, -2)
        ds = p * (dp - delta)
        inner = {"s": q @ k.swapaxes(-1, -2) * scale, "p": p, "dp": dp, "ds": ds} if shown else {}
        dq, dk = ds @ k * scale, ds.swapaxes(-1, -2) @ q * scale
        return {**inner, "output": o, "dq": dq, "dk": dk, "dv": p.swapaxes(-1, -2) @ do}

    return run


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("reference", "shown"), [(by_softmax, False), (by_softmax, True), (by_torch, False)])
@pytest.mark.parametrize("seed", [23, 32, 43])
def test_it_is_right_where_hardly_anything_is_left_of_the_scores_gradient(
    seed: int, reference: Callable[[Mapping[str, Tensor]], Tensor], shown: bool, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    length, width = int(rng.integers(4, 12)), int(rng.integers(4, 16))
    x = {name: rng.standard_normal((2, 3, length, width)) for name in "qkv"}
    names = {f"d{name}": f"{name}.grad" for name in (*x, *("sp" if shown else ""))}
    given: dict[str, Any] = {"x": x, "params": {}, "dtype": dtype, "seed": seed, "names": names}
    assert verify(flash(shown=shown), reference, **given).ok
    off = flash(1 + {"float64": 1e-12, "float32": 1e-4}[dtype], shown=shown)
    report = verify(off, reference, **given, probes=None)
    wrong = {"s.grad"} if shown else {"q.grad", "k.grad"}
    assert {check.name for check in report.checks if check.status == "wrong"} == wrong
