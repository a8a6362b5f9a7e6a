"""Layers with the mistakes that the example reports show, as somebody may write them who derives a backward pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from manual_bp import nn
from manual_bp.nn import Array, Cache, Gradients, Params


@dataclass(frozen=True)
class UnrotatedConv2d(nn.Conv2d):
    """∂L/∂x is the full convolution with the kernel rotated by 180°; here it is not rotated."""

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        y, _ = super().forward(params, *inputs)
        return y, (inputs[0], params["weight"])

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x, w = cache
        border = w.shape[-1] - 1
        padded = np.pad(upstream, ((0, 0), (0, 0), (border, border), (border, border)))
        dx = np.einsum("nohwpr,ocpr->nchw", sliding_window_view(padded, w.shape[2:], axis=(2, 3)), w)
        dw = np.einsum("ncprhw,nohw->ocpr", sliding_window_view(x, upstream.shape[2:], axis=(2, 3)), upstream)
        return Gradients((dx,), {"weight": dw, "bias": upstream.sum(axis=(0, 2, 3))})


@dataclass(frozen=True)
class UnmaskedReLU(nn.ReLU):
    """The gradient passes where z > 0; here it passes everywhere."""

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        return Gradients((upstream.copy(),))


@dataclass(frozen=True)
class LastMaxPool2d(nn.MaxPool2d):
    """Of equal maxima in a 2x2 window torch takes the first, this one the last: no mistake, another choice."""

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        y, _ = super().forward(params, *inputs)
        return y, inputs[0]

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        n, c, h, w = cache.shape
        windows = cache.reshape(n, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(n, c, h // 2, w // 2, 4)
        last = 3 - windows[..., ::-1].argmax(axis=-1)  # (N, C, H/2, W/2)
        routed = np.where(np.arange(4) == last[..., None], upstream[..., None], 0.0)  # (N, C, H/2, W/2, 4)
        back = routed.reshape(n, c, h // 2, w // 2, 2, 2).swapaxes(3, 4).reshape(cache.shape)
        return Gradients((back.astype(upstream.dtype),))


@dataclass(frozen=True)
class DividingReLU(nn.ReLU):
    """With ReLU as (z + |z|) / 2 the slope is (1 + z/|z|) / 2, which is 0/0 where z is 0."""

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        y, _ = super().forward(params, *inputs)
        return y, inputs[0]

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        with np.errstate(invalid="ignore"):
            slope = (1 + cache / np.abs(cache)) / 2
        return Gradients((upstream * slope,))
