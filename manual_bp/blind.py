"""What a probe could not have shown, read off its own numbers.

A comparison can only reveal a mistake that changes a number. Where the upstream gradient is zero, a kernel equals its
own rotation, or a batch has one example, whole classes of mistakes leave every number as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from manual_bp import nn
from manual_bp.inputs import named
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.trace import GRAD, Array, Trace

if TYPE_CHECKING:
    from manual_bp.compare import Expected, Item
    from manual_bp.diagnose import Graph


class _Step(NamedTuple):
    """What is looked at of a step; ``params`` are the global names by local ones."""

    name: str
    layer: object
    inputs: tuple[str, ...]
    params: Mapping[str, str]


def blind_spots(network: Network, probe: Probe, trace: Trace) -> tuple[str, ...]:
    """One sentence for each class of mistakes that this probe cannot reveal."""
    steps = [
        _Step(n.name, n.layer, n.inputs, {p: f"{n.name}.{p}" for p in n.layer.parameter_shapes()})
        for n in network.nodes
    ]
    return tuple(_spots(steps, probe.batch, trace))


def blind_spots_of(graph: Graph, x: object, trace: Mapping[str, Array], items: Sequence[Item]) -> tuple[str, ...]:
    """The same of a program that somebody brought along.

    Parameters
    ----------
    graph
        Its steps, with the layers that are known here.
    x
        The input as it was given: an array, several, or by name.
    trace
        The reference's own values and gradients, and its parameters.
    items
        What the candidate is held against: a gradient of nothing but rounding is nothing to hold against.
    """
    steps = [_Step(s.name, s.layer, s.inputs, s.params) for s in graph.steps]
    parts = [part for part in named(x).values() if isinstance(part, np.ndarray) and part.ndim > 1]
    batch = 1 if parts and all(len(part) == 1 for part in parts) else 0
    expected = {item.quantity.name: item.isolated or item.end_to_end for item in items}
    spots = [*_spots(steps, batch, trace), *_within_rounding(expected, [s.name for s in steps])]
    for step in steps:
        spots += _normalisation(step, expected, trace)
    return tuple(dict.fromkeys(spots))


def _spots(steps: Iterable[_Step], batch: int, trace: Mapping[str, Array]) -> Iterator[str]:
    if batch == 1:
        yield "one example: sums and means over the batch are the same"
    for name, layer, inputs, params in steps:
        upstream = trace.get(name + GRAD)
        if upstream is not None and upstream.size and not np.any(upstream):
            yield f"{name}.grad is zero everywhere: the backward pass of this step could do anything"
        elif upstream is not None and upstream.size > 1 and np.all(upstream == upstream.flat[0]):
            yield f"{name}.grad is the same everywhere: transposed or permuted gradients look right"
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            yield from _convolution(name, layer, trace.get(params.get("weight", "")))
        first = trace.get(inputs[0]) if inputs else None
        if isinstance(layer, nn.ReLU) and first is not None and not np.any(first == 0):
            yield f"{name} has no input of exactly 0: >= for > looks right"
        if isinstance(layer, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
            y = trace.get(name)
            if first is not None and y is not None and upstream is not None and not _ties(layer, first, y, upstream):
                yield f"{name} has no window with equal maxima: any rule for ties looks right"


def _convolution(name: str, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, weight: Array | None) -> Iterator[str]:
    if weight is None:
        return
    spatial = tuple(range(2, weight.ndim))
    if np.array_equal(weight, np.flip(weight, spatial)):
        yield f"{name}'s kernel equals its own rotation: an unrotated kernel looks right"
    if weight.ndim >= 4 and np.array_equal(weight, np.swapaxes(weight, -1, -2)):
        yield f"{name}'s kernel equals its transpose: swapped rows and columns look right"
    if layer.in_channels == 1 and layer.out_channels == 1:
        yield f"{name} has one channel in and one out: mixed-up channels look right"


def _ties(layer: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d, x: Array, y: Array, upstream: Array) -> bool:
    """Whether a maximum occurs more than once in a window that a gradient comes back to."""
    w = layer.window
    lead, lengths, outputs = x.shape[: -layer.axes], x.shape[-layer.axes :], y.shape[-layer.axes :]
    ends = [
        max((p - 1) * s + span, b + n)
        for p, s, span, b, n in zip(outputs, w.stride, w.span, w.before, lengths, strict=True)
    ]
    padded = np.full((*lead, *ends), np.nan)  # equal to nothing
    inside: list[Any] = [slice(b, b + n) for b, n in zip(w.before, lengths, strict=True)]
    padded[(..., *inside)] = x
    winners = np.zeros(y.shape, np.uint8)
    for tap in itertools.product(*map(range, w.kernel)):
        starts = [k * d for k, d in zip(tap, w.dilation, strict=True)]
        seen: list[Any] = [slice(a, a + (p - 1) * s + 1, s) for a, p, s in zip(starts, outputs, w.stride, strict=True)]
        winners += padded[(..., *seen)] == y
    return bool(((winners > 1) & (upstream != 0)).any())


# ---------------------------------------------------------------------- what rounding covers


def _within_rounding(expected: Mapping[str, Expected | None], steps: Collection[str]) -> Iterator[str]:
    """Gradients that are no larger than what may differ, as that of a bias in front of a normalisation."""
    for name, answer in expected.items():
        if answer is None or not name.endswith(GRAD) or not answer.value.size:
            continue
        if answer.value.any():
            if _covered(answer.value, answer.allowed):
                yield f"{name} is zero but for rounding: any other result as small looks right"
        elif name.removesuffix(GRAD) not in steps:  # of a step's own output it has been said
            yield f"{name} is zero everywhere: a gradient that is never computed looks right"


def _normalisation(step: _Step, expected: Mapping[str, Expected | None], trace: Mapping[str, Array]) -> Iterator[str]:
    """Two means are taken off a normalisation's gradient. As groups grow they shrink, and their rounding grows."""
    if not isinstance(step.layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
        return
    answer, upstream = expected.get(step.inputs[0] + GRAD), trace.get(step.name + GRAD)
    x = trace.get(step.inputs[0])
    if answer is None or upstream is None or x is None or answer.value.shape != x.shape:
        return
    given = {local: trace[name] for local, name in step.params.items() if name in trace}
    try:
        _, normalized = step.layer.forward(given, x)
    except nn.NNError:
        return
    if normalized.over is None:
        return
    g = upstream * normalized.weight
    mean = g.mean(axis=normalized.over, keepdims=True)
    projection = normalized.x_hat * (g * normalized.x_hat).mean(axis=normalized.over, keepdims=True)
    for what, term in (("the mean of the gradient", mean), ("the gradient's share along x̂", projection)):
        term = np.broadcast_to(normalized.s * term, answer.value.shape)
        if term.any() and _covered(term, answer.allowed):
            yield f"{step.name}: {what} is smaller than rounding may be: leaving it out looks right"


def _covered(value: Array, allowed: Array) -> bool:
    """Whether no element is larger than what may differ."""
    allowed = np.broadcast_to(allowed, value.shape)
    size = np.abs(value)
    largest = np.unravel_index(size.argmax(), size.shape)  # is, as a rule, and then no other need be looked at
    return bool(size[largest] <= allowed[largest]) and bool((size <= allowed).all())
