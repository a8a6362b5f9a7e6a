"""Bounds of the losses: the value, and the gradient with respect to the prediction.

Most losses are a mean or a sum over elements: the elements' errors add up, and so does the rounding of the sum,
gamma_{N+2} times the sum of the elements' sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from manual_bp_torch.bounds._model import PIECE, Alternative, Bound, Kinks, Precision, carries


@dataclass(frozen=True)
class LossOperands:
    """A loss at work: module, prediction and its error, target, dLoss upstream (1 for a scalar loss); in float64."""

    module: nn.Module
    prediction: Tensor
    error: Tensor
    target: Tensor
    precision: Precision
    upstream: Tensor
    e_upstream: Tensor


class LossRule:
    """A certified bound of one loss."""

    name = "loss"

    def by_pieces(self, module: nn.Module, prediction: Tensor, target: Tensor) -> bool:
        """Whether the operands may be as they are under judgement: the rule makes little pieces of them float64."""
        return False

    def forward(self, s: LossOperands) -> Bound:
        """Bound of the loss."""
        raise NotImplementedError

    def backward(self, s: LossOperands) -> Bound:
        """Bound of dL/d(prediction)."""
        raise NotImplementedError


class PerElement(LossRule):
    """A loss that is a sum or mean of a function of (prediction, target) element by element."""

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        """Error and size of every element's loss."""
        raise NotImplementedError

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        """Error and size of every element's derivative."""
        raise NotImplementedError

    def sums(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        """`element`, added up."""
        e, size = self.element(s)
        return e.sum(), size.sum()

    def slope_bound(self, s: LossOperands, of_error: Tensor, of_size: Tensor) -> Tensor:
        """What `slope` amounts to: its error times the one number, and its size times the other."""
        e, size = self.slope(s)
        return of_error * e + of_size * size

    def kinks(self, s: LossOperands, scale: Tensor) -> Kinks | None:
        """Where the loss has no derivative; most have one everywhere."""
        return None

    def alternatives(self, s: LossOperands, scale: Tensor) -> Sequence[Alternative]:
        """Other right gradients."""
        return ()

    def value_alternatives(self, s: LossOperands) -> tuple[Alternative, ...]:
        """Other right values."""
        return ()

    def forward(self, s: LossOperands) -> Bound:
        n, p = s.prediction.numel(), s.precision
        reduction = s.module.reduction
        if reduction == "none":
            e, size = self.element(s)
            return Bound(e + p.eta, f"certified: {self.name}", size)
        if self.by_pieces(s.module, s.prediction, s.target):
            sums = [torch.stack(self.sums(piece)) for piece in _pieces(s)]
            e, size = torch.stack(sums).sum(0)
        else:
            e, size = (a.sum() for a in self.element(s))
        e = e + p.gamma(n + 2) * size
        share = 1.0 / max(1, n) if reduction == "mean" else 1.0
        bound = Bound(e * share + n * p.eta, f"certified: {self.name}, n = {n}", size * share)
        return Bound(bound.e, bound.rule, bound.magnitude, alternatives=self.value_alternatives(s))

    def backward(self, s: LossOperands) -> Bound:
        n, p = s.prediction.numel(), s.precision
        scale = s.upstream * (1.0 / max(1, n) if s.module.reduction == "mean" else 1.0)
        top = scale.abs() + 2 * s.e_upstream
        of_size = 3 * p.u * top + s.e_upstream
        if self.by_pieces(s.module, s.prediction, s.target):
            parts = [_up(self.slope_bound(part, top, of_size) + p.eta, s.prediction.dtype) for part in _pieces(s)]
            return Bound(torch.cat(parts).reshape(s.prediction.shape), f"certified: {self.name} dx")
        e, size = self.slope(s)
        return Bound(
            top * e + of_size * size + p.eta,
            f"certified: {self.name} dx",
            top * size,
            self.kinks(s, scale),
            self.alternatives(s, scale),
        )


def _pieces(s: LossOperands) -> Iterator[LossOperands]:
    """The same of some elements at a time, in float64."""
    operands = (a.reshape(-1).split(PIECE) for a in (s.prediction, s.error, s.target))
    for prediction, error, target in zip(*operands, strict=True):
        yield replace(s, prediction=prediction.double(), error=error.double(), target=target.double())


def _up(e: Tensor, dtype: torch.dtype) -> Tensor:
    """A bound in the working precision, rounded up."""
    return e if e.dtype == dtype else (e * (1 + torch.finfo(dtype).eps)).clamp(min=torch.finfo(dtype).tiny).to(dtype)


def _distance(s: LossOperands) -> Tensor:
    """|a - y| + 2 e, in memory of its own."""
    return (s.prediction - s.target).abs_().add_(s.error, alpha=2)


class Squared(PerElement):
    """(a - y)^2, mean or sum; and half of it, summed."""

    def __init__(self, factor: float = 1.0) -> None:
        self.name = "mse" if factor == 1.0 else "half squared error"
        self.factor = factor

    def by_pieces(self, module: nn.Module, prediction: Tensor, target: Tensor) -> bool:
        """Where it is worth it."""
        alone = module.reduction != "none" and target.shape == prediction.shape
        return alone and prediction.numel() > 2 * PIECE

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        d = _distance(s)
        return self.factor * (2 * d * s.error + s.error**2 + 4 * s.precision.u * d * d), self.factor * d * d

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        d = _distance(s)
        return 2 * self.factor * (s.error + 4 * s.precision.u * d), 2 * self.factor * d

    def sums(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        """The same in inner products, without arrays in between."""
        d, e = _distance(s), s.error
        squares = self.factor * d.dot(d)
        if not carries(e):
            return 4 * s.precision.u * squares, squares
        return self.factor * (2 * d.dot(e) + e.dot(e)) + 4 * s.precision.u * squares, squares

    def slope_bound(self, s: LossOperands, of_error: Tensor, of_size: Tensor) -> Tensor:
        """The same with one number for d, and one for e."""
        d, f = _distance(s), 2 * self.factor
        d *= f * (4 * s.precision.u * of_error + of_size)
        return d.add_(s.error, alpha=float(f * of_error))


class Absolute(PerElement):
    """|a - y|; no derivative at a = y."""

    name = "l1"

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        d = _distance(s)
        return s.error + 2 * s.precision.u * d, d

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        unsure = (s.error > 0) & ((s.prediction - s.target).abs() <= 2 * s.error)
        return torch.where(unsure, 2.0, 0.0).to(s.prediction.dtype), torch.ones_like(s.prediction)

    def kinks(self, s: LossOperands, scale: Tensor) -> Kinks | None:
        mask = s.prediction == s.target
        if not bool(mask.any()):
            return None
        size = scale.abs().expand_as(s.prediction)
        return Kinks(mask, -size, size, "torch's derivative of |a - y| at a = y is 0")


class HuberRule(PerElement):
    """Quadratic within delta, linear outside; once differentiable everywhere. SmoothL1 is the same over beta.

    Outside, delta (|d| - delta / 2) cancels: the size of its two terms counts. Inside there is nothing to cancel.
    """

    name = "huber"

    def _shape(self, s: LossOperands) -> tuple[float, float]:
        """Where it turns linear, and the factor in front."""
        if isinstance(s.module, nn.SmoothL1Loss):
            beta = float(s.module.beta)
            return beta, 1 / beta if beta else float("inf")
        return float(s.module.delta), 1.0  # type: ignore[arg-type]  # a float

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        d, (turn, factor) = _distance(s), self._shape(s)
        if math.isinf(factor):
            return s.error + 2 * s.precision.u * d, d
        slope = torch.clamp(d, max=turn)
        size = factor * slope * torch.where(d < turn * (1 - 1e-6), d, d + turn)
        return factor * slope * s.error + 6 * s.precision.u * size, size

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        d, (turn, factor) = _distance(s), self._shape(s)
        if math.isinf(factor):
            return Absolute().slope(s)
        size = factor * torch.clamp(d, max=turn)
        return factor * torch.clamp(s.error, max=2 * turn) + 4 * s.precision.u * size, size

    def kinks(self, s: LossOperands, scale: Tensor) -> Kinks | None:
        return Absolute().kinks(s, scale) if math.isinf(self._shape(s)[1]) else None
