"""Optimisers beside torch.optim: parameters and state after each of several steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manual_bp import nn
from tests.engine.parity import DTYPES, close, frozen, normal

SHAPES = {"weight": (3, 4), "bias": (3,), "scale": ()}
PAIRS = [
    (nn.SGD(), torch.optim.SGD, {}),
    (nn.SGD(0.1), torch.optim.SGD, {"lr": 0.1}),
    (nn.SGD(0.1, 0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (nn.SGD(0.1, 0.9, 0.3), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    (nn.SGD(0.1, weight_decay=0.2), torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.2}),
    (
        nn.SGD(0.1, 0.9, weight_decay=0.2, nesterov=True),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "nesterov": True},
    ),
    (
        nn.SGD(0.1, 0.5, 0.3, 0.2),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "weight_decay": 0.2},
    ),
    *(
        pair
        for ours, theirs in ((nn.Adam, torch.optim.Adam), (nn.AdamW, torch.optim.AdamW))
        for pair in (
            (ours(), theirs, {}),
            (ours(0.1), theirs, {"lr": 0.1}),
            (ours(0.1, (0.3, 0.6)), theirs, {"lr": 0.1, "betas": (0.3, 0.6)}),
            (ours(0.1, (0.0, 0.0)), theirs, {"lr": 0.1, "betas": (0.0, 0.0)}),
            (ours(0.1, eps=0.5), theirs, {"lr": 0.1, "eps": 0.5}),
            (ours(0.1, weight_decay=0.2), theirs, {"lr": 0.1, "weight_decay": 0.2}),
            (ours(0.1, weight_decay=0.0), theirs, {"lr": 0.1, "weight_decay": 0.0}),
            (ours(0.1, amsgrad=True), theirs, {"lr": 0.1, "amsgrad": True}),
        )
    ),
]


def parameters(dtype, seed=0):
    return {name: normal(shape, dtype, seed=seed + i) for i, (name, shape) in enumerate(SHAPES.items())}


def gradients(dtype, step):
    """Shrinking, so that amsgrad's maximum is not simply the last value; the second step is all zeros."""
    size = 0.0 if step == 1 else 2.0**-step
    return {name: np.asarray(size * g, dtype) for name, g in parameters(dtype, seed=10 * (step + 1)).items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS, ids=lambda value: str(value)[:60])
def test_five_steps_are_torchs(ours, theirs, arguments, dtype):
    params = parameters(dtype)
    leaves = {name: torch.from_numpy(value.copy()).requires_grad_() for name, value in params.items()}
    optimizer = theirs(leaves.values(), **arguments)
    state = ours.initial_state(params)
    for step in range(5):
        grads = gradients(dtype, step)
        params, state = ours.step(params, grads, state)
        for name, leaf in leaves.items():
            leaf.grad = torch.from_numpy(grads[name].copy())
        optimizer.step()
        for name, leaf in leaves.items():
            close(params[name], leaf, f"{ours}: {name} after step {step}")
            expected = {key: value for key, value in optimizer.state[leaf].items() if value is not None}
            assert state[name].keys() == expected.keys()
            for key, value in expected.items():
                close(state[name][key], value, f"{ours}: {key} of {name} after step {step}")


def test_a_step_takes_its_arguments_by_name():
    optimizer, params, grads = nn.SGD(0.1), {"w": np.ones(2)}, {"w": np.full(2, 3.0)}
    new, _ = optimizer.step(params=params, grads=grads, state=optimizer.initial_state(params))
    np.testing.assert_allclose(new["w"], 0.7)


def test_sgd_on_a_parabola_is_a_geometric_sequence():
    """For ½ θ² the gradient is θ, so θ ← (1 - lr) θ."""
    params, state = {"w": np.array([8.0])}, {}
    for _ in range(3):
        params, state = nn.SGD(lr=0.5).step(params, {"w": params["w"]}, state)
    assert params["w"] == [1.0]


@pytest.mark.parametrize("optimizer", [nn.Adam(0.25, eps=0.0), nn.AdamW(0.25, eps=0.0, weight_decay=0.0)], ids=repr)
def test_adams_first_step_is_lr_whatever_the_gradients_size(optimizer):
    params, _ = optimizer.step({"w": np.zeros(3)}, {"w": np.array([1e-6, -1.0, 1e6])}, {})
    np.testing.assert_allclose(params["w"], [-0.25, 0.25, -0.25], rtol=1e-12)


