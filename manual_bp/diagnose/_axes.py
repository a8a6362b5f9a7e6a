"""What the axes of an array are called.

Axis 1 is a channel to a convolution and a position to a linear layer: the words depend on the steps that make and read
the array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from manual_bp import nn
from manual_bp.network import INPUT
from manual_bp.trace import GRAD, NEW

from ._graph import Graph, Step

Shape = tuple[int, ...]

#: What an array is: (example, channel, row, column), (example, position, feature), one of a step that says nothing of
#: its axes, or one whose first axis is no example either; a parameter with channels, of a matrix product, of neither.
Kind = Literal["image", "sequence", "plain", "other", "kernel", "matrix", "parameter"]

_IMAGE = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AvgPool3d, nn.BatchNorm1d, nn.BatchNorm2d,
)  # fmt: skip  # a table

_PARAMETERS: Mapping[Kind, tuple[str, ...]] = {"kernel": ("channel",), "matrix": ("feature",)}


def axis_word(kind: Kind, ndim: int, axis: int) -> str:
    """What an axis is called in a sentence."""
    axis %= max(ndim, 1)
    neutral = f"index of axis {axis}"
    match kind:
        case "image" if ndim > 2:
            return ("example", "channel")[axis] if axis < 2 else _place(ndim, axis)
        case "sequence" if ndim > 2:
            words = {0: "example", ndim - 1: "feature"}
            return words.get(axis, "position" if ndim == 3 else neutral)
        case "sequence" if ndim == 1:
            return "feature"
        case "image" | "sequence" | "plain" if ndim <= 2:
            return ("example", "feature")[axis]
        case "plain":
            return neutral if axis else "example"
        case "kernel" | "matrix" if ndim == 1:
            return _PARAMETERS[kind][0]
        case "matrix" if ndim == 2:
            return ("output", "input")[axis]
        case "kernel" if ndim > 2:
            return ("output channel", "input channel")[axis] if axis < 2 else _place(ndim, axis)
        case "parameter" if ndim == 2:
            return ("row", "column")[axis]
    return neutral


def _place(ndim: int, axis: int) -> str:
    """The spatial axes, the last ones."""
    return "position" if ndim == 3 else {1: "column", 2: "row", 3: "slice"}.get(ndim - axis, f"index of axis {axis}")


def axes_words(kind: Kind, ndim: int, axes: tuple[int, ...]) -> str:
    """``examples and rows``; ``indices of axes 1 and 2``."""
    words = [(axis, axis_word(kind, ndim, axis)) for axis in axes]
    named = [word + "s" for _, word in words if not word.startswith("index")]
    numbers = [str(axis % ndim) for axis, word in words if word.startswith("index")]
    if numbers:
        named.append(f"indices of {'axis' if len(numbers) == 1 else 'axes'} {_listed(numbers)}")
    return _listed(named) or "nothing"


def _listed(words: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def kind_of_array(graph: Graph, shapes: Mapping[str, Shape], name: str) -> Kind:
    """The kind of a quantity: a parameter by its layer, another by the nearest step that decides it.

    From the steps that make and read it the search goes on through those that keep its shape (an activation, a sum).
    """
    base = name.removesuffix(GRAD).removesuffix(NEW)
    owner = next((s for s in graph.steps if base in s.params.values()), None)
    if owner is not None:
        return _of_parameter(owner.layer)
    shape = shapes.get(base, shapes.get(name, ()))
    seen, edge = {base}, [base]
    while edge:
        steps = [s for s in graph.steps if any(n == s.name or n in s.inputs for n in edge)]
        layers = [s.layer for s in steps] + ([graph.loss] if graph.output in edge else [])
        told = {_of_layer(layer, len(shape)) for layer in layers}
        for kind in ("image", "sequence"):  # a convolution is strict about its axes, a linear layer is not
            if kind in told:
                return kind
        near = dict.fromkeys(n for s in steps for n in (s.name, *s.inputs))
        edge = [n for n in near if n not in seen and shapes.get(n) == shape]
        seen.update(edge)
    batch = shapes.get(INPUT)
    return "other" if batch and shape and len(shape) > 1 and shape[0] != batch[0] else "plain"


def kind_at(graph: Graph, shapes: Mapping[str, Shape], quantity: str) -> Kind:
    """The kind of what the formula of a quantity works on: of its step's data, of the parameter for an update."""
    owner = next((s for s in graph.steps if quantity.removesuffix(GRAD) in s.params.values()), None)
    if owner is None or quantity.endswith(NEW) or not owner.inputs:
        return kind_of_array(graph, shapes, graph.output if quantity == graph.loss_name else quantity)
    return kind_of_array(graph, shapes, _data(owner, shapes))


def _data(step: Step, shapes: Mapping[str, Shape]) -> str:
    return step.name if step.name in shapes else step.inputs[0]


def _of_layer(layer: Any, ndim: int) -> Kind | None:
    """What a layer or loss says of the axes of what it reads and gives."""
    match layer:
        case nn.Linear():
            return "sequence"
        case nn.LayerNorm(normalized_shape=int()) | nn.LayerNorm(normalized_shape=(_,)):
            return "sequence"
        case nn.Softmax(dim=int(dim)) | nn.LogSoftmax(dim=int(dim)) if ndim > 2:
            return "image" if dim % ndim == 1 else "sequence" if dim % ndim == ndim - 1 else None
        case nn.CrossEntropyLoss() | nn.NLLLoss():
            return "image"  # the classes are axis 1
    return "image" if isinstance(layer, _IMAGE) else None


def _of_parameter(layer: Any) -> Kind:
    if isinstance(layer, _IMAGE):
        return "kernel"
    return "matrix" if _of_layer(layer, 2) == "sequence" else "parameter"


__all__ = ["Kind", "axes_words", "axis_word", "kind_at", "kind_of_array"]
