"""Axis layouts: bringing an array from how its author stores it to torch's order, and back.

A layout names the axes of an array in its own order, one letter each::

    "IO"      a dense weight (in, out)                 torch: "OI"
    "HWIO"    a convolution kernel as TensorFlow's     torch: "OIHW"
    "NHWC"    images with channels last                torch: "NCHW"
    "N(HWC)"  the same, flattened to a vector          torch: "N(CHW)"
    "1O"      a bias kept as a row                     torch: "O"

Letters: N batch, O/I output and input channels (or features), C channels, T time, D H W L space, E F features. A group
in parentheses is one axis that holds several; ``1`` is an axis of size one that torch does not have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.trace import Array

#: torch's order of axes: batch, output, input, channels, then time and space, then features.
TORCH_ORDER = "NBOICTDHWLSEFK"


@dataclass(frozen=True)
class Layout:
    """A parsed layout: each axis a string of letters (several for a group, "1" for an axis that torch lacks)."""

    text: str
    axes: tuple[str, ...]

    @property
    def letters(self) -> str:
        """All letters, in the array's own order."""
        return "".join(axis for axis in self.axes if axis != "1")


def parse(text: str) -> Layout:
    """Parse a layout such as "HWIO" or "N(HWC)".

    Raises
    ------
    ManualBPError
        For a letter that is unknown or stands twice, or parentheses that do not match.
    """
    tokens = re.findall(r"\([A-Z]+\)|[A-Z]|1", text)
    axes = tuple(token.strip("()") for token in tokens)
    letters = "".join(axis for axis in axes if axis != "1")
    if "".join(tokens) != text or not axes:
        raise ManualBPError(f"{text!r} is no layout", hint='write one letter an axis, such as "NHWC" or "N(HWC)"')
    strange = [c for c in letters if c not in TORCH_ORDER or letters.count(c) > 1]
    if strange:
        raise ManualBPError(
            f"layout {text!r} has {strange[0]!r}, which is unknown or stands twice",
            hint=f"use each of {', '.join(TORCH_ORDER)} at most once",
        )
    return Layout(text, axes)


def to_torch_layout(
    array: Array, text: str, *, target: tuple[int, ...], shapes: Iterable[tuple[int, ...]] = ()
) -> Array:
    """An array in torch's order of axes, contiguous.

    Parameters
    ----------
    array
        As its author stores it.
    text
        Its layout.
    target
        The shape that torch has for it.
    shapes
        Shapes (N, C, *space) of tensors nearby, from which the sizes inside a group are read.
    """
    layout = parse(text)
    if array.ndim != len(layout.axes):
        raise ManualBPError(
            f"layout {text!r} has {len(layout.axes)} axes, but the array has shape {array.shape}",
            hint="name every axis of the array as it is stored",
        )
    sizes = sizes_of(layout, array.shape, shapes)
    open_shape = [sizes[c] for c in layout.letters]
    order = sorted(layout.letters, key=TORCH_ORDER.index)
    moved = np.ascontiguousarray(array.reshape(open_shape).transpose([layout.letters.index(c) for c in order]))
    grouped = any(len(axis) > 1 for axis in layout.axes)
    # axes of one array that do not fit are a difference to be reported, not elements to be shuffled
    fits = moved.size == math.prod(target) and (grouped or _but_ones(moved.shape) == _but_ones(target))
    return moved.reshape(target) if fits else moved


def from_torch_layout(array: Array, text: str, *, shapes: Iterable[tuple[int, ...]] = ()) -> Array:
    """The inverse: torch's array as the candidate stores it, contiguous."""
    layout = parse(text)
    # torch groups what the author groups: the axes in torch's order, one for each of the author's real axes
    torch_axes = sorted((a for a in layout.axes if a != "1"), key=lambda a: min(TORCH_ORDER.index(c) for c in a))
    torch_axes = ["".join(sorted(a, key=TORCH_ORDER.index)) for a in torch_axes]
    if array.ndim != len(torch_axes):
        raise ManualBPError(
            f"layout {text!r} does not fit torch's shape {array.shape}",
            hint="name every axis of the array as it is stored",
        )
    torch_layout = Layout("".join(torch_axes), tuple(torch_axes))
    sizes = sizes_of(torch_layout, array.shape, shapes)
    opened = array.reshape([sizes[c] for c in "".join(torch_axes)])
    moved = opened.transpose(["".join(torch_axes).index(c) for c in layout.letters])
    final = [1 if axis == "1" else math.prod(sizes[c] for c in axis) for axis in layout.axes]
    return np.ascontiguousarray(moved.reshape(final))


def _but_ones(shape: tuple[int, ...]) -> list[int]:
    return [n for n in shape if n != 1]


def sizes_of(layout: Layout, shape: tuple[int, ...], shapes: Iterable[tuple[int, ...]]) -> Mapping[str, int]:
    """Size of every letter; those inside a group come from a tensor nearby whose elements the group flattens."""
    sizes: dict[str, int] = {}
    for axis, n in zip(layout.axes, shape, strict=True):
        if axis == "1" and n != 1:
            raise ManualBPError(f"layout {layout.text!r} says 1 for an axis of size {n}", hint="name it by its letter")
        if len(axis) == 1 and axis != "1":
            sizes[axis] = n
    for axis, n in zip(layout.axes, shape, strict=True):
        if len(axis) == 1:
            continue
        inner = sorted(axis, key=TORCH_ORDER.index)
        fitting = {tuple(s[1:]) for s in shapes if len(s) == len(axis) + 1 and math.prod(s[1:]) == n}
        if len(fitting) != 1:
            raise ManualBPError(
                f"the sizes inside ({axis}) of layout {layout.text!r} cannot be told from the network",
                hint="report the array before it is flattened instead",
            )
        sizes |= dict(zip(inner, fitting.pop(), strict=True))
    return sizes
