"""What a probe could not have shown, read off its own numbers.

A comparison can only reveal a mistake that changes a number. Where the upstream gradient is zero, a kernel equals its
own rotation, or a batch has one example, whole classes of mistakes leave every number as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from manual_bp import nn
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.trace import GRAD, Array, Trace


def blind_spots(network: Network, probe: Probe, trace: Trace) -> tuple[str, ...]:
    """One sentence for each class of mistakes that this probe cannot reveal."""
    return tuple(_spots(network, probe, trace))


def _spots(network: Network, probe: Probe, trace: Trace) -> Iterator[str]:
    if probe.batch == 1:
        yield "one example: sums and means over the batch are the same"
    for node in network.nodes:
        upstream = trace.get(node.name + GRAD)
        if upstream is not None and upstream.size and not np.any(upstream):
            yield f"{node.name}.grad is zero everywhere: the backward pass of {node.name} could do anything"
        elif upstream is not None and upstream.size > 1 and np.all(upstream == upstream.flat[0]):
            yield f"{node.name}.grad is the same everywhere: transposed or permuted gradients look right"
        if isinstance(node.layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            yield from _convolution(node.name, node.layer, trace)
        first = trace.get(node.inputs[0])
        if isinstance(node.layer, nn.ReLU) and first is not None and not np.any(first == 0):
            yield f"{node.name} has no input of exactly 0: >= for > looks right"
        if isinstance(node.layer, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
            gradient, winners = trace.get(node.inputs[0] + GRAD), trace.get(node.name)
            if first is not None and winners is not None and gradient is not None and not _has_ties(first, winners):
                yield f"{node.name} has no window with equal maxima: any rule for ties looks right"


def _convolution(name: str, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, trace: Trace) -> Iterator[str]:
    weight = trace.get(f"{name}.weight")
    if weight is None:
        return
    spatial = tuple(range(2, weight.ndim))
    if np.array_equal(weight, np.flip(weight, spatial)):
        yield f"{name}'s kernel equals its own rotation: an unrotated kernel looks right"
    if weight.ndim >= 4 and np.array_equal(weight, np.swapaxes(weight, -1, -2)):
        yield f"{name}'s kernel equals its transpose: swapped rows and columns look right"
    if layer.in_channels == 1 and layer.out_channels == 1:
        yield f"{name} has one channel in and one out: mixed-up channels look right"


def _has_ties(before: Array, winners: Array) -> bool:
    """Whether a maximum occurs more than once in its plane: necessary for a tie, and cheap to see."""
    planes, peaks = before.reshape(-1, *before.shape[2:]), winners.reshape(-1, *winners.shape[2:])
    return any(_twice(p[np.isin(p, w)]) for p, w in zip(planes, peaks, strict=False))


def _twice(numbers: Array) -> bool:
    ordered = np.sort(numbers)  # np.unique would import numpy.ma, which takes longer than all that is done here
    return bool((ordered[1:] == ordered[:-1]).any())
