"""The bound of an update step, end to end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from manual_bp import nn
from manual_bp._torch_side import judge as torch_judge
from manual_bp.network import chain
from manual_bp.nn import Array, Cache, Gradients
from manual_bp.probes import Probe
from manual_bp.runner import judge_run


@dataclass(frozen=True)
class FromTheEnd(nn.Linear):
    """Sums the gradient of its weight over the examples from the last to the first."""

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        found = super().backward(cache, upstream)
        x, _ = cache
        dw = np.zeros_like(found.params["weight"])
        for row, delta in zip(x[::-1], upstream[::-1], strict=True):
            dw += np.outer(delta, row)
        return Gradients(found.inputs, {**found.params, "weight": dw})


def test_an_update_is_bounded_from_where_it_started() -> None:
    """Adam is steep where gradient and decay are as small as its eps: there the weight before the step is 0."""
    optimizer = nn.Adam(lr=0.01, weight_decay=0.3)
    network = replace(chain("tiny", {"w": nn.Linear(1, 1, bias=False)}, nn.MSELoss(), (1,)), optimizer=optimizer)
    x, y = np.array([[0.7], [-0.31], [-0.39]]), np.array([[1.3], [1.3 + 1e-9], [1.3 - 2e-9]])
    p = Probe(name="p", description="", params={"w.weight": np.zeros((1, 1))}, x=x, y=y, seed=0)
    run = network.with_layer("w", FromTheEnd(1, 1, bias=False)).run(p.params, p.x, p.y)
    checks, _ = judge_run(torch_judge.Judge(network, "float64"), p, run, strict_kinks=False)
    found = {c.name: c.end_to_end for c in checks}
    assert found["w.weight.grad"].max_abs_error > 0
    assert found["w.weight.new"].max_abs_error > 0
    assert not any(end_to_end.mismatched for end_to_end in found.values())
