"""Mistakes in pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array

from ._mutant import StepMutant, mistake
from ._windows import gather, ones_like, scatter

MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
MEAN = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


def winners(s: Any) -> Array:
    """Which elements of every window equal its maximum, (N, C, *P, K)."""
    return np.asarray(gather(s, -np.inf) == s.y[..., None])


def first(mask: Array) -> Array:
    """The first True of every window, alone."""
    return np.asarray(np.cumsum(mask, axis=-1) * mask == 1)


def last(mask: Array) -> Array:
    """The last True of every window, alone."""
    return np.flip(first(np.flip(mask, -1)), -1)


def least(s: Any) -> Array:
    """The first minimum of every window."""
    values = gather(s, np.inf)
    return first(values == values.min(axis=-1, keepdims=True))


def at(index: int, s: Any) -> Array:
    """One fixed place of every window."""
    mask = np.zeros((*s.y.shape, int(np.prod(s.layer.window.kernel))), bool)
    mask[..., index] = True
    return mask


def give(s: Any, mask: Array, **options: Any) -> Array:
    """Hand every window's gradient to the elements of the mask."""
    return scatter(s, mask * s.g[..., None], **options)


def _transposed(s: Any, mask: Array) -> Array:
    """The winner's row taken for its column."""
    kernel = s.layer.window.kernel
    square = mask.reshape(*s.y.shape, *kernel)
    return square.swapaxes(-1, -2).reshape(mask.shape)


def _dropped(g: Array, axis: int) -> Array:
    """The last window along an axis set to 0."""
    out = g.copy()
    out[(slice(None),) * (axis % g.ndim) + (-1,)] = 0
    return out


def _square(layer: Any) -> bool:
    kernel = layer.window.kernel
    return len(kernel) >= 2 and kernel[-1] == kernel[-2]


def _taps(layer: Any) -> int:
    """Elements of a window."""
    return int(np.prod(layer.window.kernel))


def _counted(s: Any, include_padding: bool) -> Array:
    """How many elements each window of a mean counts, (*P)."""
    window, lengths = s.layer.window, s.x.shape[2:]
    count = np.ones((), np.int64)
    for n, p, k, t, b, a in zip(
        lengths, s.y.shape[2:], window.kernel, window.stride, window.before, window.after, strict=True
    ):
        place = np.arange(p)[:, None] * t + np.arange(k) - b
        low, high = (-b, n + a) if include_padding else (0, n)
        count = count[..., None] * ((place >= low) & (place < high)).sum(axis=1)
    return count


def _shared(s: Any, divisor: Any) -> Array:
    """Every element of a window gets g / divisor."""
    return scatter(s, np.broadcast_to((s.g / divisor)[..., None], (*s.g.shape, _taps(s.layer))).astype(s.g.dtype))


def _other_count(s: Any) -> Array:
    return np.asarray(_counted(s, not s.layer.count_include_pad), s.x.dtype)


def _sum_of(s: Any) -> Array:
    return np.asarray(gather(s, 0.0).sum(axis=-1))


