"""Blame: every wrong step is named and nothing else, right code never, and a fault of torch's is torch's."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from manual_bp import nn
from manual_bp._torch_side import judge as torch_judge
from manual_bp._torch_side import weights
from manual_bp.compare import compare
from manual_bp.errors import ManualBPError
from manual_bp.network import Network, Node, chain
from manual_bp.nn import Array, Cache, Gradients
from manual_bp.runner import judge_network
from manual_bp.trace import Run
from tests.isolation_bench import DTYPES, judged, probe, statuses


def wrong(found: dict[str, str]) -> set[str]:
    return {name for name, status in found.items() if status not in ("inherited", "kink")}


@functools.cache
def residual() -> Network:
    """x -> z1 -> a1 -> z2, a1 + z2 -> s -> z3 -> a3."""
    return Network(
        name="residual",
        nodes=(
            Node("z1", nn.Linear(4, 5), ("x",)),
            Node("a1", nn.Tanh(), ("z1",)),
            Node("z2", nn.Linear(5, 5), ("a1",)),
            Node("s", nn.Add(), ("a1", "z2")),
            Node("z3", nn.Linear(5, 2), ("s",)),
            Node("a3", nn.Sigmoid(), ("z3",)),
        ),
        loss=nn.BCELoss(),
        input_shape=(4,),
        optimizer=nn.SGD(lr=0.1),
    )


# ------------------------------------------------------------------ mistakes


@dataclass(frozen=True)
class HalfWeight(nn.Linear):
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        found = super().backward(cache, upstream)
        return replace(found, params={k: v / 2 if k == "weight" else v for k, v in found.params.items()})


@dataclass(frozen=True)
class NoSkip(nn.Add):
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        return Gradients((np.zeros_like(upstream), upstream))


@dataclass(frozen=True)
class ShiftedTanh(nn.Tanh):
    def forward(self, params, /, *inputs: Array) -> tuple[Array, Cache]:
        y, cache = super().forward(params, *inputs)
        return y * np.asarray(1 + 1e-4, y.dtype), cache


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (("z1", HalfWeight(4, 5)), ("s", NoSkip()), {"z1.weight.grad", "a1.grad"}),
        (("z3", HalfWeight(5, 2)), ("z1", HalfWeight(4, 5)), {"z3.weight.grad", "z1.weight.grad"}),
        (("a1", ShiftedTanh()), ("s", NoSkip()), {"a1", "a1.grad"}),
        (("a1", ShiftedTanh()), ("z3", HalfWeight(5, 2)), {"a1", "z3.weight.grad"}),
    ],
)
def test_two_mistakes_at_once_are_both_named_and_nothing_else(dtype, first, second, named):
    network, p = residual(), probe(residual(), dtype=dtype)
    assert judged(network, network, p) == {}
    found = judged(network, network.with_layer(*first).with_layer(*second), p)
    assert wrong(found) == named


def test_a_wrong_contribution_of_one_branch_is_named_where_the_branches_meet():
    network, p = residual(), probe(residual())
    assert wrong(judged(network, network.with_layer("s", NoSkip()), p)) == {"a1.grad"}


@dataclass(frozen=True)
class WrongStep(nn.SGD):
    def step(self, params, grads, state):
        new, state = super().step(params, grads, state)
        return {name: 2 * params[name] - a for name, a in new.items()}, state


def test_a_wrong_update_is_named_alone():
    network, p = residual(), probe(residual())
    found = judged(network, replace(network, optimizer=WrongStep(lr=0.1)), p)
    assert wrong(found) == {f"{name}.new" for name in network.parameter_shapes()}


# ------------------------------------------------------------------ plumbing


def _replaced(run: Run, **arrays: Array) -> Run:
    return Run({name: arrays.get(name.replace(".", "_"), a) for name, a in run.trace.items()})


def test_an_unmasked_gradient_is_blamed_on_the_step_that_used_it():
    """z2's gradients are computed from a's upstream gradient as it came, although a.grad itself is reported right."""
    network = chain("net", {"z1": nn.Linear(4, 5), "a1": nn.ReLU(), "z2": nn.Linear(5, 1)}, nn.MSELoss(), (4,))
    p = probe(network)
    run = network.run(p.params, p.x, p.y)
    unmasked = run.trace["a1.grad"]  # taken for z1.grad
    found = statuses(
        network, p, _replaced(run, z1_weight_grad=unmasked.T @ p.x, x_grad=unmasked @ p.params["z1.weight"])
    )
    assert wrong(found) == {"z1.weight.grad", "x.grad"}


def test_a_stale_cache_and_the_previous_batch_are_seen_in_the_gradients_that_used_them():
    network = residual()
    p, before = probe(network), probe(network, seed=9)
    run = network.run(p.params, p.x, p.y)
    old = network.run(p.params, before.x, before.y)
    delta = run.trace["z3.grad"]
    assert wrong(statuses(network, p, _replaced(run, z3_weight_grad=delta.T @ old.trace["s"]))) >= {"z3.weight.grad"}
    assert wrong(statuses(network, p, _replaced(run, z1=old.trace["z1"]))) >= {"z1"}


def test_weights_that_are_not_the_same_bits_are_seen():
    network, p = residual(), probe(residual(), dtype="float32")
    run = network.run(p.params, p.x, p.y)
    other = run.trace["z2.bias"].copy()
    other[0] = np.nextafter(other[0], np.float32(9))
    assert "z2.bias" in wrong(statuses(network, p, _replaced(run, z2_bias=other)))
    module = torch_judge.Judge(network, "float32").module
    with pytest.raises(ManualBPError, match=r"z1\.bias"):
        weights.load(module, {**p.params, "z1.bias": p.params["z1.bias"].astype(np.float64)})
    weights.load(module, p.params)
    with torch.no_grad():
        module.get_submodule("z2").bias[0] += 1e-7
    with pytest.raises(ManualBPError, match=r"z2\.bias.*differs"):
        weights.check_identical(module, p.params)


@pytest.mark.parametrize("gone", ["a1", "s", "z2.grad", "s.grad", "a1.grad"])
def test_missing_quantities_widen_the_segment_and_the_rest_is_still_judged(gone):
    network, p = residual(), probe(residual())
    right = network.run(p.params, p.x, p.y).trace
    assert statuses(network, p, Run({k: v for k, v in right.items() if k != gone})) == {gone: "missing"}
    faulty = network.with_layer("z1", HalfWeight(4, 5)).run(p.params, p.x, p.y).trace
    found = statuses(network, p, Run({k: v for k, v in faulty.items() if k != gone}))
    assert wrong(found) == {gone, "z1.weight.grad"}


def test_final_gradients_alone_are_judged():
    network, p = residual(), probe(residual())
    trace = network.with_layer("z1", HalfWeight(4, 5)).run(p.params, p.x, p.y).trace
    some = {name: a for name, a in trace.items() if name.endswith("weight.grad")}
    found = statuses(network, p, Run(some))
    assert {name for name, status in found.items() if status not in ("missing", "inherited")} == {"z1.weight.grad"}


@dataclass(frozen=True)
class InPlaceReLU(nn.ReLU):
    def forward(self, params, /, *inputs: Array) -> tuple[Array, Cache]:
        (x,) = inputs
        np.maximum(x, 0, out=x)
        return x.copy(), x.copy()


def test_a_layer_that_changes_its_input_is_named():
    network = chain("net", {"z1": nn.Linear(4, 5), "a1": nn.ReLU(), "z2": nn.Linear(5, 1)}, nn.MSELoss(), (4,))
    p = probe(network)
    report = judge_network(network, [p], candidate=network.with_layer("a1", InPlaceReLU()))
    assert not report.ok
    assert report.first_wrong == "a1"
    (finding,) = [f for f in report.findings if f.kind == "mutation"]
    assert finding.step == "a1"
    assert "input 0 in place" in finding.text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_compared_by_place_and_kind(bad):
    network = chain("plain", {"i": nn.Identity(), "r": nn.LeakyReLU(0.5)}, nn.MSELoss(), (4,))
    x = np.array([[1.0, bad, -2.0, 3.0]])
    p = probe(network, x=x)
    run = network.run(p.params, p.x, p.y)
    assert statuses(network, p, run) == {}, "the same on both sides"
    moved = run.trace["r"][:, [1, 0, 2, 3]]
    assert "r" in wrong(statuses(network, p, _replaced(run, r=moved)))
    other = np.where(np.isfinite(run.trace["r"]), run.trace["r"], -np.inf if bad > 0 else np.inf)
    assert "r" in wrong(statuses(network, p, _replaced(run, r=other)))


def test_a_finite_pass_with_one_nan_is_nonfinite():
    network, p = residual(), probe(residual())
    run = network.run(p.params, p.x, p.y)
    broken = run.trace["z2.weight.grad"].copy()
    broken[1, 2] = np.nan
    assert statuses(network, p, _replaced(run, z2_weight_grad=broken))["z2.weight.grad"] == "nonfinite"


# ------------------------------------------------------------------ whose fault


class Sloppy(torch.nn.Linear):
    """A dense layer in reduced precision: inputs lose 12 bits, as with a fast matrix product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float32:
            x = x.to(torch.bfloat16).to(torch.float32)
        return super().forward(x)


