"""Losses whose weights come out small, or cancel: the roundings that every usual formula has are no mistakes.

1 + (w_pos - 1) y is 1e-3 where y is 1 and w_pos 1e-3, but the 1 that it is computed from rounds as a 1 does, in torch's
own gradient of BCEWithLogitsLoss, too. The formulas are right to a few u of their terms; more than that is a mistake.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import verify
from manual_bp._torch_side import bounds

Array = np.ndarray
DTYPES = ("float32", "float64")


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


Formula = Callable[[Array, Array, Array], Array]

SLOPES: dict[str, Formula] = {
    "L s - p y": lambda x, y, p: (1 + (p - 1) * y) * _sigmoid(x) - p * y,
    "(p y + (1 - y)) s - p y": lambda x, y, p: (p * y + (1 - y)) * _sigmoid(x) - p * y,
    "(p y + 1 - y) s - p y": lambda x, y, p: (p * y + 1 - y) * _sigmoid(x) - p * y,
    "(1 - y) s - p y (1 - s)": lambda x, y, p: (1 - y) * _sigmoid(x) - p * y * (1 - _sigmoid(x)),
    "(1 - y) s(x) - p y s(-x)": lambda x, y, p: (1 - y) * _sigmoid(x) - p * y * _sigmoid(-x),
    "(1 - y) - L s(-x)": lambda x, y, p: (1 - y) - (1 + (p - 1) * y) * _sigmoid(-x),
}
VALUES: dict[str, Formula] = {
    "(1 - y) x + L softplus(-x)": lambda x, y, p: (1 - y) * x + (1 + (p - 1) * y) * _softplus(-x),
    "x - x y + (p y + 1 - y) softplus(-x)": lambda x, y, p: x - x * y + (p * y + 1 - y) * _softplus(-x),
    "p y softplus(-x) + (1 - y) softplus(x)": lambda x, y, p: p * y * _softplus(-x) + (1 - y) * _softplus(x),
}


def _logits(dtype: str, seed: int, *, soft: bool) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((8, 30)) * 3
    near_one = 1 - 10.0 ** rng.uniform(-5, 0, x.shape)
    y = np.where(rng.random(x.shape) < 0.5, near_one, rng.random(x.shape)) if soft else rng.integers(0, 2, x.shape)
    return x.astype(dtype), np.asarray(y, dtype)


def _candidate(slope: Formula, value: Formula, p: Array, weight: Array | None = None):
    def run(_, x, y):
        n, w = x.dtype.type(x.size), x.dtype.type(1) if weight is None else weight
        return {"output": x, "loss": np.sum(w * value(x, y, p)) / n, "output.grad": w * slope(x, y, p) / n}

    return run


def _judged(run, x: Array, y: Array, loss: nn.Module, dtype: str):
    return verify(run, nn.Identity(), x=x, y=y, loss=loss, probes=None, dtype=dtype)


def _statuses(report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positive", [1e-8, 1e-3, 0.02, 1.0, 1000.0, "each"])
def test_every_formula_of_weighted_positives_is_right(positive, dtype):
    p = (10.0 ** np.linspace(-8, 3, 30) if positive == "each" else np.full(30, positive)).astype(dtype)
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.from_numpy(p))
    values = list(VALUES.values())
    for i, (name, slope) in enumerate(SLOPES.items()):
        for seed, soft in ((i, False), (i, True)):
            x, y = _logits(dtype, seed, soft=soft)
            report = _judged(_candidate(slope, values[i % len(values)], p), x, y, loss, dtype)
            assert report.ok, (name, soft, _statuses(report))


@pytest.mark.parametrize("dtype", DTYPES)
def test_class_weights_on_top_change_nothing(dtype):
    rng = np.random.default_rng(0)
    p, w = ((10.0 ** rng.uniform(*of, 30)).astype(dtype) for of in ((-6, 1), (-3, 3)))
    loss = nn.BCEWithLogitsLoss(torch.from_numpy(w), pos_weight=torch.from_numpy(p))
    for i, slope in enumerate(SLOPES.values()):
        x, y = _logits(dtype, i, soft=bool(i % 2))
        report = _judged(_candidate(slope, list(VALUES.values())[i % 3], p, w), x, y, loss, dtype)
        assert report.ok, _statuses(report)


def _bound(loss: nn.Module, x: Array, y: Array, dtype: str):
    one = torch.ones((), dtype=torch.float64)
    wide = [torch.from_numpy(a.astype(np.float64)) for a in (x, y)]
    precision = bounds.Precision.of(getattr(torch, dtype))
    s = bounds.LossOperands(loss.double(), wide[0], 0 * wide[0], wide[1], precision, one, 0 * one)
    rule = bounds.loss_rule(loss)
    assert rule is not None
    return rule.forward(s), rule.backward(s)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positive", [1e-3, 0.3, 50.0])
def test_formulas_and_torch_stay_within_e_of_the_exact_result(positive, dtype):
    """Exact: mpmath, from the very numbers of the working precision."""
    p = np.full(30, positive).astype(dtype)
    with mpmath.workdps(40):
        for soft in (False, True):
            x, y = _logits(dtype, 5, soft=soft)
            loss = nn.BCEWithLogitsLoss(pos_weight=torch.from_numpy(p), reduction="none")
            leaf = torch.from_numpy(x).requires_grad_()
            value = loss(leaf, torch.from_numpy(y))
            (slope,) = torch.autograd.grad(value.sum(), leaf)
            loss.reduction = "sum"
            e = _bound(loss, x, y, dtype)[1].e.numpy()
            q = mpmath.mpf(float(p[0]))
            for at in np.ndindex(4, 30):
                a, t = (mpmath.mpf(float(v[at])) for v in (x, y))
                s = 1 / (1 + mpmath.exp(-a))
                exact = (1 - t) * s - q * t * (1 - s)
                found = [slope.numpy()[at], *(f(x, y, p)[at] for f in SLOPES.values())]
                assert max(abs(mpmath.mpf(float(v)) - exact) for v in found) <= e[at], (at, x[at], y[at])


def test_the_bound_is_as_tight_as_before_where_nothing_cancels():
    """Negatives round by nothing but the sigmoid; of positives what 1 rounds by counts, and no more than 4 of it."""
    x, y = _logits("float64", 0, soft=False)
    plain = _bound(nn.BCEWithLogitsLoss(reduction="sum"), x, y, "float64")[1].e
    little = torch.full((30,), 1e-3, dtype=torch.float64)
    weighted = _bound(nn.BCEWithLogitsLoss(pos_weight=little, reduction="sum"), x, y, "float64")[1].e
    negative = torch.from_numpy(y == 0)
    assert torch.equal(weighted[negative], plain[negative])
    assert float(weighted[~negative].max()) < 1.2 * 2.0**-53


@pytest.mark.parametrize(("dtype", "share"), [("float32", 1e-3), ("float64", 1e-12)])
@pytest.mark.parametrize("positive", [1e-3, 1.0])
def test_a_small_mistake_in_a_weighted_gradient_is_seen(positive, dtype, share):
    p = np.full(30, positive).astype(dtype)
    x, y = _logits(dtype, 0, soft=False)
    slope = SLOPES["(1 - y) s(x) - p y s(-x)"]
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.from_numpy(p))

    def mistaken(x, y, p):
        return slope(x, y, p * (1 + p.dtype.type(share)))

    value = VALUES["(1 - y) x + L softplus(-x)"]
    assert _statuses(_judged(_candidate(mistaken, value, p), x, y, loss, dtype))["output.grad"] == "wrong"


# ---------------------------------------------------------------------- of probabilities


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("near", [1e-1, 1e-3, 1e-5])
def test_the_denominator_of_a_probability_may_be_a_difference_of_squares(near, dtype):
    rng = np.random.default_rng(0)
    a, y = (1 - near * rng.uniform(0.1, 2, (5, 4))).astype(dtype), rng.integers(0, 2, (5, 4)).astype(dtype)

    def run(off):
        return lambda _, x, y: {"output": x, "output.grad": (x - y) / (x - x * x) / x.dtype.type(x.size) * (1 + off)}

    assert _judged(run(a.dtype.type(0)), a, y, nn.BCELoss(), dtype).ok
    # x² alone rounds by u / (1 - x) of the denominator
    wrong = _judged(run(a.dtype.type(40 * np.finfo(dtype).eps / near)), a, y, nn.BCELoss(), dtype)
    assert _statuses(wrong)["output.grad"] == "wrong"


def test_a_nan_is_no_other_right_gradient():
    a = np.array([[0.5, 0.25, 1.0]])

    def run(_, x, y):
        g = (x - y) / np.maximum(x * (1 - x), 1e-12) / x.size
        g[0, 0] = np.nan
        return {"output": x, "output.grad": g}

    assert _statuses(_judged(run, a, np.ones((1, 3)), nn.BCELoss(), "float64"))["output.grad"] == "nonfinite"


# ---------------------------------------------------------------------- of classes

ON: dict[str, Callable[..., Array]] = {
    "(1 - s) + s / C": lambda s, count: (1 - s) + s / count,
    "1 - s (C - 1) / C": lambda s, count: 1 - s * (count - 1) / count,
    "1 - (C - 1) (s / C)": lambda s, count: 1 - (count - 1) * (s / count),
}


def _classes(on: Callable[..., Array], smooth: float, w: Array, off: float = 0.0):
    def run(_, z, y):
        own, count = z.dtype.type, z.dtype.type(z.shape[1])
        s = own(smooth)
        hot = np.eye(z.shape[1], dtype=bool)[y]
        t = np.where(hot, on(s, count) * own(1 + off), s / count).astype(z.dtype) * w
        e = np.exp(z - z.max(1, keepdims=True))
        soft, total = e / e.sum(1, keepdims=True), w[y].sum()
        logs = z - z.max(1, keepdims=True) - np.log(e.sum(1, keepdims=True))
        return {
            "output": z,
            "loss": -(t * logs).sum() / total,
            "output.grad": (soft * t.sum(1, keepdims=True) - t) / total,
        }

    return run


def _scores(dtype: str, count: int, seed: int, *, signed: bool) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.5, 2, count) * (rng.choice([-1.0, 1.0], count) if signed else 1)
    return (3 * rng.standard_normal((6, count))).astype(dtype), rng.integers(0, count, 6), w.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("smooth", [0.0, 0.1, 0.99, 0.9999])
def test_smoothing_rounds_by_the_size_of_what_it_takes_away(smooth, signed, dtype):
    """Of 1 - s little may be left; and weights of either sign cancel in the mean's divisor."""
    for (name, on), count, seed in ((f, c, s) for f in ON.items() for c in (5, 2000) for s in range(4)):
        z, y, w = _scores(dtype, count, seed, signed=signed)
        loss = nn.CrossEntropyLoss(torch.from_numpy(w), label_smoothing=smooth)
        report = _judged(_classes(on, smooth, w), z, y, loss, dtype)
        assert report.ok, (name, count, seed, _statuses(report))


@pytest.mark.parametrize(("dtype", "off"), [("float32", 2e-5), ("float64", 4e-14)])
def test_a_smoothed_target_that_is_a_little_off_is_seen(dtype, off):
    z, y, w = _scores(dtype, 5, 0, signed=False)
    loss = nn.CrossEntropyLoss(torch.from_numpy(w), label_smoothing=0.1)
    report = _judged(_classes(ON["(1 - s) + s / C"], 0.1, w, off), z, y, loss, dtype)
    assert _statuses(report)["output.grad"] == "wrong"
