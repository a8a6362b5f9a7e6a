"""Activations that act on each element alone: y[i] = f(x[i]), ∂L/∂x[i] = ∂L/∂y[i] · f'(x[i]).

Shapes: x and y alike, any shape, 0-d and empty included. The output has the input's dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._check import check_choice, check_match, check_numbers, checked, ieee
from ._layer import Array, Cache, Gradients, Layer, Params
from ._pieces import elementwise
from ._special import erf, keep_where, positive_part, select, sigmoid


class ReLU(Layer):
    """y = max(x, 0).

    f'(x) = 1 for x > 0 and 0 for x < 0. At 0 there is no derivative; torch takes 0 of the subgradients [0, 1].
    At NaN torch hands the upstream gradient on, so the backward pass asks "y is not 0" and not "y > 0".

    Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.
    """

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        y = elementwise(positive_part, x)
        return y, y

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        return Gradients((elementwise(lambda y, upstream: keep_where(y != 0, upstream), y, upstream),))


class Sigmoid(Layer):
    """y = σ(x) = 1 / (1 + e⁻ˣ).

    f'(x) = e⁻ˣ / (1 + e⁻ˣ)² = σ(x) (1 - σ(x)) = y (1 - y).
    """

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        y = sigmoid(x)
        return y, y

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        return Gradients((np.asarray(upstream * (y * (1 - y))),))


class Tanh(Layer):
    """y = tanh(x).

    f'(x) = 1 / cosh²(x) = 1 - tanh²(x) = 1 - y².
    """

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        y = np.asarray(np.tanh(x))
        return y, y

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        y = cache
        check_match(self, "upstream", upstream, y.shape, y.dtype)
        return Gradients((np.asarray(upstream * (1 - y * y)),))


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """y = x for x > 0, else s x, with the slope s = ``negative_slope``.

    f'(x) = 1 for x > 0, else s. At 0 there is no derivative (unless s = 1); torch takes s, and at NaN too.

    Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.
    """

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        check_numbers(self, negative_slope=self.negative_slope)

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        return select(x > 0, x, self.negative_slope * x), x

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x = cache
        check_match(self, "upstream", upstream, x.shape, x.dtype)
        return Gradients((select(x > 0, upstream, self.negative_slope * upstream),))


class SiLU(Layer):
    """y = x σ(x), also called swish.

    f'(x) = σ(x) + x σ(x) (1 - σ(x)) = σ(x) (1 + x (1 - σ(x))). At -inf both are NaN (inf · 0), as in torch.

    Source: Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units", arXiv:1702.03118.
    """

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        s = sigmoid(x)
        return np.asarray(x * s), (x, s)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x, s = cache
        check_match(self, "upstream", upstream, x.shape, x.dtype)
        return Gradients((np.asarray(upstream * (s * (1 + x * (1 - s)))),))


@dataclass(frozen=True)
class Softplus(Layer):
    """y = log(1 + e^(β x)) / β, a smooth ReLU; y = x where β x > ``threshold``, because e^(-β x) is lost there.

    f'(x) = e^(β x) / (1 + e^(β x)) = σ(β x), and 1 where β x > threshold.
    The logarithm is written as max(β x, 0) + log(1 + e^-|β x|), which cannot overflow.

    Source: Dugas et al., "Incorporating second-order functional knowledge for better option pricing", NIPS 2000.
    """

    beta: float = 1.0
    threshold: float = 20.0

    def __post_init__(self) -> None:
        check_numbers(self, beta=self.beta, threshold=self.threshold)

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        z = np.asarray(self.beta * x)
        smooth = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / self.beta
        return select(z > self.threshold, x, smooth), z

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        z = cache
        check_match(self, "upstream", upstream, z.shape, z.dtype)
        return Gradients((select(z > self.threshold, upstream, upstream * sigmoid(z)),))


@dataclass(frozen=True)
class GELU(Layer):
    """y = x Φ(x), with the standard normal distribution function Φ, or an approximation of it by tanh.

    ``approximate='none'``: Φ(x) = ½ (1 + erf(x/√2)) and f'(x) = Φ(x) + x φ(x), where φ(x) = Φ'(x) = e^(-x²/2) / √(2π).

    ``approximate='tanh'``: Φ(x) ≈ ½ (1 + t) with t = tanh(u), u = k (x + a x³), k = √(2/π), a = 0.044715, and
    f'(x) = ½ (1 + t) + ½ x (1 - t²) u', where u' = k (1 + 3 a x²).

    At -inf both are NaN (inf · 0), as in torch.

    Source: Hendrycks and Gimpel, "Gaussian error linear units", arXiv:1606.08415.
    """

    approximate: str = "none"

    def __post_init__(self) -> None:
        check_choice(self, "approximate", self.approximate, ("none", "tanh"))

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        if self.approximate == "tanh":
            t = np.tanh(_K * (x + _A * x * x * x))
            return np.asarray(x * (0.5 * (1 + t))), (x, t)
        cdf = 0.5 * (1 + erf(x * math.sqrt(0.5)))  # Φ(x)
        return np.asarray(x * cdf), (x, cdf)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        if self.approximate == "tanh":
            x, t = cache
            slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (_K * (1 + 3 * _A * x * x))
        else:
            x, cdf = cache
            slope = cdf + x * (np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))
        check_match(self, "upstream", upstream, x.shape, x.dtype)
        return Gradients((np.asarray(upstream * slope),))


_K, _A = math.sqrt(2 / math.pi), 0.044715  # of GELU's approximation by tanh
