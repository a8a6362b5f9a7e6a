"""A forward pass that is wrong under every layout: the layout stays the layer's, and the gradients are not blamed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from manual_bp import Report, verify_layer

Array = Any


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


MISTAKES: dict[str, Any] = {
    "no bias": lambda y, b: y,
    "sign": lambda y, b: -(y + b),
    "sign of the bias": lambda y, b: y - b,
    "rectified": lambda y, b: np.maximum(y + b, 0),
    "squashed": lambda y, b: np.tanh(y + b),
    "squared": lambda y, b: (y + b) ** 2,
    "size": lambda y, b: np.abs(y + b),
    "halved": lambda y, b: (y + b) / 2,
    "product": lambda y, b: y * b,
    "examples reversed": lambda y, b: y[::-1] + b,
    "first example missing": lambda y, b: np.where(np.arange(len(y)).reshape(-1, *(1,) * (y.ndim - 1)) < 1, 0, y + b),
}


class Dense:
    def __init__(self, size: int, mistake: Any, *, transposed: bool) -> None:
        self.W, self.b, self.mistake, self.transposed = np.zeros((size, size)), np.zeros(size), mistake, transposed

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.mistake(x @ (self.W.T if self.transposed else self.W), self.b)

    def backward(self, d: Array) -> Array:
        self.dW, self.db = (d.T @ self.x if self.transposed else self.x.T @ d), d.sum(0)
        return d @ (self.W if self.transposed else self.W.T)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_square_weight_keeps_its_layout(mistake: str, transposed: bool) -> None:
    for size, batch in ((4, 5), (3, 6), (8, 16)):
        x = np.random.default_rng(size).standard_normal((batch, size))
        report = verify_layer(Dense(size, MISTAKES[mistake], transposed=transposed), nn.Linear(size, size), x=x)
        assert blamed(report) == {"output"}, (size, batch)


class Conv:
    """Valid convolution; ``taken`` is what the forward pass makes of the kernel, ``mistake`` of the result."""

    def __init__(self, channels: int, size: int, mistake: Any, taken: Any) -> None:
        self.W, self.b = np.zeros((channels, channels, size, size)), np.zeros(channels)
        self.mistake, self.taken = mistake, taken

    def windows(self, x: Array) -> Array:
        return np.lib.stride_tricks.sliding_window_view(x, self.W.shape[2:], (2, 3))

    def forward(self, x: Array) -> Array:
        self.x = x
        y = np.einsum("nchwkl,ockl->nohw", self.windows(x), self.taken(self.W))
        return self.mistake(y, self.b.reshape(1, -1, 1, 1))

    def backward(self, d: Array) -> Array:
        self.dW = np.einsum("nchwkl,nohw->ockl", self.windows(self.x), d)
        self.db = d.sum((0, 2, 3))
        k = len(self.W[0, 0]) - 1
        around = self.windows(np.pad(d, ((0, 0), (0, 0), (k, k), (k, k))))
        return np.einsum("nohwkl,ockl->nchw", around, self.W[:, :, ::-1, ::-1])


KERNELS: dict[str, Any] = {
    "rotated": lambda w: w[:, :, ::-1, ::-1],
    "rows reversed": lambda w: w[:, :, ::-1],
    "transposed in space": lambda w: w.transpose(0, 1, 3, 2),
    "first channel only": lambda w: w * (np.arange(w.shape[1]) < 1).reshape(1, -1, 1, 1),
}


@pytest.mark.parametrize("mistake", [*MISTAKES, *KERNELS])
def test_a_square_kernel_keeps_its_layout(mistake: str) -> None:
    for channels, size in ((3, 2), (2, 3)):
        x = np.random.default_rng(size).standard_normal((2, channels, 6, 6))
        own = MISTAKES.get(mistake, lambda y, b: y + b), KERNELS.get(mistake, lambda w: w)
        report = verify_layer(Conv(channels, size, *own), nn.Conv2d(channels, channels, size), x=x)
        if mistake == "transposed in space":  # numbers that all agree under a layout are its layout
            assert report.verdict == "fail" or not blamed(report)
        else:
            assert blamed(report) == {"output"}, (channels, size)


class Bilinear:
    def __init__(self, size: int, mistake: Any) -> None:
        self.W, self.b, self.mistake = np.zeros((size, size, size)), np.zeros(size), mistake

    def forward(self, p: Array, q: Array) -> Array:
        self.p, self.q = p, q
        return self.mistake(np.einsum("np,opq,nq->no", p, self.W, q), self.b)

    def backward(self, d: Array) -> tuple[Array, Array]:
        self.dW, self.db = np.einsum("no,np,nq->opq", d, self.p, self.q), d.sum(0)
        return np.einsum("no,opq,nq->np", d, self.W, self.q), np.einsum("no,opq,np->nq", d, self.W, self.p)


@pytest.mark.parametrize("mistake", ["no bias", "sign", "squashed", "halved"])
def test_a_layer_of_several_inputs_keeps_its_layout(mistake: str) -> None:
    x = tuple(np.random.default_rng(0).standard_normal((2, 5, 3)))
    report = verify_layer(Bilinear(3, MISTAKES[mistake]), nn.Bilinear(3, 3, 3), x=x)
    assert blamed(report) == {"output"}
