"""A random network: layers that fit on each other, forks and skips, and a loss that fits on the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from manual_bp import nn
from manual_bp.network import INPUT, Network, Node

from ._layers import Shape, layer_kinds
from ._losses import draw_loss, draw_optimizer

T = TypeVar("T")

#: Larger tensors than this (one example) are not worth their time.
LARGEST = 400


class Source:
    """Where decisions come from: a generator, or a search that wants to make them simpler.

    Parameters
    ----------
    integer
        ``integer(low, high)``, both included; the lower, the simpler.
    """

    def __init__(self, integer: Callable[[int, int], int]) -> None:
        self.integer = integer

    @classmethod
    def random(cls, rng: np.random.Generator) -> Source:
        """Decisions by a generator."""
        return cls(lambda low, high: int(rng.integers(low, high + 1)))

    def choice(self, options: Sequence[T]) -> T:
        """One of the options; the earlier, the simpler."""
        return options[self.integer(0, len(options) - 1)]

    def flag(self) -> bool:
        """True or False, the simpler one."""
        return bool(self.integer(0, 1))


def draw_network(source: Source, *, name: str = "fuzz", steps: int = 6) -> Network:
    """A network of at most ``steps`` layers (a fork or a head adds a few), its loss, and perhaps an optimiser."""
    builder = _Builder(source, _input_shape(source))
    input_shape = builder.shape
    for _ in range(steps):
        builder.step()
        if not source.integer(0, 5):  # asked after each step, so that any one of them can be taken out
            break
    head, loss = draw_loss(source, builder.shape)
    for layer in head:
        builder.add(layer)
    if not builder.nodes:
        builder.add(nn.Identity())
    trained = any(node.layer.parameter_shapes() for node in builder.nodes)
    return Network(
        name=name,
        nodes=tuple(builder.nodes),
        loss=loss,
        input_shape=input_shape,
        optimizer=draw_optimizer(source) if trained else None,
        title="a random network",
    )


def _input_shape(source: Source) -> Shape:
    """Of one example: features, or channels and one to three axes."""
    axes = source.choice((0, 2, 1, 3))
    if axes == 0:
        return (source.integer(1, 6),)
    longest = {1: 12, 2: 7, 3: 4}[axes]
    return (source.integer(1, 4), *(source.integer(1, longest) for _ in range(axes)))


class _Builder:
    def __init__(self, source: Source, shape: Shape) -> None:
        self.source, self.shape = source, shape
        self.nodes: list[Node] = []
        self.last = INPUT
        self.shapes: dict[str, Shape] = {INPUT: shape}

    def step(self) -> None:
        """One more layer, a skip connection to where the shape was the same, or a fork that joins again."""
        kind = self.source.choice(("layer", "layer", "layer", "layer", "skip", "fork"))
        if kind == "skip":
            same = [name for name, shape in self.shapes.items() if shape == self.shape]
            self._append(nn.Add(), (self.last, self.source.choice(same)), self.shape)
        elif kind == "fork":
            self._fork()
        else:
            self.add(self._draw())

    def add(self, layer: nn.Layer | None) -> None:
        """Append a layer to the last step, if it fits there."""
        shape = None if layer is None else output_shape(layer, self.shape)
        if layer is not None and shape is not None:
            self._append(layer, (self.last,), shape)

    def _draw(self) -> nn.Layer | None:
        return self.source.choice(layer_kinds(self.shape))(self.source, self.shape)

    def _fork(self) -> None:
        first, start = self._draw(), self.last
        shape = None if first is None else output_shape(first, self.shape)
        if first is None or shape is None:
            return
        # the other branch: the same layer with weights of its own, or what was there, where the shape allows it
        second = None if shape == self.shape and self.source.flag() else first
        self._append(first, (start,), shape)
        one = self.last
        if second is not None:
            self._append(second, (start,), shape)
        self._append(nn.Add(), (one, self.last if second is not None else start), shape)

    def _append(self, layer: nn.Layer, inputs: tuple[str, ...], shape: Shape) -> None:
        self.last = f"s{len(self.nodes) + 1}"
        self.nodes.append(Node(self.last, layer, inputs))
        self.shape = self.shapes[self.last] = shape


def output_shape(layer: nn.Layer, shape: Shape) -> Shape | None:
    """Shape of one example of the output; None where the layer refuses such an input, or it would be too large."""
    rng = np.random.default_rng(0)
    x = np.zeros((2, *shape))
    try:
        y, _ = layer.forward(layer.initial(rng), x)
    except nn.NNError:
        return None
    return None if y.size > 2 * LARGEST or y.size == 0 else y.shape[1:]
