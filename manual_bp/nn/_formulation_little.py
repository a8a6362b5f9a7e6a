"""Convolution of one small image: the positions of all taps of all windows are looked up at once.

Where an image has few elements, each call of NumPy costs more than what it does. So the positions are
computed once for all inputs of a shape, and a pass is a handful of calls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from ._formulation_columns import Columns
from ._layer import Array


@dataclass(frozen=True)
class Little:
    """The formulation for an input (1, C, *L) of one shape, without groups."""

    columns: Columns
    out_channels: int

    @cached_property
    def positions(self) -> npt.NDArray[np.intp]:
        """Where among the elements of the padded image the windows' taps lie, (C K, P)."""
        elements = np.arange(prod(self.columns.padded_shape), dtype=np.intp).reshape(self.columns.padded_shape)
        return replace(self.columns, itemsize=elements.itemsize).windows(elements).reshape(self.columns.height, -1)

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        return (1, self.out_channels, *self.columns.outputs)

    def look_up(self, x: Array) -> Array:
        """The columns X of x (1, C, *L)."""
        columns: Array = self.columns.pad(x[0, ..., None], None).take(self.positions)
        return columns

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """Y = W X + b with the kernels as rows of W (O, C K) and the windows as columns of X (C K, P)."""
        y: Array = weight.reshape(self.out_channels, -1).dot(self.look_up(x))  # (O, P)
        if bias is not None:
            y += bias[:, None]
        return y.reshape(self.output_shape)

    def backward(self, x: Array, weight: Array, upstream: Array) -> tuple[Array, Array, Array]:
        """∂L/∂W = δ Xᵀ; ∂L/∂X = Wᵀ δ, each element of which is added to where it was taken from."""
        delta = upstream.reshape(self.out_channels, -1)  # (O, P)
        dw = delta.dot(self.look_up(x).T).reshape(weight.shape)
        dx, shares = self.columns.zeros(x.dtype), weight.reshape(self.out_channels, -1).T.dot(delta)  # (C K, P)
        np.add.at(dx.reshape(-1), self.positions.reshape(-1), shares.reshape(-1))
        return self.columns.unpad(dx).reshape(x.shape), dw, np.add.reduce(delta, axis=1)
