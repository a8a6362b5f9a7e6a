"""Linear, Flatten, Add and Identity beside torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manual_bp import nn
from tests.engine.parity import DTYPES, check_layer, check_layer_differences, normal

LINEAR = [
    pytest.param(nn.Linear(4, 3), lambda: torch.nn.Linear(4, 3), (5, 4), id="batch"),
    pytest.param(nn.Linear(4, 3, bias=False), lambda: torch.nn.Linear(4, 3, bias=False), (5, 4), id="no-bias"),
    pytest.param(nn.Linear(4, 3), lambda: torch.nn.Linear(4, 3), (4,), id="unbatched"),
    pytest.param(nn.Linear(4, 3), lambda: torch.nn.Linear(4, 3), (2, 5, 4), id="two-leading-axes"),
    pytest.param(nn.Linear(4, 3), lambda: torch.nn.Linear(4, 3), (0, 4), id="empty-batch"),
    pytest.param(nn.Linear(1, 1), lambda: torch.nn.Linear(1, 1), (1, 1), id="one-by-one"),
    pytest.param(nn.Linear(300, 2), lambda: torch.nn.Linear(300, 2), (70, 300), id="long-sums"),
]
SHAPING = [
    pytest.param(nn.Flatten(), torch.nn.Flatten(), (2, 3, 4), id="default"),
    pytest.param(nn.Flatten(0), torch.nn.Flatten(0), (2, 3, 4), id="everything"),
    pytest.param(nn.Flatten(0, 1), torch.nn.Flatten(0, 1), (2, 3, 4), id="first-two"),
    pytest.param(nn.Flatten(-2, -1), torch.nn.Flatten(-2, -1), (2, 3, 4), id="last-two"),
    pytest.param(nn.Flatten(1, 1), torch.nn.Flatten(1, 1), (2, 3), id="nothing-to-do"),
    pytest.param(nn.Flatten(), torch.nn.Flatten(), (0, 3, 4), id="empty-batch"),
    pytest.param(nn.Flatten(0), torch.nn.Flatten(0), (), id="0-d"),
    pytest.param(nn.Identity(), torch.nn.Identity(), (2, 3), id="identity"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "module", "shape"), LINEAR)
def test_linear_is_torchs(layer, module, shape, dtype):
    check_layer(layer, module(), normal(shape, dtype))


@pytest.mark.parametrize(("layer", "module", "shape"), LINEAR[:-1])
def test_linear_against_differences(layer, module, shape):
    check_layer_differences(layer, normal(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "module", "shape"), SHAPING)
def test_shaping_is_torchs(layer, module, shape, dtype):
    check_layer(layer, module, normal(shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), ()])
def test_add_is_torchs(shape, dtype):
    check_layer(nn.Add(), torch.add, normal(shape, dtype), normal(shape, dtype, seed=1))


def test_add_against_differences():
    assert nn.Add.n_inputs == 2
    check_layer_differences(nn.Add(), normal((2, 3)), normal((2, 3), seed=1))


def test_non_contiguous_input():
    check_layer(nn.Linear(4, 3), torch.nn.Linear(4, 3), np.asfortranarray(normal((5, 4))))
    check_layer(nn.Flatten(), torch.nn.Flatten(), normal((2, 4, 3)).transpose(0, 2, 1))


def test_initial_weights_are_drawn_from_torchs_distribution():
    layer = nn.Linear(50, 400)
    params = layer.initial(np.random.default_rng(0), np.float32)
    torch.manual_seed(0)
    theirs = torch.nn.Linear(50, 400).state_dict()
    assert params.keys() == theirs.keys()
    for name, values in params.items():
        assert values.dtype == np.float32
        assert values.shape == tuple(theirs[name].shape)
        assert abs(values).max() <= 1 / np.sqrt(50)
        np.testing.assert_allclose(values.std(), theirs[name].std(), rtol=0.1)


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (nn.Linear(4, 3), normal((5, 3)), r"shape \(5, 3\); its last axis must be in_features = 4"),
        (nn.Linear(4, 3), normal(()), "its last axis must be in_features = 4"),
        (nn.Linear(4, 3), normal((5, 4), np.float32), r"weight is float64 of shape \(3, 4\), expected float32"),
        (nn.Linear(4, 3), np.ones((5, 4), int), r"input is int64, not floating point"),
        (nn.Linear(4, 3), [[1.0, 2.0, 3.0, 4.0]], "input is a list, not a NumPy array"),
        (nn.Flatten(), normal((3,)), r"shape \(3,\), which has no axis 1"),
        (nn.Flatten(2, 1), normal((2, 3, 4)), "start_dim=2 lies behind end_dim=1"),
    ],
)
def test_refusals(layer, x, message):
    params = layer.initial(np.random.default_rng(0))
    with pytest.raises(nn.NNError, match=message):
        layer.forward(params, x)


def test_refused_parameters():
    x = normal((5, 4))
    with pytest.raises(nn.NNError, match="parameter 'weight' is missing; given: bias"):
        nn.Linear(4, 3).forward({"bias": normal((3,))}, x)
    with pytest.raises(nn.NNError, match=r"weight is float64 of shape \(4, 3\), expected float64 of shape \(3, 4\)"):
        nn.Linear(4, 3).forward({"weight": normal((4, 3)), "bias": normal((3,))}, x)
    with pytest.raises(nn.NNError, match="neither number may be negative"):
        nn.Linear(-1, 3)


def test_add_does_not_broadcast():
    with pytest.raises(
        nn.NNError, match=r"second input is float64 of shape \(3,\), expected float64 of shape \(2, 3\)"
    ):
        nn.Add().forward({}, normal((2, 3)), normal((3,)))
