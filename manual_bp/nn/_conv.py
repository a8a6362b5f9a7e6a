"""Convolution over one, two or three axes: one set of formulas for any number of them.

The layers describe and check; the arithmetic stands in `textbook` (by definition) and in the
formulations that `_formulation` chooses by shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _window_pad
from ._check import check_choice, check_input, check_match, ieee, parameter
from ._formulation import ConvPlan, plan_convolution
from ._formulation_conv import backward, forward
from ._layer import Array, Cache, Gradients, Layer, NNError, Params
from ._window import IntOrTuple, Shape, Window, batched, integers


class _ConvCache(NamedTuple):
    """What the backward pass needs, and nothing computed."""

    plan: ConvPlan
    x: Array  # as it was given, batched or not
    padded: Array  # (N, C, *L), padded unless by zeros
    weight: Array  # (O, C/G, *K)
    outputs: Shape  # shape of y as it was returned


@dataclass(frozen=True)
class _ConvNd(Layer):
    r"""Cross-correlation y = w ⋆ x + b, which deep-learning libraries call convolution.

    Parameters
    ----------
    in_channels, out_channels
        C and O. Both must be divisible by ``groups``.
    kernel_size, stride, dilation
        An integer, or one for each spatial axis.
    padding
        Elements added on both sides of each axis: an integer, or one for each axis; 'valid' (none) or 'same'
        (as many as keep the size, the odd one at the far end; stride 1 only).
    groups
        G: the channels fall into G groups that do not see each other; G = C is a depthwise convolution.
    bias
        Whether b is added.
    padding_mode
        'zeros', 'reflect', 'replicate' or 'circular'.

    Shapes: x (N, C, \*L) or unbatched (C, \*L); weight (O, C/G, \*K); bias (O,); y (N, O, \*P) with
    P = ⌊(L + padding − dilation (K − 1) − 1) / stride⌋ + 1 on each axis, ``padding`` counting both sides. All of one
    dtype. The batch may be empty.

    Derivation. x̄ is the padded input, p a window, k a tap, s the stride and d the dilation::

        y[n,o,p] = b[o] + Σ_c Σ_k w[o,c,k] x̄[n, c, p s + k d]

    The upstream gradient is δ = ∂L/∂y. ∂y[n,o,p]/∂x̄[n,c,i] = w[o,c,k] if i = p s + k d and 0 otherwise,
    ∂y[n,o,p]/∂w[o,c,k] = x̄[n, c, p s + k d], ∂y[n,o,p]/∂b[o] = 1. Hence

    - ∂L/∂x̄[n,c,i]  = Σ_o Σ_(p,k): p s + k d = i  w[o,c,k] δ[n,o,p]
    - ∂L/∂w[o,c,k]  = Σ_n Σ_p δ[n,o,p] x̄[n, c, p s + k d]
    - ∂L/∂b[o]      = Σ_n Σ_p δ[n,o,p]

    and ∂L/∂x sums ∂L/∂x̄ over all the copies that padding made of an element. For s = 1 the first is the
    "full" convolution of δ with the kernel turned by 180°: k = (i − p)/d. With groups, c runs over the channels
    of o's group.

    Sources: Goodfellow, Bengio and Courville, "Deep Learning" (2016), chapter 9, equations 9.4 to 9.13; Dumoulin and
    Visin, "A guide to convolution arithmetic for deep learning" (2016), arXiv:1603.07285.

    Raises
    ------
    NNError
        Hyperparameters that contradict each other; input, parameters or upstream gradient whose shape or dtype does
        not fit; an input smaller than the kernel.
    """

    in_channels: int
    out_channels: int
    kernel_size: IntOrTuple
    stride: IntOrTuple = 1
    padding: IntOrTuple | str = 0
    dilation: IntOrTuple = 1
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"

    #: number of spatial axes
    axes: ClassVar[int]

    def __post_init__(self) -> None:
        name = type(self).__name__
        (groups,) = integers(name, "groups", self.groups, 1, minimum=1)
        for field in ("in_channels", "out_channels"):
            (value,) = integers(name, field, getattr(self, field), 1, minimum=1)
            if value % groups:
                raise NNError(f"{name}: {field}={value} is not divisible by groups={self.groups}")
        check_choice(self, "padding_mode", self.padding_mode, _window_pad.MODES)
        _ = self.window  # checks the rest

    @cached_property
    def window(self) -> Window:
        """Where the windows stand on the input."""
        name = type(self).__name__
        kernel = integers(name, "kernel_size", self.kernel_size, self.axes, minimum=1, single=False)
        stride = integers(name, "stride", self.stride, self.axes, minimum=1)
        dilation = integers(name, "dilation", self.dilation, self.axes, minimum=1)
        if not isinstance(self.padding, str):
            pad = integers(name, "padding", self.padding, self.axes, minimum=0, single=self.padding_mode == "zeros")
            return Window(kernel, stride, dilation, pad, pad)
        check_choice(self, "padding", self.padding, ("same", "valid"))
        if self.padding == "valid":
            return Window(kernel, stride, dilation, (0,) * self.axes, (0,) * self.axes)
        if any(s != 1 for s in stride):
            raise NNError(f"{name}: padding='same' takes stride 1, not {self.stride!r}; give the padding as numbers")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return Window(kernel, stride, dilation, tuple(t // 2 for t in total), tuple(t - t // 2 for t in total))

    @cached_property
    def weight_shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *self.window.kernel)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": self.weight_shape} | ({"bias": (self.out_channels,)} if self.bias else {})

    def initial(self, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
        """Uniform on ±1/√fan_in, fan_in = C/G times the taps, weight and bias alike.

        It is torch's kaiming_uniform_ with a = √5.
        """
        bound = 1.0 / math.sqrt(math.prod(self.weight_shape[1:]))
        shapes = self.parameter_shapes()
        return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}

    @ieee
    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = inputs
        check_input(self, x)
        weight = parameter(self, params, "weight", self.weight_shape, x.dtype)
        bias = parameter(self, params, "bias", (self.out_channels,), x.dtype) if self.bias else None
        plan = self._known.get((x.shape, x.itemsize)) or self._plan(x)
        padded = x if x.ndim == self.axes + 2 else x[None]  # (N, C, *L)
        if self.padding_mode != "zeros":
            padded = _window_pad.pad(padded, self.window, self.padding_mode)

        y = forward(padded, weight, bias, plan)  # (N, O, *P)
        if x.ndim == self.axes + 1:
            y = y[0]
        return y, _ConvCache(plan, x, padded, weight, y.shape)

    @ieee
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x, padded, plan = cache.x, cache.padded, cache.plan
        check_match(self, "upstream", upstream, cache.outputs, x.dtype)
        delta = upstream if upstream.ndim == padded.ndim else upstream[None]  # (N, O, *P)

        dx, dw, db = backward(padded, cache.weight, delta, plan)
        if self.padding_mode != "zeros":
            dx = _window_pad.unpad(dx, self.window, x.shape[-self.axes :], self.padding_mode)
        return Gradients((dx.reshape(x.shape),), {"weight": dw, "bias": db} if self.bias else {"weight": dw})

    @cached_property
    def _known(self) -> dict[tuple[Shape, int], ConvPlan]:
        """The plans for the inputs met so far: a memo of what follows from the fields alone."""
        return {}

    def _plan(self, x: Array) -> ConvPlan:
        """How to convolve an input; raises NNError if it cannot be one."""
        window, (batch, channels, *rest) = self.window, batched(type(self).__name__, x, self.axes).shape
        lengths = tuple(rest)
        self._check_size(channels, lengths)
        if self.padding_mode != "zeros":  # only zero padding is part of the convolution, other modes come before it
            none = (0,) * self.axes
            lengths = tuple(map(sum, zip(window.before, lengths, window.after, strict=True)))
            window = replace(window, before=none, after=none)
        plan = plan_convolution(window, self.groups, (batch, channels, *lengths), self.out_channels, x.itemsize)
        self._known[x.shape, x.itemsize] = plan
        return plan

    def _check_size(self, channels: int, lengths: Shape) -> None:
        name, w = type(self).__name__, self.window
        if channels != self.in_channels:
            raise NNError(f"{name}: the input has {channels} channels; it takes in_channels={self.in_channels}")
        if min(w.outputs(lengths)) < 1:
            padded = tuple(map(sum, zip(w.before, lengths, w.after, strict=True)))
            raise NNError(f"{name}: the input, padded to {padded}, is smaller than the window, {w.span}")
        _window_pad.check(name, w, lengths, self.padding_mode)


class Conv1d(_ConvNd):
    __doc__ = _ConvNd.__doc__
    axes = 1


class Conv2d(_ConvNd):
    __doc__ = _ConvNd.__doc__
    axes = 2


class Conv3d(_ConvNd):
    __doc__ = _ConvNd.__doc__
    axes = 3
