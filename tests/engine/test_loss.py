"""Every loss, with every hyperparameter and reduction, beside torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from manual_bp import nn
from tests.engine.parity import DTYPES, check_loss, check_loss_differences, close, normal, uniform

REDUCTIONS = ("none", "mean", "sum")
SHAPES = [(4, 3), (5,), (), (0, 3), (2, 3, 2)]
WEIGHT = [0.5, 2.0, 1.25]  # exact in float32 too


def half_squared_error(reduction):
    return lambda p, t: 0.5 * torch.nn.functional.mse_loss(p, t, reduction=reduction)


REGRESSION = [
    (nn.MSELoss, lambda r: torch.nn.MSELoss(reduction=r)),
    (nn.HalfSquaredError, half_squared_error),
    (nn.L1Loss, lambda r: torch.nn.L1Loss(reduction=r)),
    (nn.HuberLoss, torch.nn.HuberLoss),
    (lambda r: nn.HuberLoss(r, 0.25), lambda r: torch.nn.HuberLoss(r, 0.25)),
    (nn.SmoothL1Loss, lambda r: torch.nn.SmoothL1Loss(reduction=r)),
    (lambda r: nn.SmoothL1Loss(r, 0.25), lambda r: torch.nn.SmoothL1Loss(reduction=r, beta=0.25)),
    (lambda r: nn.SmoothL1Loss(r, 0.0), lambda r: torch.nn.SmoothL1Loss(reduction=r, beta=0.0)),
]
REGRESSION_IDS = ["mse", "half", "l1", "huber", "huber-0.25", "smooth", "smooth-0.25", "smooth-0"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("ours", "theirs"), REGRESSION, ids=REGRESSION_IDS)
def test_regression_is_torchs(ours, theirs, reduction, shape, dtype):
    check_loss(ours(reduction), theirs(reduction), normal(shape, dtype), normal(shape, dtype, seed=1))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("ours", "theirs"), REGRESSION, ids=REGRESSION_IDS)
def test_regression_against_differences(ours, theirs, reduction):
    check_loss_differences(ours(reduction), normal((4, 3)), normal((4, 3), seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "difference", [0.0, -0.0, 0.25, -0.25, 1.0, -1.0, 1e30, math.nan, math.inf, -math.inf], ids=repr
)
@pytest.mark.parametrize(("ours", "theirs"), REGRESSION, ids=REGRESSION_IDS)
def test_regression_at_kinks_and_non_finite_differences_is_torchs(ours, theirs, difference, dtype):
    check_loss(ours("sum"), theirs("sum"), np.array([difference], dtype), np.zeros(1, dtype), scale=0)


def test_half_squared_error_is_half_the_sum_by_default():
    loss = nn.HalfSquaredError()
    value, cache = loss.forward(np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.0, 7.0]))
    assert value == 0.5 * (1 + 0 + 9)
    np.testing.assert_array_equal(loss.backward(cache), [1.0, 0.0, -3.0])


BCE_WEIGHTS = [None, 0.5, WEIGHT, [[0.5], [2.0], [1.0], [3.0]]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", BCE_WEIGHTS, ids=repr)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("hard", [True, False], ids=["0-or-1", "soft"])
def test_bce_is_torchs(weight, reduction, hard, dtype):
    target = uniform((4, 3), dtype, seed=1)
    target = target.round() if hard else target
    theirs = None if weight is None else torch.tensor(weight, dtype=torch.float64).to(torch.from_numpy(target).dtype)
    check_loss(
        nn.BCELoss(weight, reduction=reduction),
        torch.nn.BCELoss(theirs, reduction=reduction),
        uniform((4, 3), dtype),
        target,
    )
    for pos_weight in (None, WEIGHT):
        factor = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.from_numpy(target).dtype)
        check_loss(
            nn.BCEWithLogitsLoss(weight, reduction=reduction, pos_weight=pos_weight),
            torch.nn.BCEWithLogitsLoss(theirs, reduction=reduction, pos_weight=factor),
            3 * normal((4, 3), dtype),
            target,
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 2)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_bce_of_other_shapes(shape, reduction, dtype):
    p, z, t = uniform(shape, dtype), normal(shape, dtype), uniform(shape, dtype, seed=1)
    check_loss(nn.BCELoss(reduction=reduction), torch.nn.BCELoss(reduction=reduction), p, t)
    check_loss(nn.BCEWithLogitsLoss(reduction=reduction), torch.nn.BCEWithLogitsLoss(reduction=reduction), z, t)


@pytest.mark.parametrize("weight", BCE_WEIGHTS, ids=repr)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_bce_against_differences(weight, reduction):
    target = uniform((4, 3), seed=1)
    check_loss_differences(nn.BCELoss(weight, reduction=reduction), uniform((4, 3)), target)
    logits = nn.BCEWithLogitsLoss(weight, reduction=reduction, pos_weight=WEIGHT)
    check_loss_differences(logits, normal((4, 3)), target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 1.0, 1e-37, 1e-30, 1e-13, 1 - 2**-24, 1 - 2**-53])
@pytest.mark.parametrize("t", [0.0, 1.0, 0.5])
def test_bce_cuts_off_where_torch_does(p, t, dtype):
    check_loss(nn.BCELoss(), torch.nn.BCELoss(), np.array([p], dtype), np.array([t], dtype), scale=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("z", [17.0, -17.0, 40.0, -40.0, 800.0, -800.0, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("t", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("pos_weight", [None, [3.0]])
def test_saturated_logits_are_torchs(z, t, pos_weight, dtype):
    c = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.from_numpy(np.zeros(1, dtype)).dtype)
    check_loss(
        nn.BCEWithLogitsLoss(pos_weight=pos_weight),
        torch.nn.BCEWithLogitsLoss(pos_weight=c),
        np.array([z], dtype),
        np.array([t], dtype),
        scale=0,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("z", [0.5, 17.0, -17.0, 40.0, -40.0, 800.0, -800.0])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_saturated_sigmoid_into_bce_is_torchs(z, t, dtype):
    """The gradient dies where p was rounded to 0 or 1: both sides agree on it, and with logits it does not."""
    x, target = np.array([z], dtype), np.array([t], dtype)
    p, sigmoid_cache = nn.Sigmoid().forward({}, x)
    _, bce_cache = nn.BCELoss().forward(p, target)
    (dz,) = nn.Sigmoid().backward(sigmoid_cache, nn.BCELoss().backward(bce_cache)).inputs

    leaf = torch.from_numpy(x.copy()).requires_grad_()
    torch.nn.functional.binary_cross_entropy(torch.sigmoid(leaf), torch.from_numpy(target)).backward()
    close(dz, leaf.grad, "dz", 0)


def class_targets(shape, ignored=()):
    target = np.asarray(np.random.default_rng(2).integers(0, 3, shape))
    flat = target.reshape(-1)
    flat[list(ignored)] = -100
    return flat.reshape(shape)


CLASS_SHAPES = [
    ((5, 3), (5,)),
    ((3,), ()),
    ((2, 3, 4), (2, 4)),
    ((2, 3, 2, 2), (2, 2, 2)),
    ((0, 3), (0,)),
    ((1, 3), (1,)),
]
WEIGHTS = [None, WEIGHT, [0.0, 2.0, 1.25]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "positions"), CLASS_SHAPES)
@pytest.mark.parametrize("weight", WEIGHTS, ids=repr)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_class_losses_are_torchs(shape, positions, weight, reduction, ignore_index, dtype):
    x = normal(shape, dtype)
    w = None if weight is None else torch.tensor(weight, dtype=torch.from_numpy(x).dtype)
    size = class_targets(positions).size
    for ignored in ([], [0][:size], range(size)):  # at -100: nothing, the first position, all of them
        t = class_targets(positions, ignored)
        arguments = {"ignore_index": -100 if ignored else ignore_index, "reduction": reduction}
        check_loss(nn.NLLLoss(weight, **arguments), torch.nn.NLLLoss(w, **arguments), x, t)
        for smoothing in (0.0, 0.25, 1.0):
            check_loss(
                nn.CrossEntropyLoss(weight, label_smoothing=smoothing, **arguments),
                torch.nn.CrossEntropyLoss(w, label_smoothing=smoothing, **arguments),
                x,
                t,
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [shape for shape, _ in CLASS_SHAPES])
@pytest.mark.parametrize("weight", WEIGHTS, ids=repr)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.25, 1.0])
def test_cross_entropy_of_probabilities_is_torchs(shape, weight, reduction, smoothing, dtype):
    target = uniform(shape, dtype, seed=1)  # they need not add up to 1
    w = None if weight is None else torch.tensor(weight, dtype=torch.from_numpy(target).dtype)
    check_loss(
        nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing),
        torch.nn.CrossEntropyLoss(w, reduction=reduction, label_smoothing=smoothing),
        normal(shape, dtype),
        target,
    )


@pytest.mark.parametrize(("shape", "positions"), CLASS_SHAPES[:4])
@pytest.mark.parametrize("weight", WEIGHTS[:2], ids=repr)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_losses_against_differences(shape, positions, weight, reduction):
    x, t = normal(shape), class_targets(positions, [0] if positions else [])
    check_loss_differences(nn.NLLLoss(weight, reduction=reduction), x, t)
    for smoothing in (0.0, 0.25):
        loss = nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)
        check_loss_differences(loss, x, t)
        check_loss_differences(loss, x, uniform(shape, seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "logits",
    [
        [40.0, -40.0, 0.0],
        [800.0, -800.0, 0.0],
        [-800.0, 800.0, 0.0],
        [0.0, -math.inf, 1.0],
        [-math.inf] * 3,
        [math.inf, 0.0, 1.0],
        [math.nan, 0.0, 1.0],
    ],
    ids=repr,
)
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("target", [0, 1])
def test_extreme_logits_are_torchs(logits, smoothing, target, dtype):
    ours = nn.CrossEntropyLoss(label_smoothing=smoothing)
    check_loss(
        ours,
        torch.nn.CrossEntropyLoss(label_smoothing=smoothing),
        np.array([logits], dtype),
        np.array([target]),
        scale=0,
    )


def test_unit_upstream_is_the_default():
    loss = nn.CrossEntropyLoss()
    _, cache = loss.forward(normal((5, 3), np.float32), class_targets((5,)))
    np.testing.assert_array_equal(loss.backward(cache), loss.backward(cache, np.float64(1)))
    assert loss.backward(cache).dtype == np.float32


def test_array_hyperparameters_are_frozen_comparable_and_hashable():
    weight = np.array([1.0, 2.0, 3.0], np.float32)
    loss = nn.CrossEntropyLoss(weight)
    weight[0] = 5
    assert loss == nn.CrossEntropyLoss([1.0, 2.0, 3.0])
    assert loss != nn.CrossEntropyLoss(weight)
    assert hash(loss) == hash(nn.CrossEntropyLoss((1.0, 2.0, 3.0)))
    assert nn.BCELoss([[1.0], [2.0]]).weight == ((1.0,), (2.0,))


P, T = uniform((4, 3)), uniform((4, 3), seed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.MSELoss("avg"), "reduction='avg' is not one of 'none', 'mean', 'sum'"),
        (lambda: nn.HuberLoss(delta=0.0), "delta=0.0; it must be positive"),
        (lambda: nn.SmoothL1Loss(beta=-1.0), "beta=-1.0; it must not be negative"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=1.5), r"label_smoothing=1.5; it must lie in \[0, 1\]"),
        (lambda: nn.MSELoss().forward(P, T[:, :1]), r"target is float64 of shape \(4, 1\), expected"),
        (lambda: nn.MSELoss().forward(P, T.astype(np.float32)), "target is float32 .* expected float64"),
        (lambda: nn.BCELoss().forward(P + 1, T), "prediction is not a probability"),
        (lambda: nn.BCELoss().forward(P * np.nan, T), "prediction is not a probability"),
        (lambda: nn.BCELoss().forward(P, T + 1), "target is not a probability"),
        (lambda: nn.BCELoss(np.ones((2, 4, 3))).forward(P, T), r"weight of shape \(2, 4, 3\) does not broadcast"),
        (lambda: nn.BCEWithLogitsLoss(pos_weight=[1.0, 2.0]).forward(P, T), r"pos_weight of shape \(2,\) does not"),
        (lambda: nn.NLLLoss().forward(P, T), "target is float64 .* expected class indices"),
        (lambda: nn.NLLLoss().forward(P, np.array([0, 1, 2, 3])), "target 3 is not one of the 3 classes"),
        (lambda: nn.NLLLoss().forward(P, np.array([0, 1, 2, -1])), "target -1 is not one of the 3 classes"),
        (lambda: nn.CrossEntropyLoss().forward(P, np.zeros(3, int)), r"expected class indices .* of shape \(4,\)"),
        (lambda: nn.CrossEntropyLoss([1.0, 2.0]).forward(P, np.zeros(4, int)), r"weight is float64 of shape \(2,\)"),
        (lambda: nn.CrossEntropyLoss(ignore_index=1).forward(P, T), "needs class indices, not probabilities"),
        (lambda: nn.CrossEntropyLoss().forward(normal(()), np.asarray(0)), "prediction is 0-d"),
        (lambda: nn.MSELoss().backward(nn.MSELoss().forward(P, T)[1], np.ones(3)), "the loss is a scalar"),
        (
            lambda: nn.MSELoss("none").backward(nn.MSELoss("none").forward(P, T)[1], np.ones(3)),
            r"upstream \(reduction 'none'\) is float64 of shape \(3,\), expected float64 of shape \(4, 3\)",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(nn.NNError, match=message):
        call()
