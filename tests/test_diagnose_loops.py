"""Gradients that a loop assigns where it should add: what the last round left is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from manual_bp import verify


def looped(overwritten: str) -> Callable[[Any, Any, Any], dict[str, Any]]:
    """A convolution as three loops, over examples, rows and columns."""

    def mine(params: Any, x: Any, dz: Any) -> dict[str, Any]:
        w, b = params["c.weight"], params["c.bias"]
        z, dx, dw, db = np.zeros_like(dz), np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
        for n in range(len(x)):
            for i in range(dz.shape[2]):
                for j in range(dz.shape[3]):
                    window, g = x[n, :, i : i + 3, j : j + 3], dz[n, :, i, j]
                    z[n, :, i, j] = np.tensordot(w, window, 3) + b
                    dx[n, :, i : i + 3, j : j + 3] += np.tensordot(g, w, 1)
                    share = g[:, None, None, None] * window
                    dw = share if overwritten == "weight" else dw + share
                    db = g if overwritten == "bias" else db + g
        return {"c": z, "c.weight.grad": dw, "c.bias.grad": db, "x.grad": dx}

    return mine


def together(params: Any, x: Any, dz: Any) -> dict[str, Any]:
    """All examples at once: only the loops over rows and columns overwrite."""
    right = looped("")(params, x, dz)
    right["c.weight.grad"] = np.einsum("no,ncij->ocij", dz[:, :, -1, -1], x[:, :, -3:, -3:])
    return right


LAST = "the upstream gradient c.grad counts in the last position of its last example only"
REFERENCE = nn.Sequential()
REFERENCE.add_module("c", nn.Conv2d(2, 3, 3))
X = np.random.default_rng(0).standard_normal((3, 2, 5, 5))


@pytest.mark.parametrize(
    ("candidate", "name", "words"),
    [
        (looped("weight"), "c.weight.grad", LAST),
        (looped("bias"), "c.bias.grad", LAST),
        (together, "c.weight.grad", "the upstream gradient c.grad counts in its last position only"),
    ],
)
def test_the_last_round_of_a_loop(candidate: Any, name: str, words: str) -> None:
    report = verify(candidate, REFERENCE, x=X)
    found = {c.name: (c.diagnosis.name, c.diagnosis.confidence) for c in report.checks if c.diagnosis}
    assert found == {name: (words, "certain")}


def test_the_loop_that_adds() -> None:
    verify(looped(""), REFERENCE, x=X).raise_if_wrong()
