"""One update is judged from the candidate's own parameters, gradients and state, whatever they are."""

from __future__ import annotations

import numpy as np
import pytest

from manual_bp import nn
from manual_bp.compare import compare
from manual_bp.nn import Array, Optimizer
from manual_bp.trace import NEW
from manual_bp.training._judged import largest_share

from manual_bp_torch.lockstep import told_apart, update_items  # isort: skip  # the torch side, after what needs none


def random_state(optimizer: Optimizer, theta: Array, rng: np.random.Generator) -> dict[str, Array]:
    like: dict[str, Array] = {"momentum_buffer": rng.standard_normal(theta.shape)}
    if isinstance(optimizer, nn.Adam):
        like = {"exp_avg": rng.standard_normal(theta.shape), "exp_avg_sq": rng.standard_normal(theta.shape) ** 2}
        if optimizer.amsgrad:
            like["max_exp_avg_sq"] = like["exp_avg_sq"] * rng.uniform(0.5, 2, theta.shape)
    found = {key: array.astype(theta.dtype) for key, array in like.items()}
    return found | ({"step": np.asarray(rng.integers(1, 5000), np.float32)} if isinstance(optimizer, nn.Adam) else {})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_the_bound_of_an_update_lets_right_ones_pass_from_any_state(dtype: str, scale: float) -> None:
    rng = np.random.default_rng(5)
    kinds: list[Optimizer] = [
        nn.SGD(0.3, momentum=0.7, dampening=0.2, weight_decay=0.1),
        nn.SGD(0.3, momentum=0.7, weight_decay=0.1, nesterov=True),
        nn.Adam(0.02, weight_decay=0.3, amsgrad=True),
        nn.AdamW(0.02, weight_decay=0.3),
        nn.Adam(0.02, betas=(0.5, 0.9), eps=1e-3),
    ]
    for optimizer in kinds:
        for _ in range(5):
            theta, g = (
                rng.standard_normal((40, 50)).astype(dtype),
                (scale * rng.standard_normal((40, 50))).astype(dtype),
            )
            state = {"w": random_state(optimizer, theta, rng)}
            items = update_items(optimizer, {"w": theta}, {"w": g}, state)
            new, after = optimizer.step({"w": theta}, {"w": g}, state)
            trace = {"w" + NEW: new["w"], **{f"w.{key}{NEW}": array for key, array in after["w"].items()}}
            assert [check.name for check in compare(items, trace, probe="") if check.status != "pass"] == []
            share = largest_share(items, trace)
            assert share is not None
            assert share > 0.01  # not so wide that anything passes
            apart = tuple(told_apart(items, optimizer, {"w": theta}, {"w": g}, state, trace))
            own, whole = apart[-1].isolated, items[-1].isolated
            assert apart[-1].end_to_end is whole
            assert own is not None
            assert whole is not None
            assert np.all(own.allowed <= 1.2 * whole.allowed)  # of less that is computed; hardly more is allowed
            assert largest_share(apart, trace) is not None


