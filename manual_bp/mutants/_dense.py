"""Mistakes in dense layers, in reshaping, and where branches meet."""

from __future__ import annotations

from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._mutant import StepMutant, mistake


def _square(layer: Any) -> bool:
    return bool(layer.in_features == layer.out_features)


def _biased(layer: Any) -> bool:
    return bool(layer.bias)


def _to_last(x: Array) -> Array:
    """(N, C, *L) -> (N, *L, C)."""
    return np.moveaxis(x, 1, -1)


def _from_last(g: Array, shape: tuple[int, ...]) -> Array:
    """(N, ...) read as (N, *L, C), given back as (N, C, *L)."""
    return np.moveaxis(g.reshape(shape[0], *shape[2:], shape[1]), -1, 1).copy()


def _merged(layer: Any) -> bool:
    return bool(layer.start_dim == 1 and layer.end_dim == -1)


def _planes_transposed(x: Array) -> Array:
    """Rows and columns of the last two axes exchanged."""
    return x.swapaxes(-1, -2) if x.ndim > 3 else x


MISTAKES: tuple[StepMutant, ...] = (
    # ---------------------------------------------------------------- y = x Wᵀ + b
    mistake(nn.Linear, "y", "linear-y-transposed", "weight-transposed", "x W in place of x Wᵀ",
            lambda s: s.forward(weight=s.w.T.copy()), when=_square),
    mistake(nn.Linear, "y", "linear-y-bias-forgotten", "bias-missing", "the bias is never added",
            lambda s: s.forward(bias=0 * s.b), when=_biased),
    mistake(nn.Linear, "y", "linear-y-bias-twice", "term-doubled", "the bias is added twice", lambda s: s.y + s.b,
            when=_biased),
    mistake(nn.Linear, "y", "linear-y-bias-subtracted", "sign-inside", "the bias is subtracted",
            lambda s: s.forward(bias=-s.b), when=_biased),
    mistake(nn.Linear, "y", "linear-y-last-input-forgotten", "sum-incomplete", "the sum over the inputs ends one early",
            lambda s: s.forward(x=np.concatenate([s.x[..., :-1], 0 * s.x[..., -1:]], axis=-1))),
    mistake(nn.Linear, "y", "linear-y-inputs-reversed", "order-wrong", "the inputs counted from the other end",
            lambda s: s.forward(x=s.x[..., ::-1].copy())),
    # ---------------------------------------------------------------- ∂L/∂x = δ W
    mistake(nn.Linear, "dx", "linear-dx-transposed", "weight-transposed", "δ Wᵀ in place of δ W",
            lambda s: s.backward(weight=s.w.T.copy()).dx, when=_square),
    mistake(nn.Linear, "dx", "linear-dx-last-output-forgotten", "sum-incomplete",
            "the sum over the outputs ends one early",
            lambda s: s.backward(g=np.concatenate([s.g[..., :-1], 0 * s.g[..., -1:]], axis=-1)).dx),
    mistake(nn.Linear, "dx", "linear-dx-absolute-weights", "absolute-value", "the weights' absolute values",
            lambda s: s.backward(weight=np.abs(s.w)).dx),
    mistake(nn.Linear, "dx", "linear-dx-updated-weights", "operand-updated-early",
            "∂L/∂x computed with the weights after the update", lambda s: s.backward(weight=s.w - s.dw / 10).dx),
    # ---------------------------------------------------------------- ∂L/∂W = δᵀ x, ∂L/∂b = Σ δ
    mistake(nn.Linear, "dw", "linear-dw-transposed", "gradient-transposed", "xᵀ δ in place of δᵀ x",
            lambda s: s.dw.T.copy(), when=_square),
    mistake(nn.Linear, "dw", "linear-dw-sums-multiplied", "sum-of-products",
            "(Σ δ)ᵀ (Σ x): the sum over the batch too early",
            lambda s: np.outer(s.g.sum(axis=0), s.x.sum(axis=0)).astype(s.w.dtype)),
    mistake(nn.Linear, "dw", "linear-dw-with-penalty", "term-extra", "a weight decay that nobody asked for",
            lambda s: s.dw + s.w / 100),
    mistake(nn.Linear, "dw", "linear-dw-inputs-reversed", "order-wrong", "the inputs counted from the other end",
            lambda s: s.dw[:, ::-1].copy()),
    mistake(nn.Linear, "dw", "linear-dw-outputs-summed", "channels-summed",
            "every output gets the sum over all outputs",
            lambda s: np.broadcast_to(s.dw.sum(axis=0), s.dw.shape).copy()),
    mistake(nn.Linear, "db", "linear-db-outputs-summed", "channels-summed", "one sum over everything for every bias",
            lambda s: np.full_like(s.db, s.db.sum()), when=_biased),
    mistake(nn.Linear, "db", "linear-db-bias-squared", "operand-extra", "∂L/∂b multiplied with the bias",
            lambda s: s.db * s.b, when=_biased),
    # ---------------------------------------------------------------- flatten
    mistake(nn.Flatten, "y", "flatten-y-channels-last", "order-wrong", "flattened with the channels last",
            lambda s: _to_last(s.x).reshape(s.y.shape), when=_merged),
    mistake(nn.Flatten, "y", "flatten-y-by-columns", "order-wrong", "flattened column by column",
            lambda s: _planes_transposed(s.x).reshape(s.y.shape)),
    mistake(nn.Flatten, "dx", "flatten-dx-channels-last", "order-wrong", "put back as if the channels had been last",
            lambda s: _from_last(s.g, s.x.shape), when=_merged),
    mistake(nn.Flatten, "dx", "flatten-dx-by-columns", "order-wrong", "put back column by column",
            lambda s: _planes_transposed(s.g.reshape(_planes_transposed(s.x).shape)).copy()),
    mistake(nn.Flatten, "dx", "flatten-dx-fortran", "order-wrong", "put back in Fortran's order",
            lambda s: np.stack([row.reshape(s.x.shape[1:], order="F") for row in s.g]), when=_merged),
    # ---------------------------------------------------------------- y = a + b
    mistake(nn.Add, "dx1", "add-skip-forgotten", "branch-missing", "the second branch gets no gradient",
            lambda s: np.zeros_like(s.right.inputs[1])),
    mistake(nn.Add, "dx", "add-first-forgotten", "branch-missing", "the first branch gets no gradient",
            lambda s: np.zeros_like(s.dx)),
    mistake(nn.Add, ("dx", "dx1"), "add-shared-evenly", "constant-factor", "each branch gets half of the gradient",
            lambda s: (s.g / 2, s.g / 2)),
    mistake(nn.Add, "dx", "add-times-other", "derivative-of-other-function", "the derivative of a product",
            lambda s: s.g * s.inputs[1]),
    mistake(nn.Add, "y", "add-y-subtracted", "sign-inside", "the second branch is subtracted",
            lambda s: s.inputs[0] - s.inputs[1]),
    mistake(nn.Add, "y", "add-y-averaged", "mean-for-sum", "the mean of the branches", lambda s: s.y / 2),
    mistake(nn.Add, "y", "add-y-first-only", "branch-missing", "the second branch is not added",
            lambda s: s.inputs[0].copy()),
)  # fmt: skip
