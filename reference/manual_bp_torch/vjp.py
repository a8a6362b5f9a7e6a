"""The vector-Jacobian product, torch's backward pass from a given upstream gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Upstream(torch.autograd.Function):
    """A scalar on top of ``y`` whose backward pass hands ``g`` to ``y``."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(g)
        return y.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.saved_tensors[0], None


def vjp(
    y: Tensor, inputs: Sequence[Tensor], g: Tensor, *, allow_unused: bool = False, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """``gᵀ ∂y/∂input`` for every input, as ``torch.autograd.grad(y, inputs, g)`` gives it, bit for bit.

    That one compares shapes symbolically when it is given ``g``, and for it imports SymPy, which takes half as long as
    importing torch. Here the end of the graph is a scalar, and nothing has to be given.

    Parameters
    ----------
    g
        Of the shape and dtype of ``y``.
    allow_unused
        None in place of an input that ``y`` does not depend on, instead of an error.
    """
    assert g.shape == y.shape, f"the upstream gradient has shape {tuple(g.shape)}, the output {tuple(y.shape)}"
    top: Tensor = _Upstream.apply(y, g)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return torch.autograd.grad(top, inputs, allow_unused=allow_unused, retain_graph=retain_graph)
