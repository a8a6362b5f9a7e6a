"""The layouts of a network's arrays: torch's own, and the channels-last one of TensorFlow, JAX and many C programs."""

from __future__ import annotations

from collections.abc import Mapping

from manual_bp import nn
from manual_bp.network import INPUT, Network
from manual_bp.trace import GRAD, NEW

_SPACE = {1: "L", 2: "HW", 3: "DHW"}


def base(name: str) -> str:
    """The quantity that a gradient or an updated parameter is laid out like."""
    return name.removesuffix(GRAD).removesuffix(NEW)


def torch_layouts(network: Network, ranks: Mapping[str, int]) -> dict[str, str]:
    """torch's layout of every array that has an obvious one: images, vectors, kernels, matrices.

    ``ranks`` gives the number of axes of each value and parameter.
    """
    found = {}
    for name, rank in ranks.items():
        if name in _weights(network) and rank >= 2:
            found[name] = "OI" + _SPACE.get(rank - 2, "")
        elif name in _values(network) and rank >= 2:
            found[name] = "NC" + _SPACE.get(rank - 2, "")
    return {name: text for name, text in found.items() if len(text) == ranks[name]}


def channels_last(network: Network, ranks: Mapping[str, int]) -> dict[str, str]:
    """Images (N, H, W, C), kernels (H, W, I, O), dense weights (I, O), flattened vectors in that order as well."""
    found = {}
    flattened: dict[str, str] = {}  # steps whose output is a vector of what was an image, and its axes
    for node in network.nodes:
        before = ranks.get(node.inputs[0], 0)
        if isinstance(node.layer, nn.Flatten) and before > 2:
            flattened[node.name] = f"({_SPACE[before - 2]}C)"
        elif node.inputs[0] in flattened and ranks.get(node.name) == 2 and not node.layer.parameter_shapes():
            flattened[node.name] = flattened[node.inputs[0]]
        elif node.inputs[0] in flattened and isinstance(node.layer, nn.Linear):
            found[f"{node.name}.weight"] = flattened[node.inputs[0]] + "O"
    for name, text in torch_layouts(network, ranks).items():
        if name in flattened:
            found[name] = "N" + flattened[name]
        elif text.startswith("NC"):
            found[name] = "N" + text[2:] + "C"
        else:
            found.setdefault(name, text[2:] + "IO")
    return found


def _weights(network: Network) -> set[str]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {f"{node.name}.weight" for node in network.nodes if isinstance(node.layer, kinds)}


def _values(network: Network) -> set[str]:
    return {INPUT, *(node.name for node in network.nodes)}
