"""Binary cross-entropy, of probabilities and of logits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ._check import freeze, ieee, name_of
from ._layer import Array, Cache, NNError
from ._loss import ReducedLoss, check_pair
from ._special import has_nan, log_sigmoid, sigmoid


@dataclass(frozen=True)
class BCELoss(ReducedLoss):
    """ℓ = -w [t log p + (1 - t) log(1 - p)], the negative log-likelihood of a Bernoulli variable.

    Parameters
    ----------
    weight
        w, a constant factor of each element, of a shape that broadcasts to the prediction's. The mean still divides
        by the number of elements, not by Σ w.

    ∂ℓ/∂p = -w [t / p - (1 - t) / (1 - p)] = w (p - t) / (p (1 - p)).

    Where p has been rounded to 0 or 1 both are infinite. As torch does, the logarithms are cut off at -100 and the
    denominator at 10⁻¹² (the *float32* next to 10⁻¹², whatever the dtype: so the kernel writes it), each for itself:
    there the gradient is not the derivative of the loss any more. BCEWithLogitsLoss needs none of this.
    """

    weight: npt.ArrayLike | None = None
    reduction: str = field(default="mean", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight", freeze(self.weight))

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        check_pair(self, prediction, target)
        p, t, w = prediction, target, factor(self, "weight", self.weight, prediction)
        no = t - 1
        losses = no * np.maximum(np.log1p(-p), -100) - t * np.maximum(np.log(p), -100)
        # outside [0, 1] one of p's logarithms is NaN, and t (t - 1) is positive
        if has_nan(losses) or np.maximum.reduce(t * no, axis=None, initial=0) > 0:
            what = "target" if np.all((p >= 0) & (p <= 1)) else "prediction"
            raise NNError(
                f"BCELoss: {what} is not a probability in [0, 1] everywhere; apply Sigmoid or use BCEWithLogitsLoss"
            )
        return self._reduce(losses if w is None else losses * w), (p, t, w)

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        p, t, w = cache
        slope = (p - t) / np.maximum(p * (1 - p), FLOOR)
        return np.asarray((slope if w is None else slope * w) * self._share(upstream, p))


#: of the denominator p (1 - p)
FLOOR = float(np.float32(1e-12))


@dataclass(frozen=True)
class BCEWithLogitsLoss(ReducedLoss):
    """ℓ = -w [c t log σ(z) + (1 - t) log(1 - σ(z))]: sigmoid and binary cross-entropy in one step.

    Parameters
    ----------
    weight
        w, a constant factor of each element; broadcasts to the prediction's shape.
    pos_weight
        c, a factor of the positive term alone, usually one number per class; broadcasts likewise.

    Because log(1 - σ(z)) = log σ(-z) = log σ(z) - z, with l = 1 + (c - 1) t

        ℓ = w [(1 - t) z - l log σ(z)],

    which cannot overflow: log σ(z) = min(z, 0) - log(1 + e^-|z|). From d log σ(z)/dz = 1 - σ(z) follows

        ∂ℓ/∂z = w [(1 - t) - l (1 - σ(z))] = w [(c t + 1 - t) σ(z) - c t];   c = 1: w [σ(z) - t].
    """

    weight: npt.ArrayLike | None = None
    reduction: str = field(default="mean", kw_only=True)
    pos_weight: npt.ArrayLike | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight", freeze(self.weight))
        object.__setattr__(self, "pos_weight", freeze(self.pos_weight))

    @ieee
    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        check_pair(self, prediction, target)
        z, t, w = prediction, target, factor(self, "weight", self.weight, prediction)
        c = factor(self, "pos_weight", self.pos_weight, prediction)
        logs = log_sigmoid(z)
        losses = (1 - t) * z - (logs if c is None else (1 + (c - 1) * t) * logs)
        return self._reduce(losses if w is None else losses * w), (z, t, w, c)

    @ieee
    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        z, t, w, c = cache
        slope = sigmoid(z) - t if c is None else (c * t + 1 - t) * sigmoid(z) - c * t
        return np.asarray((slope if w is None else slope * w) * self._share(upstream, z))


def factor(owner: object, what: str, values: npt.ArrayLike | None, prediction: Array) -> Array | None:
    """A constant factor in the prediction's dtype, broadcastable to its shape; None where none is set."""
    if values is None:
        return None
    array = np.asarray(values, dtype=prediction.dtype)
    try:
        np.broadcast_to(array, prediction.shape)
    except ValueError:
        raise NNError(
            f"{name_of(owner)}: {what} of shape {array.shape} does not broadcast to the prediction's shape"
            f" {prediction.shape}"
        ) from None
    return array
