"""Training in lockstep: both sides learn, every update is judged, and the first wrong one ends it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp import networks, nn
from manual_bp.errors import ManualBPError
from manual_bp.nn import Array, Gradients, Optimizer, Params, State
from manual_bp.training import Step, Training, train
from manual_bp.training import _train as module
from manual_bp.training._data import examples

THREE = networks.get("three-layer")


def quick(**options: Any) -> Training:
    return train(**{"network": THREE, "steps": 3, "optimizer": nn.Adam(lr=0.02), "batch": 8} | options)


# ---------------------------------------------------------------------------------------------------- learning


def test_the_three_layer_network_learns_to_tell_two_digits_apart() -> None:
    found = quick(steps=150, batch=32, judge_every=25)
    assert found.ok
    assert found.examples + found.held_back == 360  # all zeros and ones there are
    before, after = found.history[0].accuracy, found.accuracy
    assert before is not None
    assert before < 0.6
    assert after is not None
    assert after > 0.97
    assert found.history[-1].reference_accuracy == after
    assert found.history[-1].drift < 1e-12


def test_the_ten_class_network_learns_all_ten() -> None:
    network = networks.get("two-conv-two-hidden")
    found = train(network, steps=350, optimizer=nn.Adam(lr=0.02), batch=32, dtype="float32", judge_every=70)
    assert found.ok
    assert (found.examples, found.held_back) == (1437, 360)
    assert found.accuracy is not None
    assert found.accuracy > 0.85
    assert found.history[-1].reference_accuracy == pytest.approx(found.accuracy, abs=0.01)
    assert found.history[-1].drift < 1e-2  # training multiplies roundings, and float32 has more of them


@pytest.mark.parametrize(
    "optimizer",
    [
        nn.SGD(lr=0.1),
        nn.SGD(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
        nn.SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        nn.Adam(lr=0.02, weight_decay=0.1),
        nn.Adam(lr=0.02, amsgrad=True),
        nn.AdamW(lr=0.02, weight_decay=0.1),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_optimiser_is_right_at_every_step(optimizer: Optimizer, dtype: str) -> None:
    found = quick(steps=8, optimizer=optimizer, dtype=dtype, judge_every=4)
    assert found.ok, found.first_wrong
    assert [step.step for step in found.history] == list(range(9))
    assert all(0 <= step.used <= 1 for step in found.history[1:])
    assert found.history[1].judged > found.history[2].judged > 0  # the update alone, then the pass again
    assert found.history[4].judged == found.history[1].judged


@pytest.mark.parametrize("name", ["design-batch-norm", "design-residual", "design-sgd", "kernel-gradient", "conv1d"])
def test_every_kind_of_network_can_be_trained(name: str) -> None:
    found = train(networks.get(name), steps=2, optimizer=nn.SGD(lr=1e-3, momentum=0.9), batch=4)
    assert found.ok, found.first_wrong
    assert len(found.history) == 3


def test_the_same_seed_gives_the_same_run_and_another_one_does_not() -> None:
    first, again, other = quick(seed=1), quick(seed=1), quick(seed=2)
    assert first.to_json() == again.to_json()
    assert first.history[1].loss != other.history[1].loss


def test_an_epoch_shows_every_example_once_and_the_next_in_another_order() -> None:
    data = examples(THREE, dtype="float64", seed=0, batch=17)
    assert len(data.images) == 289 == 17 * 17
    epochs = [np.concatenate([data.batch(17 * e + k, 17)[0] for k in range(1, 18)]) for e in (0, 1)]
    rows = [sorted(image.tobytes() for image in epoch) for epoch in epochs]
    assert rows[0] == rows[1]
    assert not np.array_equal(epochs[0], epochs[1])


# ---------------------------------------------------------------------------------------------------- mistakes


class UnrotatedKernel(nn.Conv2d):
    """dx with the kernel as it is."""

    def backward(self, cache: Any, upstream: Array, /) -> Gradients:
        right = super().backward(cache, upstream)
        return Gradients((np.ascontiguousarray(right.inputs[0][..., ::-1, ::-1]),), right.params)


class Raising(nn.Sigmoid):
    """A layer that does not get that far."""

    def backward(self, cache: Any, upstream: Array, /) -> Gradients:
        raise ZeroDivisionError("division by zero")


def test_a_wrong_layer_is_found_at_the_first_step() -> None:
    found = quick(candidate=THREE.with_layer("z1", UnrotatedKernel(1, 1, 3)))
    assert not found.ok
    assert (found.wrong_step, found.first_wrong) == (1, "x.grad")
    assert found.report is not None
    assert found.report.probes[0].name == "step 1"
    # right steps stand beside it in the report, the updates are not judged any more
    assert {check.status for check in found.report.checks} == {"pass", "wrong"}
    assert found.report.steps[-1].op == "Adam(lr=0.02)"


def test_a_layer_that_raises_is_a_finding() -> None:
    found = quick(candidate=THREE.with_layer("a3", Raising()))
    assert (found.wrong_step, found.first_wrong) == (1, "z3.grad")
    assert found.report is not None
    assert any("ZeroDivisionError" in finding.text for finding in found.report.findings)


@dataclass(frozen=True)
class LateMistake(nn.Conv2d):
    """Wrong only where an input is dark, and only from the third call on."""

    def backward(self, cache: Any, upstream: Array, /) -> Gradients:
        right = super().backward(cache, upstream)
        CALLS.append(1)
        if len(CALLS) < 3:
            return right
        return Gradients(right.inputs, {**right.params, "bias": right.params["bias"] * 2})


CALLS: list[int] = []


def test_a_mistake_that_shows_late_is_found_when_it_shows() -> None:
    CALLS.clear()
    found = quick(steps=6, candidate=THREE.with_layer("z1", LateMistake(1, 1, 3)))
    assert (found.wrong_step, found.first_wrong) == (3, "z1.bias.grad")
    assert len(found.history) == 4
    assert found.history[2].used <= 1


def test_seldom_judging_finds_it_when_it_judges() -> None:
    CALLS.clear()
    found = quick(steps=6, judge_every=5, candidate=THREE.with_layer("z1", LateMistake(1, 1, 3)))
    assert (found.wrong_step, found.first_wrong) == (5, "z1.bias.grad")


class MomentumForgotten(nn.SGD):
    """The buffer never holds more than the last gradient."""

    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        return super().step(params, grads, {name: {} for name in params})


class NoBiasCorrection(nn.Adam):
    """t stays 1, so that the averages are corrected as in the first step for ever."""

    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        first = {name: {**own, "step": np.zeros((), np.float32)} for name, own in state.items() if own}
        return super().step(params, grads, first or state)


class DecayedTwice(nn.AdamW):
    """Decoupled decay, and the coupled one as well."""

    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        added = {name: np.asarray(g + self.weight_decay * params[name]) for name, g in grads.items()}
        return super().step(params, added, state)


class InPlace(nn.SGD):
    """Right numbers, written into what it was given."""

    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        for g in grads.values():
            g *= 2
        return super().step(params, grads, state)


class StepsBackwards(nn.SGD):
    """Up the hill."""

    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        return super().step(params, {name: np.asarray(-g) for name, g in grads.items()}, state)


@pytest.mark.parametrize(
    ("right", "wrong", "step", "first"),
    [
        (nn.SGD(0.1, momentum=0.9), MomentumForgotten(0.1, momentum=0.9), 2, "z1.weight.momentum_buffer.new"),
        (nn.Adam(0.02), NoBiasCorrection(0.02), 2, "z1.weight.step.new"),
        (nn.AdamW(0.02, weight_decay=0.1), DecayedTwice(0.02, weight_decay=0.1), 1, "z1.weight.exp_avg.new"),
        (nn.Adam(0.02), nn.Adam(0.02, eps=1e-6), 1, "z1.weight.new"),
        (nn.Adam(0.02), nn.Adam(0.02, betas=(0.9, 0.99)), 1, "z1.weight.exp_avg_sq.new"),
        (nn.SGD(0.1), StepsBackwards(0.1), 1, "z1.weight.new"),
        (nn.SGD(0.1, momentum=0.9), nn.SGD(0.1, momentum=0.9, nesterov=True), 1, "z1.weight.new"),
        (nn.SGD(0.1, momentum=0.9), nn.SGD(0.1), 1, "z1.weight.momentum_buffer.new"),
        (nn.SGD(0.1), InPlace(0.1), 1, "z1.weight.new"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Optimizer) else str(value),
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wrong_optimiser_is_found(right: Optimizer, wrong: Optimizer, step: int, first: str, dtype: str) -> None:
    found = quick(optimizer=right, candidate_optimizer=wrong, dtype=dtype, judge_every=10)
    assert (found.wrong_step, found.first_wrong) == (step, first)
    assert found.report is not None
    assert all(check.kind == "update" for check in found.report.checks if check.status != "pass")
    reported = not isinstance(wrong, InPlace)  # of that one's update nothing can be used
    drift = found.history[-1].drift
    assert math.isnan(drift) is not reported
    # Adam's first step does not depend on the betas, but for rounding: there may be no drift yet
    assert not reported or drift > 0 or (isinstance(right, nn.Adam) and getattr(wrong, "betas", None) != right.betas)


def test_the_drift_of_a_wrong_update_is_that_of_its_own_parameters() -> None:
    found = quick(optimizer=nn.SGD(0.1), candidate_optimizer=nn.SGD(0.1001), steps=1)
    assert found.wrong_step == 1
    assert 0 < found.history[-1].drift < 1e-3


# ---------------------------------------------------------------------------------------------------- its ends


def test_a_training_that_diverges_on_both_sides_is_no_mistake() -> None:
    found = quick(steps=5, optimizer=nn.SGD(lr=1e300))
    assert found.ok
    assert found.diverged == found.history[-1].step
    assert found.diverged is not None
    assert found.diverged < 5


def test_an_interrupted_training_keeps_what_was_done() -> None:
    def stop(step: Step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    found = quick(steps=50, observe=stop)
    assert found.interrupted
    assert found.ok
    assert [step.step for step in found.history] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"batch": 290}, "there are 289 digits to train on"),
        ({"judge_every": 0}, "judge every is 0"),
        ({"dtype": "float16"}, "no training in 'float16'"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ManualBPError, match=words):
        quick(**options)


def test_the_json_is_strict_and_complete() -> None:
    found = quick(candidate=THREE.with_layer("z1", UnrotatedKernel(1, 1, 3)))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    said = json.loads(found.to_json(), parse_constant=refuse)
    assert (said["schema_version"], said["verdict"], said["wrong_step"], said["first_wrong"]) == (
        1,
        "fail",
        1,
        "x.grad",
    )
    assert said["report"]["checks"][0]["name"] == "x"
    assert [step["step"] for step in said["history"]] == [0, 1]
    assert said["history"][0]["loss"] == "NaN"
    assert math.isclose(said["history"][1]["loss"], found.history[1].loss)


# ---------------------------------------------------------------------------------------------------- the command


def command(*arguments: str) -> tuple[int, str, str]:
    from manual_bp.cli.train import command as click_command

    result = CliRunner().invoke(click_command, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value or 0, result.stdout, result.stderr


def test_the_command_shows_rows_and_a_verdict(tmp_path: Any) -> None:
    path = tmp_path / "run.json"
    code, out, err = command("three-layer", "--steps", "5", "--optimizer", "sgd", "-o", str(path))
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["step", "loss", "torch", "accuracy", "torch", "drift", "of", "allowed"]
    assert [line.split()[0] for line in lines[1:7]] == list("012345")
    assert lines[-1].startswith("✓ ALL RIGHT  5 steps, 155 quantities judged; accuracy ")
    assert "SGD(lr=0.1, momentum=0.9)" in lines[-2]
    assert f"wrote {path}" in err
    assert json.loads(path.read_text("utf-8"))["verdict"] == "pass"


def test_the_command_ends_with_the_report_of_the_first_wrong_step(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = THREE.with_layer("z1", UnrotatedKernel(1, 1, 3))
    right = module.train
    monkeypatch.setattr("manual_bp.training.train", lambda network, **o: right(network, candidate=broken, **o))
    code, out, _ = command("three-layer", "--steps", "5")
    assert code == 1
    assert out.splitlines()[-1] == "✗ WRONG  at step 1: x.grad; the steps before it are right"
    assert "✗ WRONG  three-layer" in out


def test_the_command_refuses_what_does_not_fit() -> None:
    with pytest.raises(ManualBPError, match="adam has no momentum"):
        command("three-layer", "--momentum", "0.9")
    with pytest.raises(ManualBPError, match="no network 'three-layers'"):
        command("three-layers")
    with pytest.raises(ManualBPError, match="diverged at step"):
        command("three-layer", "--optimizer", "sgd", "--lr", "1e300", "--steps", "4")
