"""One step of a run with all that went into and came out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manual_bp.network import Network, Node
from manual_bp.nn import Array, Layer
from manual_bp.trace import GRAD, Trace


@dataclass(frozen=True, kw_only=True)
class View:
    """A step of the trace: ``dx`` is what this step alone sends back to each of its inputs.

    Symbols are by the same names: ``x0``, ``y``, ``dy``, ``dx0`` and the parameters'.
    """

    layer: Layer
    x: tuple[Array, ...]
    y: Array
    dy: Array
    dx: tuple[Array, ...]
    params: Mapping[str, Array]
    dparams: Mapping[str, Array]
    symbols: Mapping[str, str]

    @property
    def options(self) -> Any:
        """The layer again, for the hyperparameters of its type, which the base class does not declare."""
        return self.layer


def view(network: Network, node: Node, trace: Trace) -> View:
    """The step's part of the trace; its backward pass is run once more to tell its share from other readers'."""
    names = (*node.layer.parameter_shapes(), *node.layer.buffer_shapes())
    params = {name: trace[f"{node.name}.{name}"] for name in names}
    inputs = tuple(trace[name] for name in node.inputs)
    upstream = trace[node.name + GRAD]
    _, cache = node.layer.forward(params, *inputs)
    gradients = node.layer.backward(cache, upstream)
    written = {q.name: q.symbol or q.name for q in network.quantities()}
    symbols = {"y": written[node.name], "dy": written[node.name + GRAD]}
    for k, name in enumerate(node.inputs):
        symbols |= {f"x{k}": written[name], f"dx{k}": written[name + GRAD]}
    for name in names:
        symbols[name] = written[f"{node.name}.{name}"]
        symbols[f"d{name}"] = written.get(f"{node.name}.{name}{GRAD}", name)
    return View(
        layer=node.layer,
        x=inputs,
        y=trace[node.name],
        dy=upstream,
        dx=gradients.inputs,
        params=params,
        dparams=gradients.params,
        symbols=symbols,
    )
