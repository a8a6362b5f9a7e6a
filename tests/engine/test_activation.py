"""Activations, softmax and dropout beside torch, and what they are built from."""

from __future__ import annotations

import math
import platform

import numpy as np
import pytest
import torch

from manual_bp import nn
from manual_bp.nn import _special
from tests.engine.parity import DTYPES, check_layer, check_layer_differences, close, normal

ELEMENTWISE = [
    (nn.ReLU(), torch.nn.ReLU()),
    (nn.LeakyReLU(), torch.nn.LeakyReLU()),
    (nn.LeakyReLU(0.2), torch.nn.LeakyReLU(0.2)),
    (nn.LeakyReLU(-0.5), torch.nn.LeakyReLU(-0.5)),
    (nn.Sigmoid(), torch.nn.Sigmoid()),
    (nn.Tanh(), torch.nn.Tanh()),
    (nn.SiLU(), torch.nn.SiLU()),
    (nn.Softplus(), torch.nn.Softplus()),
    (nn.Softplus(2.0, 1.0), torch.nn.Softplus(2.0, 1.0)),
    (nn.Softplus(-1.0), torch.nn.Softplus(-1.0)),
    (nn.GELU(), torch.nn.GELU()),
    (nn.GELU("tanh"), torch.nn.GELU("tanh")),
]
ALONG = [
    (nn.Softmax(1), torch.nn.Softmax(1)),
    (nn.Softmax(-1), torch.nn.Softmax(-1)),
    (nn.Softmax(0), torch.nn.Softmax(0)),
    (nn.LogSoftmax(1), torch.nn.LogSoftmax(1)),
    (nn.LogSoftmax(-1), torch.nn.LogSoftmax(-1)),
    (nn.LogSoftmax(0), torch.nn.LogSoftmax(0)),
]
KINKS = [0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5]
SATURATED = [17.0, -17.0, 40.0, -40.0, 88.0, -88.0, 800.0, -800.0]
NON_FINITE = [math.nan, -math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 5), (0, 3), (1,), ()])
@pytest.mark.parametrize(("layer", "module"), ELEMENTWISE, ids=repr)
def test_elementwise_is_torchs(layer, module, shape, dtype):
    check_layer(layer, module, np.asarray(3 * normal(shape, dtype)), scale=3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", [KINKS, SATURATED, NON_FINITE], ids=["kinks", "saturated", "non-finite"])
@pytest.mark.parametrize(("layer", "module"), ELEMENTWISE, ids=repr)
def test_elementwise_at_special_values_is_torchs(layer, module, values, dtype):
    for value in values:  # one by one and with scale 0, so that the tail of a sigmoid counts as much as its middle
        check_layer(layer, module, np.array([value], dtype), scale=0)


@pytest.mark.parametrize(("layer", "module"), ELEMENTWISE, ids=repr)
def test_elementwise_against_differences(layer, module):
    check_layer_differences(layer, 3 * normal((7, 5)))


@pytest.mark.parametrize("dtype", [*DTYPES, np.longdouble])
@pytest.mark.parametrize("upstream", [math.inf, -math.inf, math.nan, -1.0, -0.0])
def test_relu_sends_nothing_back_from_zero_whatever_comes_in(upstream, dtype):
    x = np.array([0.0, -0.0, -1.0, 1.0, math.nan], dtype)
    _, cache = nn.ReLU().forward({}, x)
    (dx,) = nn.ReLU().backward(cache, np.full(5, upstream, dtype)).inputs
    np.testing.assert_array_equal(dx, np.array([0, 0, 0, upstream, upstream], dtype))
    assert not np.signbit(dx[:3]).any()  # +0, not -1 * 0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="which zero max(0, -0) is depends on the CPU")
def test_relu_keeps_the_sign_of_zero_as_torch_does():
    y, _ = nn.ReLU().forward({}, np.array([-0.0, 0.0, -1.0]))
    np.testing.assert_array_equal(np.signbit(y), torch.signbit(torch.relu(torch.tensor([-0.0, 0.0, -1.0]))).numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 5, 3), (3, 2), (0, 3), (2, 0), (1, 1)])
@pytest.mark.parametrize(("layer", "module"), ALONG, ids=repr)
def test_softmax_is_torchs(layer, module, shape, dtype):
    check_layer(layer, module, np.asarray(3 * normal(shape, dtype)), scale=3)


