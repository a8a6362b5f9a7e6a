"""How an array of a layer's corresponds to torch's: which axes, in which order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.layouts import TORCH_ORDER, parse, sizes_of
from manual_bp.trace import Array


@dataclass(frozen=True)
class View:
    """One array in two layouts.

    Attributes
    ----------
    layer, torch
        Its shape on either side.
    opened
        The layer's shape without its ones, and with axes opened that hold several of torch's.
    axes
        Torch's order: axis k is ``opened``'s axis ``axes[k]``.
    """

    layer: tuple[int, ...]
    torch: tuple[int, ...]
    opened: tuple[int, ...]
    axes: tuple[int, ...]

    def to_torch(self, array: Array) -> Array:
        """The array as torch has it; one of another shape stays of another shape, and is judged by that.

        So does one that is laid out as torch lays it out, where the layer does not: a gradient that does not fit what
        it is a gradient of.
        """
        if not same_but_ones(array.shape, self.layer):
            own = [n for n in array.shape if n != 1]
            foreign = len(own) == len(self.axes) and self.shaped_as_torch(array)
            return array.reshape(own).transpose(self.axes) if foreign else array
        return np.ascontiguousarray(array.reshape(self.opened).transpose(self.axes)).reshape(self.torch)

    def shaped_as_torch(self, array: Array) -> bool:
        """Whether the array has torch's shape and not the layer's, which goes first where they are equal."""
        return not same_but_ones(array.shape, self.layer) and same_but_ones(array.shape, self.torch)

    def to_layer(self, array: Array) -> Array:
        """Torch's array as the layer has it."""
        moved = array.reshape([self.opened[a] for a in self.axes])
        return np.ascontiguousarray(moved.transpose(np.argsort(self.axes))).reshape(self.layer)

    @property
    def plain(self) -> bool:
        """Whether the order of the elements is torch's own."""
        return self.axes == tuple(range(len(self.axes)))

    @property
    def turned(self) -> bool:
        """Whether the axes of space, all but torch's first two, change order among themselves: nobody's layout."""
        kept = [k for k, n in enumerate(self.torch) if len(self.axes) == len(self.torch) or n != 1]
        space = [a for k, a in zip(kept, self.axes, strict=False) if k >= 2]
        return space != sorted(space)


def same_but_ones(a: Iterable[int], b: Iterable[int]) -> bool:
    """Equal shapes, axes of size one aside."""
    return [n for n in a if n != 1] == [n for n in b if n != 1]


def identity(shape: tuple[int, ...]) -> View:
    """The same on both sides."""
    return View(shape, shape, shape, tuple(range(len(shape))))


#: Orders of axes in use, tried before the others: kernels as HWIO, IOHW, OHWI, HWOI, those of one dimension alike,
#: images as NHWC, HWCN, CHWN.
_USUAL = (
    (0, 1),
    (1, 0),
    (0, 1, 2, 3),
    (3, 2, 0, 1),
    (1, 0, 2, 3),
    (0, 3, 1, 2),
    (2, 3, 0, 1),
    (0, 1, 2),
    (2, 1, 0),
    (0, 2, 1),
)
#: The order in which torch's axes stand in a parameter that is handed to a function: OI, IO; OIHW, HWIO, IOHW, OHWI.
_HANDED = {
    2: ((0, 1), (1, 0)),
    3: ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)),
    4: ((0, 1, 2, 3), (2, 3, 1, 0), (1, 0, 2, 3), (0, 2, 3, 1)),
}
_INPUTS = {
    2: ((0, 1), (1, 0)),
    3: ((0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)),
    4: ((0, 1, 2, 3), (0, 3, 1, 2), (3, 2, 0, 1), (3, 0, 1, 2)),
    5: ((0, 1, 2, 3, 4), (0, 4, 1, 2, 3)),
}


def views(layer: tuple[int, ...], torch: tuple[int, ...]) -> Iterator[View]:
    """All orders of axes under which an array of the one shape may be one of the other, torch's own first."""
    opened, wanted = (tuple(n for n in shape if n != 1) for shape in (layer, torch))
    if sorted(opened) != sorted(wanted):
        return
    every = permutations(range(len(opened))) if len(opened) <= 5 else iter([tuple(range(len(opened)))])
    usual = (axes for axes in _USUAL if len(axes) == len(opened))
    for axes in dict.fromkeys([*usual, *every]):
        if tuple(opened[a] for a in axes) == wanted:
            yield View(layer, torch, opened, axes)


