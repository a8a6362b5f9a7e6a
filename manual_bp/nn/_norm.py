"""Normalisation: BatchNorm1d and BatchNorm2d over the batch, LayerNorm over the last axes.

Both do y = w x̂ + b with x̂ = (x - μ) / √(σ² + ε); they differ in the group of elements that μ and σ² are taken over.

Derivation. Let a group have n elements, s = 1/√(σ² + ε), μ = Σ x / n, σ² = Σ (x - μ)² / n, and ĝ = w δ = ∂L/∂x̂.
x reaches the loss three ways: through x̂ itself, through σ² and through μ.

- ∂L/∂σ² = Σ ĝ (x - μ) · (-½) s³ = -½ s² Σ ĝ x̂, and ∂σ²/∂x[i] = 2 (x[i] - μ) / n = 2 x̂[i] / (s n)
  (that σ² depends on μ adds nothing, because Σ (x - μ) = 0)
- ∂L/∂μ = -s Σ ĝ, and ∂μ/∂x[i] = 1/n
- directly ∂x̂[i]/∂x[i] = s

Their sum is ∂L/∂x[i] = s (ĝ[i] - mean(ĝ) - x̂[i] mean(ĝ x̂)). Where μ and σ² are given constants (running
statistics) only the first way remains: ∂L/∂x = s ĝ. Further ∂L/∂w = Σ δ x̂ and ∂L/∂b = Σ δ over all that share w, b.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ._check import check_length, check_match, check_numbers, checked, ieee, name_of, parameter
from ._layer import Array, Cache, Gradients, Layer, NNError, Params

Axes = tuple[int, ...]


class _Normalized(NamedTuple):
    """What a backward pass through a normalisation needs."""

    x_hat: Array
    s: Array  # 1 / √(σ² + ε), broadcastable to x_hat
    weight: Array  # likewise; 1 without affine parameters
    over: Axes | None  # the axes of a group; None if μ and σ² were given
    buffers: dict[str, Array]  # the new running statistics


def _standardize(x: Array, mean: Array, variance: Array, eps: float) -> tuple[Array, Array]:
    """x̂ and s."""
    s = 1 / np.sqrt(variance + eps)
    return (x - mean) * s, s


def _standardize_backward(cache: _Normalized, upstream: Array) -> Array:
    """∂L/∂x from δ."""
    g = upstream * cache.weight  # ∂L/∂x̂
    if cache.over is None:
        return np.asarray(g * cache.s)
    count = math.prod(g.shape[axis] for axis in cache.over)
    g_mean = g.sum(axis=cache.over, keepdims=True) / g.dtype.type(count)
    projection = (g * cache.x_hat).sum(axis=cache.over, keepdims=True) / g.dtype.type(count)
    return np.asarray(cache.s * (g - g_mean - cache.x_hat * projection))


def _affine_backward(cache: _Normalized, upstream: Array, names: Iterable[str], over: Axes) -> dict[str, Array]:
    """∂L/∂w = Σ δ x̂ and ∂L/∂b = Σ δ, as far as there are a w and a b."""
    return {name: (upstream * cache.x_hat if name == "weight" else upstream).sum(axis=over) for name in names}


@dataclass(frozen=True)
class _BatchNorm(Layer):
    """y = w x̂ + b, where a group is one channel of the whole batch.

    Parameters
    ----------
    num_features
        C, the length of axis 1.
    eps
        ε, added to the variance; above 0 where the variance is the batch's, which may be 0 itself.
    momentum
        m of the running statistics r ← (1 - m) r + m · (batch statistic); None for the average of all batches.
    affine
        Whether there are w (``weight``) and, unless ``bias`` is False, b (``bias``).
    track_running_stats
        Whether running statistics are kept. Without them evaluation, too, uses the batch's.
    training
        True: normalise by the batch's μ and σ². False (evaluation): by ``running_mean`` and ``running_var``.

    Shapes: x and y alike, channels on axis 1; weight, bias, running_mean and running_var (C,); num_batches_tracked (),
    an int64. The buffers are given among the parameters and never changed; `updated_buffers` returns what torch
    would have stored after the forward pass: running_var takes the unbiased variance, σ² n / (n - 1).

    The derivation stands at the head of this module. Source: Ioffe and Szegedy, "Batch normalization", ICML 2015.
    """

    num_features: int
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    bias: bool = field(default=True, kw_only=True)
    training: bool = field(default=True, kw_only=True)

    ndims: ClassVar[tuple[int, ...]] = ()
    layout: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_length(self, "num_features", self.num_features)
        check_numbers(self, eps=self.eps, momentum=0 if self.momentum is None else self.momentum)
        if self.eps < 0:
            raise NNError(f"{name_of(self)}: eps={self.eps}; it must not be negative")

    @property
    def by_batch(self) -> bool:
        """Whether μ and σ² are the batch's own."""
        return self.training or not self.track_running_stats

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        names = ("weight", "bias") if self.bias else ("weight",)
        return {name: (self.num_features,) for name in names if self.affine}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        if not self.track_running_stats:
            return {}
        return {"running_mean": (self.num_features,), "running_var": (self.num_features,), "num_batches_tracked": ()}

    def initial(self, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
        """w = 1, b = 0, and the statistics of no batch: mean 0, variance 1."""
        one, zero = np.ones(self.num_features, dtype), np.zeros(self.num_features, dtype)
        values = {"weight": one, "bias": zero, "running_mean": zero, "running_var": one}
        values["num_batches_tracked"] = np.asarray(0, np.int64)
        return {name: values[name].copy() for name in (*self.parameter_shapes(), *self.buffer_shapes())}

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)  # (N, C, ...)
        self._check(x)
        over = (0, *range(2, x.ndim))
        column = (1, self.num_features, *(1,) * (x.ndim - 2))  # a (C,) in this shape broadcasts to x

        buffers = {name: self._buffer(params, name, x) for name in self.buffer_shapes()}
        if self.by_batch:
            count = x.size // self.num_features
            mean = x.sum(axis=over, keepdims=True) / x.dtype.type(count)  # (1, C, 1...)
            variance = np.square(x - mean).sum(axis=over, keepdims=True) / x.dtype.type(count)
            if self.training:
                buffers = self._track(buffers, mean.reshape(-1), variance.reshape(-1), count)
        else:
            mean, variance = buffers["running_mean"].reshape(column), buffers["running_var"].reshape(column)

        x_hat, s = _standardize(x, mean, variance, self.eps)
        affine = {
            name: parameter(self, params, name, shape, x.dtype) for name, shape in self.parameter_shapes().items()
        }
        weight = affine["weight"].reshape(column) if self.affine else np.ones((), x.dtype)
        y = x_hat * weight
        if "bias" in affine:
            y = y + affine["bias"].reshape(column)
        return y, _Normalized(x_hat, s, weight, over if self.by_batch else None, buffers)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x_hat = cache.x_hat
        check_match(self, "upstream", upstream, x_hat.shape, x_hat.dtype)
        dx = _standardize_backward(cache, upstream)
        over = (0, *range(2, x_hat.ndim))
        return Gradients((dx,), _affine_backward(cache, upstream, self.parameter_shapes(), over))  # (C,) each

    def updated_buffers(self, cache: Cache) -> dict[str, Array]:
        """The buffers after the forward pass that made ``cache``; in evaluation they are the old ones."""
        return dict(cache.buffers)

    def _track(self, old: dict[str, Array], mean: Array, variance: Array, count: int) -> dict[str, Array]:
        if not self.track_running_stats:
            return {}
        batches = np.asarray(old["num_batches_tracked"] + 1)
        if count == 0:  # an empty batch has no statistics, but it is counted
            return old | {"num_batches_tracked": batches}
        m = 1 / float(batches) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1))
        return {
            "running_mean": (1 - m) * old["running_mean"] + m * mean,
            "running_var": (1 - m) * old["running_var"] + m * unbiased,
            "num_batches_tracked": batches,
        }

    def _buffer(self, params: Params, name: str, x: Array) -> Array:
        dtype = np.dtype(np.int64) if name == "num_batches_tracked" else x.dtype
        return parameter(self, params, name, self.buffer_shapes()[name], dtype)

    def _check(self, x: Array) -> None:
        if x.ndim not in self.ndims or x.shape[1] != self.num_features:
            raise NNError(
                f"{name_of(self)}: input has shape {x.shape}, expected {self.layout} with C = {self.num_features}"
            )
        if self.num_features == 0:
            raise NNError(f"{name_of(self)}: num_features is 0; there is nothing to normalise")
        if self.by_batch and self.eps == 0:
            raise NNError(f"{name_of(self)}: eps={self.eps}; it must be above 0 beside the variance of a batch")
        if self.by_batch and x.size == self.num_features:
            raise NNError(f"{name_of(self)}: shape {x.shape} has one value per channel, whose variance is 0; use more")


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__

    ndims: ClassVar[tuple[int, ...]] = (2, 3)
    layout: ClassVar[str] = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__

    ndims: ClassVar[tuple[int, ...]] = (4,)
    layout: ClassVar[str] = "(N, C, H, W)"


