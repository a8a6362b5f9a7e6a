"""0 · NaN in a mask: whoever multiplies by one hands a NaN on where another hands on a zero, and both are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from manual_bp import nn
from manual_bp._torch_side import judge as torch_judge
from manual_bp.network import Network, Node
from manual_bp.nn import Array, Cache, Gradients
from manual_bp.probes import Probe
from manual_bp.runner import judge_run

BAD = (np.nan, np.inf)


@dataclass(frozen=True)
class Planting(nn.Tanh):
    """Plants a number that is not finite into the gradient of its input; by mistake also a second one elsewhere."""

    number: float = np.nan

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        dx = super().backward(cache, upstream).inputs[0].copy()
        dx.flat[::7] = self.number
        return Gradients((dx,))


@dataclass(frozen=True)
class MaskedReLU(nn.ReLU):
    """dx = g · (y > 0), and by mistake a NaN where g is finite."""

    mistake: bool = False

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        with np.errstate(invalid="ignore"):
            dx = upstream * (cache > 0)
        if self.mistake:
            dx.flat[np.flatnonzero(np.isfinite(upstream))[0]] = np.nan
        return Gradients((dx,))


@dataclass(frozen=True)
class MaskedPool(nn.MaxPool1d):
    """dx = Σ of mask · g over the windows, written out; by mistake as above."""

    mistake: bool = False

    def forward(self, params: nn.Params, /, *inputs: Array) -> tuple[Array, Cache]:
        return super().forward(params, *inputs)[0], inputs[0]

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        x, (k,), (s,) = cache, self.window.kernel, self.window.stride
        dx = np.zeros_like(x)
        for p in range(upstream.shape[-1]):
            seen = x[..., p * s : p * s + k]
            first = np.arange(k) == seen.argmax(-1, keepdims=True)
            with np.errstate(invalid="ignore"):
                dx[..., p * s : p * s + k] += first * upstream[..., p, None]
        if self.mistake:
            dx.flat[np.flatnonzero(np.isfinite(dx))[0]] = np.nan
        return Gradients((dx,))


MASKS = {
    "relu": (nn.ReLU(), MaskedReLU()),
    "pool": (nn.MaxPool1d(2), MaskedPool(2)),
    "overlapping pool": (nn.MaxPool1d(3, stride=2), MaskedPool(3, stride=2)),
}


def judged(mask: nn.Layer, own: nn.Layer, dtype: str, number: float, *, branch: bool) -> dict[str, str]:
    """Statuses of what is not right, behind a step whose gradient is not finite by mistake."""
    nodes = [Node("z", nn.Conv1d(1, 2, 3), ("x",)), Node("m", mask, ("z",)), Node("t", nn.Tanh(), ("m",))]
    if branch:
        nodes[2:] = [Node("t", nn.Tanh(), ("m",)), Node("u", nn.Sigmoid(), ("z",))]
        nodes += [Node("s", nn.Add(), ("t", "u"))]
    network = Network(name="masks", nodes=tuple(nodes), loss=nn.MSELoss(), input_shape=(1, 11))
    rng = np.random.default_rng(0)
    params = network.initial(rng)
    x = rng.standard_normal((3, 1, 11))
    y = np.zeros_like(network.run(params, x, np.zeros(1)).trace[network.output])
    p = Probe(name="p", description="", params=params, x=x, y=y, seed=0).astype(dtype)
    run = network.with_layer("t", Planting(number)).with_layer("m", own).run(p.params, p.x, p.y)
    checks, _ = judge_run(torch_judge.Judge(network, dtype), p, run, strict_kinks=False)
    return {c.name: c.status for c in checks if c.status != "pass"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", BAD)
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_may_be_multiplied(name: str, number: float, dtype: str) -> None:
    mask, own = MASKS[name]
    for layer in (mask, own):
        found = judged(mask, layer, dtype, number, branch=False)
        assert found.pop("m.grad") == "nonfinite"
        assert set(found.values()) == {"inherited"}, found


@pytest.mark.parametrize("number", BAD)
def test_a_mask_may_be_multiplied_on_a_branch(number: float) -> None:
    found = judged(*MASKS["relu"], "float64", number, branch=True)
    assert found.pop("m.grad") == "nonfinite"
    assert set(found.values()) == {"inherited"}, found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("mask", "own"),
    [
        (nn.ReLU(), MaskedReLU(mistake=True)),
        (nn.MaxPool1d(2), MaskedPool(2, mistake=True)),
        (nn.MaxPool1d(3, stride=2), MaskedPool(3, stride=2, mistake=True)),
    ],
)
def test_a_nan_of_the_steps_own_is_still_its_own(mask: nn.Layer, own: nn.Layer, dtype: str) -> None:
    found = judged(mask, own, dtype, np.nan, branch=False)
    assert found["m.grad"] == found["z.grad"] == "nonfinite"
