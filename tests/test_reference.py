"""The torch side: the same network from the description, the same bits in its weights, both ways, and the hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

from manual_bp import ManualBPError, Network, Node, networks, nn
from manual_bp.compare import compare
from manual_bp.trace import GRAD
from manual_bp_torch.build import GraphModule, build, loss_for
from manual_bp_torch.judge import Judge
from manual_bp_torch.tapping import run_pass
from manual_bp_torch.weights import check_identical, from_torch, load, to_torch

NETWORK = networks.get("three-layer")


@pytest.fixture
def params() -> dict[str, Any]:
    return NETWORK.initial(np.random.default_rng(0))


def test_a_chain_is_a_sequential_and_a_branch_a_graph() -> None:
    module = build(NETWORK, torch.float64)
    assert isinstance(module, torch_nn.Sequential)
    assert [name for name, _ in module.named_children()] == [node.name for node in NETWORK.nodes]
    branch = Network(
        name="branch",
        nodes=(Node("a", nn.Linear(2, 2), ("x",)), Node("s", nn.Add(), ("a", "x"))),
        loss=nn.MSELoss(),
        input_shape=(2,),
    )
    assert isinstance(build(branch, torch.float32), GraphModule)


def test_weights_travel_both_ways_bit_by_bit(params: dict[str, Any]) -> None:
    params["z1.weight"][0, 0, 0, 0] = -0.0
    params["z3.weight"] = np.asfortranarray(params["z3.weight"])
    module = build(NETWORK, torch.float64)
    load(module, params)
    back = from_torch(module)
    assert back.keys() == params.keys()
    for name, array in back.items():
        assert np.array_equal(array, params[name])
        assert np.array_equal(np.signbit(array), np.signbit(params[name]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.pop("z1.bias"), "has no 'z1.bias'"),
        (lambda p: p.update(more=np.ones(1)), "has 'more', which the reference does not know"),
        (lambda p: p.update({"z1.weight": p["z1.weight"][0]}), "has shape"),
        (lambda p: p.update({"z1.bias": p["z1.bias"].astype(np.float32)}), "is float32"),
    ],
)
def test_loading_is_strict(params: dict[str, Any], change: Any, said: str) -> None:
    change(params)
    with pytest.raises(ManualBPError, match=said):
        load(build(NETWORK, torch.float64), params)


def test_one_differing_bit_after_loading_is_an_error(params: dict[str, Any]) -> None:
    module = build(NETWORK, torch.float64)
    load(module, params)
    with torch.no_grad():
        bias = module.get_submodule("z1").bias
        assert isinstance(bias, torch.Tensor)
        bias.copy_(torch.nextafter(bias, bias + 1))
    with pytest.raises(ManualBPError, match=r"'z1\.bias' differs"):
        check_identical(module, params)


def test_a_replay_judges_each_step_on_what_is_claimed(params: dict[str, Any]) -> None:
    """Claim nonsense for one value and one gradient: what torch records next is made of the nonsense."""
    module, loss = build(NETWORK, torch.float64), loss_for(NETWORK.loss, torch.float64)
    x, y = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    tensors = {name: to_torch(a) for name, a in params.items()}
    names = tuple(node.name for node in NETWORK.nodes)
    z1 = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    a1_grad = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    plain = run_pass(module, loss, tensors, {}, x, y, names=names)
    claimed = run_pass(module, loss, tensors, {}, x, y, names=names, claims={"z1": z1, "a1" + GRAD: a1_grad})
    assert torch.equal(claimed.values["z1"], plain.values["z1"])
    assert torch.equal(claimed.values["a1"], torch.relu(z1))
    assert torch.equal(claimed.grads["z1" + GRAD], a1_grad * (z1 > 0))
    assert not torch.equal(claimed.grads["a1" + GRAD], a1_grad), "recorded before it was replaced"


def test_the_judge_does_not_change_what_it_is_given(params: dict[str, Any]) -> None:
    x, y = np.random.default_rng(1).standard_normal((2, 1, 8, 8)), np.array([[0.0], [1.0]])
    trace = NETWORK.run(params, x, y).trace
    before = {name: a.copy() for name, a in {**params, **trace, "x": x, "y": y}.items()}
    Judge(NETWORK, "float64").items(params, x, y, trace)
    for name, array in {**params, **trace, "x": x, "y": y}.items():
        assert np.array_equal(before[name], array), name


@pytest.mark.parametrize("odd", [1.5, -0.1, float("nan"), float("inf")])
def test_a_prediction_that_is_no_probability_is_judged_and_not_handed_on(params: dict[str, Any], odd: float) -> None:
    x, y = np.random.default_rng(1).standard_normal((2, 1, 8, 8)), np.array([[0.0], [1.0]])
    trace = NETWORK.run(params, x, y).trace
    trace["a3"] = np.array([[odd], [0.5]])
    items = Judge(NETWORK, "float64").items(params, x, y, trace)
    found = {c.name: c.status for c in compare(items, trace, probe="p")}
    assert found["a3"] in ("wrong", "nonfinite")
    assert found["z3"] == found["z1.grad"] == "pass"