def test_decay_of_adamw_is_decoupled():
    """With a gradient of 0, Adam's penalty moves θ by lr; AdamW shrinks it by lr λ θ."""
    zero = {"w": np.zeros(1)}
    adam, _ = nn.Adam(0.1, weight_decay=0.5).step({"w": np.array([4.0])}, zero, {})
    adamw, _ = nn.AdamW(0.1, weight_decay=0.5).step({"w": np.array([4.0])}, zero, {})
    np.testing.assert_allclose(adam["w"], 4 - 0.1, rtol=1e-7)
    np.testing.assert_allclose(adamw["w"], 4 * (1 - 0.1 * 0.5), rtol=1e-15)


@pytest.mark.parametrize("dtype", [*DTYPES, np.longdouble])
@pytest.mark.parametrize(
    "ours", [nn.SGD(0.1, 0.9), nn.SGD(0.1, 0.9, weight_decay=0.1), nn.Adam(amsgrad=True), nn.AdamW()], ids=repr
)
def test_nothing_is_changed_or_shared(ours, dtype):
    params = dict(zip(SHAPES, frozen(*parameters(dtype).values()), strict=True))
    grads = dict(zip(SHAPES, frozen(*gradients(dtype, 0).values()), strict=True))
    first, state = ours.step(params, grads, {})
    for name in SHAPES:
        assert first[name].dtype == dtype
        for array in (first[name], *state[name].values()):
            assert not np.shares_memory(array, params[name])
            assert not np.shares_memory(array, grads[name])
        for array in state[name].values():
            array.flags.writeable = False
    again, _ = ours.step(first, grads, state)
    once_more, _ = ours.step(first, grads, state)
    for name in SHAPES:
        np.testing.assert_array_equal(again[name], once_more[name])
        assert (again[name] != first[name]).any()


W = {"w": np.ones(2)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.SGD(-1.0), "SGD: lr=-1.0; it must not be negative"),
        (lambda: nn.SGD(momentum=-0.1), "momentum=-0.1; it must not be negative"),
        (lambda: nn.SGD(weight_decay=float("nan")), "weight_decay=nan; it is not a number"),
        (lambda: nn.SGD(dampening="a"), "SGD: dampening='a' is a str; it takes a real number"),
        (lambda: nn.SGD(nesterov=True), "nesterov needs a momentum above 0 and a dampening of 0"),
        (lambda: nn.SGD(momentum=0.9, dampening=0.1, nesterov=True), "nesterov needs"),
        (lambda: nn.Adam(betas=(0.9, 1.0)), r"betas=\(0.9, 1.0\); both must lie in \[0, 1\)"),
        (lambda: nn.Adam(betas=0.9), r"Adam: betas=0.9; it takes two numbers, \(beta1, beta2\)"),
        (lambda: nn.Adam(betas=None), "betas=None; it takes two numbers"),
        (lambda: nn.AdamW(betas=(0.9,)), r"AdamW: betas=\(0.9,\); it takes two numbers"),
        (lambda: nn.Adam(betas=(0.9, 0.9, 0.9)), "it takes two numbers"),
        (lambda: nn.Adam(betas=("a", 0.9)), r"Adam: betas\[0\]='a' is a str; it takes a real number"),
        (lambda: nn.Adam(betas=(0.9, float("nan"))), r"both must lie in \[0, 1\)"),
        (lambda: nn.AdamW(eps=-1.0), "AdamW: eps=-1.0; it must not be negative"),
        (lambda: nn.SGD().step(W, {}, {}), "SGD: no gradient for w"),
        (lambda: nn.SGD().step(W, W | {"b": np.ones(2)}, {}), "a gradient but no parameter named b"),
        (lambda: nn.SGD().step(W, {"w": np.ones(3)}, {}), r"gradient of w is float64 of shape \(3,\), expected"),
        (lambda: nn.Adam().step(W, {"w": np.ones(2, np.float32)}, {}), "gradient of w is float32"),
        (lambda: nn.Adam().step(W, W, {"w": {"momentum_buffer": np.ones(2)}}), "state of w lacks step"),
        (
            lambda: nn.SGD(momentum=0.9).step(W, W, {"w": {"momentum_buffer": np.ones(3)}}),
            r"momentum_buffer of w is float64 of shape \(3,\), expected float64 of shape \(2,\)",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(nn.NNError, match=message):
        call()