@pytest.mark.parametrize(("layer", "module"), ALONG, ids=repr)
def test_softmax_against_differences(layer, module):
    check_layer_differences(layer, normal((3, 4)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "row", [SATURATED, [0.0, -math.inf, 1.0], [-math.inf] * 3, [math.inf, 0.0], [math.nan, 0.0], [2.0] * 4], ids=repr
)
@pytest.mark.parametrize(("layer", "module"), ALONG[1::3], ids=repr)
def test_softmax_of_extreme_rows_is_torchs(layer, module, row, dtype):
    check_layer(layer, module, np.array([row, row], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "module"), [ALONG[1], ALONG[2], ALONG[4]], ids=repr)
def test_softmax_of_a_scalar(layer, module, dtype):
    check_layer(layer, module, np.asarray(1.5, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_dropout_with_torchs_own_mask(p, dtype):
    torch.manual_seed(3)
    x = torch.from_numpy(1 + normal((6, 5), dtype) ** 2).requires_grad_()  # no zeros, so that y tells the mask
    expected = torch.nn.functional.dropout(x, p)
    mask = (expected != 0).numpy().astype(dtype)

    layer = nn.Dropout(p)
    y, cache = layer.forward({"mask": mask}, x.detach().numpy())
    close(y, expected, "output")
    upstream = normal(y.shape, dtype)
    expected.backward(torch.from_numpy(upstream))
    close(layer.backward(cache, upstream).inputs[0], x.grad, "gradient")


def test_dropout_against_differences():
    layer = nn.Dropout(0.25)
    check_layer_differences(layer, normal((6, 5)), params=layer.draw(np.random.default_rng(0), (6, 5)))


def test_dropout_in_evaluation_needs_no_mask():
    check_layer(nn.Dropout(0.25, training=False), torch.nn.Dropout(0.25).eval(), normal((6, 5)), params={})


def test_drawn_masks_drop_with_probability_p():
    mask = nn.Dropout(0.2).draw(np.random.default_rng(0), (100, 100), np.float32)["mask"]
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert 0.18 < 1 - mask.mean() < 0.22
    assert not nn.Dropout(1.0).draw(np.random.default_rng(0), (100,))["mask"].any()
    assert nn.Dropout(0.0).draw(np.random.default_rng(0), (100,))["mask"].all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.GELU("erf"), "approximate='erf' is not one of 'none', 'tanh'"),
        (lambda: nn.Dropout(1.5), r"p=1.5; a probability lies in \[0, 1\]"),
        (nn.Softmax, "Softmax: dim is missing"),
        (lambda: nn.LogSoftmax(2).forward({}, normal((2, 3))), r"shape \(2, 3\), which has no axis 2"),
        (lambda: nn.Dropout().forward({}, normal((2, 3))), "parameter 'mask' is missing"),
        (lambda: nn.Dropout().forward({"mask": np.ones((3,))}, normal((2, 3))), r"mask is float64 of shape \(3,\)"),
        (lambda: nn.Dropout().forward({"mask": np.full((3,), 2.0)}, normal((3,))), "something else than 0 and 1"),
        (lambda: nn.ReLU().forward({}), r"forward takes \(params, 1 input\(s\)\), got 0 input"),
        (lambda: nn.Add().forward({}, normal((3,))), r"forward takes \(params, 2 input\(s\)\), got 1 input"),
        (lambda: nn.ReLU().forward({}, np.arange(3)), "input is int64, not floating point"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(nn.NNError, match=message):
        call()


@pytest.mark.parametrize("dtype", DTYPES)
def test_erf_to_two_units_in_the_last_place(dtype):
    x = np.concatenate([np.linspace(-7, 7, 20001), np.linspace(0.8, 0.9, 5001), np.geomspace(1e-300, 1, 2001)])
    x = x.astype(dtype)
    exact = np.array([math.erf(v) for v in x.tolist()])
    error = np.abs(_special.erf(x).astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(dtype))
    assert error.max() <= 2


@pytest.mark.parametrize("dtype", [*DTYPES, np.longdouble])
def test_erf_at_special_values(dtype):
    x = np.array([0.0, -0.0, math.inf, -math.inf, math.nan], dtype)
    y = _special.erf(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.array([0, 0, 1, -1, math.nan], dtype))
    assert np.signbit(y[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_sigmoid_is_torchs_and_keeps_its_tail(dtype):
    x = np.array([*SATURATED, 0.0, -0.0, 1.5], dtype)
    for value in x:
        one = np.array([value])
        close(_special.log_sigmoid(one), torch.nn.functional.logsigmoid(torch.from_numpy(one)), "log sigmoid", 0)
    assert _special.log_sigmoid(np.array([40.0], dtype)) < 0


@pytest.mark.parametrize("dtype", [np.float16, *DTYPES, np.longdouble])
def test_keep_where_and_select_are_where(dtype):
    values = np.array([1.5, -1.5, -0.0, math.inf, -math.inf, math.nan] * 2, dtype).reshape(2, 6).T
    keep = np.zeros((6, 2), bool)
    keep[:, 0] = True
    kept = _special.keep_where(keep, values)
    assert kept.dtype == dtype
    np.testing.assert_array_equal(kept, np.where(keep, values, 0))
    np.testing.assert_array_equal(_special.select(keep, values, values[::-1]), np.where(keep, values, values[::-1]))
    np.testing.assert_array_equal(np.signbit(kept[:, 0]), np.signbit(values[:, 0]))
    assert not np.signbit(kept[:, 1]).any()


@pytest.mark.parametrize(
    ("cls", "field"),
    [
        (nn.LeakyReLU, "negative_slope"),
        (nn.Softplus, "beta"),
        (nn.Softplus, "threshold"),
        (nn.Dropout, "p"),
        (nn.HuberLoss, "delta"),
        (nn.SmoothL1Loss, "beta"),
        (nn.CrossEntropyLoss, "label_smoothing"),
        (nn.SGD, "lr"),
        (nn.AdamW, "weight_decay"),
    ],
)
@pytest.mark.parametrize("value", [1j, "0.1", None, [0.1]], ids=repr)
def test_a_hyperparameter_that_is_no_real_number_is_refused(cls, field, value):
    with pytest.raises(nn.NNError, match=rf"{cls.__name__}: {field}=.* real number"):
        cls(**{field: value})
