"""Slabs and columns: the memory that the fast convolutions work on.

A *slab* is a contiguous array (C, *L, M): M samples, side by side on the innermost axis. The batch
is seen as (S, C, *L, M), S slabs of M samples with S M = N: one slab of all samples (batch last), or
one for each sample as it lies in memory (image by image).

*Columns* are the windows of a slab, (G, C/G K, P M): row (c, k) of group g holds what tap k of channel c
sees, column (p, m) belongs to window p of sample m.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ._layer import Array
from ._window import Shape, Window


def to_slabs(x: Array, *, batch_last: bool) -> Array:
    """(N, C, *L) -> (S, C, *L, M), a view."""
    return x.transpose(*range(1, x.ndim), 0)[None] if batch_last else x[..., None]


def from_slabs(slabs: Array, *, batch_last: bool) -> Array:
    """(S, C, *L, M) -> (N, C, *L), a view."""
    return slabs[0].transpose(-1, *range(slabs.ndim - 2)) if batch_last else slabs[..., 0]


class Padded:
    """Puts one slab after another between the zeros of one buffer."""

    def __init__(self, window: Window, lengths: Shape) -> None:
        self._needed = window.padded
        self._shape = tuple(b + n + a for b, n, a in zip(window.before, lengths, window.after, strict=True))
        self._inside = (slice(None), *(slice(b, b + n) for b, n in zip(window.before, lengths, strict=True)))
        self._buffer: Array | None = None

    def __call__(self, slab: Array) -> Array:
        """The padded slab (C, *L̄, M), contiguous; valid until the next call."""
        if not self._needed:
            return np.ascontiguousarray(slab)
        if self._buffer is None:
            self._buffer = self.blank(slab)
        self._buffer[self._inside] = slab
        return self._buffer

    def blank(self, slab: Array) -> Array:
        """A padded slab of zeros like ``slab``."""
        return np.zeros((len(slab), *self._shape, slab.shape[-1]), slab.dtype)

    def inside(self, padded: Array) -> Array:
        """What is not padding, (C, *L, M), contiguous."""
        return np.ascontiguousarray(padded[self._inside]) if self._needed else padded


def windows_of(slab: Array, window: Window, outputs: Shape) -> Array:
    """Every window of a padded slab, a view (C, *K, *P, M).

    The strides are computed from the shape: those that NumPy reports for an axis of length 1 may be anything.
    The constructor refuses a view that would leave the slab's memory.
    """
    strides = [slab.itemsize]
    for length in slab.shape[:0:-1]:
        strides.append(strides[-1] * length)
    sample, *spatial, channel = strides
    spatial.reverse()
    taps = (d * s for d, s in zip(window.dilation, spatial, strict=True))
    steps = (step * s for step, s in zip(window.stride, spatial, strict=True))
    shape = (len(slab), *window.kernel, *outputs, slab.shape[-1])
    return np.ndarray(shape, slab.dtype, slab, 0, (channel, *taps, *steps, sample))


class Block(NamedTuple):
    """The columns of a few rows of windows (a row: all windows at one place on the first axis)."""

    start: int  # the first row
    stop: int  # the row after the last one
    place: slice  # where they stand among all columns
    columns: Array  # (G, C/G K, columns)
    by_tap: Array  # the same memory as (C, *K, rows, *P', M)


def blocks_of(windows: Array, groups: int, start: int, stop: int, rows: int) -> Iterator[Block]:
    """Columns of the windows (C, *K, *P, M) from row ``start`` to ``stop``, ``rows`` rows at a time.

    All blocks lie in one buffer: a block is valid until the next one is asked for.
    """
    axes = (windows.ndim - 2) // 2
    height = math.prod(windows.shape[: axes + 1]) // groups  # C/G K
    width = math.prod(windows.shape[axes + 2 :])  # windows in a row
    buffer = np.empty(groups * height * width * min(rows, stop - start), windows.dtype)
    for first in range(start, stop, rows):
        last = min(first + rows, stop)
        part = windows[(slice(None),) * (axes + 1) + (slice(first, last),)]
        by_tap = buffer[: part.size].reshape(part.shape)
        by_tap[...] = part
        columns = by_tap.reshape(groups, height, (last - first) * width)
        yield Block(first, last, slice(first * width, last * width), columns, by_tap)
