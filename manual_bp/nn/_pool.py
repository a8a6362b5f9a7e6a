"""Maximum and average pooling over one, two or three axes: one set of formulas for any number of them.

The layers describe and check; the arithmetic stands in `textbook` (by definition) and in the
formulations that `_formulation` chooses by shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from . import textbook
from ._check import check_input, check_match, ieee
from ._layer import Array, Cache, Gradients, Layer, NNError, Params
from ._window import IntOrTuple, Shape, Window, batched, integers


@dataclass(frozen=True, slots=True)
class _PoolCache:
    """What the backward pass needs."""

    x: Array  # (N, C, *L)
    inputs: Shape  # shape of x as it was given
    outputs: Shape  # shape of y as it was returned


def _pool_window(
    layer: Layer, axes: int, kernel: IntOrTuple, stride: IntOrTuple | None, padding: IntOrTuple, dilation: IntOrTuple
) -> Window:
    """The windows of a pooling layer; raises NNError for hyperparameters that torch refuses."""
    name = type(layer).__name__
    size = integers(name, "kernel_size", kernel, axes, minimum=1)
    step = size if stride is None else integers(name, "stride", stride, axes, minimum=1)
    pad = integers(name, "padding", padding, axes, minimum=0)
    if any(2 * b > k for b, k in zip(pad, size, strict=True)):
        raise NNError(f"{name}: padding={padding!r} is more than half of kernel_size={kernel!r}, the most it takes")
    return Window(size, step, integers(name, "dilation", dilation, axes, minimum=1), pad, pad)


def _checked(layer: Layer, x: Array, window: Window, *, ceil: bool) -> Array:
    """The input with a batch axis, (N, C, *L); raises NNError if it is smaller than a window."""
    check_input(layer, x)
    x = batched(type(layer).__name__, x, len(window.kernel))
    if min(window.outputs(x.shape[2:], ceil=ceil)) < 1:
        raise NNError(
            f"{type(layer).__name__}: the input has spatial shape {x.shape[2:]}, with padding {window.before} on both "
            f"sides still smaller than the window, which spans {window.span}"
        )
    return x


@dataclass(frozen=True)
class _MaxPoolNd(Layer):
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

    kernel_size: IntOrTuple
    stride: IntOrTuple | None = None
    padding: IntOrTuple = 0
    dilation: IntOrTuple = 1
    return_indices: bool = False
    ceil_mode: bool = False

    #: number of spatial axes
    axes: ClassVar[int]

    def __post_init__(self) -> None:
        if self.return_indices:
            raise NNError(f"{type(self).__name__}: return_indices=True; it takes False, a layer has one output")
        _ = self.window  # checks the rest

    @cached_property
    def window(self) -> Window:
        """Where the windows stand on the input."""
        return _pool_window(self, self.axes, self.kernel_size, self.stride, self.padding, self.dilation)

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (given,) = inputs
        x = _checked(self, given, self.window, ceil=self.ceil_mode)  # (N, C, *L)
        y = textbook.max_pool_forward(x, self.window, ceil_mode=self.ceil_mode)  # (N, C, *P)
        y = y.reshape(*given.shape[: -self.axes], *y.shape[2:])
        return y, _PoolCache(x, given.shape, y.shape)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        check_match(self, "upstream", upstream, cache.outputs, cache.x.dtype)
        delta = upstream.reshape(*cache.x.shape[:2], *cache.outputs[-self.axes :])  # (N, C, *P)
        dx = textbook.max_pool_backward(cache.x, delta, self.window)  # (N, C, *L)
        return Gradients((dx.reshape(cache.inputs),))


@dataclass(frozen=True)
class _AvgPool(Layer):
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

    kernel_size: IntOrTuple
    stride: IntOrTuple | None = None
    padding: IntOrTuple = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    #: number of spatial axes
    axes: ClassVar[int]

    def __post_init__(self) -> None:
        _ = self.window  # checks the hyperparameters

    @cached_property
    def window(self) -> Window:
        """Where the windows stand on the input."""
        return _pool_window(self, self.axes, self.kernel_size, self.stride, self.padding, 1)

    @property
    def _divisor(self) -> int | None:
        """One divisor for all windows, if there is one."""
        return None

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (given,) = inputs
        x = _checked(self, given, self.window, ceil=self.ceil_mode)  # (N, C, *L)
        y = textbook.avg_pool_forward(
            x,
            self.window,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
            divisor_override=self._divisor,
        )  # (N, C, *P)
        y = y.reshape(*given.shape[: -self.axes], *y.shape[2:])
        return y, _PoolCache(x, given.shape, y.shape)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        check_match(self, "upstream", upstream, cache.outputs, cache.x.dtype)
        dx = textbook.avg_pool_backward(
            upstream.reshape(*cache.x.shape[:2], *cache.outputs[-self.axes :]),  # (N, C, *P)
            cache.x.shape[2:],
            self.window,
            count_include_pad=self.count_include_pad,
            divisor_override=self._divisor,
        )  # (N, C, *L)
        return Gradients((dx.reshape(cache.inputs),))


@dataclass(frozen=True)
class _AvgPoolNd(_AvgPool):
    """Average pooling that takes a divisor."""

    divisor_override: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.divisor_override == 0:
            raise NNError(f"{type(self).__name__}: divisor_override=0; it takes an integer other than 0, or None")

    @property
    def _divisor(self) -> int | None:
        return self.divisor_override


@dataclass(frozen=True)
class MaxPool1d(_MaxPoolNd):
    __doc__ = _MaxPoolNd.__doc__
    axes = 1


@dataclass(frozen=True)
class MaxPool2d(_MaxPoolNd):
    __doc__ = _MaxPoolNd.__doc__
    axes = 2


@dataclass(frozen=True)
class MaxPool3d(_MaxPoolNd):
    __doc__ = _MaxPoolNd.__doc__
    axes = 3


@dataclass(frozen=True)
class AvgPool1d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    axes = 1


@dataclass(frozen=True)
class AvgPool2d(_AvgPoolNd):
    __doc__ = _AvgPool.__doc__
    axes = 2


@dataclass(frozen=True)
class AvgPool3d(_AvgPoolNd):
    __doc__ = _AvgPool.__doc__
    axes = 3
