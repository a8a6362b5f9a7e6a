"""Every certified bound, from one side and from both: right arithmetic stays inside, wrong arithmetic does not.

The exact result is the engine in extended precision (np.longdouble; GELU's erf: mpmath). Operands may carry errors, as
they do end to end: then the exact result belongs to exact operands, each implementation sees others, and the bound sees
those of torch.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from manual_bp import nn
from manual_bp._torch_side import bounds, build
from manual_bp.fuzz import REGIMES
from manual_bp.nn import Array
from manual_bp.nn._layer import Gradients
from tests.campaigns.variants import dress, variants_of

WIDE = np.longdouble
DTYPES = ("float32", "float64")

#: Layer, shape of its input (batch included).
LAYERS: list[tuple[nn.Layer, tuple[int, ...]]] = [
    (nn.Linear(5, 3), (4, 5)),
    (nn.Linear(40, 2, bias=False), (3, 40)),
    (nn.Linear(3, 2), (2, 3, 3)),
    (nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2, groups=2), (3, 2, 9)),
    (nn.Conv2d(3, 2, (2, 3), stride=(2, 1), padding=(1, 2), bias=False), (2, 3, 5, 6)),
    (nn.Conv2d(2, 2, 3, padding="same", padding_mode="circular"), (2, 2, 5, 4)),
    (nn.Conv2d(2, 2, 3, padding=2, padding_mode="replicate"), (2, 2, 1, 2)),
    (nn.Conv2d(2, 3, 3, padding=2, padding_mode="reflect"), (2, 2, 4, 4)),
    (nn.Conv3d(2, 2, 2, padding=1), (2, 2, 2, 3, 2)),
    (nn.MaxPool1d(3, 2, padding=1), (2, 2, 8)),
    (nn.MaxPool2d(3, 1, dilation=2, ceil_mode=True), (2, 2, 6, 7)),
    (nn.MaxPool3d(2), (2, 1, 4, 4, 4)),
    (nn.AvgPool1d(3, 2, padding=1, ceil_mode=True, count_include_pad=False), (2, 2, 8)),
    (nn.AvgPool2d((2, 3), stride=1, padding=1), (2, 2, 5, 5)),
    (nn.AvgPool2d(2, divisor_override=-3), (2, 2, 4, 4)),
    (nn.AvgPool3d(2, stride=1), (1, 2, 3, 3, 3)),
    (nn.ReLU(), (3, 7)),
    *((nn.LeakyReLU(slope), (3, 7)) for slope in (0.01, 1.5, -0.2)),
    (nn.Sigmoid(), (3, 7)),
    (nn.Tanh(), (3, 7)),
    (nn.SiLU(), (3, 7)),
    (nn.GELU(), (3, 7)),
    (nn.GELU(approximate="tanh"), (3, 7)),
    *((nn.Softplus(beta, limit), (3, 7)) for beta, limit in ((1.0, 20.0), (2.5, 20.0), (0.5, 3.0))),
    *((make(dim=dim), (3, 4, 5)) for make in (nn.Softmax, nn.LogSoftmax) for dim in (1, -1)),
    (nn.BatchNorm1d(3), (4, 3)),
    (nn.BatchNorm1d(3, eps=0.1, affine=False), (4, 3, 5)),
    (nn.BatchNorm1d(3, training=False), (4, 3)),
    (nn.BatchNorm2d(2, track_running_stats=False), (3, 2, 3, 3)),
    (nn.LayerNorm(6), (3, 6)),
    (nn.LayerNorm((2, 3), eps=0.1, bias=False), (4, 2, 3)),
    (nn.LayerNorm(4, elementwise_affine=False), (3, 4)),
    (nn.Flatten(), (2, 3, 2)),
    (nn.Identity(), (2, 3)),
    (nn.Add(), (2, 3)),
]

_W = np.array([0.5, 2.0, 1.0, 0.25])
#: Loss, what the prediction is, and what the target is.
LOSSES: list[tuple[nn.Loss, str]] = [
    *((make(reduction), "number") for make in (nn.MSELoss, nn.L1Loss) for reduction in ("mean", "sum")),
    (nn.HalfSquaredError(), "number"),
    *((nn.HuberLoss(delta=d), "number") for d in (1.0, 0.3)),
    *((nn.SmoothL1Loss(beta=b), "number") for b in (1.0, 0.2, 0.0)),
    *((nn.BCELoss(w, reduction=r), "probability") for w in (None, _W) for r in ("mean", "sum")),
    *((nn.BCEWithLogitsLoss(w, pos_weight=c), "logit") for w in (None, _W) for c in (None, _W)),
    *((nn.CrossEntropyLoss(w, label_smoothing=s), "class") for w in (None, _W) for s in (0.0, 0.1)),
    (nn.CrossEntropyLoss(reduction="sum"), "class"),
    (nn.CrossEntropyLoss(_W), "distribution"),
    *((nn.NLLLoss(w), "likelihood") for w in (None, _W)),
]
OPTIMIZERS: list[nn.Optimizer] = [
    nn.SGD(lr=0.1),
    nn.SGD(lr=0.1, momentum=0.9, weight_decay=0.3, nesterov=True),
    nn.Adam(lr=0.01),
    nn.Adam(lr=0.01, betas=(0.5, 0.9), weight_decay=0.3, amsgrad=True),
    nn.AdamW(lr=0.01, weight_decay=0.3),
]


def _id(value: object) -> str:
    return f"{type(value).__name__}-{zlib.crc32(repr(value).encode()) % 997}"


def _t(a: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(a))


@functools.cache
def _module(layer: nn.Layer) -> torch.nn.Module:
    return build.module_for(layer)


def _params(layer: nn.Layer, rng: np.random.Generator) -> dict[str, Array]:
    drawn = layer.initial(rng)
    fixed = {name: np.all(a == 1) or not a.any() for name, a in drawn.items()}  # the scale or shift of a normalisation
    scaled = {name: rng.standard_normal(a.shape) * 2 if fixed[name] else a for name, a in drawn.items()}
    keep = {"running_var": np.abs, "num_batches_tracked": lambda _: np.asarray(0)}
    return {name: np.asarray(keep.get(name, np.asarray)(a)) for name, a in scaled.items()}


def _run(layer: nn.Layer, params: Any, inputs: list[Array], g: Array) -> tuple[Array, Gradients]:
    with np.errstate(all="ignore"):
        y, cache = layer.forward(params, *inputs)
        return y, layer.backward(cache, g)


def _exact(layer: nn.Layer, params: Any, inputs: list[Array], g: Array) -> tuple[Array, Gradients]:
    wide = {n: a.astype(WIDE) if a.dtype.kind == "f" else a for n, a in params.items()}
    if isinstance(layer, nn.GELU) and layer.approximate == "none":
        (x,) = inputs
        mpmath.mp.dps = 30
        phi = np.vectorize(_distribution, otypes=[WIDE])(x)
        density = np.exp(-(x.astype(WIDE) ** 2) / 2) / np.sqrt(2 * WIDE(str(mpmath.pi)))
        return x * phi, Gradients((g * (phi + x * density),))
    return _run(layer, wide, [x.astype(WIDE) for x in inputs], g.astype(WIDE))


def _distribution(z: float) -> Any:
    """Φ(z); far left it is below the smallest number."""
    return WIDE(0) if z < -100 else WIDE(mpmath.nstr(mpmath.ncdf(mpmath.mpf(float(z))), 25))


def _torch_run(layer: nn.Layer, params: Any, inputs: list[Array], g: Array) -> tuple[Array, Gradients]:
    module = _module(layer).to({"f4": torch.float32, "f8": torch.float64}[g.dtype.str[1:]])
    leaves = {n: _t(a).requires_grad_(a.dtype.kind == "f" and n in layer.parameter_shapes()) for n, a in params.items()}
    xs = [_t(x).requires_grad_() for x in inputs]
    y = torch.func.functional_call(module, leaves, tuple(xs))
    wanted = [*xs, *(leaves[n] for n in layer.parameter_shapes())]
    found = [a.numpy() for a in torch.autograd.grad(y, wanted, _t(g))]
    return y.detach().numpy(), Gradients(
        tuple(found[: len(xs)]), dict(zip(layer.parameter_shapes(), found[len(xs) :], strict=True))
    )


def _bounds(layer, params, inputs, e, y, g, e_g, dtype):
    module = _module(layer).double()
    wide = {n: _t(a.astype(np.float64)) for n, a in params.items()}
    s = bounds.Operands(
        module,
        tuple(_t(x.astype(np.float64)) for x in inputs),
        tuple(map(_t, e)),
        wide,
        _t(y.astype(np.float64)),
        bounds.Precision.of(getattr(torch, dtype)),
    )
    rule = bounds.rule_for(module)
    assert rule is not None, f"{layer} has no certified rule"
    with torch.no_grad():
        return rule.forward(s), rule.backward(s, _t(g.astype(np.float64)), _t(e_g))


def _share(got: Array, exact: Array, e: torch.Tensor) -> float:
    """The largest |got - exact| / e."""
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(WIDE) - exact).astype(np.float64)
        share = np.where(error == 0, 0.0, error / (e.numpy() * bounds.INFLATION))
    return float(np.nan_to_num(share, nan=np.inf).max(initial=0.0))


def _shares(got, exact, bound) -> dict[str, float]:
    (y, grads), (true_y, true), (forward, backward) = got, exact, bound
    found = {"y": _share(y, true_y, forward.e)}
    for i, b in enumerate(backward.inputs):
        found[f"dx{i}"] = _share(grads.inputs[i], true.inputs[i], b.e)
    for name, b in backward.params.items():
        found[name] = _share(grads.params[name], true.params[name], b.e)
    return found


def _numbers(layer: nn.Layer, shape: tuple[int, ...], regime: str, dtype: str, seed: int):
    rng = np.random.default_rng([seed, list(REGIMES).index(regime)])
    params = {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in _params(layer, rng).items()}
    inputs = [REGIMES[regime](rng, shape).astype(dtype) for _ in range(layer.n_inputs)]
    y, _ = layer.forward(params, *inputs)
    return rng, params, inputs, REGIMES[str(rng.choice(["normal", "spikes", regime]))](rng, y.shape).astype(dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: _id(v) if isinstance(v, nn.Layer) else "")
def test_every_implementation_stays_within_e_of_the_exact_result(layer, shape, dtype):
    for regime in REGIMES:
        _, params, inputs, g = _numbers(layer, shape, regime, dtype, seed=1)
        exact = _exact(layer, params, inputs, g)
        zeros = [np.zeros(x.shape) for x in inputs]
        bound = _bounds(layer, params, inputs, zeros, exact[0], g, np.zeros(g.shape), dtype)
        for name, got in _implementations(layer, params, inputs, g):
            over = {k: v for k, v in _shares(got, exact, bound).items() if v > 1}
            assert not over or _only_kinks(layer, inputs, over), (regime, name, over)


def _implementations(layer, params, inputs, g):
    yield "engine", _run(layer, params, inputs, g)
    yield "torch", _torch_run(layer, params, inputs, g)
    for variant in variants_of(layer):
        yield variant.__name__, _run(dress(layer, variant), params, inputs, g)


def _only_kinks(layer: nn.Layer, inputs: list[Array], over: dict[str, float]) -> bool:
    """Where there is no derivative, gradients of right implementations differ: tests/test_isolation.py has those."""
    x = inputs[0]
    tied = "MaxPool" in type(layer).__name__ and np.unique(x).size < x.size
    return set(over) == {"dx0"} and bool(tied or ("ReLU" in type(layer).__name__ and (x == 0).any()))


def _allowed(a: Array, size: float, rng: np.random.Generator) -> Array:
    """What an operand carries: up to ``size`` of it, and more than its own rounding."""
    rounding = 4 * np.finfo(a.dtype).eps
    return np.abs(a.astype(np.float64)) * np.maximum(size * rng.random(a.shape), rounding) + 1e-30


def _near(a: Array, allowed: Array, rng: np.random.Generator) -> Array:
    """Another operand within what is allowed."""
    moved: Array = (a + 0.7 * rng.choice([-1.0, -0.5, 0.5, 1.0], a.shape) * allowed).astype(a.dtype)
    return moved


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: _id(v) if isinstance(v, nn.Layer) else "")
def test_errors_that_operands_carry_come_through_within_e(layer, shape, dtype):
    for regime, size in itertools.product(("normal", "spikes", "integers", "huge"), (1e-6, 1e-2)):
        rng, params, inputs, g = _numbers(layer, shape, regime, dtype, seed=2)
        exact = _exact(layer, params, inputs, g)
        e, e_g = [_allowed(x, size, rng) for x in inputs], _allowed(g, size, rng)
        seen = [_near(x, d, rng) for x, d in zip(inputs, e, strict=True)], _near(g, e_g, rng)
        reference = [_near(x, d, rng) for x, d in zip(inputs, e, strict=True)], _near(g, e_g, rng)
        y, _ = _torch_run(layer, params, *reference)
        bound = _bounds(layer, params, reference[0], e, y, reference[1], e_g, dtype)
        for name, got in itertools.islice(_implementations(layer, params, *seen), 4):
            over = {k: v for k, v in _shares(got, exact, bound).items() if v > 1}
            assert not over, (regime, size, name, over)


# ------------------------------------------------------------------ losses


def _loss_numbers(kind: str, dtype: str, seed: int, scale: float):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((5, 4)) * scale
    if kind == "number":
        y = rng.standard_normal((5, 4)) * scale
        y[0] = z[0]
        return z.astype(dtype), y.astype(dtype)
    soft = np.where(rng.random((5, 4)) < 0.5, rng.random((5, 4)), rng.integers(0, 2, (5, 4)))
    if kind in ("probability", "logit"):
        z = np.clip(z, -30, 30)
        return (1 / (1 + np.exp(-z)) if kind == "probability" else z).astype(dtype), soft.astype(dtype)
    if kind == "distribution":
        return z.astype(dtype), (rng.dirichlet(np.ones(4), 5)).astype(dtype)
    z = z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) if kind == "likelihood" else z
    return z.astype(dtype), np.array([0, 3, -100, 1, 2])


def _loss_module(loss: nn.Loss) -> torch.nn.Module:
    plain = replace(loss, **{n: None for n in ("weight", "pos_weight") if getattr(loss, n, None) is not None})
    module = build.loss_for(plain, torch.float64)
    for name in ("weight", "pos_weight"):
        if getattr(loss, name, None) is not None:
            setattr(module, name, torch.tensor(np.asarray(getattr(loss, name)), dtype=torch.float64))
    return module


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "kind"), LOSSES, ids=lambda v: _id(v) if isinstance(v, nn.Loss) else str(v))
def test_losses_stay_within_e_of_the_exact_result(loss, kind, dtype):
    for scale, carried, seed in itertools.product((1.0, 1e-3, 20.0), (0.0, 1e-4), range(3)):
        p, t = _loss_numbers(kind, dtype, seed, scale)
        rng = np.random.default_rng(seed)
        e = np.abs(p.astype(np.float64)) * carried * (1 - p.astype(np.float64) if kind == "probability" else 1)
        e = np.abs(e)
        moved = (p + 0.9 * rng.uniform(-1, 1, p.shape) * e).astype(dtype) if carried else p
        seen = (p + 0.9 * rng.uniform(-1, 1, p.shape) * e).astype(dtype) if carried else p
        e = np.where(e > 0, e + 2.0 ** (-23 if dtype == "float32" else -52) * np.abs(p), 0.0)
        module = _loss_module(loss)
        one = torch.ones((), dtype=torch.float64)
        target = _t(t.astype(np.float64) if t.dtype.kind == "f" else t)
        precision = bounds.Precision.of(getattr(torch, dtype))
        s = bounds.LossOperands(module, _t(moved.astype(np.float64)), _t(e), target, precision, one, 0 * one)
        rule = bounds.loss_rule(module)
        assert rule is not None, f"{loss} has no certified rule"
        forward, backward = rule.forward(s), rule.backward(s)
        exact, cache = loss.forward(p.astype(WIDE), t.astype(WIDE) if t.dtype.kind == "f" else t)
        slope = loss.backward(cache)
        smooth = ~backward.kinks.mask.numpy() if backward.kinks is not None else np.ones(p.shape, bool)
        own = module.to(getattr(torch, dtype))
        leaf = _t(seen).requires_grad_()
        value = own(leaf, _t(t))
        (torch_slope,) = torch.autograd.grad(value, leaf)
        found = {"torch": (value.detach().numpy(), torch_slope.numpy())}
        for made in (loss, *(dress(loss, variant) for variant in variants_of(loss))):
            with np.errstate(all="ignore"):
                v, c = made.forward(seen, t)
                found[type(made).__name__] = v, made.backward(c)
        for name, (v, g) in found.items():
            assert _share(v, exact, forward.e) <= 1, (name, scale, carried, "value")
            e_slope = torch.where(torch.from_numpy(smooth), backward.e, torch.inf)
            assert _share(g, slope, e_slope) <= 1, (name, scale, carried, "gradient")


# ------------------------------------------------------------------ updates


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=_id)
def test_update_steps_stay_within_e_of_the_exact_result(optimizer, dtype):
    rng = np.random.default_rng(0)
    for scale, carried in itertools.product((1.0, 1e-8, 1e-14, 1e4), (0.0, 1e-3)):
        old = rng.standard_normal(50).astype(dtype)
        old[:10] = 0
        g = (rng.standard_normal(50) * scale).astype(dtype)
        g[5:15] = -getattr(optimizer, "weight_decay", 0.0) * old[5:15]  # the decay cancels the gradient
        e = np.abs(g.astype(np.float64)) * carried
        seen, other = ((g + 0.9 * rng.uniform(-1, 1, 50) * e).astype(dtype) if carried else g for _ in range(2))
        e = np.where(e > 0, e + 2.0 ** (-23 if dtype == "float32" else -52) * np.abs(g), 0.0)
        leaf = _t(old).clone().requires_grad_()
        leaf.grad = _t(other).clone()
        stepper = build.optimizer_for(optimizer, [leaf])
        stepper.step()
        new = leaf.detach().numpy()
        doubles = [_t(a.astype(np.float64)) for a in (new, old, other)]
        bound = bounds.update_bound(stepper, *doubles, _t(e), bounds.Precision.of(getattr(torch, dtype)))
        wide = {"p": old.astype(WIDE)}
        exact, _ = optimizer.step(wide, {"p": g.astype(WIDE)}, optimizer.initial_state(wide))
        for made in (optimizer, *(dress(optimizer, v) for v in variants_of(optimizer))):
            got, _ = made.step({"p": old}, {"p": seen}, made.initial_state({"p": old}))
            assert _share(got["p"], exact["p"], bound.e) <= 1, (type(made).__name__, scale, carried)
        assert _share(new, exact["p"], bound.e) <= 1, ("torch", scale, carried)


# ------------------------------------------------------------------ not too loose


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: _id(v) if isinstance(v, nn.Layer) else "")
def test_a_relative_mistake_of_1e_10_is_seen_in_float64(layer, shape):
    _, params, inputs, g = _numbers(layer, shape, "normal", "float64", seed=3)
    if isinstance(layer, nn.Softplus) and layer.threshold < 20:
        inputs = [np.clip(x, None, 1.0) for x in inputs]
    y, grads = _run(layer, params, inputs, g)
    zeros = [np.zeros(x.shape) for x in inputs]
    forward, backward = _bounds(layer, params, inputs, zeros, y, g, np.zeros(g.shape), "float64")
    named = {"y": (y, forward), "dx": (grads.inputs[0], backward.inputs[0])}
    named |= {name: (grads.params[name], b) for name, b in backward.params.items()}
    for name, (a, b) in named.items():
        alive = a != 0
        seen = np.abs(a * 1e-10) > 2 * b.e.numpy()
        assert seen[alive].mean() > 0.9, (name, float((b.e.numpy() / np.abs(a))[alive].max()))


def test_bounds_are_used_and_not_only_kept():
    """Over all layers the median of what implementations use of their bound is no vanishing share of it."""
    shares = []
    for layer, shape in LAYERS:
        if "Pool" in type(layer).__name__ or "Conv" in type(layer).__name__ or isinstance(layer, nn.GELU):
            continue  # slow, and of the same rules
        _, params, inputs, g = _numbers(layer, shape, "normal", "float32", seed=4)
        exact = _exact(layer, params, inputs, g)
        zeros = [np.zeros(x.shape) for x in inputs]
        bound = _bounds(layer, params, inputs, zeros, exact[0], g, np.zeros(g.shape), "float32")
        shares += [v for v in _shares(_run(layer, params, inputs, g), exact, bound).values() if v > 0]
    assert np.median(shares) > 1e-2, np.median(shares)
    assert max(shares) <= 1


def test_every_rule_of_the_table_is_tested_here():
    made = {type(_module(layer)) for layer, _ in LAYERS} | {torch.nn.BatchNorm3d}
    untested = {kind.__name__ for kind in bounds._RULES} - {kind.__name__ for kind in made}
    assert untested <= {"GivenDropout", "GroupNorm", *(f"InstanceNorm{d}d" for d in (1, 2, 3))}, untested


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 0.99])
def test_dropout_with_a_given_mask(p, dtype):
    """The scale as 1 / (1 - p) in the working precision, or in double."""
    rng = np.random.default_rng(0)
    x, g, mask = (a.astype(dtype) for a in (*rng.standard_normal((2, 6, 5)), rng.integers(0, 2, (6, 5))))
    module = build.modules.GivenDropout(p, (6, 5)).double()
    zero = torch.zeros(6, 5, dtype=torch.float64)
    inputs, params = (_t(x.astype(float)),), {"mask": _t(mask.astype(float))}
    operands = bounds.Operands(module, inputs, (zero,), params, zero, bounds.Precision.of(getattr(torch, dtype)))
    rule = bounds.rule_for(module)
    assert rule is not None
    own, exact = np.dtype(dtype).type, mask / (1 - WIDE(p))
    e_y, e_dx = rule.forward(operands).e, rule.backward(operands, _t(g.astype(float)), zero).inputs[0].e
    for scale in (1 / (1 - p), own(1) / (own(1) - own(p)), own(1 / (1 - p))):
        assert _share((x * mask * scale).astype(dtype), x * exact, e_y) <= 1
        assert _share((g * (mask * scale)).astype(dtype), g * exact, e_dx) <= 1
