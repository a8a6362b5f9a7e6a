"""However a choice is written in torch, it is seen; and what is no choice is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from manual_bp import Report, tap, verify
from manual_bp_torch.ties import Ties

Array = np.ndarray


def wrong(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])

#: What keeps the numbers that are labelled 1, and the label that is what it is compared with.
LABELLED: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "where": (lambda z: torch.where(LABELS == 1, z, 0.0), 1.0),
    "filled": (lambda z: z.masked_fill(LABELS <= 0, 0.0), 0.0),
    "cast": (lambda z: z * (LABELS != 0).to(z.dtype), 0.0),
    "sign": (lambda z: z * LABELS.to(z.dtype).sign(), 0.0),
    "written to": (lambda z: z * (z < z.detach()).logical_or_(LABELS > 0), 0.0),
}


@pytest.mark.parametrize("kind", LABELLED)
def test_what_nothing_moves_is_no_choice(kind: str) -> None:
    function, equal = LABELLED[kind]

    def judged(share: float) -> Report:
        def candidate(params: Any, x: Array, y: Array) -> dict[str, Array]:
            z, keep = x @ params["W"], LABELS.numpy().astype(x.dtype)
            dz = y * np.where(keep == equal, share, keep)
            return {"z": z, "output": z * keep, "z.grad": dz, "W.grad": x.T @ dz}

        x, w = np.array([[0.5, 0.25], [0.25, 0.5]]), np.array([[0.5, 0.75, 1.0], [1.0, 0.75, 0.5]])
        return verify(
            candidate, lambda params, x: function(tap("z", x @ params["W"])), x=x, params={"W": w}, probes=None
        )

    assert judged(equal).ok
    assert wrong(judged(0.5)) == {"z.grad"}


#: Further forms of max(z, 0).
WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "whole number": lambda z: torch.maximum(z, torch.tensor(0)),
    "bounds": lambda z: z.clamp(min=torch.zeros(2, *z.shape, dtype=z.dtype))[1],
    "by name": lambda z: z * torch.logical_and(z > 0, other=z < 5),
    "cut off": lambda z: z * (z.detach() * 2 > 0),
    "a single number": lambda z: torch.relu(z) + 0 * z.sum().amax() + 0 * z.sum().max() + 0 * z.sum().sort()[0],
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_however_it_is_written_each_element_chooses(kind: str) -> None:
    z = torch.tensor([[0.0, 1.0, -1.0], [0.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)

    def gradient(ties: Ties) -> Tensor:
        with ties:
            out = WRITTEN[kind](z)
        return torch.autograd.grad(out.sum(), z)[0]

    found = Ties(2.0**-53)
    plain = gradient(found)
    assert found.count in (3, 6)
    torch.testing.assert_close(gradient(Ties(2.0**-53, found.known)), plain)
    slopes = gradient(Ties(2.0**-53, found.known, (0.25 - plain[z == 0]).repeat(found.count // 3)))
    assert slopes.tolist() == [[0.25, 1.0, 0.0], [0.25, 0.25, 1.0]]


def test_windows_of_many_numbers_are_not_laid_out() -> None:
    z = torch.zeros(1, 120, 120, requires_grad=True)
    with Ties(2.0**-53) as ties:
        functional.max_pool2d(z, 60, 1)
    assert not ties.count
