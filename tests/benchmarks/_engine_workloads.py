"""What the engine is timed on: five networks from one image to a block of VGG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.network import Network, chain


@dataclass(frozen=True)
class Workload:
    """A network, its numbers, and how fast it is meant to be."""

    key: str
    title: str
    network: Network
    params: dict[str, Any]
    x: Any
    y: Any
    repeats: int
    limit: float  # times torch, at most
    goal: float

    @property
    def layers(self) -> dict[str, nn.Layer]:
        return {node.name: node.layer for node in self.network.nodes}

    def step(self) -> Callable[[], Any]:
        """One forward and backward pass of the layers themselves; the result is ∂L/∂x."""
        own = {
            name: {p: self.params[f"{name}.{p}"] for p in layer.parameter_shapes()}
            for name, layer in self.layers.items()
        }
        layers, loss, x, y = list(self.layers.items()), self.network.loss, self.x, self.y

        def run() -> Any:
            value, kept = x, []
            for name, layer in layers:
                value, cache = layer.forward(own[name], value)
                kept.append((layer, value, cache))
            _, cache = loss.forward(value, y)
            upstream, grads = loss.backward(cache), []
            for layer, _, layer_cache in reversed(kept):
                gradients = layer.backward(layer_cache, upstream)
                grads.append(gradients)  # all activations and gradients are kept, as a comparison needs them
                (upstream,) = gradients.inputs
            return upstream

        return run


def three_layer() -> dict[str, nn.Layer]:
    return {
        "z1": nn.Conv2d(1, 1, 3),
        "a1": nn.ReLU(),
        "a2": nn.MaxPool2d(2),
        "flat": nn.Flatten(),
        "z3": nn.Linear(9, 1),
        "a3": nn.Sigmoid(),
    }


def lenet() -> dict[str, nn.Layer]:
    return {
        "c1": nn.Conv2d(1, 6, 5, padding=2),
        "r1": nn.ReLU(),
        "p1": nn.MaxPool2d(2),
        "c2": nn.Conv2d(6, 16, 5),
        "r2": nn.ReLU(),
        "p2": nn.MaxPool2d(2),
        "flat": nn.Flatten(),
        "l1": nn.Linear(400, 120),
        "r3": nn.ReLU(),
        "l2": nn.Linear(120, 84),
        "r4": nn.ReLU(),
        "l3": nn.Linear(84, 10),
    }


def vgg_block() -> dict[str, nn.Layer]:
    return {
        "c1": nn.Conv2d(3, 64, 3, padding=1),
        "r1": nn.ReLU(),
        "c2": nn.Conv2d(64, 64, 3, padding=1),
        "r2": nn.ReLU(),
        "p": nn.MaxPool2d(2),
    }


def one_large() -> dict[str, nn.Layer]:
    return {"c": nn.Conv2d(64, 128, 3, padding=1)}


def workloads(keys: str = "abcde", dtype: type = np.float32) -> Iterator[Workload]:
    """The networks of these letters, with the same random numbers every time."""
    for key in keys:
        title, layers, loss, shape, repeats, limit, goal = {
            "a": ("three layers, batch 1", three_layer(), nn.BCELoss(), (1, 1, 8, 8), 300, 0.45, 0.4),
            "b": ("three layers, batch 256", three_layer(), nn.BCELoss(), (256, 1, 8, 8), 150, 0.3, 0.25),
            "c": ("LeNet 28x28, batch 64", lenet(), nn.CrossEntropyLoss(), (64, 1, 28, 28), 40, 0.95, 0.8),
            "d": ("VGG block, batch 32", vgg_block(), nn.MSELoss(), (32, 3, 32, 32), 9, 1.2, 1.0),
            "e": ("64->128 3x3, 56x56, batch 8", one_large(), nn.MSELoss(), (8, 64, 56, 56), 9, 1.2, 1.05),
        }[key]
        rng = np.random.default_rng(0)
        network = chain(key, layers, loss, shape[1:])
        params, x = network.initial(rng, dtype), rng.standard_normal(shape).astype(dtype)
        y = {
            "a": lambda rng: rng.integers(0, 2, (1, 1)).astype(dtype),
            "b": lambda rng: rng.integers(0, 2, (256, 1)).astype(dtype),
            "c": lambda rng: rng.integers(0, 10, 64),
            "d": lambda rng: rng.standard_normal((32, 64, 16, 16)).astype(dtype),
            "e": lambda rng: rng.standard_normal((8, 128, 56, 56)).astype(dtype),
        }[key](rng)
        yield Workload(key, title, network, params, x, y, repeats, limit, goal)
