"""Operands at the ends of the number range: right code stays right, and what is wrong there is still seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import verify

Array = np.ndarray


def _summed(products: Array) -> Array:
    """Sums over the last axis, from its end."""
    return np.add.accumulate(products[..., ::-1], axis=-1)[..., -1]


def _status(report, name: str) -> str:
    return next(check.status for check in report.checks if check.name == name)


def _linear(p, x, g):
    w = p["weight"]
    return {
        "output": _summed(x[:, None, :] * w[None]),
        "x.grad": _summed(np.moveaxis(g[:, :, None] * w[None], 1, -1)),
        "weight.grad": _summed(np.moveaxis(g[:, :, None] * x[:, None, :], 0, -1)),
    }


def _convolution(p, x, g):
    """A kernel of one element: a dense layer at each position."""
    w, (n, _, length) = p["weight"][:, :, 0], x.shape
    rows, upstream = (np.moveaxis(a, 1, 2).reshape(n * length, -1) for a in (x, g))
    found = _linear({"weight": w}, rows, upstream)
    columns = {k: np.moveaxis(found[k].reshape(n, length, -1), 2, 1) for k in ("output", "x.grad")}
    return {**columns, "weight.grad": found["weight.grad"][..., None]}


_STEPS = {
    "linear": (lambda: nn.Linear(40, 30, bias=False), _linear, (25, 40), (25, 30)),
    "conv": (lambda: nn.Conv1d(40, 30, 1, bias=False), _convolution, (5, 40, 5), (5, 30, 5)),
}


def _of_size(kind: str, dtype: str, sizes: tuple[float, float, float]):
    make, candidate, shape, out = _STEPS[kind]
    rng = np.random.default_rng(0)
    module = make().to(getattr(torch, dtype))
    x, g, w = (
        (rng.standard_normal(s) * size).astype(dtype)
        for s, size in zip((shape, out, tuple(module.weight.shape)), sizes, strict=True)
    )
    module.weight.data = torch.from_numpy(w)
    return module, candidate, x, g


#: |x|, |upstream|, |W|: the products are ordinary numbers, gamma times the subnormal operand is nothing.
_SIZES = {
    "float64": [(1e-310, 1e25, 1e25), (1e25, 1e-310, 1e25), (1e-312, 1.0, 1e150), (1e150, 1e-316, 1e120)],
    "float32": [(1e-40, 1e12, 1e12), (1e12, 1e-40, 1e12), (1e-41, 1.0, 1e15)],
}


@pytest.mark.parametrize("kind", _STEPS)
@pytest.mark.parametrize(("dtype", "sizes"), [(d, s) for d, of in _SIZES.items() for s in of])
def test_a_subnormal_operand_of_a_product_rounds_as_others_do(kind, dtype, sizes):
    module, candidate, x, g = _of_size(kind, dtype, sizes)
    report = verify(candidate, module, x=x, y=g, probes=None, dtype=dtype)
    assert report.ok, [(c.name, c.status) for c in report.checks]


@pytest.mark.parametrize("kind", _STEPS)
@pytest.mark.parametrize("name", ["output", "x.grad", "weight.grad"])
def test_a_mistake_of_a_few_times_that_rounding_is_one(kind, name):
    module, candidate, x, g = _of_size(kind, "float64", (1e-310, 1e-308, 1e30))
    if name == "weight.grad":
        x = x * 1e200 * 1e140

    def mistaken(p, x, g):
        found = candidate(p, x, g)
        return {**found, name: found[name] * (1 + 1e-12)}

    assert verify(candidate, module, x=x, y=g, probes=None, dtype="float64").ok
    report = verify(mistaken, module, x=x, y=g, probes=None, dtype="float64")
    assert _status(report, name) == "wrong"


# ---------------------------------------------------------------------- normalisation


def _normalised(p, x, g):
    eps = x.dtype.type(1e-5)
    d = x - x.mean(1, keepdims=True)
    deviation = np.sqrt((d * d).mean(1, keepdims=True) + eps)
    xhat, gw = d / deviation, g * p["weight"]
    dx = (gw - gw.mean(1, keepdims=True) - xhat * (gw * xhat).mean(1, keepdims=True)) / deviation
    return {"output": xhat * p["weight"] + p["bias"], "x.grad": dx}


def _layer_norm(count: int, weight: Array | None = None) -> nn.Module:
    module = nn.LayerNorm(count).double()
    if weight is not None:
        module.weight.data = torch.from_numpy(weight)
    return module


@pytest.mark.parametrize("size", [1e20, 1e25])
def test_what_overflows_in_torch_alone_is_not_held_against_the_candidate(size):
    """x of one element, less its mean, is 0; torch multiplies what rounding leaves of it by x and by r³ first."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((4, 1)) * 1e150, rng.standard_normal((4, 1)) * size
    leaf = torch.from_numpy(x).requires_grad_()
    (own,) = torch.autograd.grad(_layer_norm(1)(leaf), leaf, torch.from_numpy(g))
    assert own.isnan().any()
    report = verify(_normalised, _layer_norm(1), x=x, y=g, probes=None, dtype="float64")
    assert _status(report, "x.grad") == "pass"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e307])
