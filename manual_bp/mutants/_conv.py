"""Mistakes in convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._mutant import StepMutant, mistake
from ._windows import conv_dw, conv_dx, conv_y, more, ones_like

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _spatial(a: Array) -> tuple[int, ...]:
    """The axes behind the first two."""
    return tuple(range(2, a.ndim))


def rotated(a: Array) -> Array:
    """Turned by 180° in all spatial axes."""
    return np.flip(a, _spatial(a)).copy()


def _zeros(layer: Any) -> bool:
    """Whether what is padded are zeros: the windows of these mistakes know no other padding."""
    return bool(layer.padding_mode == "zeros")


def _square(layer: Any) -> bool:
    """Whether the kernel can be transposed."""
    kernel = layer.window.kernel
    return len(kernel) >= 2 and kernel[-1] == kernel[-2]


def _interchangeable(layer: Any) -> bool:
    """Whether channels in and out can be taken for each other."""
    return bool(layer.weight_shape[0] == layer.weight_shape[1])


def _biased(layer: Any) -> bool:
    return bool(layer.bias)


def _without(a: Array, axis: int, index: int) -> Array:
    """The array with one slice along an axis set to 0."""
    out = a.copy()
    out[(slice(None),) * (axis % a.ndim) + (index,)] = 0
    return out


def _shuffled(a: Array, groups: int, axis: int) -> Array:
    """Channels counted as c G + g in place of g C/G + c."""
    shape = a.shape
    a = a.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return a.swapaxes(axis, axis + 1).reshape(shape)


def _inner(dx: Array, margin: tuple[int, ...]) -> Array:
    """Only what lies at least ``margin`` from every edge; the border is left at 0."""
    out = np.zeros_like(dx)
    inside: tuple[Any, ...] = (..., *(slice(m, n - m) for m, n in zip(margin, dx.shape[2:], strict=True)))
    out[inside] = dx[inside]
    return out


def _first_position(s: Any) -> Array:
    """∂L/∂b from the first output position only."""
    return np.asarray(s.g[(slice(None), slice(None), *(0,) * (s.g.ndim - 2))].sum(axis=0))


def _symmetric(s: Any) -> Array:
    """The border element repeated, where the reflection must leave it out."""
    b, a = s.layer.window.before, s.layer.window.after
    padded = np.pad(s.x, ((0, 0), (0, 0), *zip(b, a, strict=True)), mode="symmetric")
    return conv_y(s, x=padded, padding=tuple(0 for _ in b))


def _positions(s: Any) -> int:
    """Output positions of one channel."""
    return int(np.prod(s.g.shape[2:]))


def _is_first(g: Array) -> Array:
    """1 in the first channel, 0 in the others."""
    first = np.zeros((1, g.shape[1], *(1,) * (g.ndim - 2)), g.dtype)
    first[:, 0] = 1
    return first


MISTAKES: tuple[StepMutant, ...] = (
    # ---------------------------------------------------------------- ∂L/∂x: the kernel
    mistake(CONV, "dx", "conv-kernel-not-rotated", "kernel-not-rotated",
            "the kernel is not turned by 180° for the way back", lambda s: s.backward(weight=rotated(s.w)).dx),
    mistake(CONV, "dx", "conv-kernel-turned-by-90", "kernel-turned", "the kernel is turned by 90°, not by 180°",
            lambda s: s.backward(weight=np.rot90(s.w, axes=(-2, -1)).copy()).dx, when=_square),
    mistake(CONV, "dx", "conv-kernel-transposed", "kernel-transposed", "the kernel is transposed, not turned",
            lambda s: s.backward(weight=s.w.swapaxes(-1, -2).copy()).dx, when=_square),
    mistake(CONV, "dx", "conv-kernel-flipped-once", "kernel-flipped", "the kernel is flipped along one axis only",
            lambda s: s.backward(weight=np.flip(s.w, -1).copy()).dx),
    mistake(CONV, "dx", "conv-channels-swapped", "channels-swapped", "channels in and out exchanged in the kernel",
            lambda s: s.backward(weight=s.w.swapaxes(0, 1).copy()).dx, when=_interchangeable),
    mistake(CONV, "dx", "conv-first-output-channel-only", "channels-not-summed",
            "the error of the first output channel only", lambda s: s.backward(g=s.g * _is_first(s.g)).dx),
    mistake(CONV, "dx", "conv-groups-exchanged", "groups-mixed", "each group takes its neighbour's kernels",
            lambda s: s.backward(weight=np.roll(s.w, len(s.w) // s.layer.groups, axis=0)).dx),
    # ---------------------------------------------------------------- ∂L/∂x: the windows
    mistake(CONV, "dx", "conv-dx-stride-ignored", "stride-ignored", "∂L/∂y is not spread out by the stride",
            lambda s: conv_dx(s, stride=ones_like(s.layer.window.stride)), when=_zeros),
    mistake(CONV, "dx", "conv-dx-dilation-ignored", "dilation-ignored", "the way back forgets the dilation",
            lambda s: conv_dx(s, dilation=ones_like(s.layer.window.dilation)), when=_zeros),
    mistake(CONV, "dx", "conv-dx-padding-not-cropped", "padding-ignored",
            "the padding is not cut off: everything lands too far down and right",
            lambda s: conv_dx(s, padding=tuple(0 for _ in s.layer.window.before)), when=_zeros),
    mistake(CONV, "dx", "conv-dx-padding-one-more", "padding-off-by-one", "one element too many is cut off",
            lambda s: conv_dx(s, padding=more(s.layer.window.before)), when=_zeros),
    mistake(CONV, "dx", "conv-dx-overwritten", "accumulation-overwritten",
            "overlapping windows overwrite each other's share", lambda s: conv_dx(s, add=False), when=_zeros),
    mistake(CONV, "dx", "conv-dx-border-forgotten", "border-dropped",
            "a 'valid' convolution where a 'full' one is due: the border stays 0",
            lambda s: _inner(s.dx, more(s.layer.window.span, -1))),
    mistake(CONV, "dx", "conv-dx-last-row-dropped", "window-dropped", "the loop over output rows ends one row early",
            lambda s: s.backward(g=_without(s.g, 2, -1)).dx),
    mistake(CONV, "dx", "conv-dx-shifted", "shifted-by-one", "∂L/∂x lands one column too far right",
            lambda s: np.roll(s.dx, 1, axis=-1)),
    mistake(CONV, "dx", "conv-padding-copies-forgotten", "padding-fold-missing",
            "what the copied border got as padding is not handed back to it", conv_dx,
            when=lambda layer: not _zeros(layer)),
    # ---------------------------------------------------------------- ∂L/∂w
    mistake(CONV, "dw", "conv-dw-rotated", "gradient-rotated", "∂L/∂w comes out turned by 180°",
            lambda s: rotated(s.dw)),
    mistake(CONV, "dw", "conv-dw-transposed", "gradient-transposed", "∂L/∂w comes out transposed",
            lambda s: s.dw.swapaxes(-1, -2).copy(), when=_square),
    mistake(CONV, "dw", "conv-dw-upstream-rotated", "upstream-rotated",
            "a true convolution of x with ∂L/∂y where a correlation is due", lambda s: s.backward(g=rotated(s.g)).dw),
    mistake(CONV, "dw", "conv-dw-channels-swapped", "channels-swapped", "channels in and out exchanged in ∂L/∂w",
            lambda s: s.dw.swapaxes(0, 1).copy(), when=_interchangeable),
    mistake(CONV, "dw", "conv-dw-stride-ignored", "stride-ignored", "∂L/∂w reads x without the stride",
            lambda s: conv_dw(s, stride=ones_like(s.layer.window.stride)), when=_zeros),
    mistake(CONV, "dw", "conv-dw-dilation-ignored", "dilation-ignored", "∂L/∂w reads x without the dilation",
            lambda s: conv_dw(s, dilation=ones_like(s.layer.window.dilation)), when=_zeros),
    mistake(CONV, "dw", "conv-dw-padding-ignored", "padding-ignored", "∂L/∂w reads x as if it were not padded",
            lambda s: conv_dw(s, padding=tuple(0 for _ in s.layer.window.before)), when=_zeros),
    mistake(CONV, "dw", "conv-dw-padding-one-less", "padding-off-by-one", "∂L/∂w reads x one element too far on",
            lambda s: conv_dw(s, padding=more(s.layer.window.before, -1)), when=_zeros),
    mistake(CONV, "dw", "conv-dw-positions-averaged", "mean-for-sum", "∂L/∂w averaged over the output positions",
            lambda s: s.dw / _positions(s)),
    mistake(CONV, "dw", "conv-dw-last-column-dropped", "window-dropped", "the loop over output columns ends one early",
            lambda s: s.backward(g=_without(s.g, -1, -1)).dw),
    mistake(CONV, "dw", "conv-dw-groups-exchanged", "groups-mixed", "each group reads its neighbour's input channels",
            lambda s: s.backward(x=np.roll(s.x, s.x.shape[1] // s.layer.groups, axis=1)).dw),
    mistake(CONV, "dw", "conv-dw-channels-summed", "channels-summed",
            "every input channel gets the sum over all channels",
            lambda s: np.broadcast_to(s.dw.sum(axis=1, keepdims=True), s.dw.shape).copy()),
    mistake(CONV, ("dx", "dw"), "conv-padding-off-by-one", "padding-off-by-one", "the whole way back pads one too many",
            lambda s: tuple(conv(s, padding=more(s.layer.window.before)) for conv in (conv_dx, conv_dw)), when=_zeros),
    # ---------------------------------------------------------------- ∂L/∂b
    mistake(CONV, "db", "conv-db-positions-averaged", "mean-for-sum", "∂L/∂b averaged over the output positions",
            lambda s: s.db / _positions(s), when=_biased),
    mistake(CONV, "db", "conv-db-first-position", "space-not-summed", "∂L/∂b not summed over the positions",
            _first_position, when=_biased),
    mistake(CONV, "db", "conv-db-channels-summed", "channels-summed",
            "one sum over everything for every channel's bias", lambda s: np.full_like(s.db, s.db.sum()), when=_biased),
    # ---------------------------------------------------------------- y
    mistake(CONV, "y", "conv-y-kernel-rotated", "kernel-rotated", "a true convolution where the layer correlates",
            lambda s: s.forward(weight=rotated(s.w))),
    mistake(CONV, "y", "conv-y-kernel-transposed", "kernel-transposed", "the kernel stored by columns, read by rows",
            lambda s: s.forward(weight=s.w.swapaxes(-1, -2).copy()), when=_square),
    mistake(CONV, "y", "conv-y-bias-forgotten", "bias-missing", "the bias is never added",
            lambda s: s.forward(bias=0 * s.b), when=_biased),
    mistake(CONV, "y", "conv-y-bias-per-input-channel", "term-doubled", "the bias is added once for each input channel",
            lambda s: s.forward(bias=s.b * s.w.shape[1]), when=_biased),
    mistake(CONV, "y", "conv-y-bias-of-neighbour", "channels-mixed", "the bias of the channel beside it",
            lambda s: s.forward(bias=np.roll(s.b, 1)), when=_biased),
    mistake(CONV, "y", "conv-y-stride-ignored", "stride-ignored",
            "the first windows of stride 1, as many as are needed",
            lambda s: conv_y(s, stride=ones_like(s.layer.window.stride)), when=_zeros),
    mistake(CONV, "y", "conv-y-dilation-ignored", "dilation-ignored", "the kernel is applied without gaps",
            lambda s: conv_y(s, dilation=ones_like(s.layer.window.dilation)), when=_zeros),
    mistake(CONV, "y", "conv-y-padded-behind-only", "padding-ignored",
            "all the padding put behind the data, none in front",
            lambda s: conv_y(s, padding=tuple(0 for _ in s.layer.window.before)), when=_zeros),
    mistake(CONV, "y", "conv-y-zeros-for-copies", "padding-mode-wrong", "padded by zeros where the data should go on",
            conv_y, when=lambda layer: not _zeros(layer)),
    mistake(CONV, "y", "conv-y-border-repeated", "padding-mode-wrong", "the reflection repeats the border element",
            _symmetric, when=lambda layer: layer.padding_mode == "reflect"),
    mistake(CONV, "y", "conv-y-last-channel-forgotten", "channels-not-summed",
            "the loop over input channels ends one early", lambda s: s.forward(weight=_without(s.w, 1, -1))),
    mistake(CONV, "y", "conv-y-channels-shuffled", "groups-mixed",
            "group g reads every G-th channel, not its own block",
            lambda s: s.forward(x=_shuffled(s.x, s.layer.groups, 1))),
)  # fmt: skip
