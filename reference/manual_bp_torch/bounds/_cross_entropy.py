"""Bounds of the cross-entropies: of a probability, of a logit, and of classes.

What is subtracted on the way counts by its own size, not by the difference's: 1 - y, 1 - a, 1 - smoothing, and the
weight 1 + (w_pos - 1) y may all be far smaller than what they are computed from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from manual_bp_torch.bounds._activation import SoftmaxRule
from manual_bp_torch.bounds._curves import LIBRARY, sigmoid_error
from manual_bp_torch.bounds._loss import LossOperands, LossRule, PerElement
from manual_bp_torch.bounds._model import Alternative, Bound, Later, Operands


class CrossEntropyOfProbability(PerElement):
    """BCELoss: -(y log a + (1 - y) log(1 - a)), log clamped at -100 and a (1 - a) at 1e-12 as torch does.

    The clamp's constant stands in no documentation (torch's kernel has the float32 next to 1e-12, 4e-9 beside it, in
    float64 too), so where it acts the gradient need only be right to 1e-8.
    """

    name = "bce"

    def _weight(self, s: LossOperands) -> Tensor:
        weight = getattr(s.module, "weight", None)
        return torch.ones_like(s.prediction) if weight is None else weight.expand_as(s.prediction)

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        a, y, e, u = s.prediction, s.target, s.error, s.precision.u
        log_a, log_b = (torch.clamp(torch.log(t), min=-100.0).abs() for t in (a, 1 - a))
        size = y.abs() * log_a + (1 - y).abs() * log_b
        moved = y.abs() * _log_error(a, e) + (1 - y).abs() * _log_error(1 - a, e)
        w = self._weight(s).abs()
        return w * (moved + u * (8 * size + 6 * (1 - y).abs())), w * size

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        a, y, e, u, w = s.prediction, s.target, s.error, s.precision.u, self._weight(s).abs()
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

    def alternatives(self, s: LossOperands, scale: Tensor) -> Sequence[Alternative]:
        return Later(lambda: self._alternatives(s, scale))

    def _alternatives(self, s: LossOperands, scale: Tensor) -> Iterator[Alternative]:
        a, y, u, clamped = s.prediction, s.target, s.precision.u, self._clamped(s)
        scale = scale * self._weight(s)
        if bool(clamped.any()):
            first, second = torch.where(y == 0, 0.0, y / a), torch.where(y == 1, 0.0, (1 - y) / (1 - a))
            exact = scale * (second - first)
            why = "torch divides by at least 1e-12 there; the formula itself does not"
            yield Alternative(exact, torch.where(clamped, 16 * u * exact.abs(), 0.0), why, kink=True)
        # a² rounds by u a², a (1 - a) / a² = (1 - a) / a; where that is all of it, there is no such answer
        off = u * a / (1 - a)
        exact = scale * (a - y) / (a * (1 - a)).clamp(min=1e-12)
        e = torch.where(clamped | (off > 0.5), 0.0, exact.abs() * (2 * off + 8 * u) + s.precision.eta)
        yield Alternative(exact, e, "the denominator a (1 - a) written as a - a²")

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
    """BCEWithLogitsLoss: (1 - y) z + L softplus(-z) with L = 1 + (w_pos - 1) y, and its slope L sigmoid(z) - w_pos y.

    L is w_pos y + (1 - y), too, and torch's backward pass has w_pos y + 1 - y: where y is 1 and w_pos little, L is
    little, but what it is computed from rounds by the size of 1. The loss and its slope in two terms,
    w_pos y softplus(-z) + (1 - y) softplus(z) and (1 - y) sigmoid(z) - w_pos y sigmoid(-z), are right as well.
    """

    name = "bce with logits"

    def _weights(self, s: LossOperands) -> tuple[Tensor, Tensor, Tensor]:
        """|weight|, the size |w_pos y| + |1 - y| of L, and the rounding of L in units of u."""
        weight, positive = getattr(s.module, "weight", None), getattr(s.module, "pos_weight", None)
        w = torch.ones_like(s.prediction) if weight is None else weight.abs().expand_as(s.prediction)
        y, rest = s.target, (1 - s.target).abs()
        if positive is None:  # nobody computes what is 1
            return w, rest + y.abs(), torch.zeros_like(y)
        scaled = (positive * y).abs()
        product = (y != 1).to(y.dtype)  # by 1 it is exact; and with y = 0 all is
        by_difference = (positive - 1).abs() * y.abs() * (1 + product)
        by_sum = scaled * product + torch.maximum((1 + positive * y).abs(), rest * product)
        rounding = torch.maximum(by_difference, by_sum) + (1 + (positive - 1) * y).abs()
        return w, rest + scaled, torch.where(y == 0, 0.0, rounding)

    def element(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        w, own, rounding = self._weights(s)
        z, y, u = s.prediction.abs() + 2 * s.error, s.target, s.precision.u
        size = (1 - y).abs() * z + own * (2 * z + torch.log1p(torch.exp(-z)))
        # z - y z in place of (1 - y) z rounds by the size of its terms
        unfolded = torch.where((y == 0) | (y == 1), 0.0, 2 * y.abs() * z)
        weighing = rounding * softplus(2 * s.error - s.prediction)
        return w * (((1 - y).abs() + own) * s.error + u * (16 * (size + own) + unfolded + weighing)), w * size

    def slope(self, s: LossOperands) -> tuple[Tensor, Tensor]:
        w, own, rounding = self._weights(s)
        slope = torch.sigmoid(s.prediction) * torch.sigmoid(-s.prediction) + 0.0963 * 2 * s.error
        size = (1 - s.target).abs() + own
        of_sigmoid = sigmoid_error(s.prediction) + 2 * torch.sigmoid(s.prediction) + 64 * s.error
        # L sigmoid(z) - w_pos y, or (1 - y) - L sigmoid(-z)
        weighing = rounding * torch.sigmoid(s.prediction.abs() + 2 * s.error)
        e = own * (torch.clamp(slope, max=0.25) * s.error + s.precision.u * of_sigmoid)
        return w * (e + s.precision.u * (4 * size + weighing)), w * size


@dataclass(frozen=True)
class _Targets:
    """|T| (the prediction's shape) and what it rounds by beyond its own size; the divisor |W| (1 for sum and none)."""

    size: Tensor
    lost: Tensor | None
    divisor: float
    terms: float  # how many roundings of |W| its sum is worth
    dim: int  # of the classes

    def rounding(self, u: float) -> float:
        """Of the division by W, relative."""
        off = self.terms * u
        return off / (1 - off) if off < 1 else float("inf")


class Classes(LossRule):
    """CrossEntropyLoss (of logits) and NLLLoss (of log-probabilities): classes along dimension 1 (0 if unbatched).

    With T the target distribution after smoothing and weighting (w_c T_nc), the loss is
    -sum T log p / W and its gradient (softmax sum_c T - T) / W, W the sum of the targets' weights.
    """

    def _parts(self, s: LossOperands) -> _Targets:
        x, y, module = s.prediction, s.target, s.module
        dim = 0 if x.dim() == 1 else 1
        count = x.shape[dim]
        weight = getattr(module, "weight", None)
        w = torch.ones(count, dtype=x.dtype) if weight is None else weight
        w_b = w.abs().reshape([-1 if d == dim else 1 for d in range(x.dim())])
        smooth = float(getattr(module, "label_smoothing", 0.0))
        divisor, terms = x.numel() / max(1, count), 0.0  # a sum of ones is exact, a sum of weights is not
        if y.is_floating_point():
            own, target = y, y * (1 - smooth) + smooth / count
        else:
            keep = y != getattr(module, "ignore_index", -100)
            known = torch.where(keep, y, 0).long()
            hot = one_hot(known, count).to(x.dtype)
            hot = hot.movedim(-1, dim) if hot.dim() > 1 else hot
            kept = keep.unsqueeze(dim) if x.dim() > 1 else keep
            own, target = hot * kept, (hot * (1 - smooth) + smooth / count) * kept
            # where nothing counts, the mean is 0 / 0, and the gradient that torch gives is 0
            divisor = abs(float((w[known] * keep).sum())) or 1.0
            if weight is not None:
                terms = y.numel() * float((w[known].abs() * keep).sum()) / divisor  # they may have either sign
        # 1 - smooth, also as part of 1 - smooth (C - 1) / C, is made of 1 and of what smooth is rounded to
        lost = 4 * s.precision.u * smooth * own.abs() * w_b if smooth else None
        if module.reduction != "mean":
            divisor, terms = 1.0, 0.0
        return _Targets(target.abs() * w_b, lost, divisor, terms, dim)

    def forward(self, s: LossOperands) -> Bound:
        t = self._parts(s)
        target, divisor, dim = t.size, t.divisor, t.dim
        count, p = s.prediction.shape[dim], s.precision
        name = "cross entropy" if isinstance(s.module, nn.CrossEntropyLoss) else "nll"
        if isinstance(s.module, nn.CrossEntropyLoss):
            e_log = SoftmaxRule(log=True).forward(self._log_softmax(s, dim)).e
            size = torch.log_softmax(s.prediction, dim).abs() + e_log
        else:
            e_log, size = s.error, s.prediction.abs() + 2 * s.error
        n = self._terms(s, target, count)
        finite = torch.where(target > 0, size, 0.0)
        e = torch.where(target > 0, target * e_log, 0.0) + (p.gamma(n + 8) + t.rounding(p.u)) * target * finite
        if t.lost is not None:
            e = e + t.lost * finite
        e = (e.sum() if s.module.reduction != "none" else e.sum(dim)) / divisor
        return Bound(e + n * p.eta, f"certified: {name}, n = {n}")

    @staticmethod
    def _terms(s: LossOperands, target: Tensor, count: int) -> int:
        """How many terms the loss sums: of a class index one a position, of a distribution one a class."""
        several = s.target.is_floating_point() or float(getattr(s.module, "label_smoothing", 0.0)) > 0
        if s.module.reduction == "none":
            return count if several else 1
        return target.numel() if several else max(1, target.numel() // max(1, count))

    def backward(self, s: LossOperands) -> Bound:
        t = self._parts(s)
        target, divisor, dim = t.size, t.divisor, t.dim
        p = s.precision
        up = s.upstream.abs() + 2 * s.e_upstream
        up = up.unsqueeze(dim) if s.module.reduction == "none" and up.dim() else up
        count = s.prediction.shape[dim]
        spread = p.gamma(4) + t.rounding(p.u)
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
        if t.lost is not None:
            e = e + soft * t.lost.sum(dim, keepdim=True) + t.lost
        magnitude = up * (soft * total + target) / divisor
        return Bound(up * e / divisor + p.eta, f"certified: cross entropy dx, n = {count}", magnitude)

    @staticmethod
    def _log_softmax(s: LossOperands, dim: int) -> Operands:
        return Operands(nn.LogSoftmax(dim), (s.prediction,), (s.error,), {}, s.prediction, s.precision)
