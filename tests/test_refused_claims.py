"""What the reference cannot work with is a mistake of the candidate's, not the end of the comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import networks, probes, verify
from manual_bp.compare import compare

from manual_bp_torch.judge import Judge  # isort: skip  # the torch side, after what needs none

RNG = np.random.default_rng(2)
X = RNG.standard_normal((5, 4))
Y = (RNG.random((5, 2)) > 0.5).astype(float)
REFERENCE = nn.Sequential(nn.Linear(4, 2), nn.Sigmoid())


def functional(output: Any, y: Any) -> Any:
    return nn.functional.binary_cross_entropy(output, y)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def candidate(activation: Callable[[Any], Any], *, times: float = 1.0) -> Callable[..., dict[str, Any]]:
    def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
        z = x @ params["0.weight"].T + params["0.bias"]
        a = activation(z)
        with np.errstate(all="ignore"):
            loss = times * -np.mean(y * np.log(a) + (1 - y) * np.log(1 - a))
            da = times * (a - y) / (a * (1 - a)) / a.size
        dz = da * sigmoid(z) * (1 - sigmoid(z))
        return {
            "0": z, "1": a, "loss": loss, "1.grad": da, "0.grad": dz,
            "0.weight.grad": dz.T @ x, "0.bias.grad": dz.sum(0), "x.grad": dz @ params["0.weight"],
        }  # fmt: skip

    return mine


@pytest.mark.parametrize("loss", [nn.BCELoss(), functional])
def test_a_forgotten_sigmoid_is_found_though_no_loss_takes_what_it_leaves(loss: Any) -> None:
    report = verify(candidate(lambda z: z), REFERENCE, loss=loss, x=X, y=Y)
    assert report.first_wrong == "1"
    found = {check.name: check for check in report.checks if check.probe == "given"}
    assert {name for name, check in found.items() if check.status == "wrong"} == {"1"}
    for name in ("loss", "1.grad"):
        assert found[name].status == "inherited"
        assert found[name].isolated is None
        assert found[name].note == "cannot be judged in itself: the reference refuses the candidate's 1"


def test_a_wrong_loss_is_wrong_where_only_rounding_leaves_its_domain() -> None:
    """1 and a rounding is a right probability as far as its bound goes, but none that torch's loss takes."""
    params = {"0.weight": np.zeros((2, 4), np.float32), "0.bias": np.array([0.5, 20.0], np.float32)}

    def rounded_up(z: Any) -> Any:
        return np.where(z > 17, np.nextafter(np.float32(1), np.float32(2)), sigmoid(z)).astype(np.float32)

    def told(times: float) -> dict[str, str]:
        def mine(params: Any, x: Any, y: Any) -> dict[str, Any]:
            z = x @ params["0.weight"].T + params["0.bias"]
            a = rounded_up(z)
            loss = (
                times
                * nn.functional.binary_cross_entropy(torch.tensor(sigmoid(z)).clamp(0, 1), torch.tensor(y)).numpy()
            )
            return {"0": z, "1": a, "loss": loss.astype(np.float32)}

        report = verify(mine, REFERENCE, loss=nn.BCELoss(), x=X, y=np.ones((5, 2)), params=params, dtype="float32")
        return {check.name: check.status for check in report.checks if check.probe == "given"}

    assert (told(1.0)["1"], told(1.0)["loss"]) == ("pass", "pass")
    assert (told(2.0)["1"], told(2.0)["loss"]) == ("pass", "wrong")


def test_the_same_for_a_built_in_network() -> None:
    network = networks.get("three-layer")
    probe = probes.probe(network, "seed-1", batch=3)
    trace = dict(network.run(probe.params, probe.x, probe.y).trace)
    trace["a3"] = trace["z3"] + 2.0
    trace["loss"], trace["a3.grad"] = np.float64(np.nan) * trace["loss"], 2 * trace["a3.grad"]
    trace["z3.grad"] = trace["a3.grad"] * sigmoid(trace["z3"]) * (1 - sigmoid(trace["z3"]))
    items = Judge(network, "float64").items(probe.params, probe.x, probe.y, trace)
    found = {check.name: check.status for check in compare(items, trace, probe="")}
    assert found["a3"] == "wrong"
    assert found["loss"] == found["a3.grad"] == "inherited"
