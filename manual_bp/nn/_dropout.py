"""Dropout with a given mask, so that both sides of a comparison drop the same elements."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ._check import check_match, check_numbers, checked, ieee, name_of, parameter
from ._layer import Array, Cache, Gradients, Layer, NNError, Params


@dataclass(frozen=True)
class Dropout(Layer):
    """y = x · m / (1 - p) with a mask m of zeros and ones.

    Parameters
    ----------
    p
        The probability of a zero in the mask. For p = 1 all is dropped and y = 0 · x.
    training
        In evaluation (False) y = x, returned as it is, not copied, and no mask is needed.

    Shapes: x, m and y alike; m is the buffer ``mask`` among the parameters, of x's dtype. Its shape is the input's,
    which the layer does not know beforehand: `draw` makes one.

    y is linear in x: ∂L/∂x = δ · m / (1 - p).

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014).
    """

    p: float = 0.5
    training: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_numbers(self, p=self.p)
        if not 0 <= self.p <= 1:
            raise NNError(f"{name_of(self)}: p={self.p}; a probability lies in [0, 1]")

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64
    ) -> dict[str, Array]:
        """The buffer ``mask`` for an input of this shape: 1 with probability 1 - p, else 0."""
        return {"mask": np.asarray(rng.random(shape) >= self.p, dtype)}

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        if not self.training:
            return x, (None, x.shape, x.dtype)
        mask = parameter(self, params, "mask", x.shape, x.dtype)
        if not np.all((mask == 0) | (mask == 1)):
            raise NNError("Dropout: mask holds something else than 0 and 1; the factor 1 / (1 - p) is the layer's own")
        scale = mask / (1 - self.p) if self.p < 1 else np.zeros_like(mask)
        return np.asarray(x * scale), (scale, x.shape, x.dtype)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        scale, shape, dtype = cache
        delta = check_match(self, "upstream", upstream, shape, dtype)
        return Gradients((delta if scale is None else np.asarray(delta * scale),))
