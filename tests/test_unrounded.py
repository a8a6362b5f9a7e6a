"""Operands that were held more exactly than they are reported, and terms that are zero by derivation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from manual_bp import Report, tap, verify

Arrays = dict[str, Any]
RNG = np.random.default_rng(0)

#: Far from zero: of x - μ two to three digits are lost.
X = 300 + RNG.standard_normal((3, 4, 6))
PARAMS = {"g": 1 + 0.2 * RNG.standard_normal(6), "b": RNG.standard_normal(6)}


def reference(params: Any, x: Any) -> Any:
    m = tap("m", x.mean(-1, keepdim=True))
    v = tap("v", ((x - m) ** 2).mean(-1, keepdim=True))
    return tap("n", (x - m) / torch.sqrt(v + 1e-5) * params["g"] + params["b"])


def textbook(params: Mapping[str, Any], x: Any, dn: Any, *, wrong: str = "") -> Arrays:
    """The mean of x - μ is zero: in ∂L/∂μ its term is left out."""
    c = x - (m := x.mean(-1, keepdims=True))
    v = (c * c).mean(-1, keepdims=True)
    r = 1 / np.sqrt(v + (0 if wrong == "no epsilon" else 1e-5))
    dh = dn * params["g"]
    dv = -0.5 * (dh * c).sum(-1, keepdims=True) * r**3
    dm = -(dh * r).sum(-1, keepdims=True)
    if wrong == "one left out":
        dm = -(dh * r)[..., 1:].sum(-1, keepdims=True)
    dx = dh * r + (2 * dv * c + dm) / x.shape[-1]
    dg, db = (dn * c * r).sum((0, 1)), dn.sum((0, 1))
    found = {"m": m, "v": v, "n": c * r * params["g"] + params["b"], "dv": dv, "dm": dm, "dg": dg, "db": db, "dx": dx}
    return {name: a.astype(x.dtype) for name, a in found.items()}


def more_exactly(params: Mapping[str, Any], x: Any, dn: Any, *, wrong: str = "") -> Arrays:
    """In float64, and rounded at the end."""
    wide = {name: np.float64(params[name]) for name in params}
    found = textbook(wide, np.float64(x), np.float64(dn), wrong=wrong)
    return {name: a.astype(x.dtype) for name, a in found.items()}


def judged(mine: Callable[..., Arrays], dtype: str, wrong: str = "") -> Report:
    return verify(lambda params, x, y: mine(params, x, y, wrong=wrong), reference, x=X, params=PARAMS, dtype=dtype)


def blamed(report: Report) -> set[tuple[str, str]]:
    return {(c.name, c.probe) for c in report.checks if c.status not in ("pass", "kink", "inherited")}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mine", [textbook, more_exactly])
def test_as_exact_as_the_operands_is_right(mine: Callable[..., Arrays], dtype: str) -> None:
    report = judged(mine, dtype)
    assert report.ok, str(report)
    said = {c.name for c in report.checks if c.note.startswith("accepted: as exact as the operands are")}
    assert "m.grad" in said


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mine", [textbook, more_exactly])
def test_a_mistake_is_seen_also_where_much_cancels(mine: Callable[..., Arrays], dtype: str) -> None:
    assert ("m.grad", "given") in blamed(judged(mine, dtype, "one left out"))
    assert {("n", "faint"), ("v.grad", "faint")} <= blamed(judged(mine, dtype, "no epsilon"))


def test_at_a_kink_nothing_is_excused_by_the_rounding_of_operands() -> None:
    """Of several equal maxima that every one gets the gradient stays a mistake."""

    def maximum(params: Any, x: Any) -> Any:
        z = tap("z", x @ params["w"])
        return tap("top", z.max(-1).values)

    def mine(params: Any, x: Any, y: Any) -> Arrays:
        z = x @ params["w"]
        top = z.max(-1)
        dz = y[:, None] * (z == top[:, None])
        return {"z": z, "top": top, "dz": dz}

    x = RNG.integers(-2, 3, (6, 3)).astype(float)
    report = verify(mine, maximum, x=x, params={"w": np.ones((3, 2))}, dtype="float32")
    assert ("z.grad", "given") in blamed(report)


@pytest.mark.parametrize("name", ["nudge", "stored", "errors", "run"])
def test_a_tap_may_have_any_name(name: str) -> None:
    def mine(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        return {name: np.tanh(x), f"{name}.grad": 2.1 * upstream, "output": 2 * np.tanh(x)}

    x = np.random.default_rng(0).standard_normal((3, 4))
    report = verify(mine, lambda x: 2 * tap(name, torch.tanh(x)), x=x, params={}, probes=None)
    assert report.first_wrong == f"{name}.grad"
