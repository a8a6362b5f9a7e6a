"""The one place that decides how a layer is computed, by its shape.

A convolution is a matrix product once the elements that each window covers stand in a column
(im2col). What differs is how much of the columns exists at a time, and in which order:

- *batch last*: all samples at once, as a slab (C, *L, N) whose innermost axis is the batch. For
  small images: a column block's rows are runs of N or more elements, and one product serves
  the whole batch.
- *image by image*: a slab (C, *L, 1) for each sample, (N, C, *L) as it is. For larger images: nothing is transposed,
  products write straight into the output, and threads share the samples.

and how the input's gradient comes about:

- *gather*: columns of the upstream gradient serve ∂L/∂x (a convolution with the turned kernel) and
  ∂L/∂w at once. Stride 1 only; its columns are as many as the *output* channels.
- *scatter*: columns of the input serve ∂L/∂w; ∂L/∂x adds up Wᵀδ tap by tap. Any stride; its columns are as many as
  the *input* channels.

Columns are made block by block, in one buffer that stays in cache, never for a whole large layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ._formulation_threads import threads
from ._window import Shape, Window

#: bytes of columns that are made at a time
BLOCK = 1 << 20
#: a batch of images with at most so many positions is computed batch last
SMALL_IMAGE = 256
#: multiplications for which a second thread pays
SHARED = 10_000_000
#: how much more columns of the upstream gradient than of the input may there be before scattering is faster
SCATTER = 3


@dataclass(frozen=True, slots=True)
class ConvPlan:
    """How one convolution of one shape is computed."""

    window: Window
    turned: Window | None  # windows of the upstream gradient that gather ∂L/∂x; None: scatter it
    groups: int
    channels: int  # C
    out_channels: int  # O
    lengths: Shape  # *L
    outputs: Shape  # *P
    batch_last: bool  # else image by image
    rows: int  # rows of windows in a block of columns
    turned_rows: int  # the same for ``turned``
    threads: int


def plan_convolution(window: Window, groups: int, x_shape: Shape, out_channels: int, itemsize: int) -> ConvPlan:
    """Choose for an input of this shape (N, C, *L)."""
    batch, channels, *rest = x_shape
    lengths = tuple(rest)
    outputs = window.outputs(lengths)
    positions, taps = math.prod(outputs), math.prod(window.kernel)
    batch_last = batch <= 1 or max(positions, math.prod(lengths)) <= SMALL_IMAGE
    samples = batch if batch_last else 1

    turned = _turned(window)
    if turned and out_channels * math.prod(lengths) > SCATTER * channels * positions:
        turned = None
    return ConvPlan(
        window=window,
        turned=turned,
        groups=groups,
        channels=channels,
        out_channels=out_channels,
        lengths=lengths,
        outputs=outputs,
        batch_last=batch_last,
        rows=_rows(channels * taps * samples * itemsize, outputs),
        turned_rows=_rows(out_channels * taps * samples * itemsize, lengths),
        threads=threads() if batch * out_channels * (channels // groups) * taps * positions >= SHARED else 1,
    )


def _turned(window: Window) -> Window | None:
    """The windows on δ that see, for each element of the input, the outputs it had a part in; None if there are none.

    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), relationship 9: padding k − 1 − p, stride 1.
    """
    before = tuple(span - 1 - b for span, b in zip(window.span, window.before, strict=True))
    after = tuple(span - 1 - a for span, a in zip(window.span, window.after, strict=True))
    if any(s != 1 for s in window.stride) or min(before) < 0 or min(after) < 0:
        return None
    return replace(window, before=before, after=after)


def _rows(bytes_of_a_window: int, windows: Shape) -> int:
    """Rows of windows (places on the first axis) whose columns fill a block."""
    row = bytes_of_a_window * math.prod(windows[1:])
    blocks = max(1, round(row * windows[0] / BLOCK))
    return -(-windows[0] // blocks)
