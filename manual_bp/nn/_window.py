"""Sliding windows over any number of axes: the arithmetic that convolution and pooling share.

Along one axis of length L, with kernel k, stride s, dilation d and b elements of padding in front
and a behind, window p covers the elements ::

    i = p s + t d - b        t = 0 .. k-1        p = 0 .. P-1,     P = floor((L + b + a - d (k-1) - 1) / s) + 1

Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning" (arXiv:1603.07285),
relationships 6 and 15.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import Any, TypeAlias

from ._layer import Array, NNError

IntOrTuple: TypeAlias = int | tuple[int, ...]
Shape: TypeAlias = tuple[int, ...]
Index: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Where the windows stand: one entry an axis in every field."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    before: Shape
    after: Shape

    @property
    def span(self) -> Shape:
        """Elements from a window's first to its last, d (k-1) + 1 on each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def padded(self) -> bool:
        return any(self.before) or any(self.after)

    def outputs(self, lengths: Shape, *, ceil: bool = False) -> Shape:
        """Number of windows on each axis; not positive where the input is smaller than a window.

        With ``ceil`` a last window may reach over the far end, but only if it starts inside the
        input or the padding in front of it, (P-1) s < L + b: a window over padding alone is dropped.
        """
        counts = []
        for length, span, s, b, a in zip(lengths, self.span, self.stride, self.before, self.after, strict=True):
            room = length + b + a - span
            count = (-(-room // s) if ceil else room // s) + 1
            counts.append(count - 1 if ceil and (count - 1) * s >= length + b else count)
        return tuple(counts)

    def at(self, position: Shape) -> Index:
        """Index of window ``position`` in the *padded* input, all samples and channels."""
        taps = zip(position, self.stride, self.span, self.dilation, strict=True)
        return (..., *(slice(p * s, p * s + span, d) for p, s, span, d in taps))

    def inside(self, position: Shape, lengths: Shape) -> Index:
        """Index of window ``position`` in the *unpadded* input: the part of it that is not padding."""
        index: list[Any] = [...]
        for p, s, span, d, b, length in zip(
            position, self.stride, self.span, self.dilation, self.before, lengths, strict=True
        ):
            start = p * s - b
            first = start if start >= 0 else start + d * -(start // d)  # the first tap that is not padding in front
            index.append(slice(first, min(start + span, length), d))
        return tuple(index)


def integers(layer: str, name: str, value: IntOrTuple, axes: int, *, minimum: int, single: bool = True) -> Shape:
    """``value`` as one integer an axis, the way torch reads it.

    A number (and with ``single`` a tuple of one number) counts for every axis. Raises NNError for anything else.
    """
    takes = f"an integer or a tuple of {axes}, each at least {minimum}"
    if isinstance(value, bool):
        raise NNError(f"{layer}: {name}={value!r} is not a number; it takes {takes}")
    try:
        numbers = tuple(index(v) for v in value) if isinstance(value, Iterable) else (index(value),) * axes
    except TypeError:
        raise NNError(f"{layer}: {name}={value!r} is not made of integers; it takes {takes}") from None
    if len(numbers) == 1 and single:
        numbers *= axes
    if len(numbers) != axes:
        raise NNError(f"{layer}: {name}={value!r} has {len(numbers)} entries for {axes} axes; it takes {takes}")
    if min(numbers) < minimum:
        raise NNError(f"{layer}: {name}={value!r} is too small; it takes {takes}")
    return numbers


def batched(layer: str, x: Array, axes: int) -> Array:
    """``x`` with a batch axis in front: (N, C, *L), from (N, C, *L) or an unbatched (C, *L).

    Raises NNError for any other number of axes, and where an axis other than the batch is empty.
    """
    if x.ndim == axes + 1:
        x = x[None]
    names = ("C, L", "C, H, W", "C, D, H, W")[axes - 1]
    if x.ndim != axes + 2:
        raise NNError(
            f"{layer}: the input has shape {x.shape}; it takes (N, {names}), or ({names}) for a sample without batch"
        )
    if 0 in x.shape[1:]:
        raise NNError(f"{layer}: the input has shape {x.shape[-axes - 1 :]} = ({names}); only the batch may be empty")
    return x
