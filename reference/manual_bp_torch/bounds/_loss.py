"""Bounds of the losses: the value, and the gradient with respect to the prediction.

Most losses are a mean or a sum over elements: the elements' errors add up, and so does the rounding of the sum,
gamma_{N+2} times the sum of the elements' sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from manual_bp_torch.bounds._activation import SoftmaxRule
from manual_bp_torch.bounds._curves import LIBRARY, sigmoid_error
from manual_bp_torch.bounds._model import PIECE, Alternative, Bound, Kinks, Operands, Precision


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

    def kinks(self, s: LossOperands, scale: Tensor) -> Kinks | None:
        """Where the loss has no derivative; most have one everywhere."""
        return None

    def alternatives(self, s: LossOperands, scale: Tensor) -> tuple[Alternative, ...]:
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
            sums = [torch.stack([a.sum() for a in self.element(piece)]) for piece in _pieces(s)]
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

        def bound(e: Tensor, size: Tensor) -> Tensor:
            return top * (e + 3 * p.u * size) + s.e_upstream * size + p.eta

        if self.by_pieces(s.module, s.prediction, s.target):
            parts = [_up(bound(*self.slope(piece)), s.prediction.dtype) for piece in _pieces(s)]
            return Bound(torch.cat(parts).reshape(s.prediction.shape), f"certified: {self.name} dx")
        e, size = self.slope(s)
        return Bound(
            bound(e, size),
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
    return (s.prediction - s.target).abs() + 2 * s.error


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


class CrossEntropyOfProbability(PerElement):
    """BCELoss: -(y log a + (1 - y) log(1 - a)), log clamped at -100 and a (1 - a) at 1e-12 as torch does.

    The clamp's constant stands in no documentation (torch's kernel has the float32 next to 1e-12, 4e-9 beside it, in
    float64 too), so where it acts the gradient need only be right to 1e-8.
    """

    name = "bce"

    def _weight(self, s: LossOperands) -> Tensor:
        weight = getattr(s.module, "weight", None)
        return torch.ones_like(s.prediction) if weight is None else weight.abs().expand_as(s.prediction)

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        a, y, e, u = s.prediction, s.target, s.error, s.precision.u
        log_a, log_b = (torch.clamp(torch.log(t), min=-100.0).abs() for t in (a, 1 - a))
        size = y.abs() * log_a + (1 - y).abs() * log_b
        moved = y.abs() * _log_error(a, e) + (1 - y).abs() * _log_error(1 - a, e)
        w = self._weight(s)
        return w * (moved + u * (8 * size + 6 * (1 - y).abs())), w * size

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        a, y, e, u, w = s.prediction, s.target, s.error, s.precision.u, self._weight(s)
        low, high = torch.clamp(a - 2 * e, min=0.0), torch.clamp(1 - a - 2 * e, min=0.0)
        floor = torch.clamp(low * high, min=1e-12 * (1 - 1e-6))  # of the denominator, on either side
        den = torch.clamp(a * (1 - a), min=1e-12)
        gap = (a - y).abs()
        shift = torch.clamp(((1 - 2 * a).abs() + 3 * e) * e, max=1.0)  # how far a (1 - a) is off
        # -y/a + (1 - y)/(1 - a) cancels for soft targets: the size of its two terms counts
        size = (y.abs() * (1 - a).abs() + (1 - y).abs() * a.abs()) / den
        moved = torch.where(e > 0, (e + (gap + 2 * e) * shift / floor) / floor, 0.0)
        constant = torch.where(self._clamped(s) | (floor < 1e-12), 1e-8 * gap / den, 0.0)
        return w * (moved + constant + 8 * u * (size + gap / den + e / floor)), w * gap / den

    def _clamped(self, s: LossOperands) -> Tensor:
        return s.prediction * (1 - s.prediction) < 1e-12

    def alternatives(self, s: LossOperands, scale: Tensor) -> tuple[Alternative, ...]:
        clamped = self._clamped(s)
        if not bool(clamped.any()):
            return ()
        a, y = s.prediction, s.target
        first, second = torch.where(y == 0, 0.0, y / a), torch.where(y == 1, 0.0, (1 - y) / (1 - a))
        exact = scale * self._weight(s) * (second - first)
        e = torch.where(clamped, 16 * s.precision.u * exact.abs(), 0.0)
        why = "torch divides by at least 1e-12 there; the formula itself does not"
        return (Alternative(torch.where(clamped, exact, float("nan")), e, why, kink=True),)

    def value_alternatives(self, s: LossOperands) -> tuple[Alternative, ...]:
        a, y = s.prediction, s.target
        exact = torch.where(y == 0, 0.0, -y * torch.log(a)) + torch.where(y == 1, 0.0, -(1 - y) * torch.log1p(-a))
        if bool((exact <= 100).all()):
            return ()
        total = (self._weight(s) * exact).sum() / (exact.numel() if s.module.reduction == "mean" else 1)
        why = "torch clamps the logarithm at -100; the formula itself does not"
        return (Alternative(total, (16 + exact.numel()) * s.precision.u * total.abs(), why, kink=True),)


def _log_error(a: Tensor, e: Tensor) -> Tensor:
    """How far log moves when its argument, within e of ``a``, moves by e; at most what the clamp at -100 leaves."""
    share = torch.clamp(e / (a - e).clamp(min=1e-300), max=1.0)
    return torch.where(e > 0, torch.clamp(-torch.log1p(-share), max=100.0), 0.0)


class CrossEntropyOfLogit(PerElement):
    """BCEWithLogitsLoss: (1 - y) z + (1 + (w_pos - 1) y) softplus(-z)."""

    name = "bce with logits"

    def _weights(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        weight, positive = getattr(s.module, "weight", None), getattr(s.module, "pos_weight", None)
        w = torch.ones_like(s.prediction) if weight is None else weight.abs().expand_as(s.prediction)
        own = torch.ones_like(s.target) if positive is None else 1 + (positive - 1) * s.target
        return w, own.abs()

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        w, own = self._weights(s)
        z = s.prediction.abs() + 2 * s.error
        size = (1 - s.target).abs() * z + own * (2 * z + torch.log1p(torch.exp(-z)))
        return w * (((1 - s.target).abs() + own) * s.error + 16 * s.precision.u * (size + own)), w * size

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        w, own = self._weights(s)
        slope = torch.sigmoid(s.prediction) * torch.sigmoid(-s.prediction) + 0.0963 * 2 * s.error
        size = (1 - s.target).abs() + own
        rounding = sigmoid_error(s.prediction) + 2 * torch.sigmoid(s.prediction) + 64 * s.error
        e = own * (torch.clamp(slope, max=0.25) * s.error + s.precision.u * rounding)
        return w * (e + 4 * s.precision.u * size), w * size


class Classes(LossRule):
    """CrossEntropyLoss (of logits) and NLLLoss (of log-probabilities): classes along dimension 1 (0 if unbatched).

    With T the target distribution after smoothing and weighting (w_c T_nc), the loss is
    -sum T log p / W and its gradient (softmax sum_c T - T) / W, W the sum of the targets' weights.
    """

    def _parts(self, s: LossOperands) -> tuple[Tensor, Tensor, int]:
        """|T| (the prediction's shape), the divisor (a scalar; 1 for sum and none), the class dimension."""
        x, y, module = s.prediction, s.target, s.module
        dim = 0 if x.dim() == 1 else 1
        count = x.shape[dim]
        weight = getattr(module, "weight", None)
        w = torch.ones(count, dtype=x.dtype) if weight is None else weight.abs()
        w_b = w.reshape([-1 if d == dim else 1 for d in range(x.dim())])
        smooth = float(getattr(module, "label_smoothing", 0.0))
        if y.is_floating_point():
            target = y * (1 - smooth) + smooth / count
            divisor = x.numel() / max(1, count)
        else:
            keep = y != getattr(module, "ignore_index", -100)
            known = torch.where(keep, y, 0).long()
            hot = torch.nn.functional.one_hot(known, count).to(x.dtype)
            hot = hot.movedim(-1, dim) if hot.dim() > 1 else hot
            kept = keep.unsqueeze(dim) if x.dim() > 1 else keep
            target = (hot * (1 - smooth) + smooth / count) * kept
            # where nothing counts, the mean is 0 / 0, and the gradient that torch gives is 0
            divisor = float((w[known] * keep).sum()) or 1.0
        scaled = target.abs() * w_b
        return scaled, torch.tensor(divisor if module.reduction == "mean" else 1.0, dtype=x.dtype), dim

    def forward(self, s: LossOperands) -> Bound:
        target, divisor, dim = self._parts(s)
        count, p = s.prediction.shape[dim], s.precision
        name = "cross entropy" if isinstance(s.module, nn.CrossEntropyLoss) else "nll"
        if isinstance(s.module, nn.CrossEntropyLoss):
            e_log = SoftmaxRule(log=True).forward(self._log_softmax(s, dim)).e
            size = torch.log_softmax(s.prediction, dim).abs() + e_log
        else:
            e_log, size = s.error, s.prediction.abs() + 2 * s.error
        n = self._terms(s, target, count)
        finite = torch.where(target > 0, size, 0.0)
        e = torch.where(target > 0, target * e_log, 0.0) + p.gamma(n + self._divisions(s, count) + 8) * target * finite
        e = (e.sum() if s.module.reduction != "none" else e.sum(dim)) / divisor
        return Bound(e + n * p.eta, f"certified: {name}, n = {n}")

    @staticmethod
    def _terms(s: LossOperands, target: Tensor, count: int) -> int:
        """How many terms the loss sums: of a class index one a position, of a distribution one a class."""
        several = s.target.is_floating_point() or float(getattr(s.module, "label_smoothing", 0.0)) > 0
        if s.module.reduction == "none":
            return count if several else 1
        return target.numel() if several else max(1, target.numel() // max(1, count))

    @staticmethod
    def _divisions(s: LossOperands, count: int) -> int:
        """Roundings of the divisor: a sum of ones is exact, a sum of weights is not."""
        weighted = getattr(s.module, "weight", None) is not None and s.module.reduction == "mean"
        return s.prediction.numel() // max(1, count) if weighted else 0

    def backward(self, s: LossOperands) -> Bound:
        target, divisor, dim = self._parts(s)
        p = s.precision
        up = s.upstream.abs() + 2 * s.e_upstream
        up = up.unsqueeze(dim) if s.module.reduction == "none" and up.dim() else up
        count = s.prediction.shape[dim]
        spread = p.gamma(self._divisions(s, count) + 4)
        if not isinstance(s.module, nn.CrossEntropyLoss):
            e = (4 * p.u + spread) * up * target / divisor
            return Bound(e + p.eta * (e > 0), "certified: nll dx", up * target / divisor)
        operands = self._log_softmax(s, dim)
        e_soft = SoftmaxRule(log=False).forward(operands).e
        soft = torch.softmax(s.prediction, dim)
        total = target.sum(dim, keepdim=True)
        # through exp(log softmax) the rounding of the logarithm comes back as a relative one
        size = 2 * LIBRARY * math.log(max(count, 2)) + 2 * LIBRARY
        e = e_soft * total + p.u * size * soft * total + p.gamma(count + 2) * soft * total
        e = e + spread * (soft * total + target)
        magnitude = up * (soft * total + target) / divisor
        return Bound(up * e / divisor + p.eta, f"certified: cross entropy dx, n = {count}", magnitude)

    @staticmethod
    def _log_softmax(s: LossOperands, dim: int) -> Operands:
        return Operands(nn.LogSoftmax(dim), (s.prediction,), (s.error,), {}, s.prediction, s.precision)
