"""The fully connected (dense) layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._check import check_match, checked, ieee, parameter
from ._layer import Array, Cache, Gradients, Layer, NNError, Params


@dataclass(frozen=True)
class Linear(Layer):
    """y = x Wᵀ + b, one output per row of W.

    Parameters
    ----------
    in_features, out_features
        Length of the last axis of the input and of the output.
    bias
        Whether b is added.

    Shapes: x (*, in_features) with any number of leading axes, none included; weight (out_features, in_features);
    bias (out_features,); y (*, out_features). All of one dtype.

    Derivation, with upstream gradient δ = ∂L/∂y and n running over all leading axes. From
    y[n,o] = Σ_i x[n,i] W[o,i] + b[o] follow ∂y[n,o]/∂x[n,i] = W[o,i], ∂y[n,o]/∂W[o,i] = x[n,i], ∂y[n,o]/∂b[o] = 1,
    hence

    - ∂L/∂x[n,i] = Σ_o δ[n,o] W[o,i], that is δ W
    - ∂L/∂W[o,i] = Σ_n δ[n,o] x[n,i], that is δᵀ x
    - ∂L/∂b[o]   = Σ_n δ[n,o]

    Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 323 (1986).
    """

    in_features: int
    out_features: int
    bias: bool = True

    def __post_init__(self) -> None:
        if self.in_features < 0 or self.out_features < 0:
            raise NNError(f"Linear: {self.in_features} -> {self.out_features} features; neither number may be negative")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        return shapes | ({"bias": (self.out_features,)} if self.bias else {})

    def initial(self, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
        """Uniform on ±1/√in_features, weight and bias alike (torch's kaiming_uniform_ with a = √5)."""
        bound = 1.0 / math.sqrt(self.in_features) if self.in_features else 0.0
        return {
            name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in self.parameter_shapes().items()
        }

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)  # (*, in)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise NNError(f"Linear: input has shape {x.shape}; its last axis must be in_features = {self.in_features}")
        weight = parameter(self, params, "weight", (self.out_features, self.in_features), x.dtype)

        y = x.dot(weight.T) if x.ndim == 2 else x @ weight.T  # (*, out); on little arrays dot takes half of @'s time
        if self.bias:
            y = y + parameter(self, params, "bias", (self.out_features,), x.dtype)
        return y, (x, weight)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x, weight = cache
        check_match(self, "upstream", upstream, (*x.shape[:-1], self.out_features), x.dtype)
        delta = upstream.reshape(math.prod(x.shape[:-1]), self.out_features)  # (n, out)
        rows = x.reshape(len(delta), self.in_features)  # (n, in)

        grads = {"weight": delta.T.dot(rows)}  # (out, in)
        if self.bias:
            grads["bias"] = np.add.reduce(delta, axis=0)  # (out,)
        return Gradients((delta.dot(weight).reshape(x.shape),), grads)