def test_what_the_bound_rules_out_is_wrong_there_too(wrong):
    x, g = np.full((2, 1), 1e150), np.full((2, 1), 1e20)
    x[1], g[1] = 1.0, 1.0  # where nothing overflows

    def mistaken(p, x, g):
        found = _normalised(p, x, g)
        return {**found, "x.grad": np.where(x == 1, wrong, found["x.grad"])}

    report = verify(mistaken, _layer_norm(1), x=x, y=g, probes=None, dtype="float64")
    assert _status(report, "x.grad") in ("wrong", "nonfinite")


def test_batch_statistics_survive_a_look_at_what_overflows():
    """The other right answer is another pass of the module: it must not move the running statistics once more."""
    from manual_bp._torch_side import bounds

    module = nn.BatchNorm1d(1).double()
    params = {n: a.detach().double().clone() for n, a in module.state_dict().items()}
    before = {n: a.clone() for n, a in params.items()}
    x, g = torch.tensor([[1e150], [2e150]], dtype=torch.float64), torch.full((2, 1), 1e300, dtype=torch.float64)
    s = bounds.Operands(module, (x,), (0 * x,), params, x, bounds.Precision.of(torch.float64))
    rule = bounds.rule_for(module)
    assert rule is not None
    tuple(rule.backward(s, g, 0 * g).inputs[0].alternatives)
    assert all(torch.equal(params[n], before[n]) for n in params)
    assert all(torch.equal(a.double(), before[n]) for n, a in module.state_dict().items())


def _extreme(seed: int) -> tuple[nn.Module, Array, Array]:
    """A subnormal upstream gradient, and weights of all sizes: g x, or r g, underflows before gamma comes to it."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(6) * 10.0 ** rng.uniform(-30, 30, 6)
    x = rng.standard_normal((30, 6)) * 10.0 ** rng.uniform(-30, 30, (30, 6))
    g = rng.standard_normal((30, 6)) * np.finfo(np.float64).tiny * 10.0 ** rng.uniform(-5, 1, (30, 6))
    return _layer_norm(6, weight), x, g


def test_what_underflows_inside_a_normalisation_may_meet_a_large_factor():
    for seed in range(4):
        module, x, g = _extreme(seed)
        report = verify(_normalised, module, x=x, y=g, probes=None, dtype="float64")
        assert report.ok, (seed, [(c.name, c.status) for c in report.checks])


def test_ordinary_normalisations_are_judged_as_before():
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 5, 6))

    def mistaken(p, x, g):
        found = _normalised(p, x, g)
        return {**found, "x.grad": found["x.grad"] * (1 + 1e-12)}

    assert verify(_normalised, _layer_norm(6), x=x, y=g, probes=None, dtype="float64").ok
    assert _status(verify(mistaken, _layer_norm(6), x=x, y=g, probes=None, dtype="float64"), "x.grad") == "wrong"
