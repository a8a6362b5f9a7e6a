"""The one place that decides how convolution and pooling are computed, by their shape.

A convolution is a matrix product once the elements that each window covers stand in a column
(im2col). What differs is how much of the columns exists at a time, and in which order:

- *positions*: one small image, every element of its columns looked up.
- *tiles*: few channels or little images: a kernel computes several neighbouring outputs at once, all of them if there
  are few (`_formulation_tiles`). It is another convolution, computed by one of the following.
- *single*: one window that covers the image: the image is the column.
- *batch last*: all samples at once, as a slab (C, *L, N) whose innermost axis is the batch. For images with little
  work in each: the columns are copied in runs of N or more elements, and one product serves the whole batch.
- *image by image*: a slab (C, *L, 1) for each sample, (N, C, *L) as it is. For images with much work in each: nothing
  is transposed, products write straight into the output, and threads share the samples. Where the columns of an image
  are few, one call serves several images.

and how the input's gradient comes about:

- *gather*: columns of the upstream gradient serve ∂L/∂x (a convolution with the turned kernel) and ∂L/∂w at once.
  Stride 1 only; its columns are as many as the *output* channels.
- *scatter*: columns of the input serve ∂L/∂w; ∂L/∂x adds up Wᵀδ tap by tap. Any stride; its columns are as many as
  the *input* channels.

Pooling goes along one axis after the other and tap by tap over all windows, large inputs in pieces that stay in cache;
for little inputs it looks up the positions of all taps at once.

Columns are made block by block, in one buffer that stays in cache, never for a whole large layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

from ._formulation_columns import Columns
from ._formulation_little import Little
from ._formulation_threads import threads
from ._formulation_tiles import Tiles
from ._window import Shape, Window

#: elements of the columns of a single image up to which it is computed by positions
LITTLE_IMAGE = 4096
#: elements of the whole matrix of a convolution up to which it is written out
LITTLE_MATRIX = 4096
#: the longest tile, on each axis
TILE = 8
#: what a multiplication costs, and putting an output to its place, if copying an element of a column costs 1; matrices
#: with fewer rows than so many are multiplied no faster; how much cheaper than none tiles must be
MULTIPLY, JOIN, SHORT, GAIN = 0.05, 0.6, 32, 1.5
#: a batch of images of at most so many multiplications, or so many windows, each is computed batch last
SMALL_IMAGE = 1_000_000
FEW_WINDOWS = 128
#: bytes that one row of a slab's windows may take as columns; a batch for which it is more is computed in parts
ROW = 1 << 20
#: multiplications for which it pays to share a layer between threads, and to give the second product a thread
SHARED = 32_000_000
LONG = 4_000_000
#: how much more columns of the upstream gradient than of the input there may be before scattering is faster
SCATTER = 3
#: elements of all windows up to which pooling looks up positions
LITTLE_POOL = 1 << 11
#: bytes of the input that pooling works on at a time, and from which on a second thread pays
PIECE = 1 << 19
SHARED_POOL = 1 << 22


@dataclass(frozen=True, slots=True)
class ConvPlan:
    """How one convolution of one shape is computed."""

    groups: int
    channels: int  # C
    out_channels: int  # O
    lengths: Shape  # *L
    outputs: Shape  # *P
    batch_last: bool  # else image by image
    part: int  # samples to compute at a time
    columns: Columns  # of the input
    turned: Columns | None  # of the upstream gradient, to gather ∂L/∂x; None: scatter it
    little: Little | None  # one small image
    tiles: Tiles | None  # to compute outputs in tiles, by the plan ``by_tile``
    by_tile: ConvPlan | None
    single: bool  # one window that covers the whole image
    at_once: bool  # no loop: all columns fit into a block, and there is nothing to share
    big: bool  # worth sharing between threads
    long: bool  # worth a second thread for the second of two products

    @property
    def threads(self) -> int:
        return threads() if self.big else 1

    @property
    def beside(self) -> bool:
        """Whether both gradients, of the same single block of columns, are computed at a time."""
        c = self.columns
        return self.long and c.rows >= c.outputs[0] and threads() > 1

    @property
    def several(self) -> int:
        """How many images are computed at a time where each is computed by itself."""
        return 1 if self.batch_last else self.columns.images

    def for_part(self, batch: int) -> ConvPlan:
        """The plan for so many of the samples."""
        c = self.columns
        return _plan(c.window, self.groups, (batch, self.channels, *self.lengths), self.out_channels, c.itemsize)


def plan_convolution(window: Window, groups: int, x_shape: Shape, out_channels: int, itemsize: int) -> ConvPlan:
    """Choose for an input of this shape (N, C, *L)."""
    plan = _plan(window, groups, x_shape, out_channels, itemsize)
    tile = _tile(plan)
    if math.prod(tile) == 1:
        return plan
    tiles = Tiles(window, tile, (out_channels, plan.channels // groups, *window.kernel), plan.outputs)
    by_tile = _plan(tiles.windows, groups, x_shape, out_channels * tiles.size, itemsize)
    return replace(plan, tiles=tiles, by_tile=by_tile)


def _plan(window: Window, groups: int, x_shape: Shape, out_channels: int, itemsize: int) -> ConvPlan:
    """The choice among formulations without tiles."""
    batch, channels, *rest = x_shape
    lengths = tuple(rest)
    outputs = window.outputs(lengths)
    work = out_channels * (channels // groups) * math.prod(window.kernel) * math.prod(outputs)  # of an image
    batch_last = batch <= 1 or work <= SMALL_IMAGE or math.prod(outputs) <= FEW_WINDOWS
    samples, big = batch if batch_last else 1, batch * work >= SHARED

    turned = _turned(window)
    if out_channels * math.prod(lengths) > SCATTER * channels * math.prod(outputs):
        turned = None
    row = channels * math.prod(window.kernel) * math.prod(outputs[1:]) * itemsize  # bytes of an image's row of columns
    columns = Columns(window, groups, channels, lengths, samples, itemsize)
    turned_columns = Columns(turned, groups, out_channels, outputs, samples, itemsize) if turned else None
    return ConvPlan(
        groups=groups,
        channels=channels,
        out_channels=out_channels,
        lengths=lengths,
        outputs=outputs,
        batch_last=batch_last,
        part=max(1, ROW // row) if batch_last else batch,
        columns=columns,
        turned=turned_columns,
        little=Little(columns, out_channels) if batch == groups == 1 and columns.size <= LITTLE_IMAGE else None,
        tiles=None,
        by_tile=None,
        single=groups == 1 and max(outputs) == 1 and max(window.dilation) == 1,
        at_once=batch_last and not big and all(c.rows >= c.outputs[0] for c in (columns, turned_columns) if c),
        big=big,
        long=batch_last and not big and batch * work >= LONG,
    )


def _tile(plan: ConvPlan) -> Shape:
    """The tile to compute at once: all outputs of a little image, or a few where that is clearly cheaper than none.

    What an output costs: the elements of its columns are copied and multiplied by the kernels, and it goes from its
    tile to its place.
    """
    window, none = plan.columns.window, (1,) * len(plan.outputs)
    out_channels, channels = plan.out_channels // plan.groups, plan.channels // plan.groups

    def span(tile: Shape) -> int:
        """Elements of a channel that a tile sees."""
        return math.prod((b - 1) * s + n for b, s, n in zip(tile, window.stride, window.span, strict=True))

    def cost(tile: Shape) -> float:
        size = math.prod(tile)
        columns = channels * span(tile) / size
        return columns * (1 + MULTIPLY * max(out_channels * size, SHORT)) + out_channels * JOIN

    if plan.little is not None or min(plan.outputs) < 1:  # as good as it gets, or there are no windows
        return none
    if plan.groups == 1 and out_channels * channels * math.prod(plan.outputs) * span(plan.outputs) <= LITTLE_MATRIX:
        return plan.outputs
    if plan.at_once:
        return none
    divisors = ([b for b in range(TILE, 0, -1) if p % b == 0] for p in plan.outputs)
    best = min(product(*divisors), key=cost)
    untiled = plan.columns.height * (1 + MULTIPLY * max(out_channels, SHORT))
    return best if GAIN * cost(best) < untiled else none


def _turned(window: Window) -> Window | None:
    """The windows on δ that see, for each element of the input, the outputs it had a part in; None if there are none.

    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), relationship 9: padding k − 1 − p, stride 1.
    """
    before = tuple(span - 1 - b for span, b in zip(window.span, window.before, strict=True))
    after = tuple(span - 1 - a for span, a in zip(window.span, window.after, strict=True))
    if any(s != 1 for s in window.stride) or min(before) < 0 or min(after) < 0:
        return None
    return replace(window, before=before, after=after)
