"""BatchNorm and LayerNorm beside torch, running statistics included."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from manual_bp import nn
from tests.engine.parity import DTYPES, check_layer, check_layer_differences, close, load, normal, randomized

BATCH_NORM = [
    pytest.param(nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3), (6, 3), id="1d"),
    pytest.param(nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3), (4, 3, 5), id="1d-length"),
    pytest.param(nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3), (1, 3, 5), id="1d-one-sample"),
    pytest.param(nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3), (2, 3, 4, 5), id="2d"),
    pytest.param(nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1), (2, 1, 4, 5), id="2d-one-channel"),
    pytest.param(nn.BatchNorm2d(3, 0.1), torch.nn.BatchNorm2d(3, 0.1), (2, 3, 4, 5), id="eps"),
    pytest.param(nn.BatchNorm1d(3, 1e-5, 0.3), torch.nn.BatchNorm1d(3, 1e-5, 0.3), (6, 3), id="momentum"),
    pytest.param(nn.BatchNorm1d(3, momentum=None), torch.nn.BatchNorm1d(3, momentum=None), (6, 3), id="average"),
    pytest.param(nn.BatchNorm1d(3, momentum=0.0), torch.nn.BatchNorm1d(3, momentum=0.0), (6, 3), id="momentum-0"),
    pytest.param(nn.BatchNorm1d(3, affine=False), torch.nn.BatchNorm1d(3, affine=False), (6, 3), id="no-affine"),
    pytest.param(nn.BatchNorm2d(3, bias=False), torch.nn.BatchNorm2d(3, bias=False), (2, 3, 4, 5), id="no-bias"),
    pytest.param(
        nn.BatchNorm1d(3, track_running_stats=False),
        torch.nn.BatchNorm1d(3, track_running_stats=False),
        (6, 3),
        id="no-statistics",
    ),
]
LAYER_NORM = [
    pytest.param(nn.LayerNorm(5), torch.nn.LayerNorm(5), (4, 5), id="last"),
    pytest.param(nn.LayerNorm(5), torch.nn.LayerNorm(5), (5,), id="unbatched"),
    pytest.param(nn.LayerNorm((3, 5)), torch.nn.LayerNorm((3, 5)), (2, 4, 3, 5), id="last-two"),
    pytest.param(nn.LayerNorm((3, 5)), torch.nn.LayerNorm((3, 5)), (3, 5), id="last-two-unbatched"),
    pytest.param(nn.LayerNorm(5, 0.1), torch.nn.LayerNorm(5, 0.1), (4, 5), id="eps"),
    pytest.param(nn.LayerNorm(5, 1e-5, False), torch.nn.LayerNorm(5, 1e-5, False), (4, 5), id="no-affine"),
    pytest.param(nn.LayerNorm(5, bias=False), torch.nn.LayerNorm(5, bias=False), (4, 5), id="no-bias"),
    pytest.param(nn.LayerNorm(5), torch.nn.LayerNorm(5), (0, 5), id="empty-batch"),
    pytest.param(nn.LayerNorm(0), torch.nn.LayerNorm(0), (2, 0), id="empty-groups"),
]


def evaluating(layer):
    return dataclasses.replace(layer, training=False)


def with_statistics(layer, dtype):
    """Parameters whose running statistics are those of three batches already."""
    params = randomized(layer, dtype)
    if layer.track_running_stats:
        params["running_mean"] = normal((layer.num_features,), dtype, seed=5)
        params["running_var"] = normal((layer.num_features,), dtype, seed=6) ** 2 + dtype(0.5)
        params["num_batches_tracked"] = np.asarray(3, np.int64)
    return params


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "module", "shape"), BATCH_NORM)
def test_batch_norm_in_training_is_torchs(layer, module, shape, dtype):
    check_layer(layer, copy.deepcopy(module), 1 + 2 * normal(shape, dtype), params=with_statistics(layer, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "module", "shape"), BATCH_NORM)
def test_batch_norm_in_evaluation_is_torchs(layer, module, shape, dtype):
    module = copy.deepcopy(module).eval()
    check_layer(evaluating(layer), module, 1 + 2 * normal(shape, dtype), params=with_statistics(layer, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("layer", "module", "shape"), BATCH_NORM)
def test_running_statistics_are_torchs(layer, module, shape, train, dtype):
    layer = layer if train else evaluating(layer)
    module = copy.deepcopy(module).train(train)
    params = with_statistics(layer, dtype)
    load(module, params)
    for batch in range(3):
        x = 1 + 2 * normal(shape, dtype, seed=batch)
        module(torch.from_numpy(x))
        _, cache = layer.forward(params, x)
        updated = layer.updated_buffers(cache)
        assert updated.keys() == layer.buffer_shapes().keys() == dict(module.named_buffers()).keys()
        for name, buffer in module.named_buffers():
            close(updated[name], buffer, f"{name} after batch {batch}")
        params = params | updated


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4)])
@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_of_an_empty_batch(shape, train, dtype):
    layer, module = nn.BatchNorm1d(3, training=train), torch.nn.BatchNorm1d(3).train(train)
    params = with_statistics(layer, dtype)
    check_layer(layer, module, np.zeros(shape, dtype), params=params)
    updated = layer.updated_buffers(layer.forward(params, np.zeros(shape, dtype))[1])
    for name, buffer in module.named_buffers():
        close(updated[name], buffer, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_of_two_samples(dtype):
    """x̂ is ±1 but for eps, so the gradient is what two large numbers leave when they cancel."""
    layer, x = nn.BatchNorm1d(3), normal((2, 3), dtype)
    s = 1 / np.sqrt(x.var(axis=0) + layer.eps)
    params = with_statistics(layer, dtype)
    scale = float(s.max() * abs(params["weight"]).max() * abs(normal((2, 3), dtype, seed=7)).max())
    check_layer(layer, torch.nn.BatchNorm1d(3), x, params=params, scale=scale)


@pytest.mark.parametrize(("layer", "module", "shape"), BATCH_NORM)
def test_batch_norm_against_differences(layer, module, shape):
    check_layer_differences(layer, normal(shape), params=with_statistics(layer, np.float64))
    check_layer_differences(evaluating(layer), normal(shape), params=with_statistics(layer, np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "module", "shape"), LAYER_NORM)
def test_layer_norm_is_torchs(layer, module, shape, dtype):
    check_layer(layer, copy.deepcopy(module), 1 + 2 * normal(shape, dtype))


@pytest.mark.parametrize(("layer", "module", "shape"), LAYER_NORM)
def test_layer_norm_against_differences(layer, module, shape):
    check_layer_differences(layer, normal(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_groups_have_no_variance(value, dtype):
    """x̂ = 0 exactly; torch computes x (s w) + (b - μ s w) with s = 1/√ε, so its zero is a cancellation."""
    x = np.full((4, 3), value, dtype)
    scale = 2 * max(value, 1) / np.sqrt(1e-5)
    check_layer(nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3), x, scale=scale)
    check_layer(nn.LayerNorm(3), torch.nn.LayerNorm(3), x, scale=scale)
    check_layer(nn.LayerNorm(1), torch.nn.LayerNorm(1), x[:, :1], scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_stay_in_their_group(value, dtype):
    x = normal((4, 3), dtype)
    x[1, 2] = value
    check_layer(nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3), x)
    check_layer(nn.LayerNorm(3), torch.nn.LayerNorm(3), x)


@pytest.mark.parametrize(
    ("layer", "module"),
    [
        (nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)),
        (nn.BatchNorm1d(4, affine=False), torch.nn.BatchNorm1d(4, affine=False)),
        (nn.BatchNorm1d(4, track_running_stats=False), torch.nn.BatchNorm1d(4, track_running_stats=False)),
        (nn.BatchNorm1d(4, bias=False), torch.nn.BatchNorm1d(4, bias=False)),
        (nn.LayerNorm((2, 3)), torch.nn.LayerNorm((2, 3))),
        (nn.LayerNorm(4, bias=False), torch.nn.LayerNorm(4, bias=False)),
    ],
    ids=repr,
)
def test_initial_values_names_and_order_are_torchs(layer, module):
    ours = layer.initial(np.random.default_rng(0), np.float32)
    theirs = module.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        close(ours[name], value, name)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.BatchNorm1d(3), (1, 3), r"shape \(1, 3\) has one value per channel"),
        (nn.BatchNorm1d(3, track_running_stats=False, training=False), (1, 3), "one value per channel"),
        (nn.BatchNorm1d(3), (3,), r"expected \(N, C\) or \(N, C, L\) with C = 3"),
        (nn.BatchNorm1d(3), (2, 4), "with C = 3"),
        (nn.BatchNorm2d(3), (2, 3, 4), r"expected \(N, C, H, W\) with C = 3"),
        (nn.BatchNorm1d(3, eps=0.0), (2, 3), "eps=0.0; it must be above 0"),
        (nn.BatchNorm2d(3, 0, track_running_stats=False, training=False), (2, 3, 4, 5), "eps=0; it must be above 0"),
        (nn.LayerNorm(3), (2, 4), r"does not end in normalized_shape \(3,\)"),
        (nn.LayerNorm((2, 3)), (3,), r"does not end in normalized_shape \(2, 3\)"),
    ],
)
def test_refusals(layer, shape, message):
    with pytest.raises(nn.NNError, match=message):
        layer.forward(layer.initial(np.random.default_rng(0)), normal(shape))


def test_a_batch_of_one_is_fine_in_evaluation():
    layer = nn.BatchNorm1d(3, training=False)
    check_layer(layer, torch.nn.BatchNorm1d(3).eval(), normal((1, 3)), params=with_statistics(layer, np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_statistics_need_no_eps(dtype):
    layer, module = nn.BatchNorm1d(3, eps=0.0), torch.nn.BatchNorm1d(3, eps=0.0)
    check_layer(evaluating(layer), module.eval(), normal((4, 3), dtype), params=with_statistics(layer, dtype))
    with pytest.raises(ValueError, match="eps must be positive during training"):  # so does the engine, see above
        module.train()(torch.from_numpy(normal((4, 3), dtype)))
    with pytest.raises(ValueError, match="eps must be non-negative"):  # and the engine when it is made, see below
        torch.nn.BatchNorm1d(3, eps=-1e-3).eval()(torch.ones(4, 3))


@pytest.mark.parametrize("shape", [np.int64(3), (np.int32(2), 3), [2, 3]])
def test_lengths_of_any_integer_kind(shape):
    check_layer(nn.LayerNorm(shape), torch.nn.LayerNorm(shape), normal((4, 2, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LayerNorm(()), "normalized_shape is empty"),
        (lambda: nn.LayerNorm(-1), "LayerNorm: normalized_shape=-1; it must not be negative"),
        (lambda: nn.LayerNorm((2, -1)), r"normalized_shape\[1\]=-1; it must not be negative"),
        (lambda: nn.LayerNorm(2.5), "normalized_shape=2.5 is a float; it takes an integer"),
        (lambda: nn.LayerNorm(None), "normalized_shape=None is a NoneType; it takes an integer"),
        (lambda: nn.BatchNorm1d(-1), "BatchNorm1d: num_features=-1; it must not be negative"),
        (lambda: nn.BatchNorm2d("3"), "num_features='3' is a str; it takes an integer"),
        (lambda: nn.BatchNorm2d(3, eps=-1e-3), "BatchNorm2d: eps=-0.001; it must not be negative"),
    ],
)
def test_hyperparameters_that_are_refused(make, message):
    with pytest.raises(nn.NNError, match=message):
        make()


def test_refused_parameters():
    with pytest.raises(nn.NNError, match="parameter 'running_mean' is missing"):
        nn.BatchNorm1d(3).forward({"weight": np.ones(3), "bias": np.zeros(3)}, normal((2, 3)))
