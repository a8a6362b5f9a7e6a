"""However a choice is written in torch, it is seen; and what is no choice is none."""

from __future__ import annotations

import torch
from torch.nn import functional

from manual_bp_torch.ties import Ties


def test_windows_of_many_numbers_are_not_laid_out() -> None:
    z = torch.zeros(1, 120, 120, requires_grad=True)
    with Ties(2.0**-53) as ties:
        functional.max_pool2d(z, 60, 1)
    assert not ties.count
