"""Losses that compare prediction p and target t element by element, and what all losses share.

Each elementwise loss ℓ(p, t) becomes L by its ``reduction``: 'none' keeps ℓ, 'sum' is Σ ℓ and 'mean' is Σ ℓ / N.
Hence ∂L/∂p = ∂ℓ/∂p · s, where the *share* s of every element is the upstream gradient ('none', 'sum') or
upstream / N ('mean'). The mean over nothing is NaN, as in torch.

Shapes: p, t and ∂L/∂p alike, of one dtype; nothing broadcasts (torch warns there that it is probably a mistake).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._check import check_choice, check_input, check_match, check_numbers, ieee, name_of
from ._layer import Array, Cache, Loss, NNError
from ._pieces import elementwise, total


@dataclass(frozen=True)
class ReducedLoss(Loss):
    """What every loss does with ``reduction`` ('none', 'mean' or 'sum')."""

    def __post_init__(self) -> None:
        check_choice(self, "reduction", self.reduction, ("none", "mean", "sum"))

    def _reduce(self, losses: Array, count: Array | int | None = None) -> Array:
        """ℓ, Σ ℓ or Σ ℓ / count; ``count`` is the number of elements unless given."""
        if self.reduction == "none":
            return np.asarray(losses)
        return self._of_sum(np.add.reduce(losses, axis=None), losses.size if count is None else count)

    def _reduce_each(self, function: Callable[[Array], Array], x: Array) -> Array:
        """The same of ℓ = function(x), element by element."""
        return self._reduce(function(x)) if self.reduction == "none" else self._of_sum(total(function, x), x.size)

    def _of_sum(self, total: Array, count: Array | int) -> Array:
        return np.asarray(total / total.dtype.type(count) if self.reduction == "mean" else total)

    def _share(self, upstream: Array | float, losses: Array, count: Array | int | None = None) -> Array:
        """∂L/∂ℓ: the upstream gradient as it reaches every elementwise loss."""
        if self.reduction == "none":
            return check_match(self, "upstream (reduction 'none')", np.asarray(upstream), losses.shape, losses.dtype)
        share = np.asarray(upstream, dtype=losses.dtype)
        if share.ndim:
            raise NNError(
                f"{name_of(self)}: upstream has shape {share.shape}, but the loss is a scalar"
                f" (reduction {self.reduction!r})"
            )
        if self.reduction == "sum":
            return share
        return np.asarray(share / share.dtype.type(losses.size if count is None else count))


def check_pair(owner: Loss, prediction: Array, target: Array) -> None:
    """Refuse a target whose shape or dtype is not the prediction's."""
    check_input(owner, prediction, "prediction")
    check_match(owner, "target", target, prediction.shape, prediction.dtype)


class MSELoss(ReducedLoss):
    """ℓ = (p - t)², so ∂ℓ/∂p = 2 (p - t)."""

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        check_pair(self, prediction, target)
        difference = elementwise(np.subtract, prediction, target)
        return self._reduce_each(np.square, difference), difference

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        difference, share = cache, self._share(upstream, cache)
        if share.ndim == 0:
            return elementwise(lambda difference: 2 * difference * share, difference)
        return np.asarray(2 * difference * share)


@dataclass(frozen=True)
class HalfSquaredError(ReducedLoss):
    """ℓ = ½ (t - p)², so ∂ℓ/∂p = p - t: the ½ is there to cancel the 2. By default E = ½ Σ (t - p)².

    torch has no class for it; it is ``0.5 * torch.nn.functional.mse_loss(p, t, reduction=...)``.
    """

    reduction: str = "sum"

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        check_pair(self, prediction, target)
        difference = np.asarray(prediction - target)
        return np.asarray(self._reduce(difference * difference) / 2), difference

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        difference = cache
        return np.asarray(difference * self._share(upstream, difference))


class L1Loss(ReducedLoss):
    """ℓ = |p - t|, so ∂ℓ/∂p = sign(p - t). At p = t there is no derivative; torch takes 0 (and at NaN too)."""

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        check_pair(self, prediction, target)
        difference = np.asarray(prediction - target)
        return self._reduce(np.abs(difference)), difference

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        difference = cache
        sign = (difference > 0).astype(difference.dtype) - (difference < 0)  # np.sign(NaN) would be NaN
        return np.asarray(sign * self._share(upstream, difference))


@dataclass(frozen=True)
class HuberLoss(ReducedLoss):
    """ℓ = ½ d² where |d| < δ, else δ (|d| - ½ δ), with d = p - t: a parabola continued by its tangents.

    ∂ℓ/∂p = d inside and δ sign(d) outside, that is d clipped to [-δ, δ].

    Source: Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964).
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, delta=self.delta)
        if not self.delta > 0:
            raise NNError(f"HuberLoss: delta={self.delta}; it must be positive")

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        check_pair(self, prediction, target)
        difference = np.asarray(prediction - target)
        size = np.abs(difference)
        losses = np.where(size < self.delta, size * size / 2, self.delta * (size - self.delta / 2))
        return self._reduce(losses), difference

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        difference = cache
        return np.asarray(np.clip(difference, -self.delta, self.delta) * self._share(upstream, difference))


@dataclass(frozen=True)
class SmoothL1Loss(ReducedLoss):
    """ℓ = ½ d² / β where |d| < β, else |d| - ½ β, with d = p - t: Huber's loss divided by its width.

    ∂ℓ/∂p = d / β clipped to [-1, 1]. For β = 0 the parabola vanishes and L1Loss remains.

    Source: Girshick, "Fast R-CNN", ICCV 2015, equation (3).
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, beta=self.beta)
        if not self.beta >= 0:
            raise NNError(f"SmoothL1Loss: beta={self.beta}; it must not be negative")

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        if self.beta == 0:
            return L1Loss(self.reduction).forward(prediction, target)
        check_pair(self, prediction, target)
        difference = np.asarray(prediction - target)
        size = np.abs(difference)
        losses = np.where(size < self.beta, size * size / 2 / self.beta, size - self.beta / 2)
        return self._reduce(losses), difference

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        if self.beta == 0:
            return L1Loss(self.reduction).backward(cache, upstream)
        difference = cache
        return np.asarray(np.clip(difference / self.beta, -1, 1) * self._share(upstream, difference))
