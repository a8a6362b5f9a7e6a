"""Taps of pooling windows: as slices, one tap of all windows at a time, and as positions, all taps of a window at once.

Slices keep the axes' order in memory as it is: a batch that lies innermost stays there, so that each
operation runs over long contiguous pieces. Positions are for little inputs, where each call of NumPy
costs more than what it does, and for what slices cannot tell: which of several NaN is the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from ._layer import Array
from ._window import Index, Shape, Window


class Cover(Enum):
    """How often the taps of all windows meet an element."""

    EXACT = "each element once"
    SPARSE = "each element at most once"
    OVERLAP = "some elements several times"


@dataclass(frozen=True)
class Taps:
    r"""The taps of all windows over inputs of one size.

    Parameters
    ----------
    window
        Where the windows stand.
    lengths
        \*L, the input's spatial shape.
    ceil_mode
        Whether a last window may reach over the far end.
    """

    window: Window
    lengths: Shape
    ceil_mode: bool

    @cached_property
    def outputs(self) -> Shape:
        """Number of windows on each axis, *P."""
        return self.window.outputs(self.lengths, ceil=self.ceil_mode)

    @cached_property
    def reach(self) -> Shape:
        """The padded lengths *L̄: up to the end of the last window, or of the input if that is further."""
        w = self.window
        return tuple(
            max((p - 1) * s + span, b + n)
            for p, s, span, b, n in zip(self.outputs, w.stride, w.span, w.before, self.lengths, strict=True)
        )

    @cached_property
    def padded(self) -> bool:
        return self.reach != self.lengths

    @cached_property
    def inside(self) -> Index:
        """The input's own place within the padded array."""
        return (..., *(slice(b, b + n) for b, n in zip(self.window.before, self.lengths, strict=True)))

    @cached_property
    def by_axis(self) -> tuple[tuple[Index, ...], ...]:
        """For each axis, the elements that the windows see through each of the taps along this axis."""
        w, all_axes = self.window, []
        for axis, (k, s, d, p) in enumerate(zip(w.kernel, w.stride, w.dilation, self.outputs, strict=True)):
            rest = (slice(None),) * (len(self.outputs) - 1 - axis)
            all_axes.append(tuple((..., slice(t * d, t * d + (p - 1) * s + 1, s), *rest) for t in range(k)))
        return tuple(all_axes)

    @cached_property
    def all(self) -> tuple[Index, ...]:
        """The elements that the windows see through each tap, in window order."""
        slices = [[tap[1] for tap in taps] for taps in self.by_axis]  # a tap is (..., its own slice, ...)
        return tuple((..., *place) for place in product(*slices))

    @cached_property
    def covers(self) -> tuple[Cover, ...]:
        """How the taps along each axis cover it."""
        w = self.window
        axes = zip(self.outputs, w.kernel, w.stride, w.span, self.reach, strict=True)
        return tuple(
            Cover.OVERLAP if p > 1 and s < span else Cover.EXACT if p * k == length else Cover.SPARSE
            for p, k, s, span, length in axes
        )

    @cached_property
    def disjoint(self) -> bool:
        """Whether no element belongs to two windows."""
        return Cover.OVERLAP not in self.covers

    @cached_property
    def elements(self) -> int:
        """Padded elements of a channel."""
        return prod(self.reach)

    @cached_property
    def size(self) -> int:
        """Elements of all windows of a channel."""
        return prod(self.outputs) * prod(self.window.kernel)

    @cached_property
    def positions(self) -> npt.NDArray[np.intp]:
        """Where each tap of each window lies among the padded elements of a channel, (P, K)."""
        elements = np.arange(self.elements, dtype=np.intp).reshape(self.reach)
        return np.stack([elements[tap].reshape(-1) for tap in self.all], axis=-1)

    def first_positions(self, channels: int) -> npt.NDArray[np.intp]:
        """Where the first tap of each window lies among the padded elements of so many channels, (N C, P)."""
        if channels not in self._known:
            start = np.arange(channels)[:, None] * self.elements
            self._known[channels] = start + self.positions[:, 0]
        return self._known[channels]

    @cached_property
    def _known(self) -> dict[int, npt.NDArray[np.intp]]:
        """What `first_positions` has been asked for: little arrays, as it is used for little inputs alone."""
        return {}

    @cached_property
    def offsets(self) -> npt.NDArray[np.intp]:
        """How far each tap lies from the first one of its window, (K,)."""
        distances: npt.NDArray[np.intp] = self.positions[0] - self.positions[0, 0]
        return distances

    @cached_property
    def real(self) -> npt.NDArray[np.bool_]:
        """Which of the `positions` are elements of the input and no padding, (P, K)."""
        elements = np.zeros(self.reach, np.bool_)
        elements[self.inside] = True
        return elements.reshape(-1)[self.positions]

    def pad(self, x: Array, value: float) -> Array:
        """The padded input; ``x`` itself where nothing is padded."""
        if not self.padded:
            return x
        padded = np.full_like(x, value, shape=(*x.shape[:2], *self.reach))
        padded[self.inside] = x
        return padded

    def blank(self, x: Array) -> Array:
        """A padded array like ``x`` to write each window's share into: zeros, unless all of it will be written."""
        make = np.empty_like if set(self.covers) == {Cover.EXACT} else np.zeros_like
        blank: Array = make(x, shape=(*x.shape[:2], *self.reach))
        return blank

    def unpad(self, padded: Array) -> Array:
        """Adjoint of `pad`."""
        return padded[self.inside] if self.padded else padded
