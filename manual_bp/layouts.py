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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.trace import Array

#: torch's order of axes: batch, output, input, channels, then time and space, then features.
TORCH_ORDER = "NBOICTDHWLSEFK"
#: Axes of an array for which another layout is looked for.
_MOST = 6


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


class LayoutError(ManualBPError):
    """An array that is not laid out as it is said to be."""


def to_torch_layout(
    array: Array, text: str, *, target: tuple[int, ...], shapes: Iterable[tuple[int, ...]] = (), name: str = ""
) -> Array:
    """An array in torch's order of axes, contiguous; never one whose elements were shuffled to make it fit.

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
    name
        What the array is, for the error.

    Raises
    ------
    LayoutError
        It has other axes, or other sizes than torch's in that layout; it says which layout would fit.
    """
    layout = parse(text)
    if array.ndim != len(layout.axes):
        raise _misfit(layout, array.shape, target, name, f"has {len(layout.axes)} axes")
    sizes = sizes_of(layout, array.shape, shapes)
    open_shape = [sizes[c] for c in layout.letters]
    order = sorted(layout.letters, key=TORCH_ORDER.index)
    moved = np.ascontiguousarray(array.reshape(open_shape).transpose([layout.letters.index(c) for c in order]))
    if not _fits(layout, order, moved.shape, target):
        raise _misfit(layout, array.shape, target, name, f"would be {_sizes(moved.shape)} in torch's order")
    return moved.reshape(target)


def _fits(layout: Layout, order: list[str], moved: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether torch's shape has these axes one by one, or those of one group in one."""
    groups = {c: i for i, axis in enumerate(layout.axes) if axis != "1" for c in axis}
    left = [(c, n) for c, n in zip(order, moved, strict=True) if n != 1]
    for size in _but_ones(target):
        taken: list[str] = []
        while left and math.prod(moved[order.index(c)] for c in taken) < size:
            taken.append(left.pop(0)[0])
        if math.prod(moved[order.index(c)] for c in taken) != size or len({groups[c] for c in taken}) != 1:
            return False
    return not left


def _misfit(layout: Layout, shape: tuple[int, ...], target: tuple[int, ...], name: str, why: str) -> LayoutError:
    which = f"{name!r}" if name else "the array"
    what = f"{which} has shape {_sizes(shape)}, torch's has {_sizes(target)}: its layout {layout.text!r} {why}"
    others = [text for text in _other_layouts(layout, shape, target) if text != layout.text]
    plain = "leave its layout away" if shape == target else ""
    hint = plain or (f"say {' or '.join(map(repr, others[:2]))}" if others else "name every axis as it is stored")
    return LayoutError(what, hint=hint)


def _other_layouts(layout: Layout, shape: tuple[int, ...], target: tuple[int, ...]) -> Iterator[str]:
    """Layouts in which an array of that shape would be torch's."""
    letters = sorted(layout.letters, key=TORCH_ORDER.index)
    if len(letters) != len(target):
        letters = list({1: "O", 2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}.get(len(target), ""))
    if len(letters) == len(shape) == len(target) <= _MOST:
        for order in permutations(range(len(target))):
            if tuple(target[i] for i in order) == shape:
                yield "".join(letters[i] for i in order)
    if len(letters) > 2 and len(shape) == 2 and shape == (target[0], math.prod(target[1:])):
        inner = "".join(letters[1:])
        yield f"{letters[0]}({inner})"
        yield f"{letters[0]}({inner[1:]}{inner[0]})"


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


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
