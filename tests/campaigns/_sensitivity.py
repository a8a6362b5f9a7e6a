"""The smallest relative change of a single number that is noticed, isolated and end to end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp.mutants._plumbing import Wrapped
from manual_bp.network import Network
from manual_bp.nn import Array, Cache, Gradients, Params

from ._judging import Bench, bench

#: Powers of two below which nothing changes any more: half of the roundoff.
SMALLEST = {"float64": -54, "float32": -25}

NETWORKS = ("three-layer", "design-geometry", "design-1d")


def smallest(task: dict[str, Any]) -> dict[str, Any]:
    """For one element of one weight, or of its gradient: the smallest relative change noticed on the default probes."""
    judge = bench(task["network"], task["dtype"])
    rng = np.random.default_rng(task["draw"])
    weights = [name for name in judge.network.parameter_shapes() if name.endswith("weight")]
    step = str(rng.choice(weights)).removesuffix(".weight")
    element = int(rng.integers(np.prod(judge.network.parameter_shapes()[f"{step}.weight"])))
    found = {}
    for what in ("isolated", "end_to_end"):
        low, high = SMALLEST[task["dtype"]], 0  # 2^high is noticed, 2^low is not
        if not _noticed(judge, nudged(judge.network, step, element, 2.0**high, task["what"]), what):
            found[what] = None
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if _noticed(judge, nudged(judge.network, step, element, 2.0**middle, task["what"]), what):
                high = middle
            else:
                low = middle
        found[what] = 2.0**high
    return {**task, **found}


def nudged(network: Network, step: str, element: int, by: float, what: str) -> Network:
    """The network computing with one weight ("weight") or one weight's gradient ("gradient") changed by a factor."""
    layer = network.node(step).layer

    def change(a: Array) -> Array:
        out = np.array(a)
        out.reshape(-1)[element] *= out.dtype.type(1 + by)
        return out

    def forward(params: Params, *inputs: Array) -> tuple[Array, Cache]:
        return layer.forward({**params, "weight": change(params["weight"])}, *inputs)

    def backward(cache: Cache, upstream: Array) -> Gradients:
        right = layer.backward(cache, upstream)
        return replace(right, params={**right.params, "weight": change(right.params["weight"])})

    wrapped = Wrapped(layer, forward_by=forward) if what == "weight" else Wrapped(layer, backward_by=backward)
    return network.with_layer(step, wrapped)


def _noticed(judge: Bench, candidate: Network, what: str) -> bool:
    for probe in judge.probes:
        run = candidate.run(probe.params, probe.x, probe.y)
        for check in judge.judge.checks(probe, run):
            comparison = check.isolated if what == "isolated" else check.end_to_end
            if comparison is not None and comparison.mismatched:
                return True
    return False
