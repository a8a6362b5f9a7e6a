"""Softmax and LogSoftmax: normalised exponentials along one axis.

Shapes: x and y alike, any shape; sums run along the axis ``dim``. Shifting x along it by its maximum changes
nothing in y and keeps every exponential at or below 1. A row of -inf alone gives NaN, as in torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._check import axis_of, check_match, checked, ieee, name_of
from ._layer import Array, Cache, Gradients, Layer, NNError, Params
from ._special import log_softmax, softmax


@dataclass(frozen=True)
class _AlongDim(Layer):
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.dim is None:  # torch guesses one from the number of axes, and warns
            raise NNError(f"{name_of(self)}: dim is missing; give the axis to normalise along, dim=-1 for the last")

    def _axis(self, x: Array) -> int:
        assert self.dim is not None  # refused by __post_init__
        return axis_of(self, self.dim, x)


class Softmax(_AlongDim):
    """y[i] = e^x[i] / Σ_k e^x[k].

    ∂y[i]/∂x[k] = y[i] ([i = k] - y[k]), hence ∂L/∂x[k] = Σ_i δ[i] ∂y[i]/∂x[k] = y[k] (δ[k] - Σ_i δ[i] y[i]).

    Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990.
    """

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        y = softmax(x, self._axis(x))
        return y, y

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        inner = (upstream * y).sum(axis=self._axis(y), keepdims=True)
        return Gradients((np.asarray(y * (upstream - inner)),))


class LogSoftmax(_AlongDim):
    """y[i] = x[i] - log Σ_k e^x[k], the logarithm of Softmax without its underflow.

    ∂y[i]/∂x[k] = [i = k] - e^y[k], hence ∂L/∂x[k] = δ[k] - e^y[k] Σ_i δ[i].
    """

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        y = log_softmax(x, self._axis(x))
        return y, y

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        total = upstream.sum(axis=self._axis(y), keepdims=True)
        return Gradients((np.asarray(upstream - np.exp(y) * total),))
