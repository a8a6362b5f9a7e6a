"""Slabs and columns: the memory that the fast convolutions work on.

A *slab* is a contiguous array (C, *L, M): M samples, side by side on the innermost axis. The batch
is seen as (S, C, *L, M), S slabs of M samples with S M = N: one slab of all samples (batch last), or
one for each sample as it lies in memory (image by image).

*Columns* are the windows of a slab, (G, C/G K, P M): row (c, k) of group g holds what tap k of channel c
sees, column (p, m) belongs to window p of sample m.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np

from ._layer import Array
from ._window import Index, Shape, Window

#: bytes of columns that are made at a time
BLOCK = 1 << 20
#: and at least so many columns, for the matrix product's sake
COLUMNS = 512
#: bytes up to which new memory costs nothing
LITTLE = 1 << 16
#: bytes that a thread keeps for its columns from one call to the next, at most
SCRATCH = 1 << 22


class Block(NamedTuple):
    """The columns of a few rows of windows (a row: all windows at one place on the first axis)."""

    start: int  # the first row
    stop: int  # the row after the last one
    place: slice  # where they stand among all columns
    columns: Array  # (G, C/G K, columns)
    by_tap: Array  # the same memory as (C, *K, rows, *P', M)


@dataclass(frozen=True)
class Columns:
    """How the columns of slabs of one shape are made."""

    window: Window
    groups: int
    channels: int  # C
    lengths: Shape  # *L
    samples: int  # M
    itemsize: int

    @cached_property
    def outputs(self) -> Shape:
        """Number of windows on each axis, *P."""
        return self.window.outputs(self.lengths)

    @cached_property
    def padded_shape(self) -> Shape:
        w = self.window
        return (
            self.channels,
            *(b + n + a for b, n, a in zip(w.before, self.lengths, w.after, strict=True)),
            self.samples,
        )

    @cached_property
    def inside(self) -> Index:
        """Where in a padded slab the slab lies."""
        return (slice(None), *(slice(b, b + n) for b, n in zip(self.window.before, self.lengths, strict=True)))

    @cached_property
    def _view(self) -> tuple[Shape, Shape]:
        """Shape (C, *K, *P, M) and strides of all windows of a padded slab.

        The strides are computed from the shape: those that NumPy reports for an axis of length 1 may be anything.
        """
        w, strides = self.window, [self.itemsize]
        for length in self.padded_shape[:0:-1]:
            strides.append(strides[-1] * length)
        sample, *spatial, channel = strides
        spatial.reverse()
        taps = (d * s for d, s in zip(w.dilation, spatial, strict=True))
        steps = (step * s for step, s in zip(w.stride, spatial, strict=True))
        return (self.channels, *w.kernel, *self.outputs, self.samples), (channel, *taps, *steps, sample)

    @cached_property
    def height(self) -> int:
        """C/G K."""
        return self.channels // self.groups * math.prod(self.window.kernel)

    @cached_property
    def width(self) -> int:
        """Columns in a row of windows."""
        return math.prod(self.outputs[1:]) * self.samples

    @property
    def size(self) -> int:
        """Elements of all columns."""
        return self.groups * self.height * self.width * self.outputs[0]

    @cached_property
    def rows(self) -> int:
        """Rows of windows in a block."""
        columns = max(BLOCK // (self.groups * self.height * self.itemsize), COLUMNS)
        blocks = max(1, round(self.width * self.outputs[0] / columns))
        return -(-self.outputs[0] // blocks)

    @cached_property
    def copied(self) -> bool:
        """Whether columns are copies: with one tap and stride 1 they are the slab itself."""
        return self.window.padded or any(k != 1 for k in self.window.kernel) or any(s != 1 for s in self.window.stride)

    @cached_property
    def images(self) -> int:
        """Whole slabs whose columns fill a block; one, if they are the slab itself."""
        return max(1, BLOCK // max(1, self.size * self.itemsize)) if self.copied else 1

    def zeros(self, dtype: np.dtype[np.generic]) -> Array:
        """A padded slab of zeros."""
        return np.zeros(self.padded_shape, dtype)

    def pad(self, slab: Array, buffer: Array | None) -> Array:
        """The padded slab, contiguous: in ``buffer``, whose padding is zero, if there is any padding."""
        if not self.window.padded:
            return np.ascontiguousarray(slab)
        padded = self.zeros(slab.dtype) if buffer is None else buffer
        padded[self.inside] = slab
        return padded

    def unpad(self, padded: Array) -> Array:
        """What is not padding, (C, *L, M), contiguous."""
        return np.ascontiguousarray(padded[self.inside]) if self.window.padded else padded

    def windows(self, padded: Array) -> Array:
        """Every window of a padded slab, a view (C, *K, *P, M).

        The constructor refuses a view that would leave the slab's memory.
        """
        shape, strides = self._view
        return np.ndarray(shape, padded.dtype, padded, 0, strides)

    def all(self, slab: Array) -> Array:
        """All columns of a slab, (G, C/G K, P M): the slab itself, new memory, or scratch memory till the next call."""
        windows = self.windows(self.pad(slab, None))
        if self.copied and windows.nbytes > LITTLE:
            columns = scratch(windows.size, windows.dtype).reshape(windows.shape)
            columns[...] = windows
            windows = columns
        return windows.reshape(self.groups, self.height, -1)

    def blocks(self, padded: Array, start: int, stop: int, *, writable: bool = False) -> Iterator[Block]:
        """Columns of a padded slab from row ``start`` to ``stop``, a block at a time.

        All blocks lie in one piece of scratch memory: a block is valid until the next one is asked for. Columns that
        need no copy are the slab itself, unless they must be ``writable``.
        """
        windows, lead = self.windows(padded), (slice(None),) * (1 + len(self.outputs))
        if not (self.copied or writable):
            place = slice(start * self.width, stop * self.width)
            columns = padded.reshape(self.groups, self.height, -1)[..., place]
            yield Block(start, stop, place, columns, windows[(*lead, slice(start, stop))])
            return
        size = self.groups * self.height * self.width
        buffer = scratch(size * min(self.rows, stop - start), padded.dtype)
        for first in range(start, stop, self.rows):
            last = min(first + self.rows, stop)
            part = windows[(*lead, slice(first, last))]
            by_tap = buffer[: part.size].reshape(part.shape)
            by_tap[...] = part
            columns = by_tap.reshape(self.groups, self.height, (last - first) * self.width)
            yield Block(first, last, slice(first * self.width, last * self.width), columns, by_tap)

    def several(self, slabs: Array) -> tuple[Array, Array]:
        """All columns of a few slabs (S, C, *L, M), (S, G, C/G K, P M), and the same memory as (S, C, *K, *P, M).

        They are a copy in scratch memory, valid until the next call.
        """
        padded = slabs
        if self.window.padded or not slabs.flags.c_contiguous:
            padded = np.zeros((len(slabs), *self.padded_shape), slabs.dtype)
            padded[(slice(None), *self.inside)] = slabs
        shape, strides = self._view
        step = math.prod(self.padded_shape) * self.itemsize
        windows = np.ndarray((len(slabs), *shape), slabs.dtype, padded, 0, (step, *strides))
        by_tap = scratch(windows.size, slabs.dtype).reshape(windows.shape)
        by_tap[...] = windows
        return by_tap.reshape(len(slabs), self.groups, self.height, -1), by_tap

    def taps(self, start: int, stop: int) -> Iterator[tuple[Index, Index]]:
        """Each tap as index of `Block.by_tap`, and what rows start..stop see through it in the padded slab."""
        firsts = (start, *(0,) * (len(self.outputs) - 1))
        counts = (stop - start, *self.outputs[1:])
        for tap in product(*map(range, self.window.kernel)):
            place = []
            for t, d, s, first, count in zip(
                tap, self.window.dilation, self.window.stride, firsts, counts, strict=True
            ):
                low = first * s + t * d
                place.append(slice(low, low + (count - 1) * s + 1, s))
            yield (slice(None), *tap), (slice(None), *place)


class _Scratch(threading.local):
    """Memory that a thread uses again and again: fresh memory costs more than what is written there."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)


_scratch = _Scratch()


def scratch(size: int, dtype: np.dtype[np.generic]) -> Array:
    """Uninitialised memory for ``size`` elements, the thread's own; valid until its next call."""
    needed = size * dtype.itemsize
    if needed > SCRATCH:
        return np.empty(size, dtype)
    if _scratch.memory.size < needed:
        _scratch.memory = np.empty(needed, np.uint8)
    return _scratch.memory[:needed].view(dtype)


#: by number of axes, the order that puts the first axis last, and the last one first
_LAST = {n: (*range(1, n), 0) for n in range(3, 6)}
_FIRST = {n: (n - 1, *range(n - 1)) for n in range(3, 6)}


def to_slabs(x: Array, *, batch_last: bool) -> Array:
    """(N, C, *L) -> (S, C, *L, M), a view."""
    return x.transpose(_LAST[x.ndim])[None] if batch_last else x[..., None]


def from_slabs(slabs: Array, *, batch_last: bool) -> Array:
    """(S, C, *L, M) -> (N, C, *L), a view."""
    return slabs[0].transpose(_FIRST[slabs.ndim - 1]) if batch_last else slabs[..., 0]
