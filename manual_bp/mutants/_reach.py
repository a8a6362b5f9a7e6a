"""Shapes of a network's quantities, and from which elements an error can come back at all.

The last row of an image that is pooled in windows of two is in no window if there is an odd number of rows: its
gradient is 0 whatever the numbers are, and a mistake that drops that row is none.
"""

from __future__ import annotations

import numpy as np

from manual_bp.network import Network, Node
from manual_bp.nn import Array
from manual_bp.probes._step import values

from ._seen import Seen
from ._windows import conv_dx, scatter

#: Examples in whatever is tried out.
BATCH = 3

_CONV = ("Conv1d", "Conv2d", "Conv3d")
_POOL = ("MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d")
#: One output depends on one input, in the same place.
_ELEMENTWISE = ("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "GELU", "SiLU", "Softplus", "Identity", "Add", "Dropout")

_known: dict[int, tuple[Network, dict[str, tuple[int, ...]], dict[str, Array]]] = {}


def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """Shape of the input and of every step's output, for a batch of `BATCH`."""
    return _facts(network)[1]


def reached(network: Network, step: str) -> Array:
    """For every element of a step's output whether the loss can depend on it."""
    return _facts(network)[2][step]


def _facts(network: Network) -> tuple[Network, dict[str, tuple[int, ...]], dict[str, Array]]:
    known = _known.get(id(network))
    if known is None or known[0] is not network:
        rng = np.random.default_rng(0)
        found = values(network, network.initial(rng), rng.standard_normal((BATCH, *network.input_shape)))
        shapes = {name: array.shape for name, array in found.items()}
        known = _known[id(network)] = (network, shapes, _reach(network, shapes))
    return known


def _reach(network: Network, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    found = {name: np.zeros(shape, bool) for name, shape in shapes.items()}
    found[network.output][...] = True
    for node in reversed(network.nodes):
        for name in node.inputs:
            found[name] |= _before(node, shapes[name], found[node.name])
    return found


def _before(node: Node, shape: tuple[int, ...], after: Array) -> Array:
    """Which elements of a step's input the reached elements of its output depend on."""
    kind = type(node.layer).__name__
    if kind in _ELEMENTWISE:
        return after
    if kind == "Flatten":
        return after.reshape(shape)
    padding_mode = getattr(node.layer, "padding_mode", "zeros")
    if (kind in _CONV or kind in _POOL) and padding_mode == "zeros":
        ones = {"weight": np.ones(node.layer.parameter_shapes().get("weight", (0,)))}
        g = after.astype(np.float64)
        seen = Seen(layer=node.layer, params=ones, inputs=(np.zeros(shape),), y=g, upstream=g)
        if kind in _CONV:
            return conv_dx(seen) > 0
        return scatter(seen, np.repeat(g[..., None], int(np.prod(seen.layer.window.kernel)), axis=-1)) > 0
    return np.full(shape, bool(after.any()))
