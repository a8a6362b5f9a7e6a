"""Maximum and average pooling over one, two or three axes: one set of formulas for any number of them.

The layers describe and check; the arithmetic stands in `textbook` (by definition) and in
`_pool_formulas` (all windows at once).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ._check import check_input, check_match, ieee
from ._formulation import LITTLE_POOL
from ._layer import Array, Cache, Gradients, Layer, NNError, Params
from ._pool_formulas import (
    avg_pool,
    avg_pool_backward,
    divisors,
    max_pool,
    max_pool_backward,
    max_pool_little,
    max_pool_little_backward,
)
from ._pool_windows import Taps
from ._window import IntOrTuple, Shape, Window, batched, integers


class _MaxCache(NamedTuple):
    """What the backward pass of a maximum needs."""

    taps: Taps
    stages: list[Array] | None  # the padded input, its maxima along one axis after the other
    winners: Array | None  # or where a little input's maxima lie
    dtype: np.dtype[Any]
    inputs: Shape  # shape of x as it was given
    outputs: Shape  # shape of y as it was returned


class _AvgCache(NamedTuple):
    """What the backward pass of a mean needs."""

    taps: Taps
    divisor: int | Array
    x: Array  # (N, C, *L), for its shape, dtype and order in memory alone
    inputs: Shape  # shape of x as it was given
    outputs: Shape  # shape of y as it was returned


@dataclass(frozen=True)
class _PoolNd(Layer):
    """What all pooling layers share."""

    kernel_size: IntOrTuple
    stride: IntOrTuple | None = None
    padding: IntOrTuple = 0

    #: number of spatial axes
    axes: ClassVar[int]

    def __post_init__(self) -> None:
        _ = self.window  # checks the hyperparameters

    @cached_property
    def window(self) -> Window:
        """Where the windows stand on the input."""
        name, dilation = type(self).__name__, getattr(self, "dilation", 1)
        kernel = integers(name, "kernel_size", self.kernel_size, self.axes, minimum=1)
        given = self.stride
        if given is None or (isinstance(given, tuple) and not given):  # torch takes () for None
            given = kernel
        stride = integers(name, "stride", given, self.axes, minimum=1)
        pad = integers(name, "padding", self.padding, self.axes, minimum=0)
        if any(2 * b > k for b, k in zip(pad, kernel, strict=True)):
            raise NNError(
                f"{name}: padding={self.padding!r}; it takes at most half of kernel_size={self.kernel_size!r}"
            )
        return Window(kernel, stride, integers(name, "dilation", dilation, self.axes, minimum=1), pad, pad)

    @cached_property
    def _known(self) -> dict[Shape, Taps]:
        """The windows on inputs of the sizes met so far: a memo of what follows from the fields alone."""
        return {}

    def _windows_on(self, x: Array) -> tuple[Array, Taps]:
        """The input with a batch axis, (N, C, *L), and the windows on it; raises NNError for what it cannot be."""
        name = type(self).__name__
        check_input(self, x)
        x = batched(name, x, self.axes)
        lengths = x.shape[2:]
        if lengths not in self._known:
            taps = Taps(self.window, lengths, getattr(self, "ceil_mode", False))
            if min(taps.outputs) < 1:
                raise NNError(
                    f"{name}: the input has spatial shape {lengths}; with padding {self.window.before} on both sides "
                    f"it is still smaller than the window, {self.window.span}"
                )
            self._known[lengths] = taps
        return x, self._known[lengths]


@dataclass(frozen=True)
class _MaxPoolNd(_PoolNd):
    r"""Maximum of each window: y[p] = max over window p of x.

    Parameters
    ----------
    kernel_size, stride, dilation
        An integer, or one for each spatial axis. ``stride`` None means the kernel size.
    padding
        Elements of −∞ on both sides of each axis, at most half of the kernel size.
    return_indices
        Only False: the winners stay in the cache.
    ceil_mode
        Round the number of windows up: the last one may reach over the far end, as long as it starts before it.

    Shapes: x (N, C, \*L) or unbatched (C, \*L); y (N, C, \*P) with
    P = ⌊(L + 2 padding − dilation (K − 1) − 1) / stride⌋ + 1 on each axis. The batch may be empty.

    Derivation. W(p) are the elements that window p covers, δ = ∂L/∂y the upstream gradient::

        y[p] = x[m(p)],   m(p) = argmax over i in W(p) of x[i]

    A small change of the winner changes y by as much, a change of any other element not at all:
    ∂y[p]/∂x[i] = 1 if i = m(p) and 0 otherwise. Hence ∂L/∂x[i] = Σ_p: m(p) = i  δ[p]; the losers get nothing.
    Where elements tie there is no derivative, and the first in window order takes the whole gradient: torch's
    choice among the subgradients. A NaN counts as greater than everything, and the last one of a window wins, as in
    torch.

    Source: Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 9.3.

    Raises
    ------
    NNError
        Hyperparameters out of range; input or upstream gradient whose shape or dtype does not fit.
    """

    dilation: IntOrTuple = 1
    return_indices: bool = False
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.return_indices:
            raise NNError(f"{type(self).__name__}: return_indices=True; it takes False, a layer has one output")

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (given,) = inputs
        x, taps = self._windows_on(given)  # (N, C, *L)
        stages, winners = None, None
        if x.shape[0] * x.shape[1] * taps.size <= LITTLE_POOL:
            y, winners = max_pool_little(x, taps)  # (N C, P)
        else:
            stages = max_pool(x, taps)
            y = stages[-1].copy(order="K")  # (N, C, *P); the output is the caller's
        y = y.reshape(*given.shape[: -self.axes], *taps.outputs)
        return y, _MaxCache(taps, stages, winners, x.dtype, given.shape, y.shape)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        taps, inputs = cache.taps, cache.inputs
        check_match(self, "upstream", upstream, cache.outputs, cache.dtype)
        delta = upstream if upstream.ndim == self.axes + 2 else upstream[None]  # (N, C, *P)
        if cache.stages is None:
            dx = max_pool_little_backward(cache.winners, delta, taps)
        else:
            dx = max_pool_backward(cache.stages, delta, taps)
        return Gradients((dx.reshape(inputs),))


@dataclass(frozen=True)
class _AvgPoolNd(_PoolNd):
    r"""Mean of each window: y[p] = mean over window p of x.

    Parameters
    ----------
    kernel_size, stride
        An integer, or one for each spatial axis. ``stride`` None means the kernel size.
    padding
        Zeros on both sides of each axis, at most half of the kernel size.
    ceil_mode
        Round the number of windows up: the last one may reach over the far end, as long as it starts before it.
    count_include_pad
        Whether the padding counts in the mean's divisor. What a window covers beyond the padding never does.
    divisor_override
        A divisor for all windows in place of their size (two and three axes only).

    Shapes: x (N, C, \*L) or unbatched (C, \*L); y (N, C, \*P) with P = ⌊(L + 2 padding − K) / stride⌋ + 1 on each
    axis. The batch may be empty.

    Derivation. W(p) are the elements of the input that window p covers, D(p) its divisor, δ = ∂L/∂y::

        y[p] = 1/D(p) Σ_(i in W(p)) x[i]

    ∂y[p]/∂x[i] = 1/D(p) for i in W(p), hence ∂L/∂x[i] = Σ_p: i in W(p)  δ[p]/D(p): every element of the window
    gets the same share.

    Source: Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 9.3; torch's rules for D(p).

    Raises
    ------
    NNError
        Hyperparameters out of range; input or upstream gradient whose shape or dtype does not fit.
    """

    ceil_mode: bool = False
    count_include_pad: bool = True

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (given,) = inputs
        x, taps = self._windows_on(given)  # (N, C, *L)
        divisor = divisors(
            taps,
            count_include_pad=self.count_include_pad,
            divisor_override=getattr(self, "divisor_override", None),
        )
        y = avg_pool(x, taps, divisor).reshape(*given.shape[: -self.axes], *taps.outputs)  # (N, C, *P)
        return y, _AvgCache(taps, divisor, x, given.shape, y.shape)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x, taps = cache.x, cache.taps
        check_match(self, "upstream", upstream, cache.outputs, x.dtype)
        delta = upstream.reshape(*x.shape[:2], *taps.outputs)  # (N, C, *P)
        dx = avg_pool_backward(x, delta, taps, cache.divisor)  # (N, C, *L)
        return Gradients((dx.reshape(cache.inputs),))


@dataclass(frozen=True)
class _AvgPoolNdOverride(_AvgPoolNd):
    """Average pooling that takes a divisor."""

    divisor_override: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.divisor_override
        if given is not None and (isinstance(given, bool) or not isinstance(given, Integral) or given == 0):
            raise NNError(f"{type(self).__name__}: divisor_override={given!r}; it takes an integer but 0, or None")


class MaxPool1d(_MaxPoolNd):
    __doc__ = _MaxPoolNd.__doc__
    axes = 1


class MaxPool2d(_MaxPoolNd):
    __doc__ = _MaxPoolNd.__doc__
    axes = 2


class MaxPool3d(_MaxPoolNd):
    __doc__ = _MaxPoolNd.__doc__
    axes = 3


class AvgPool1d(_AvgPoolNd):
    __doc__ = _AvgPoolNd.__doc__
    axes = 1


class AvgPool2d(_AvgPoolNdOverride):
    __doc__ = _AvgPoolNd.__doc__
    axes = 2


class AvgPool3d(_AvgPoolNdOverride):
    __doc__ = _AvgPoolNd.__doc__
    axes = 3

    def _windows_on(self, x: Array) -> tuple[Array, Taps]:
        x, taps = super()._windows_on(x)
        if any(n < k for n, k in zip(taps.lengths, self.window.kernel, strict=True)):
            raise NNError(
                f"AvgPool3d: the input has spatial shape {taps.lengths}; without padding it is smaller than the "
                f"kernel, {self.window.kernel}, which this layer refuses whatever the padding"
            )
        return x, taps
