"""Right formulas that are fed the wrong tensor, and steps that change what they are given.

These mistakes need two steps, or writing in place: each is planted in a way of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from manual_bp import nn
from manual_bp.network import INPUT, Network
from manual_bp.nn import Array, Cache, Gradients, Layer, Params
from manual_bp.trace import GRAD

from ._mutant import Mutant

_AFFINE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus)
_SHARED = (*_AFFINE, *_ACTIVATIONS, nn.Add, nn.Flatten)


@dataclass(frozen=True, kw_only=True)
class RouteMutant(Mutant):
    """A mistake that is planted in a way of its own."""

    find: Callable[[Network, str], frozenset[str]]
    make: Callable[[Network, str], Network]

    def faulty(self, network: Network, step: str) -> frozenset[str]:
        known = {node.name for node in network.nodes}
        return self.find(network, step) if step in known else frozenset()

    def plant(self, network: Network, step: str) -> Network:
        return self.make(network, step)


@dataclass(frozen=True)
class Wrapped(Layer):
    """The right layer, with its calls rerouted."""

    layer: Layer
    forward_by: Callable[..., tuple[Array, Cache]] | None = None
    backward_by: Callable[..., Gradients] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_inputs", self.layer.n_inputs)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.parameter_shapes()

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.buffer_shapes()

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        return (self.forward_by or self.layer.forward)(params, *inputs)

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        return (self.backward_by or self.layer.backward)(cache, upstream)


@dataclass
class Box:
    """Where one step leaves a tensor for another one."""

    content: dict[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------ the gradient behind the activation


def _only_reader(network: Network, step: str) -> str | None:
    """The activation that alone reads this step, if that is so."""
    readers = network.consumers(step)
    known = {node.name for node in network.nodes}
    if len(readers) == 1 and readers[0] in known and type(network.node(readers[0]).layer) in _ACTIVATIONS:
        return readers[0]
    return None


def _all_gradients(network: Network, step: str) -> frozenset[str]:
    node = network.node(step)
    return frozenset(f"{step}.{p}{GRAD}" for p in node.layer.parameter_shapes()) | {name + GRAD for name in node.inputs}


def _unmasked_faults(network: Network, step: str) -> frozenset[str]:
    if type(network.node(step).layer) not in _AFFINE or _only_reader(network, step) is None:
        return frozenset()
    return _all_gradients(network, step)


def _plant_unmasked(network: Network, step: str) -> Network:
    reader, box = _only_reader(network, step), Box()
    assert reader is not None, "applies() has found one"
    activation, layer = network.node(reader).layer, network.node(step).layer

    def keep(cache: Cache, upstream: Array) -> Gradients:
        box.content["g"] = upstream
        return activation.backward(cache, upstream)

    network = network.with_layer(reader, Wrapped(activation, backward_by=keep))
    unmasked = lambda cache, _: layer.backward(cache, box.content["g"])  # noqa: E731  # one line says it
    return network.with_layer(step, Wrapped(layer, backward_by=unmasked))


# ------------------------------------------------------------------ the activation's input for its output


def _activation_before(network: Network, step: str) -> str | None:
    """The activation that this step reads, if it does."""
    known = {node.name: node for node in network.nodes}
    before = known.get(network.node(step).inputs[0])
    return before.name if before is not None and type(before.layer) in _ACTIVATIONS else None


def _raw_faults(network: Network, step: str) -> frozenset[str]:
    if type(network.node(step).layer) not in _AFFINE or _activation_before(network, step) is None:
        return frozenset()
    return frozenset({f"{step}.weight{GRAD}"})


def _plant_raw(network: Network, step: str) -> Network:
    before, box, layer = _activation_before(network, step), Box(), network.node(step).layer
    assert before is not None, "applies() has found one"
    activation = network.node(before).layer

    def keep(params: Params, *inputs: Array) -> tuple[Array, Cache]:
        box.content["z"] = inputs[0]
        return activation.forward(params, *inputs)

    def forward(params: Params, *inputs: Array) -> tuple[Array, Cache]:
        y, cache = layer.forward(params, *inputs)
        return y, (params, cache)

    def backward(cache: Cache, upstream: Array) -> Gradients:
        params, own = cache
        right = layer.backward(own, upstream)
        _, raw = layer.forward(params, box.content["z"])
        return Gradients(right.inputs, {**right.params, "weight": layer.backward(raw, upstream).params["weight"]})

    network = network.with_layer(before, Wrapped(activation, forward_by=keep))
    return network.with_layer(step, Wrapped(layer, forward, backward))


# ------------------------------------------------------------------ one of several readers


def _shared_inputs(network: Network, step: str) -> tuple[str, ...]:
    """The inputs of a step that other steps, which run backward later, read as well."""
    node = network.node(step)
    inputs = dict.fromkeys(node.inputs) if type(node.layer) in _SHARED else ()
    return tuple(name for name in inputs if network.consumers(name)[0] != step)


def _overwritten_faults(network: Network, step: str) -> frozenset[str]:
    return frozenset(name + GRAD for name in _shared_inputs(network, step))


def _plant_overwritten(network: Network, step: str) -> Network:
    """What this step hands back is lost, because a later reader assigns where it should add."""
    node, lost = network.node(step), _shared_inputs(network, step)

    def backward(cache: Cache, upstream: Array) -> Gradients:
        right = node.layer.backward(cache, upstream)
        pairs = zip(node.inputs, right.inputs, strict=True)
        return replace(right, inputs=tuple(0 * g if name in lost else g for name, g in pairs))

    return network.with_layer(step, Wrapped(node.layer, backward_by=backward))


# ------------------------------------------------------------------ writing in place


def _in_place_faults(phase: Literal["forward", "backward"]) -> Callable[[Network, str], frozenset[str]]:
    def find(network: Network, step: str) -> frozenset[str]:
        node = network.node(step)
        if type(node.layer) not in _ACTIVATIONS or INPUT in node.inputs:
            return frozenset()
        return frozenset({step if phase == "forward" else node.inputs[0] + GRAD})

    return find


def _plant_in_place_forward(network: Network, step: str) -> Network:
    """The output is written into the input's memory."""
    layer = network.node(step).layer

    def forward(params: Params, *inputs: Array) -> tuple[Array, Cache]:
        y, cache = layer.forward(params, inputs[0].copy())
        inputs[0][...] = y
        return inputs[0].copy(), cache

    return network.with_layer(step, Wrapped(layer, forward_by=forward))


