"""The vector-Jacobian product, torch's backward pass from a given upstream gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Upstream(torch.autograd.Function):
    """A scalar on top of ``y`` whose backward pass hands what lies in ``box`` by then to ``y``."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, box: list[Tensor]) -> Tensor:
        ctx.box = box
        return y.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.box.pop(), None


class Tip:
    """The end of a graph: it can be walked back from there, also when ``y`` itself is let go of."""

    def __init__(self, y: Tensor) -> None:
        self.shape, self._box = y.shape, list[Tensor]()
        with torch.enable_grad():
            self._top: Tensor = _Upstream.apply(y, self._box)  # type: ignore[no-untyped-call]  # torch does not annotate it

    def vjp(self, inputs: Sequence[Tensor], g: Tensor, *, allow_unused: bool = False) -> tuple[Tensor, ...]:
        """``gᵀ ∂y/∂input`` for every input, once; see `vjp`."""
        assert g.shape == self.shape, (
            f"the upstream gradient has shape {tuple(g.shape)}, the output {tuple(self.shape)}"
        )
        self._box.append(g)
        return torch.autograd.grad(self._top, inputs, allow_unused=allow_unused)


def vjp(y: Tensor, inputs: Sequence[Tensor], g: Tensor, *, allow_unused: bool = False) -> tuple[Tensor, ...]:
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
    return Tip(y).vjp(inputs, g, allow_unused=allow_unused)
