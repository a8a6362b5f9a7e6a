"""What a mistake is made of: the operands of one step, its right results, and the right formulas to be misused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from manual_bp.nn import Array, Gradients, Layer, Loss, Optimizer


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One step of a layer: x, w, b, the output y, the upstream gradient g = ∂L/∂y, and the right gradients.

    In the forward pass there is no g yet; a mistake in y must not ask for it.
    """

    layer: Any  # a Layer; mistakes read the fields of its own class
    params: Mapping[str, Array]
    inputs: tuple[Array, ...]
    y: Array
    upstream: Array | None = None
    right: Gradients = field(default_factory=lambda: Gradients(()))

    @classmethod
    def of(cls, layer: Layer, params: Mapping[str, Array], inputs: tuple[Array, ...], upstream: Array) -> Seen:
        """Run the right layer, forward and backward."""
        y, cache = layer.forward(params, *inputs)
        right = layer.backward(cache, upstream)
        return cls(layer=layer, params=params, inputs=inputs, y=y, upstream=upstream, right=right)

    def result(self, role: str) -> Array:
        """The right result of a role."""
        if role == "dx1":
            return self.right.inputs[1]
        result: Array = getattr(self, role)
        return result

    @property
    def x(self) -> Array:
        """The (first) input."""
        return self.inputs[0]

    @property
    def w(self) -> Array:
        """The weight."""
        return self.params["weight"]

    @property
    def b(self) -> Array:
        """The bias."""
        return self.params["bias"]

    @property
    def g(self) -> Array:
        """The upstream gradient, ∂L/∂y."""
        assert self.upstream is not None, "there is no upstream gradient in the forward pass"
        return self.upstream

    @property
    def dx(self) -> Array:
        """The right ∂L/∂x."""
        return self.right.inputs[0]

    @property
    def dw(self) -> Array:
        """The right ∂L/∂w."""
        return self.right.params["weight"]

    @property
    def db(self) -> Array:
        """The right ∂L/∂b."""
        return self.right.params["bias"]

    def forward(self, *, layer: Layer | None = None, x: Array | None = None, **params: Array) -> Array:
        """The right forward pass of edited operands: ``x=``, ``weight=``, ``bias=``, or another ``layer``."""
        inputs = self.inputs if x is None else (x, *self.inputs[1:])
        y, _ = (layer or self.layer).forward({**self.params, **params}, *inputs)
        return y

    def backward(
        self, *, layer: Layer | None = None, x: Array | None = None, g: Array | None = None, **params: Array
    ) -> Seen:
        """The right backward pass of edited operands; its ``dx``, ``dw`` and ``db`` are what the edit makes of them."""
        inputs = self.inputs if x is None else (x, *self.inputs[1:])
        return Seen.of(layer or self.layer, {**self.params, **params}, inputs, self.g if g is None else g)


@dataclass(frozen=True, kw_only=True)
class SeenLoss:
    """One evaluation of a loss: prediction p, target t, the value, and with it the right gradient ∂L/∂p."""

    loss: Any  # a Loss; mistakes read the fields of its own class
    p: Array
    t: Array
    y: Array
    dp: Array

    @classmethod
    def of(cls, loss: Loss, p: Array, t: Array) -> SeenLoss:
        """Run the right loss."""
        y, cache = loss.forward(p, t)
        return cls(loss=loss, p=p, t=t, y=y, dp=loss.backward(cache))

    def of_other(self, loss: Loss, *, p: Array | None = None, t: Array | None = None) -> SeenLoss:
        """The same with another loss, or another prediction or target."""
        return SeenLoss.of(loss, self.p if p is None else p, self.t if t is None else t)

    def result(self, role: str) -> Array:
        """The right result of a role."""
        return self.y if role == "y" else self.dp

    @property
    def d(self) -> Array:
        """p - t, of a loss of real numbers."""
        return self.p - self.t

    @property
    def n(self) -> int:
        """The number N of examples."""
        return len(self.p)

    @property
    def share(self) -> float:
        """What every element's loss is multiplied with: 1 / their number for a mean, 1 for a sum."""
        return 1 / self.p.size if self.loss.reduction == "mean" else 1.0


@dataclass(frozen=True, kw_only=True)
class SeenUpdate:
    """The first step of an optimiser on one parameter θ with gradient g, and the right new value."""

    optimizer: Any  # an Optimizer; mistakes read the fields of its own class
    theta: Array
    g: Array
    new: Array

    @classmethod
    def of(cls, optimizer: Optimizer, theta: Array, g: Array) -> SeenUpdate:
        """Run the right step."""
        new, _ = optimizer.step({"theta": theta}, {"theta": g}, {})
        return cls(optimizer=optimizer, theta=theta, g=g, new=new["theta"])

    def of_other(self, optimizer: Optimizer, *, theta: Array | None = None, g: Array | None = None) -> Array:
        """The new value with another optimiser, parameter or gradient."""
        return SeenUpdate.of(optimizer, self.theta if theta is None else theta, self.g if g is None else g).new
