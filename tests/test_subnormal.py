"""Numbers below the smallest normal one have fewer digits: right code that halves them may lose the last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from manual_bp import nn
from manual_bp._torch_side import judge as torch_judge
from manual_bp.network import Network, Node
from manual_bp.nn import Array, Cache
from manual_bp.probes import Probe
from manual_bp.runner import judge_run


@dataclass(frozen=True)
class HalvedReLU(nn.ReLU):
    """y = ½ x + ½ |x|, by mistake with an offset of so many smallest normal numbers."""

    offset: float = 0.0

    def forward(self, params: nn.Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = inputs
        half = x.dtype.type(0.5)
        y = half * x + half * np.abs(x)
        return y + x.dtype.type(self.offset * float(np.finfo(x.dtype).tiny)), super().forward(params, x)[1]


@dataclass(frozen=True)
class HalvedLeakyReLU(nn.LeakyReLU):
    """y = ½ (1 + s) x + ½ (1 - s) |x|."""

    def forward(self, params: nn.Params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = inputs
        more, less = (x.dtype.type(0.5 * (1 + sign * self.negative_slope)) for sign in (1, -1))
        return more * x + less * np.abs(x), super().forward(params, x)[1]


def status(layer: nn.Layer, plain: nn.Layer, dtype: str) -> str:
    rng = np.random.default_rng(0)
    least = np.finfo(dtype).smallest_subnormal
    x = (np.arange(1, 97).reshape(4, 24) * float(least) * rng.choice([-1.0, 1.0], (4, 24))).astype(dtype)
    network = Network(name="little", nodes=(Node("act", plain, ("x",)),), loss=nn.MSELoss(), input_shape=(24,))
    probe = Probe(name="subnormal", description="", seed=0, params={}, x=x, y=np.zeros_like(x))
    run = network.with_layer("act", layer).run({}, x, probe.y)
    checks, _ = judge_run(torch_judge.Judge(network, dtype), probe, run, strict_kinks=False)
    return next(check.status for check in checks if check.name == "act")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_digit_that_a_subnormal_number_loses_is_no_mistake(dtype: str) -> None:
    assert status(HalvedReLU(), nn.ReLU(), dtype) == "pass"
    assert status(HalvedLeakyReLU(), nn.LeakyReLU(), dtype) == "pass"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_more_than_that_is_one(dtype: str) -> None:
    assert status(HalvedReLU(offset=4.0), nn.ReLU(), dtype) == "wrong"
