"""Reading a network for what its probes need: outputs of its steps, kinks, and where the logits are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from manual_bp import nn
from manual_bp.network import INPUT, Network, Node
from manual_bp.nn import Array
from manual_bp.trace import GRAD, Trace

#: Steps that turn logits into what the loss takes.
SQUASHING = ("Sigmoid", "Tanh", "Softmax", "LogSoftmax")


def values(network: Network, params: Mapping[str, Array], x: Array) -> dict[str, Array]:
    """The input and the output of every step, by name."""
    return changed(network, params, x, lambda node, value: False)


def changed(
    network: Network, params: Mapping[str, Array], x: Array, change: Callable[[Node, Array], bool]
) -> dict[str, Array]:
    """As `values`, with a hand in it.

    ``change(node, value)`` sees each step's output, may give it other parameters, and says whether it did: then the
    step is computed again, before the steps that read it.
    """
    found = {INPUT: x}
    for node in network.nodes:
        found[node.name] = _output(node, params, found)
        if change(node, found[node.name]):
            found[node.name] = _output(node, params, found)
    return found


def _output(node: Node, params: Mapping[str, Array], found: Mapping[str, Array]) -> Array:
    names = (*node.layer.parameter_shapes(), *node.layer.buffer_shapes())
    own = {name: params[f"{node.name}.{name}"] for name in names}
    return node.layer.forward(own, *(found[name] for name in node.inputs))[0]


def is_affine(node: Node) -> bool:
    """Whether the step is a matrix of weights applied to its input (dense or convolution)."""
    return len(node.layer.parameter_shapes().get("weight", ())) >= 2 and "Norm" not in type(node.layer).__name__


def last_affine(network: Network) -> Node | None:
    """The step that makes the logits."""
    return next((node for node in reversed(network.nodes) if is_affine(node)), None)


def squashed(network: Network, node: Node) -> bool:
    """Whether the step's output goes into a sigmoid or the like, or into the loss, sums and flattening let through."""
    for name in network.consumers(node.name):
        if name == network.loss_name:
            return True
        reader = network.node(name)
        if type(reader.layer).__name__ in SQUASHING:
            return True
        if isinstance(reader.layer, (nn.Add, nn.Flatten, nn.Identity)) and squashed(network, reader):
            return True
    return False


def rectified(network: Network, node: Node) -> bool:
    """Whether a ReLU reads the step."""
    readers = network.consumers(node.name)
    return any(isinstance(other.layer, nn.ReLU) for other in network.nodes if other.name in readers)


def exact_zeros(network: Network, trace: Trace) -> dict[str, int]:
    """For every ReLU, at how many elements its input is exactly 0 while an error comes back to it."""
    return {
        node.name: int(np.sum((trace[node.inputs[0]] == 0) & (trace[node.name + GRAD] != 0)))
        for node in network.nodes
        if isinstance(node.layer, nn.ReLU)
    }


def tied_windows(network: Network, trace: Trace) -> dict[str, int]:
    """For every max-pooling step, how many windows have several winners while an error comes back to them."""
    return {
        node.name: _tied(node.layer, trace[node.inputs[0]], trace[node.name], trace[node.name + GRAD])
        for node in network.nodes
        if isinstance(node.layer, (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d))
    }


def _tied(layer: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d, x: Array, y: Array, upstream: Array) -> int:
    axes, lead = layer.axes, (slice(None),) * (x.ndim - layer.axes)
    total = 0
    for position in itertools.product(*map(range, y.shape[-axes:])):
        here: tuple[slice | int, ...] = layer.window.inside(position, x.shape[-axes:])
        window = x[lead + here]  # (N, C, *K)
        best = y[lead + position].reshape(*y.shape[:-axes], *(1,) * axes)
        winners = np.sum(window == best, axis=tuple(range(-axes, 0)))  # (N, C)
        total += int(np.sum((winners > 1) & (upstream[lead + position] != 0)))
    return total