def handed_views(torch: tuple[int, ...]) -> Iterator[View]:
    """Ways to hand a parameter to a function, which keeps none and so shows no shape, torch's own order first."""
    if len(torch) == 1:
        for shape in (torch, (1, *torch), (*torch, 1), (1, 1, 1, *torch)):
            yield View(shape, torch, torch, (0,))
    for order in _HANDED.get(len(torch), (tuple(range(len(torch))),) if len(torch) != 1 else ()):
        layer = tuple(torch[a] for a in order)
        yield View(layer, torch, layer, tuple(order.index(a) for a in range(len(torch))))


def input_views(shape: tuple[int, ...], channels: int | None) -> Iterator[View]:
    """Ways to read an input: torch's order, channels or the batch last, or a single channel without an axis."""
    for axes in _INPUTS.get(len(shape), (tuple(range(len(shape))),)):
        yield View(shape, tuple(shape[a] for a in axes), shape, axes)
    if channels == 1:
        plain = tuple(range(len(shape)))
        yield View(shape, (shape[0], 1, *shape[1:]), shape, plain)
        yield View(shape, (1, *shape), shape, plain)


def output_views(layer: tuple[int, ...], torch: tuple[int, ...], x: View) -> Iterator[View]:
    """Ways to read an output; as the input is read, and flattened from such an input, before any other."""
    if len(x.axes) == len(layer) == len(torch) and tuple(layer[a] for a in x.axes) == torch:
        yield View(layer, torch, layer, x.axes)
    if not x.plain and layer == torch and layer == (x.torch[0], math.prod(x.torch[1:])):
        yield View(layer, torch, x.opened, x.axes)
    yield from views(layer, torch)


def grouped(view: View, x: View) -> Iterator[View]:
    """A dense weight whose inputs are the elements of an image, in the order in which the layer flattened it."""
    inner = x.opened[1:]
    if len(x.layer) != 2 or len(inner) < 2 or len(view.axes) != 2 or x.axes[0] != 0 or view.torch[1] != x.torch[1]:
        return
    at = view.axes[1]  # the layer's axis of inputs
    opened = (*view.opened[:at], *inner, *view.opened[at + 1 :])
    outputs = view.axes[0] if view.axes[0] < at else view.axes[0] + len(inner) - 1
    yield View(view.layer, view.torch, opened, (outputs, *(at + a - 1 for a in x.axes[1:])))


def view_of(text: str, layer: tuple[int, ...], torch: tuple[int, ...] | None, near: Iterable[tuple[int, ...]]) -> View:
    """The view that a layout such as "HWIO" or "N(HWC)" means.

    Parameters
    ----------
    torch
        Torch's shape, or None for an input, whose shape follows from the layout.
    near
        Shapes of tensors nearby, from which sizes inside a group are read.
    """
    layout = parse(text)
    if len(layout.axes) != len(layer):
        raise ManualBPError(
            f"layout {text!r} has {len(layout.axes)} axes, but the array has shape {layer}",
            hint="name every axis of the array as it is stored",
        )
    sizes = sizes_of(layout, layer, near)
    letters = layout.letters
    order = sorted(letters, key=TORCH_ORDER.index)
    axes = tuple(letters.index(c) for c in order)
    opened = tuple(sizes[c] for c in letters)
    return View(layer, torch or tuple(opened[a] for a in axes), opened, axes)


def agreement(found: Array, expected: Array) -> tuple[float, float]:
    """How well two arrays agree: the share of elements that are equal but for rounding, and the correlation."""
    if found.shape != expected.shape:
        return (-1.0, -1.0)
    if not found.size:
        return (1.0, 1.0)
    close = np.isclose(found, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max()))
    a, b = found.ravel() - found.mean(), expected.ravel() - expected.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return (float(close.mean()), float(a @ b) / scale if scale else 0.0)
