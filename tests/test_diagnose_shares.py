"""A gradient that is the sum over several readers, whatever they are made of: which of them is left out is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import tap, verify
from manual_bp.report import Report

RNG = np.random.default_rng(5)
GATES = {"W": RNG.standard_normal((3, 4)), "V": RNG.standard_normal((3, 4))}
TIED = {"W": RNG.standard_normal((4, 3))}
UNROLLED = {"U": RNG.standard_normal((2, 3)), "W": RNG.standard_normal((3, 3))}
X = RNG.standard_normal((5, 3))


def gated(params: Any, x: Any) -> Any:
    """Both gates read n, and neither is a step that is known."""
    n = tap("n", torch.tanh(x))
    a, b = tap("a", torch.einsum("ni,io->no", n, params["W"])), tap("b", torch.einsum("ni,io->no", n, params["V"]))
    return tap("h", nn.functional.silu(a) * b)


def my_gates(terms: str) -> Callable[[Any, Any, Any], dict[str, Any]]:
    def mine(params: Any, x: Any, dh: Any) -> dict[str, Any]:
        w, v = params["W"], params["V"]
        n = np.tanh(x)
        a, b = n @ w, n @ v
        s = 1 / (1 + np.exp(-a))
        da, db = dh * b * (s + a * s * (1 - s)), dh * a * s
        shares = {"a": da @ w.T, "b": db @ v.T}
        dn = sum(shares[term] for term in terms)
        return {"n": n, "a": a, "b": b, "h": a * s * b, "da": da, "db": db, "dn": dn, "dW": n.T @ da, "dV": n.T @ db}

    return mine


def tied(params: Any, x: Any) -> Any:
    """An autoencoder with one matrix for both of its layers."""
    h = tap("h", torch.sigmoid(tap("z", x @ params["W"])))
    return nn.functional.mse_loss(tap("o", h @ params["W"].T), x)


def my_tied(uses: str) -> Callable[[Any, Any], dict[str, Any]]:
    def mine(params: Any, x: Any) -> dict[str, Any]:
        w = params["W"]
        z = x @ w
        h = 1 / (1 + np.exp(-z))
        o = h @ w.T
        do = 2 * (o - x) / x.size
        dz = do @ w * h * (1 - h)
        shares = {"z": x.T @ dz, "o": do.T @ h}
        return {"z": z, "h": h, "o": o, "do": do, "dz": dz, "dW": sum(shares[use] for use in uses)}

    return mine


def unrolled(params: Any, x: Any) -> Any:
    """A recurrent network over three steps in time."""
    h = x.new_zeros(x.shape[0], 3)
    for t in range(3):
        h = tap(f"h{t}", torch.tanh(x[:, t] @ params["U"] + h @ params["W"]))
    return h


def my_unrolled(*, adds: bool) -> Callable[[Any, Any, Any], dict[str, Any]]:
    def mine(params: Any, x: Any, dh: Any) -> dict[str, Any]:
        u, w = params["U"], params["W"]
        states = [np.zeros((len(x), 3), x.dtype)]
        for t in range(3):
            states.append(np.tanh(x[:, t] @ u + states[-1] @ w))
        du, dw = np.zeros_like(u), np.zeros_like(w)
        gradients = {}
        for t in (2, 1, 0):
            gradients[f"dh{t}"] = dh
            dz = dh * (1 - states[t + 1] ** 2)
            du = du + x[:, t].T @ dz if adds else x[:, t].T @ dz
            dw, dh = dw + states[t].T @ dz, dz @ w.T
        return {**{f"h{t}": states[t + 1] for t in range(3)}, **gradients, "dU": du, "dW": dw}

    return mine


def quantised(params: Any, x: Any) -> Any:
    """Straight through a rounding, which reads z and gives it no gradient."""
    z = tap("z", x @ params["W"])
    q = tap("q", torch.round(z))
    s = tap("s", z + (q - z).detach())
    return (s**2).mean() + ((z - q.detach()) ** 2).mean()


def my_quantised(terms: str) -> Callable[[Any, Any], dict[str, Any]]:
    def mine(params: Any, x: Any) -> dict[str, Any]:
        z = x @ params["W"]
        q = np.round(z)
        shares = {"s": 2 * q / z.size, "l": 2 * (z - q) / z.size}
        dz = sum(shares[term] for term in terms)
        loss = (q * q).mean() + ((z - q) ** 2).mean()
        return {"z": z, "q": q, "s": q, "loss": loss, "ds": shares["s"], "dz": dz, "dW": x.T @ dz}

    return mine


def named(report: Report, name: str) -> tuple[str, str]:
    found = next(c.diagnosis for c in report.checks if c.name == name and c.diagnosis)
    return found.name, found.confidence


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_shares_are_right(dtype: str) -> None:
    verify(my_gates("ab"), gated, x=X, params=GATES, dtype=dtype).raise_if_wrong()
    verify(my_tied("zo"), tied, x=RNG.standard_normal((5, 4)), params=TIED, dtype=dtype).raise_if_wrong()
    sequence = RNG.standard_normal((4, 3, 2))
    verify(my_unrolled(adds=True), unrolled, x=sequence, params=UNROLLED, dtype=dtype).raise_if_wrong()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("terms", "missing"), [("a", "b"), ("b", "a")])
def test_a_share_that_is_left_out(terms: str, missing: str, dtype: str) -> None:
    report = verify(my_gates(terms), gated, x=X, params=GATES, dtype=dtype)
    assert report.first_wrong == "n.grad"
    assert named(report, "n.grad") == (f"the share that comes back from {missing} is missing", "certain")


@pytest.mark.parametrize(("uses", "missing"), [("z", "o"), ("o", "z")])
def test_one_use_of_a_tied_weight(uses: str, missing: str) -> None:
    report = verify(my_tied(uses), tied, x=RNG.standard_normal((5, 4)), params=TIED)
    assert report.first_wrong == "W.grad"
    assert named(report, "W.grad") == (f"the share that comes back from {missing} is missing", "certain")


@pytest.mark.parametrize(("terms", "missing"), [("s", "loss"), ("l", "s")])
def test_a_reader_that_gives_nothing_back_is_not_counted(terms: str, missing: str) -> None:
    params = {"W": RNG.standard_normal((3, 2))}
    verify(my_quantised("sl"), quantised, x=X, params=params).raise_if_wrong()
    report = verify(my_quantised(terms), quantised, x=X, params=params)
    assert named(report, "z.grad") == (f"the share that comes back from {missing} is missing", "certain")


def test_a_share_that_is_added_twice() -> None:
    report = verify(my_gates("aab"), gated, x=X, params=GATES)
    assert named(report, "n.grad") == ("the share that comes back from a is added twice", "certain")


def test_a_gradient_that_is_assigned_at_each_step_in_time() -> None:
    report = verify(my_unrolled(adds=False), unrolled, x=RNG.standard_normal((4, 3, 2)), params=UNROLLED)
    assert report.first_wrong == "U.grad"
    said = "only the share that comes back from h0 is there, the other terms are missing"
    assert named(report, "U.grad") == (said, "certain")