@dataclass(frozen=True)
class LayerNorm(Layer):
    """y = w x̂ + b, where a group is what the last axes hold: each sample is normalised by itself.

    Parameters
    ----------
    normalized_shape
        The shape of a group, that is of the last axes of x; an int stands for one axis.
    eps
        ε, added to the variance.
    elementwise_affine
        Whether there are w (``weight``) and, unless ``bias`` is False, b (``bias``).

    Shapes: x and y (*, *normalized_shape); weight and bias normalized_shape.

    The derivation stands at the head of this module. Source: Ba, Kiros and Hinton, "Layer normalization",
    arXiv:1607.06450.
    """

    normalized_shape: int | tuple[int, ...]
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, eps=self.eps)
        if not self.shape:  # checks the lengths, too
            raise NNError("LayerNorm: normalized_shape is empty; name at least one axis")

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """normalized_shape as a tuple."""
        given = self.normalized_shape
        if not isinstance(given, Iterable):
            return (check_length(self, "normalized_shape", given),)
        return tuple(check_length(self, f"normalized_shape[{axis}]", length) for axis, length in enumerate(given))

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        names = ("weight", "bias") if self.bias else ("weight",)
        return {name: self.shape for name in names if self.elementwise_affine}

    def initial(self, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
        """w = 1 and b = 0."""
        values = {"weight": np.ones(self.shape, dtype), "bias": np.zeros(self.shape, dtype)}
        return {name: values[name] for name in self.parameter_shapes()}

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = checked(self, inputs)
        if x.shape[-len(self.shape) :] != self.shape:
            raise NNError(f"LayerNorm: input has shape {x.shape}, which does not end in normalized_shape {self.shape}")
        over = tuple(range(-len(self.shape), 0))
        count = x.dtype.type(math.prod(self.shape))
        mean = x.sum(axis=over, keepdims=True) / count  # (*, 1...)
        variance = np.square(x - mean).sum(axis=over, keepdims=True) / count

        x_hat, s = _standardize(x, mean, variance, self.eps)
        affine = {
            name: parameter(self, params, name, shape, x.dtype) for name, shape in self.parameter_shapes().items()
        }
        weight = affine.get("weight", np.ones((), x.dtype))
        y = x_hat * weight
        if "bias" in affine:
            y = y + affine["bias"]
        return y, _Normalized(x_hat, s, weight, over, {})

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x_hat = cache.x_hat
        check_match(self, "upstream", upstream, x_hat.shape, x_hat.dtype)
        dx = _standardize_backward(cache, upstream)
        over = tuple(range(x_hat.ndim - len(self.shape)))
        return Gradients((dx,), _affine_backward(cache, upstream, self.parameter_shapes(), over))