def test_a_reference_that_leaves_its_own_bound_is_reported_and_the_candidate_is_not():
    network, p = residual(), probe(residual(), dtype="float32")
    judge = torch_judge.Judge(network, "float32")
    judge.module.get_submodule("z2").__class__ = Sloppy
    report = judge_network(network, [p], judge=judge)
    assert report.ok, [c for c in report.checks if c.status not in ("pass", "kink")]
    faults = {f.name for f in report.findings if f.kind == "reference"}
    assert "z2" in faults
    assert all("the reference is at fault" in f.text for f in report.findings)
    referees = {c.name: c.referee for c in report.checks if c.referee is not None}
    assert referees["z2"].fault == "reference"
    assert referees["z2"].reference > 1 >= referees["z2"].candidate


def test_with_a_sloppy_reference_a_wrong_candidate_is_still_wrong():
    network, p = residual(), probe(residual(), dtype="float32")
    judge = torch_judge.Judge(network, "float32")
    judge.module.get_submodule("z2").__class__ = Sloppy
    report = judge_network(network, [p], judge=judge, candidate=network.with_layer("z1", HalfWeight(4, 5)))
    wrong_ones = [c for c in report.checks if c.status == "wrong"]
    assert {c.name for c in wrong_ones} == {"z1.weight.grad"}
    assert report.first_wrong == "z1.weight.grad"
    assert wrong_ones[0].referee.fault == "candidate"


def test_the_judge_is_pure():
    """The same trace judged twice gives the same checks, and nothing that was handed in is changed."""
    network, p = residual(), probe(residual())
    run = network.run(p.params, p.x, p.y)
    before = {name: a.copy() for name, a in run.trace.items()}
    judge = torch_judge.Judge(network, "float64")
    first, second = (compare(judge.items(p.params, p.x, p.y, run.trace), run.trace, probe="p") for _ in range(2))
    assert first == second
    assert all(np.array_equal(a, run.trace[name]) for name, a in before.items())
