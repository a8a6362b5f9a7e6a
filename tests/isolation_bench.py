"""A probe of a network, and what the judge says of a candidate on it: all that is not right, by quantity."""

from __future__ import annotations

import numpy as np

from manual_bp import nn
from manual_bp._torch_side import judge as torch_judge
from manual_bp.network import Network
from manual_bp.nn import Array
from manual_bp.probes import Probe
from manual_bp.runner import judge_run
from manual_bp.trace import Run

DTYPES = ("float32", "float64")


def probe(network: Network, *, dtype: str = "float64", batch: int = 3, seed: int = 0, x: Array | None = None) -> Probe:
    rng = np.random.default_rng(seed)
    params = network.initial(rng)
    x = rng.standard_normal((batch, *network.input_shape)) if x is None else x
    y = np.zeros_like(network.run(params, x.astype(float), np.zeros(1)).trace[network.output])
    y = rng.integers(0, 2, y.shape).astype(float) if isinstance(network.loss, nn.BCELoss) else y + 0.3
    return Probe(name="p", description="", params=params, x=x, y=y, seed=seed).astype(dtype)


def statuses(network: Network, p: Probe, run: Run, **options) -> dict[str, str]:
    """By quantity, all that is not ``pass``."""
    checks, _ = judge_run(torch_judge.Judge(network, str(p.x.dtype)), p, run, **{"strict_kinks": False, **options})
    return {c.name: c.status for c in checks if c.status != "pass"}


def judged(network: Network, candidate: Network, p: Probe, **options) -> dict[str, str]:
    return statuses(network, p, candidate.run(p.params, p.x, p.y), **options)
