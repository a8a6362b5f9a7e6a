"""Operations that only rearrange or join arrays: Flatten, Identity, Add.

Flatten and Identity return views of what they were given wherever NumPy can make one, and Add hands its
upstream gradient on as both gradients, not as copies: whoever writes into an array in place must copy it first.
Nothing in this engine writes into an array it was given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._check import axis_of, check_match, checked, ieee
from ._layer import Array, Cache, Gradients, Layer, NNError, Params


class Identity(Layer):
    """y = x, so ∂L/∂x = ∂L/∂y."""

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        return x, (x.shape, x.dtype)

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        shape, dtype = cache
        return Gradients((check_match(self, "upstream", upstream, shape, dtype),))


@dataclass(frozen=True)
class Flatten(Layer):
    """Merge the axes from ``start_dim`` to ``end_dim`` into one, in C order.

    Shapes: x (*, d_start, ..., d_end, *); y (*, d_start · ... · d_end, *). A 0-d x becomes (1,), as in torch.

    Every element only moves, so ∂L/∂x is the upstream gradient with each element moved back.
    """

    start_dim: int = 1
    end_dim: int = -1

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        first, last = axis_of(self, self.start_dim, x), axis_of(self, self.end_dim, x)
        if first > last:
            raise NNError(f"Flatten: start_dim={self.start_dim} lies behind end_dim={self.end_dim} in shape {x.shape}")
        merged = (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
        return x.reshape(merged), (x.shape, merged, x.dtype)

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        shape, merged, dtype = cache
        return Gradients((check_match(self, "upstream", upstream, merged, dtype).reshape(shape),))


class Add(Layer):
    """y = a + b, the meeting point of a residual branch.

    Shapes: a, b and y alike. Nothing is broadcast: a skip branch of another shape needs its own layer to adapt it.

    ∂y/∂a = ∂y/∂b = 1, so each branch receives the whole upstream gradient.
    """

    n_inputs: ClassVar[int] = 2

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        a, b = checked(self, inputs)
        check_match(self, "second input", b, a.shape, a.dtype)
        return np.asarray(a + b), (a.shape, a.dtype)

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        shape, dtype = cache
        delta = check_match(self, "upstream", upstream, shape, dtype)
        return Gradients((delta, delta))