@pytest.mark.parametrize(
    ("right", "wrong", "faulty"),
    [
        (nn.SGD(0.3, momentum=0.7), nn.SGD(0.3, momentum=0.6), ("momentum_buffer",)),
        (nn.SGD(0.3, momentum=0.7, dampening=0.2), nn.SGD(0.3, momentum=0.7), ("momentum_buffer",)),
        (nn.SGD(0.3, momentum=0.7), nn.SGD(0.2, momentum=0.7), ("",)),
        (nn.SGD(0.3, momentum=0.7, nesterov=True), nn.SGD(0.3, momentum=0.7), ("",)),
        (nn.SGD(0.3, momentum=0.7), nn.SGD(0.2, momentum=0.6), ("momentum_buffer", "")),
        (nn.Adam(0.02), nn.Adam(0.02, betas=(0.8, 0.999), eps=1e-8), ("exp_avg", "")),  # its correction reads β₁, too
        (nn.Adam(0.02, amsgrad=True), nn.Adam(0.02, amsgrad=True, weight_decay=0.1), ("exp_avg", "exp_avg_sq")),
        (nn.AdamW(0.02), nn.AdamW(0.02, weight_decay=0.3), ("",)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_parameter_moved_as_a_wrong_state_says_is_not_wrong_itself(
    right: Optimizer, wrong: Optimizer, faulty: tuple[str, ...], dtype: str
) -> None:
    rng = np.random.default_rng(6)
    theta, g = (rng.standard_normal((6, 5)).astype(dtype) for _ in range(2))
    params, grads, state = {"w": theta}, {"w": g}, {"w": random_state(right, theta, rng)}
    if "step" in state["w"]:
        state["w"]["step"] = np.asarray(3, np.float32)  # later on nothing is left of the correction for the start
    new, after = wrong.step(params, grads, state)
    trace = {"w" + NEW: new["w"], **{f"w.{key}{NEW}": array for key, array in after["w"].items()}}
    items = told_apart(update_items(right, params, grads, state), right, params, grads, state, trace)
    found = {check.name: check.status for check in compare(items, trace, probe="")}
    assert {name for name, status in found.items() if status == "wrong"} == {
        f"w.{key}{NEW}" if key else "w" + NEW for key in faulty
    }
    assert found["w" + NEW] == ("wrong" if "" in faulty else "inherited")


def test_the_quick_look_and_the_close_look_agree() -> None:
    theta, g = np.ones((2, 2)), np.ones((2, 2))
    items = update_items(nn.SGD(0.1), {"w": theta}, {"w": g}, {"w": {}})
    right: dict[str, Array] = {"w.new": theta - 0.1 * g}
    assert largest_share(items, right) is not None
    for wrong in ({}, {"w.new": theta}, {"w.new": np.full((2, 2), np.nan)}, {"w.new": theta[0]}, {**right, "v.new": g}):
        assert largest_share(items, wrong) is None
        assert any(check.status != "pass" for check in compare(items, wrong, probe=""))


def adam_in_c(o: nn.Adam, theta: Array, g: Array, state: dict[str, Array], *, slip: float = 0.0) -> dict[str, Array]:
    """AdamW as a program in float32 has it: so are its settings, and 1 - β."""
    f = np.float32
    lr, eps, decay, b1, b2, one = f(o.lr), f(o.eps), f(o.weight_decay), f(o.betas[0]), f(o.betas[1]) + f(slip), f(1)
    t = int(state["step"]) + 1
    m = b1 * state["exp_avg"] + (one - b1) * g
    v = b2 * state["exp_avg_sq"] + (one - b2) * g * g
    m_hat, v_hat = m / (one - b1 ** f(t)), v / (one - b2 ** f(t))
    new = theta - lr * (m_hat / (np.sqrt(v_hat) + eps) + decay * theta)
    made = {"": new, "exp_avg": m, "exp_avg_sq": v, "step": np.asarray(t, f)}
    return {f"w.{key}{NEW}" if key else "w" + NEW: np.asarray(array) for key, array in made.items()}


@pytest.mark.parametrize("optimizer", [nn.AdamW(1e-3), nn.AdamW(0.1, betas=(0.8, 0.95), weight_decay=0.3)], ids=str)
@pytest.mark.parametrize("step", [0, 1, 7, 900])
def test_settings_in_float32_are_right_where_everything_is(optimizer: nn.AdamW, step: int) -> None:
    rng = np.random.default_rng(step)
    theta, g = (rng.standard_normal((30, 40)).astype("float32") for _ in range(2))
    theta[::2] = 0  # a bias at the start: nothing hides what it is moved by
    own = {**random_state(optimizer, theta, rng), "step": np.asarray(step, np.float32)}
    if not step:
        own = {key: np.zeros_like(array) for key, array in own.items()}
    setting = (optimizer, {"w": theta}, {"w": g}, {"w": own})
    trace = adam_in_c(optimizer, theta, g, own)
    checks = compare(tuple(told_apart(update_items(*setting), *setting, trace)), trace, probe="")
    assert {check.name: check.note for check in checks if check.status != "pass"} == {}
    if optimizer.betas[1] == 0.999:
        noted = next(check.note for check in checks if "exp_avg_sq" in check.name)
        assert noted == "accepted: its settings are numbers of float32, as in C: 1 − β₂ is 0.000999987 then"
    trace = adam_in_c(optimizer, theta, g, own, slip=2e-6)
    checks = compare(tuple(told_apart(update_items(*setting), *setting, trace)), trace, probe="")
    assert f"w.exp_avg_sq{NEW}" in {check.name for check in checks if check.status == "wrong"}
