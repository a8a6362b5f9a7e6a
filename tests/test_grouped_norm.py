"""GroupNorm and InstanceNorm have the bounds of a normalisation over whole axes: one pass or two, both are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import Report, verify
from manual_bp.trace import Array
from manual_bp_torch import bounds

MODULES: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "group norm": (nn.GroupNorm(2, 6), (3, 6, 4, 5), 2),
    "group norm, one group": (nn.GroupNorm(1, 5), (4, 5), 1),
    "group norm, plain": (nn.GroupNorm(3, 6, affine=False), (2, 6, 7), 3),
    "instance norm 1d": (nn.InstanceNorm1d(4), (3, 4, 9), 4),
    "instance norm 2d": (nn.InstanceNorm2d(4, affine=True), (3, 4, 5, 2), 4),
    "instance norm 3d": (nn.InstanceNorm3d(2, eps=0.1), (3, 2, 2, 3, 4), 2),
    "instance norm, no batch": (nn.InstanceNorm2d(3, affine=True), (3, 4, 5), 3),
}


def normalised(module: Any, groups: int, *, one_pass: bool = False, mistake: str = "") -> Any:
    """Forward and backward by hand, the mean of squares less the squared mean or the mean of squared distances."""

    def run(params: dict[str, Array], x: Array, upstream: Array) -> dict[str, Array]:
        batched = x if x.ndim > 3 or not isinstance(module, nn.InstanceNorm2d) else x[None]
        shape = (batched.shape[0], groups, -1)
        z, g = batched.reshape(shape), upstream.reshape(batched.shape)
        mu = z.mean(-1, keepdims=True)
        v = (
            np.maximum((z * z).mean(-1, keepdims=True) - mu * mu, 0)
            if one_pass
            else ((z - mu) ** 2).mean(-1, keepdims=True)
        )
        r = 1 / np.sqrt(v + x.dtype.type(module.eps))
        xhat = (z - mu) * r
        channels = tuple(1 if d != 1 else -1 for d in range(batched.ndim))
        w, b = (
            params[name].reshape(channels) if name in params else x.dtype.type(d)
            for name, d in (("weight", 1), ("bias", 0))
        )
        y = w * xhat.reshape(batched.shape) + b
        h = (g * w).reshape(shape)
        dot = 0 if mistake == "variance" else xhat * (h * xhat).mean(-1, keepdims=True)
        dx = r * (h - (0 if mistake == "mean" else h.mean(-1, keepdims=True)) - dot)
        axes = tuple(d for d in range(batched.ndim) if d != 1)
        found = {"output": y.reshape(x.shape), "x.grad": dx.reshape(x.shape)}
        if "weight" in params:
            found |= {"weight.grad": (g * xhat.reshape(g.shape)).sum(axes), "bias.grad": g.sum(axes)}
        return {name: a.astype(x.dtype) for name, a in found.items()}

    return run


def judged(name: str, dtype: str, mean: float = 0.0, **how: Any) -> Report:
    module, shape, groups = MODULES[name]
    rng = np.random.default_rng(0)
    x, upstream = rng.standard_normal((2, *shape))
    params = {n: rng.standard_normal(tuple(p.shape)) for n, p in module.named_parameters()}
    return verify(normalised(module, groups, **how), module, x=x + mean, y=upstream, params=params, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_either_way_to_the_variance_is_right(name: str, one_pass: bool, dtype: str) -> None:
    for mean in (0.0, 300.0):
        report = judged(name, dtype, mean, one_pass=one_pass)
        assert report.ok, [(c.probe, c.name, c.status) for c in report.checks if c.status != "pass"]
        assert all(c.rule.startswith(("certified", "identical")) for c in report.checks), report.checks


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mistake", ["mean", "variance"])
@pytest.mark.parametrize("name", ["group norm", "instance norm 2d", "instance norm, no batch"])
def test_a_term_that_is_left_out_is_seen(name: str, mistake: str, dtype: str) -> None:
    report = judged(name, dtype, mistake=mistake)
    assert {c.name for c in report.checks if c.status == "wrong"} == {"x.grad"}


def test_one_group_of_all_channels_has_the_bounds_of_a_layer() -> None:
    x, g = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = torch.full_like(x, 1e-9)
    found = []
    for module in (nn.GroupNorm(1, 4, affine=False), nn.LayerNorm((4, 6, 5), elementwise_affine=False)):
        s = bounds.Operands(module, (x,), (errors,), {}, x, bounds.Precision.of(torch.float32))
        rule = bounds.rule_for(module)
        assert rule is not None
        found.append((rule.forward(s).e, rule.backward(s, g, errors).inputs[0].e))
    for group, layer in zip(*found, strict=True):
        torch.testing.assert_close(group, layer, rtol=1e-12, atol=0)


def test_running_statistics_are_not_certified() -> None:
    assert bounds.rule_for(nn.InstanceNorm2d(3, track_running_stats=True)) is None
