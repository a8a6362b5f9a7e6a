"""What holds for every layer and loss: nothing is mutated, remembered, shared unasked, or cast to another dtype."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from manual_bp import nn
from tests.engine.parity import frozen, normal, randomized, uniform

LAYERS = [
    (nn.Add(), (2, 3)),
    (nn.AvgPool1d(2), (2, 3, 6)),
    (nn.AvgPool2d(2), (2, 3, 6, 4)),
    (nn.AvgPool3d(2), (2, 3, 4, 4, 4)),
    (nn.BatchNorm1d(3), (4, 3)),
    (nn.BatchNorm2d(3), (2, 3, 2, 2)),
    (nn.BatchNorm2d(3, training=False), (2, 3, 2, 2)),
    (nn.Conv1d(2, 3, 2), (2, 2, 6)),
    (nn.Conv2d(2, 3, 2), (2, 2, 5, 4)),
    (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    (nn.Dropout(0.25), (4, 3)),
    (nn.Dropout(0.25, training=False), (4, 3)),
    (nn.Flatten(), (2, 3, 4)),
    (nn.GELU(), (4, 3)),
    (nn.GELU("tanh"), (4, 3)),
    (nn.Identity(), (4, 3)),
    (nn.LayerNorm(3), (4, 3)),
    (nn.LeakyReLU(), (4, 3)),
    (nn.Linear(3, 2), (4, 3)),
    (nn.LogSoftmax(1), (4, 3)),
    (nn.MaxPool1d(2), (2, 3, 6)),
    (nn.MaxPool2d(2), (2, 3, 6, 4)),
    (nn.MaxPool3d(2), (2, 3, 4, 4, 4)),
    (nn.ReLU(), (4, 3)),
    (nn.SiLU(), (4, 3)),
    (nn.Sigmoid(), (4, 3)),
    (nn.Softmax(1), (4, 3)),
    (nn.Softplus(), (4, 3)),
    (nn.Tanh(), (4, 3)),
]
LOSSES = [
    nn.BCELoss([0.5, 1.0, 2.0]),
    nn.BCEWithLogitsLoss(pos_weight=[0.5, 1.0, 2.0]),
    nn.CrossEntropyLoss([0.5, 1.0, 2.0], label_smoothing=0.1),
    nn.HalfSquaredError(),
    nn.HuberLoss(),
    nn.L1Loss(),
    nn.MSELoss(),
    nn.NLLLoss([0.5, 1.0, 2.0]),
    nn.SmoothL1Loss(),
]
MAY_SHARE = (nn.Add, nn.Flatten, nn.Identity, nn.Dropout)  # documented: views, or the upstream gradient itself
DTYPES = (np.float32, np.float64, np.longdouble)


def arguments(layer, shape, dtype):
    """Read-only inputs and parameters."""
    inputs = frozen(*(normal(shape, dtype, seed=i) for i in range(layer.n_inputs)))
    params = randomized(layer, dtype)
    if isinstance(layer, nn.Dropout):
        params = layer.draw(np.random.default_rng(0), shape, dtype)
    return dict(zip(params, frozen(*params.values()), strict=True)), inputs


def loss_arguments(loss, dtype):
    target = (
        np.array([0, 2, 1, 2]) if isinstance(loss, nn.NLLLoss | nn.CrossEntropyLoss) else uniform((4, 3), dtype, seed=1)
    )
    return frozen(uniform((4, 3), dtype), target)


def test_every_layer_and_loss_has_its_row_here():
    listed = {type(layer) for layer, _ in LAYERS} | set(map(type, LOSSES))
    public = {getattr(nn, name) for name in nn.__all__}
    kinds = (nn.Layer, nn.Loss)
    assert {thing for thing in public if isinstance(thing, type) and issubclass(thing, kinds)} - set(kinds) == listed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=repr)
def test_a_layer_changes_nothing_and_keeps_the_dtype(layer, shape, dtype):
    params, inputs = arguments(layer, shape, dtype)
    output, cache = layer.forward(params, *inputs)
    (upstream,) = frozen(normal(output.shape, dtype, seed=9))
    before = output.copy()
    first, second = layer.backward(cache, upstream), layer.backward(cache, upstream)

    np.testing.assert_array_equal(layer.forward(params, *inputs)[0], before)
    np.testing.assert_array_equal(output, before)
    assert output.dtype == dtype
    assert len(first.inputs) == layer.n_inputs
    for x, one, two in zip(inputs, first.inputs, second.inputs, strict=True):
        assert (one.shape, one.dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(one, two)
    assert list(first.params) == list(layer.parameter_shapes())
    for name, shape_of_parameter in layer.parameter_shapes().items():
        assert (first.params[name].shape, first.params[name].dtype) == (shape_of_parameter, dtype)
        np.testing.assert_array_equal(first.params[name], second.params[name])

    if not isinstance(layer, MAY_SHARE):
        given = (*inputs, *params.values(), upstream)
        results = (output, *first.inputs, *first.params.values())
        assert not any(np.shares_memory(result, argument) for result in results for argument in given)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=repr)
def test_longdouble_is_not_computed_in_double(layer, shape):
    """The referee's precision: longdouble results round to the float64 ones, and (but for erf) differ below them."""
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("np.longdouble is float64 on this platform")
    wide_params, wide_inputs = arguments(layer, shape, np.longdouble)
    narrow_params, narrow_inputs = arguments(layer, shape, np.float64)
    wide, _ = layer.forward(wide_params, *wide_inputs)
    narrow, _ = layer.forward(narrow_params, *narrow_inputs)
    np.testing.assert_allclose(wide, narrow, rtol=0, atol=1e-14 * abs(narrow).max())
    copies = (nn.ReLU, nn.Dropout, nn.Flatten, nn.Identity, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
    assert isinstance(layer, copies) or (wide != narrow).any()


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=repr)
def test_a_wrong_upstream_gradient_is_refused(layer, shape):
    params, inputs = arguments(layer, shape, np.float64)
    output, cache = layer.forward(params, *inputs)
    for upstream in (np.ones((*output.shape, 1)), np.ones(output.shape, np.float32), np.ones(output.shape[1:])):
        with pytest.raises(nn.NNError, match=rf"{type(layer).__name__}.*upstream"):
            layer.backward(cache, upstream)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_loss_changes_nothing_and_keeps_the_dtype(loss, reduction, dtype):
    loss = dataclasses.replace(loss, reduction=reduction)
    prediction, target = loss_arguments(loss, dtype)
    value, cache = loss.forward(prediction, target)
    (upstream,) = frozen(normal(value.shape, dtype, seed=9))
    first, second = loss.backward(cache, upstream), loss.backward(cache, upstream)

    assert isinstance(value, np.ndarray)
    assert value.dtype == dtype
    assert (value.ndim == 0) == (reduction != "none")
    assert (first.shape, first.dtype) == (prediction.shape, dtype)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(loss.forward(prediction, target)[0], value)
    given = (prediction, target, upstream)
    assert not any(np.shares_memory(result, argument) for result in (value, first) for argument in given)


@pytest.mark.parametrize("description", [*(layer for layer, _ in LAYERS), *LOSSES, nn.SGD(), nn.Adam()], ids=repr)
def test_descriptions_are_frozen_comparable_and_hashable(description):
    twin = dataclasses.replace(description)
    assert twin == description
    assert hash(twin) == hash(description)
    with pytest.raises(dataclasses.FrozenInstanceError):
        description.anything = 1


def test_the_engine_imports_numpy_alone():
    code = "import sys; from manual_bp.nn import *; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "numpy" in loaded.split()
    assert not {"torch", "scipy", "rich", "jinja2", "click"} & set(loaded.split())