def _plant_in_place_backward(network: Network, step: str) -> Network:
    """∂L/∂x is written into the memory of ∂L/∂y."""
    layer = network.node(step).layer

    def backward(cache: Cache, upstream: Array) -> Gradients:
        right = layer.backward(cache, upstream.copy())
        upstream[...] = right.inputs[0]
        return Gradients((upstream.copy(),), right.params)

    return network.with_layer(step, Wrapped(layer, backward_by=backward))


def _stale_faults(network: Network, step: str) -> frozenset[str]:
    if type(network.node(step).layer) not in _AFFINE:
        return frozenset()
    return frozenset({f"{step}.weight{GRAD}"})


def _plant_stale(network: Network, step: str) -> Network:
    """∂L/∂w is made from the input of the previous example: the cache was filled one step too late."""
    layer = network.node(step).layer

    def forward(params: Params, *inputs: Array) -> tuple[Array, Cache]:
        y, cache = layer.forward(params, *inputs)
        return y, (params, inputs[0], cache)

    def backward(cache: Cache, upstream: Array) -> Gradients:
        params, x, own = cache
        right = layer.backward(own, upstream)
        _, stale = layer.forward(params, np.roll(x, 1, axis=0))
        return Gradients(right.inputs, {**right.params, "weight": layer.backward(stale, upstream).params["weight"]})

    return network.with_layer(step, Wrapped(layer, forward, backward))


MISTAKES: tuple[RouteMutant, ...] = (
    RouteMutant(
        id="plumbing-unmasked-gradient", title="fed the gradient behind the activation, not the one in front of it",
        hypothesis="wrong-tensor-fed", find=_unmasked_faults, make=_plant_unmasked,
    ),
    RouteMutant(
        id="plumbing-raw-input", title="∂L/∂w made from the activation's input, not from its output",
        hypothesis="wrong-tensor-fed", find=_raw_faults, make=_plant_raw,
    ),
    RouteMutant(
        id="plumbing-stale-cache", title="∂L/∂w made from the previous example's input",
        hypothesis="stale-cache", find=_stale_faults, make=_plant_stale,
    ),
    RouteMutant(
        id="plumbing-branch-overwritten", title="what this step hands back is overwritten by another reader's gradient",
        hypothesis="accumulation-overwritten", find=_overwritten_faults, make=_plant_overwritten,
    ),
    RouteMutant(
        id="in-place-forward", title="the output is written into the input's memory",
        hypothesis="in-place", find=_in_place_faults("forward"), make=_plant_in_place_forward,
    ),
    RouteMutant(
        id="in-place-backward", title="∂L/∂x is written into the memory of ∂L/∂y",
        hypothesis="in-place", find=_in_place_faults("backward"), make=_plant_in_place_backward,
    ),
)  # fmt: skip
