"""Activations that act on each element alone: y[i] = f(x[i]), ∂L/∂x[i] = ∂L/∂y[i] · f'(x[i]).

Shapes: x and y alike, any shape, 0-d and empty included. The output has the input's dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._check import check_input, check_match, ieee
from ._layer import Array, Cache, Gradients, Layer, Params
from ._special import keep_where, sigmoid


@dataclass(frozen=True)
class ReLU(Layer):
    """y = max(x, 0).

    f'(x) = 1 for x > 0 and 0 for x < 0. At 0 there is no derivative; torch takes 0 of the subgradients [0, 1].
    At NaN torch hands the upstream gradient on, so the backward pass asks "not y <= 0" and not "y > 0".

    Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.
    """

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = inputs
        check_input(self, x)
        y = np.asarray(np.maximum(0, x))
        return y, y

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        return Gradients((keep_where(~(y <= 0), upstream),))


@dataclass(frozen=True)
class Sigmoid(Layer):
    """y = σ(x) = 1 / (1 + e⁻ˣ).

    f'(x) = e⁻ˣ / (1 + e⁻ˣ)² = σ(x) (1 - σ(x)) = y (1 - y).
    """

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = inputs
        check_input(self, x)
        y = sigmoid(x)
        return y, y

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        return Gradients((np.asarray(upstream * (y * (1 - y))),))


@dataclass(frozen=True)
class Tanh(Layer):
    """y = tanh(x).

    f'(x) = 1 / cosh²(x) = 1 - tanh²(x) = 1 - y².
    """

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = inputs
        check_input(self, x)
        y = np.asarray(np.tanh(x))
        return y, y

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        return Gradients((np.asarray(upstream * (1 - y * y)),))
