"""The few steps of the built-in networks that torch.nn has no module for."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """y = a + b."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class GivenDropout(nn.Module):
    """Dropout whose mask is given as a buffer: y = x mask / (1 - p)."""

    mask: Tensor

    def __init__(self, p: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("mask", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask / (1 - self.p)


class HalfSquaredError(nn.Module):
    """E = 1/2 sum (t - p)^2, seed 001's error."""

    reduction = "sum"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return 0.5 * (target - prediction).square().sum()
