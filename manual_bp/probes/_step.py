"""Reading a network for what its probes need: outputs of its steps, kinks, and where the logits are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from manual_bp import nn
from manual_bp.network import INPUT, Network, Node
from manual_bp.nn import Array
from manual_bp.trace import GRAD, Trace

#: Steps that turn logits into what the loss takes.
SQUASHING = ("Sigmoid", "Tanh", "Softmax", "LogSoftmax")


def values(network: Network, params: Mapping[str, Array], x: Array) -> dict[str, Array]:
    """The input and the output of every step, by name."""
    found = {INPUT: x}
    for node in network.nodes:
        names = (*node.layer.parameter_shapes(), *node.layer.buffer_shapes())
        own = {name: params[f"{node.name}.{name}"] for name in names}
        found[node.name], _ = node.layer.forward(own, *(found[name] for name in node.inputs))
    return found


def is_affine(node: Node) -> bool:
    """Whether the step is a matrix of weights applied to its input (dense or convolution)."""
    return len(node.layer.parameter_shapes().get("weight", ())) >= 2


def last_affine(network: Network) -> Node | None:
    """The step that makes the logits."""
    return next((node for node in reversed(network.nodes) if is_affine(node)), None)


def squashed(network: Network, node: Node) -> bool:
    """Whether the step's output goes into a sigmoid or the like, or straight into the loss."""
    readers = network.consumers(node.name)
    return network.loss_name in readers or any(type(network.node(name).layer).__name__ in SQUASHING for name in readers)


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
