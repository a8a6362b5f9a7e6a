"""Mistakes for the tests of the diagnosis: each replaces one result of a right layer, and belongs to no catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from manual_bp import nn, probes
from manual_bp.diagnose import Case, Graph
from manual_bp.network import Network, chain
from manual_bp.nn import Array, Gradients, Layer, Loss
from manual_bp.trace import GRAD


@dataclass(frozen=True)
class Wrong(Layer):
    """A right layer with one result exchanged: ``y``, ``dx``, ``weight`` or ``bias``.

    ``change`` gets the right result, x, the parameters and the upstream gradient (None in the forward pass).
    """

    layer: Layer
    what: str
    change: Callable[..., Array]

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.parameter_shapes()

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.buffer_shapes()

    def forward(self, params: Mapping[str, Array], /, *inputs: Array) -> tuple[Array, Any]:
        y, cache = self.layer.forward(params, *inputs)
        if self.what == "y":
            y = self._changed(y, inputs[0], params, None)
        return y, (cache, inputs[0], dict(params))

    def backward(self, cache: Any, upstream: Array, /) -> Gradients:
        inner, x, params = cache
        right = self.layer.backward(inner, upstream)
        if self.what == "dx":
            return Gradients((self._changed(right.inputs[0], x, params, upstream),), right.params)
        if self.what in right.params:
            changed = self._changed(right.params[self.what], x, params, upstream)
            return Gradients(right.inputs, {**right.params, self.what: changed})
        return right

    def _changed(self, right: Array, x: Array, params: Mapping[str, Array], g: Array | None) -> Array:
        return np.ascontiguousarray(self.change(right, x, params, g)).astype(right.dtype)


@dataclass(frozen=True)
class WrongLoss(Loss):
    """A right loss with its value or gradient exchanged; ``change`` gets the right result, prediction and target."""

    loss: Loss = nn.MSELoss()  # noqa: RUF009  # frozen
    what: str = "dx"
    change: Callable[..., Array] = lambda right, _p, _t: right

    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Any]:
        y, cache = self.loss.forward(prediction, target)
        if self.what == "y":
            y = np.asarray(self.change(y, prediction, target), y.dtype)
        return y, (cache, prediction, target)

    def backward(self, cache: Any, upstream: Array | float = 1.0, /) -> Array:
        inner, p, t = cache
        right = self.loss.backward(inner, upstream)
        return np.asarray(self.change(right, p, t), right.dtype) if self.what == "dx" else right


NETWORKS: dict[str, Network] = {
    n.name: n
    for n in (
        chain(
            "bench-conv",
            {
                "conv": nn.Conv2d(2, 3, 3, stride=2, padding=1),
                "relu": nn.ReLU(),
                "deep": nn.Conv2d(3, 3, 3, padding=1),
                "tanh": nn.Tanh(),
                "pool": nn.MaxPool2d(2),
                "flat": nn.Flatten(),
                "fc": nn.Linear(12, 3),
            },
            nn.CrossEntropyLoss(),
            (2, 9, 7),
        ),
        chain(
            "bench-dense",
            {
                "fc1": nn.Linear(8, 7),
                "norm": nn.BatchNorm1d(6),
                "silu": nn.SiLU(),
                "flat": nn.Flatten(),
                "down": nn.Linear(42, 6),
                "fc2": nn.Linear(6, 6),
                "sig": nn.Sigmoid(),
                "fc3": nn.Linear(6, 4),
            },
            nn.MSELoss(),
            (6, 8),
        ),
        chain(
            "bench-mean",
            {
                "conv": nn.Conv2d(1, 2, 3),
                "mean": nn.AvgPool2d(2, stride=1, padding=1),
                "leaky": nn.LeakyReLU(0.2),
                "flat": nn.Flatten(),
                "fc": nn.Linear(98, 2),
                "soft": nn.Softmax(dim=1),
            },
            nn.BCELoss(),
            (1, 8, 8),
        ),
    )
}


def cases(network: Network, candidate: Network, quantity: str, dtype: str = "float64") -> list[Case]:
    """The quantity on five probes; what is right comes from the right step on the candidate's own operands."""
    found, before = [], {}
    for name in ("ties", "saturation", "batch", "bad-scale", "seed-1"):
        probe = probes.probe(network, name, dtype=dtype, batch=3)
        with np.errstate(all="ignore"):
            trace = candidate.run(probe.params, probe.x, probe.y).trace
            right = _right(network, quantity, trace, probe.y)
        scale = float(np.max(np.abs(right), initial=0.0))
        allowed = np.full(right.shape, 256 * float(np.finfo(right.dtype).eps) * scale)
        reported = trace[quantity]
        off = reported.shape != right.shape or not bool((np.abs(reported - right) <= allowed).all())
        found.append(
            Case(
                probe=name, quantity=quantity, values={**trace, "y": probe.y}, reported=reported, right=right,
                allowed=allowed, wrong=off, before=before,
            )
        )  # fmt: skip
        before = trace
    return found


def _right(network: Network, quantity: str, trace: Mapping[str, Array], y: Array) -> Array:
    maker = Graph.of(network).makers(quantity)[0]
    if maker == network.loss_name:
        value, cache = network.loss.forward(trace[network.output], y)
        return network.loss.backward(cache) if quantity.endswith(GRAD) else value
    node = network.node(maker)
    params = {p: trace[f"{maker}.{p}"] for p in (*node.layer.parameter_shapes(), *node.layer.buffer_shapes())}
    out, cache = node.layer.forward(params, *(trace[i] for i in node.inputs))
    if not quantity.endswith(GRAD):
        return out
    result = node.layer.backward(cache, trace[maker + GRAD])
    local = quantity.removesuffix(GRAD).rpartition(".")[2]
    return result.params[local] if quantity.startswith(f"{maker}.") else result.inputs[0]