def _repeated(s: Any) -> Array:
    """Upsampling by repetition, the remainder of the last window included."""
    out = s.g
    for axis, (n, k) in enumerate(zip(s.x.shape[2:], s.layer.window.kernel, strict=True), start=2):
        out = out.take(np.minimum(np.arange(n) // k, out.shape[axis] - 1), axis=axis)
    return np.asarray(out / s.x.dtype.type(_taps(s.layer)))


def _plain(layer: Any) -> bool:
    """Nothing but a kernel and a stride."""
    return not layer.window.padded and not layer.ceil_mode and _no_override(layer)


def _no_override(layer: Any) -> bool:
    return getattr(layer, "divisor_override", None) is None


def _assigned(s: Any) -> Array:
    """Window after window, the winner's gradient assigned and not added."""
    dx: Array = np.zeros_like(s.x)
    mask = first(winners(s))
    window, lengths = s.layer.window, s.x.shape[2:]
    for p in np.ndindex(s.g.shape[2:]):
        k = mask[(..., *p, slice(None))].argmax(axis=-1)  # (N, C), the winning tap
        tap = np.unravel_index(k, window.kernel)
        axes = zip(tap, p, window.stride, window.dilation, window.before, strict=True)
        place = [i * s_ + t * d - b for t, i, s_, d, b in axes]
        n, c = np.indices(k.shape)
        assert all(np.all(i < length) for i, length in zip(place, lengths, strict=True)), "a winner is inside"
        dx[(n, c, *place)] = s.g[(..., *p)]
    return dx


def _parts(s: Any) -> Array:
    """The right share of every window, for each of its elements."""
    own = s.layer.divisor_override if not _no_override(s.layer) else _counted(s, s.layer.count_include_pad)
    share: Array = (s.g / np.asarray(own, s.g.dtype))[..., None]
    return np.broadcast_to(share, (*s.g.shape, _taps(s.layer)))


def _largest(s: Any) -> Array:
    """The elements of every window with the largest absolute value."""
    size = np.abs(gather(s, 0.0))
    return np.asarray(size == size.max(axis=-1, keepdims=True))


MISTAKES: tuple[StepMutant, ...] = (
    # ---------------------------------------------------------------- the maximum, backward
    mistake(MAX, "dx", "maxpool-all-ties", "ties-all", "every element that equals the maximum gets the whole gradient",
            lambda s: give(s, winners(s))),
    mistake(MAX, "dx", "maxpool-ties-shared", "ties-shared", "equal maxima share the gradient (a valid subgradient)",
            lambda s: give(s, winners(s) / winners(s).sum(axis=-1, keepdims=True).astype(s.g.dtype)), kind="kink"),
    mistake(MAX, "dx", "maxpool-last-tie", "ties-last",
            "the last of equal maxima gets the gradient (a valid subgradient)", lambda s: give(s, last(winners(s))),
            kind="kink"),
    mistake(MAX, "dx", "maxpool-to-the-minimum", "winner-wrong", "the gradient goes to the smallest element",
            lambda s: give(s, least(s))),
    mistake(MAX, "dx", "maxpool-to-first-element", "winner-wrong",
            "the gradient goes to the first element of each window", lambda s: give(s, at(0, s))),
    mistake(MAX, "dx", "maxpool-winner-transposed", "winner-transposed", "row and column of the winner exchanged",
            lambda s: give(s, _transposed(s, first(winners(s)))), when=_square),
    mistake(MAX, "dx", "maxpool-spread-evenly", "mean-for-max", "the gradient is spread as if a mean had been taken",
            lambda s: _shared(s, s.g.dtype.type(_taps(s.layer)))),
    mistake(MAX, "dx", "maxpool-to-everyone", "mask-missing", "every element of the window gets the whole gradient",
            lambda s: _shared(s, s.g.dtype.type(1))),
    mistake(MAX, "dx", "maxpool-times-value", "derivative-wrong", "the gradient is multiplied with the maximum",
            lambda s: s.backward(g=s.g * s.y).dx),
    mistake(MAX, "dx", "maxpool-overwritten", "accumulation-overwritten",
            "a winner of several windows keeps the last one's gradient only", _assigned),
    mistake(MAX, "dx", "maxpool-dx-stride-is-kernel", "stride-ignored",
            "the way back steps by the kernel, not the stride",
            lambda s: give(s, first(winners(s)), stride=s.layer.window.kernel)),
    mistake(MAX, "dx", "maxpool-dx-padding-ignored", "padding-ignored",
            "the winner's place counted without the padding",
            lambda s: give(s, first(winners(s)), padding=tuple(0 for _ in s.layer.window.before))),
    mistake(MAX, "dx", "maxpool-dx-dilation-ignored", "dilation-ignored",
            "the winner's place counted without the dilation",
            lambda s: give(s, first(winners(s)), dilation=ones_like(s.layer.window.dilation))),
    mistake(MAX, "dx", "maxpool-last-row-dropped", "window-dropped", "the loop over windows ends one row early",
            lambda s: s.backward(g=_dropped(s.g, 2)).dx),
    mistake(MAX, "dx", "maxpool-last-column-dropped", "window-dropped", "the loop over windows ends one column early",
            lambda s: s.backward(g=_dropped(s.g, -1)).dx),
    mistake(MAX, "dx", "maxpool-positive-only", "mask-wrong-tensor",
            "windows whose maximum is not positive pass nothing", lambda s: s.backward(g=s.g * (s.y > 0)).dx),
    mistake(MAX, "dx", "maxpool-winner-by-size", "winner-wrong", "the winner is looked for by absolute value",
            lambda s: give(s, first(_largest(s)))),
    # ---------------------------------------------------------------- the maximum, forward
    mistake(MAX, "y", "maxpool-y-minimum", "min-for-max", "the minimum of the window",
            lambda s: np.asarray(gather(s, np.inf).min(axis=-1))),
    mistake(MAX, "y", "maxpool-y-mean", "mean-for-max", "the mean of the window",
            lambda s: np.asarray(np.nanmean(gather(s, np.nan), axis=-1))),
    mistake(MAX, "y", "maxpool-y-absolute", "absolute-value", "the maximum of the absolute values",
            lambda s: np.asarray(np.abs(gather(s, 0.0)).max(axis=-1))),
    mistake(MAX, "y", "maxpool-y-zero-padded", "padding-value-wrong", "the padding takes part as zeros, not as -∞",
            lambda s: np.asarray(gather(s, 0.0).max(axis=-1))),
    mistake(MAX, "y", "maxpool-y-from-zero", "initial-value-wrong", "the search starts at 0: negative windows give 0",
            lambda s: np.maximum(s.y, s.y.dtype.type(0))),
    mistake(MAX, "y", "maxpool-y-last-tap-forgotten", "window-off-by-one",
            "the last element of each window is not looked at",
            lambda s: np.asarray(gather(s, -np.inf)[..., :-1].max(axis=-1)),
            when=lambda layer: _taps(layer) > 1 and not layer.window.padded and not layer.ceil_mode),
    mistake(MAX, "y", "maxpool-y-dilation-ignored", "dilation-ignored", "the window is taken without gaps",
            lambda s: np.asarray(gather(s, -np.inf, dilation=ones_like(s.layer.window.dilation)).max(axis=-1))),
    # ---------------------------------------------------------------- the mean
    mistake(MEAN, "dx", "avgpool-not-divided", "mean-missing", "the gradient is not divided by the number of elements",
            lambda s: _shared(s, s.g.dtype.type(1))),
    mistake(MEAN, "dx", "avgpool-divided-by-side", "wrong-count", "divided by one side of the window, not by its area",
            lambda s: _shared(s, s.g.dtype.type(s.layer.window.kernel[-1])), when=_no_override),
    mistake(MEAN, "dx", "avgpool-dx-padding-counted", "wrong-count",
            "the padding counts in the divisor of the way back where it must not, or the other way round",
            lambda s: _shared(s, _other_count(s)), when=_no_override),
    mistake(MEAN, "dx", "avgpool-to-first-element", "mask-wrong", "the first element of the window gets it all",
            lambda s: give(s, at(0, s))),
    mistake(MEAN, "dx", "avgpool-overwritten", "accumulation-overwritten",
            "overlapping windows overwrite each other's share", lambda s: scatter(s, _parts(s), add=False)),
    mistake(MEAN, "dx", "avgpool-dx-stride-is-kernel", "stride-ignored",
            "the way back steps by the kernel, not the stride",
            lambda s: scatter(s, _parts(s), stride=s.layer.window.kernel)),
    mistake(MEAN, "dx", "avgpool-dx-padding-ignored", "padding-ignored",
            "the way back places windows without the padding",
            lambda s: scatter(s, _parts(s), padding=tuple(0 for _ in s.layer.window.before))),
    mistake(MEAN, "dx", "avgpool-remainder-filled", "remainder-filled",
            "upsampling by repetition gives the remainder a gradient, though no window covers it", _repeated,
            when=lambda layer: layer.window.kernel == layer.window.stride and _plain(layer)),
    mistake(MEAN, "dx", "avgpool-last-row-dropped", "window-dropped", "the loop over windows ends one row early",
            lambda s: s.backward(g=_dropped(s.g, 2)).dx),
    mistake(MEAN, "y", "avgpool-y-not-divided", "sum-for-mean", "the sum of the window", _sum_of),
    mistake(MEAN, "y", "avgpool-y-padding-counted", "wrong-count",
            "the padding counts in the divisor where it must not, or the other way round",
            lambda s: _sum_of(s) / _other_count(s), when=_no_override),
    mistake(MEAN, "y", "avgpool-y-override-ignored", "option-ignored", "divisor_override is ignored",
            lambda s: _sum_of(s) / s.y.dtype.type(_taps(s.layer)), when=lambda layer: not _no_override(layer)),
    mistake(MEAN, "y", "avgpool-y-maximum", "max-for-mean", "the maximum of the window",
            lambda s: np.asarray(gather(s, -np.inf).max(axis=-1))),
)  # fmt: skip
