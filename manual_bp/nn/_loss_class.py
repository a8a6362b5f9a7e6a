"""Losses of classification into C classes: NLLLoss and CrossEntropyLoss.

Shapes: prediction (N, C, d1, d2, ...) or unbatched (C,); target (N, d1, d2, ...) or () of class indices (integers);
CrossEntropyLoss also takes a target of the prediction's shape and dtype that holds probabilities.
Below, n runs over everything but the classes: the samples and d1, d2, ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ._check import check_input, check_match, check_numbers, describe, freeze, ieee, name_of
from ._layer import Array, Cache, Loss, NNError
from ._loss import ReducedLoss
from ._special import log_softmax


@dataclass(frozen=True)
class NLLLoss(ReducedLoss):
    """ℓ[n] = -w[y[n]] p[n, y[n]] for log-probabilities p and classes y.

    Parameters
    ----------
    weight
        w, one factor per class; 1 by default.
    ignore_index
        Positions whose target is this number count for nothing.

    The mean is the weighted one: Σ ℓ[n] / Σ w[y[n]] over the positions not ignored.

    ∂ℓ[n]/∂p[n, c] = -w[c] for c = y[n], 0 for the other classes and where n is ignored.
    """

    weight: npt.ArrayLike | None = None
    ignore_index: int = field(default=-100, kw_only=True)
    reduction: str = field(default="mean", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight", freeze(self.weight))

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        w = class_weights(self, self.weight, prediction)  # (C,)
        index, counted = class_index(self, prediction, target, self.ignore_index)  # (N, d...)
        wy = np.where(counted, w[index], 0)  # (N, d...)
        losses = np.where(counted, -wy * pick(prediction, index), 0)  # (N, d...)
        return self._reduce(losses, wy.sum()), (prediction, index, counted, wy)

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        prediction, index, counted, wy = cache
        share = self._share(upstream, wy, wy.sum())
        return put(np.where(counted, -wy * share, 0), index, prediction)  # (N, C, d...)


@dataclass(frozen=True)
class CrossEntropyLoss(ReducedLoss):
    """ℓ[n] = -Σ_c q[n, c] log s[n, c] with s = softmax(z) along the classes, z the logits.

    Parameters
    ----------
    weight
        w, one factor per class; 1 by default.
    ignore_index
        Positions whose target is this number count for nothing (class indices only).
    label_smoothing
        ε in [0, 1]: how much of the target is spread evenly over the classes.

    The weighted target distribution q is

    - for class indices y:  q[n, c] = (1 - ε) w[y[n]] [c = y[n]] + ε/C w[c], and 0 where n is ignored;
      the mean is Σ ℓ[n] / Σ w[y[n]] over the positions not ignored;
    - for probabilities t:  q[n, c] = w[c] ((1 - ε) t[n, c] + ε/C); the mean is Σ ℓ[n] / number of positions.

    From log s[c] = z[c] - log Σ_k e^z[k] follows ∂log s[c]/∂z[k] = [c = k] - s[k], hence

        ∂ℓ/∂z[k] = -Σ_c q[c] ([c = k] - s[k]) = s[k] Σ_c q[c] - q[k],

    which is s - y for unweighted class indices. Source of ε: Szegedy et al., "Rethinking the Inception
    architecture for computer vision", CVPR 2016, section 7.
    """

    weight: npt.ArrayLike | None = None
    ignore_index: int = field(default=-100, kw_only=True)
    reduction: str = field(default="mean", kw_only=True)
    label_smoothing: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight", freeze(self.weight))
        check_numbers(self, label_smoothing=self.label_smoothing)
        if not 0 <= self.label_smoothing <= 1:
            raise NNError(f"CrossEntropyLoss: label_smoothing={self.label_smoothing}; it must lie in [0, 1]")

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        w = class_weights(self, self.weight, prediction)  # (C,)
        logs = log_softmax(prediction, class_axis(prediction))  # (N, C, d...)
        by_target = self._from_probabilities if np.shape(target) == prediction.shape else self._from_classes
        losses, q, counted, count = by_target(target, w, logs)
        return self._reduce(losses, count), (logs, q, losses, counted, count)

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        logs, q, losses, counted, count = cache
        axis = class_axis(logs)
        # where nothing counts, count is 0 and the share infinite: an ignored position still gets 0, not NaN
        share = np.where(counted, self._share(upstream, losses, count), 0)  # (N, d...) or ()
        share = np.expand_dims(share, axis) if share.ndim else share
        return np.asarray((np.exp(logs) * q.sum(axis=axis, keepdims=True) - q) * share)  # (N, C, d...)

    def _from_probabilities(self, target: Array, w: Array, logs: Array) -> tuple[Array, Array, Array, Array]:
        """ℓ, q, where not ignored, and the divisor of the mean, for a target of probabilities."""
        check_match(self, "target of probabilities", target, logs.shape, logs.dtype)
        if self.ignore_index >= 0:
            raise NNError(f"CrossEntropyLoss: ignore_index={self.ignore_index} needs class indices, not probabilities")
        smoothed = target * (1 - self.label_smoothing) + self.label_smoothing / max(len(w), 1)
        q = smoothed * along_classes(w, logs)  # (N, C, d...)
        losses = np.asarray(-(q * logs).sum(axis=class_axis(logs)))  # (N, d...)
        return losses, q, np.asarray(True), np.asarray(losses.size)

    def _from_classes(self, target: Array, w: Array, logs: Array) -> tuple[Array, Array, Array, Array]:
        """The same for a target of class indices.

        ℓ picks log s[y] out of the sum instead of multiplying the other classes by 0: a logit of -inf (a masked
        class) has log s = -inf there, and 0 · inf would be NaN.
        """
        index, counted = class_index(self, logs, target, self.ignore_index)  # (N, d...)
        wy = np.where(counted, w[index], 0)  # (N, d...)
        certain = (1 - self.label_smoothing) * wy
        losses = np.where(counted, -certain * pick(logs, index), 0)  # (N, d...)
        q = put(certain, index, logs)  # (N, C, d...)
        if self.label_smoothing:
            axis = class_axis(logs)
            even = along_classes(w, logs) * w.dtype.type(self.label_smoothing / max(len(w), 1))  # (C, 1...)
            losses = losses - np.where(counted, (even * logs).sum(axis=axis), 0)
            q = q + np.where(np.expand_dims(counted, axis), even, 0)
        return losses, q, counted, np.asarray(wy.sum())


def class_axis(prediction: Array) -> int:
    """1, or 0 for the unbatched (C,)."""
    return min(prediction.ndim - 1, 1)


def along_classes(w: Array, prediction: Array) -> Array:
    """w reshaped so that it broadcasts along the class axis: (C,) -> (C, 1, ...)."""
    return w.reshape(-1, *(1,) * (prediction.ndim - 1 - class_axis(prediction)))


def class_weights(owner: Loss, values: npt.ArrayLike | None, prediction: Array) -> Array:
    """The factor of each class, (C,); all 1 where none is set."""
    check_input(owner, prediction, "prediction")
    if prediction.ndim == 0:
        raise NNError(f"{name_of(owner)}: prediction is 0-d; expected (C,) or (N, C, ...)")
    n_classes = prediction.shape[class_axis(prediction)]
    if values is None:
        return np.ones(n_classes, prediction.dtype)
    return check_match(owner, "weight", np.asarray(values, prediction.dtype), (n_classes,), prediction.dtype)


def class_index(owner: Loss, prediction: Array, target: object, ignore_index: int) -> tuple[Array, Array]:
    """The class of each position, 0 where it is ignored, and where it counts."""
    axis = class_axis(prediction)
    expected = prediction.shape[:axis] + prediction.shape[axis + 1 :]
    if not isinstance(target, np.ndarray) or target.shape != expected or target.dtype.kind not in "iu":
        raise NNError(
            f"{name_of(owner)}: target is {describe(target)}, expected class indices (integers) of shape"
            f" {expected} for a prediction of shape {prediction.shape}"
        )
    counted = np.asarray(target != ignore_index)
    n_classes = prediction.shape[axis]
    wrong = counted & ((target < 0) | (target >= n_classes))
    if wrong.any():
        raise NNError(
            f"{name_of(owner)}: target {target[wrong].flat[0]} is not one of the {n_classes} classes, counted from 0"
        )
    return np.where(counted, target, 0), counted


def places(index: Array, shape: tuple[int, ...]) -> Array:
    """Where [n, index[n]] lies among all elements of an array (N, C, d...) of this shape: (N, d...)."""
    axis = min(len(shape) - 1, 1)
    inner = math.prod(shape[axis + 1 :])
    samples = np.arange(math.prod(shape[:axis]))[:, None] * (shape[axis] * inner)
    found: Array = index * inner + (samples + np.arange(inner)).reshape(index.shape)
    return found


def pick(values: Array, index: Array) -> Array:
    """values[n, index[n]]: (N, C, d...) -> (N, d...)."""
    return np.asarray(values.take(places(index, values.shape)))


def put(picked: Array, index: Array, like: Array) -> Array:
    """The adjoint of `pick`: zeros (N, C, d...) with picked[n] at class index[n]."""
    result = np.zeros(like.shape, like.dtype)
    result.put(places(index, like.shape), picked)
    return result
