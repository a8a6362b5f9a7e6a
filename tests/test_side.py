"""One pass of torch a step at a time: the bits of the whole pass, and bounds that do not depend on the pieces."""

import gc
from typing import Any

import numpy as np
import pytest
import torch

from manual_bp import measure, networks, probes
from manual_bp._torch_side import build, judge, side, tapping, weights
from manual_bp.compare import compare
from manual_bp.measure import survey
from manual_bp.network import Network
from manual_bp.picture import picture
from manual_bp.trace import GRAD
from manual_bp_torch.bounds import _linear, _model, _pooling

NAMES = ["three-layer", "two-conv-pooled", *(name for name in networks.DESIGN if "residual" in name or "pool" in name)]


def answers(network: Network, probe: Any) -> dict[str, torch.Tensor]:
    """Torch's own pass by stages."""
    judged = judge.Judge(network, "float32")
    setting = judged._setting(probe.params, probe.x, probe.y)
    found = {}
    with torch.no_grad():
        own = side.Own(setting)
        for stage in judged._order:
            own.compute(stage)
            found |= {q: own.take(q)[0] for q in judged._computed[stage]}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("name", NAMES)
def test_the_stages_give_the_bits_of_the_pass_as_a_whole(name: str) -> None:
    network = networks.get(name)
    probe = probes.probe(network, "seed-1", dtype="float32", batch=3)
    module, loss = build.build(network, torch.float32), build.loss_for(network.loss, torch.float32)
    given = {n: weights.to_torch(a) for n, a in probe.params.items()}
    parameters = network.parameter_shapes()
    whole = tapping.run_pass(
        module,
        loss,
        {n: t for n, t in given.items() if n in parameters},
        {n: t for n, t in given.items() if n not in parameters},
        weights.to_torch(probe.x),
        weights.to_torch(probe.y),
        names=tuple(node.name for node in network.nodes),
        loss_name=network.loss_name,
    )
    found = answers(network, probe)
    assert {n for n in found if n.endswith(GRAD)} <= whole.grads.keys()
    for quantity, tensor in found.items():
        right = whole.grads.get(quantity, whole.values.get(quantity))
        assert right is not None
        assert torch.equal(tensor, right), quantity


def test_bounds_of_some_examples_at_a_time_are_the_bounds_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.get("lenet")
    probe = probes.probe(network, "seed-1", dtype="float32", batch=8)
    trace = network.run(probe.params, probe.x, probe.y).trace
    judged = judge.Judge(network, "float32")
    at_once = judged.items(probe.params, probe.x, probe.y, trace)
    for module, name in ((_linear, "CHUNK"), (_model, "PIECE"), (_pooling, "PIECE"), (_pooling, "TILES")):
        monkeypatch.setattr(module, name, 1000)
    monkeypatch.setattr("manual_bp_torch.answers.LITTLE", 100)
    for whole, parts in zip(at_once, judged.each(probe.params, probe.x, probe.y, trace), strict=True):
        for one, other in ((whole.isolated, parts.isolated), (whole.end_to_end, parts.end_to_end)):
            assert one is not None
            assert other is not None
            np.testing.assert_array_equal(one.value, other.value)
            np.testing.assert_allclose(other.allowed, one.allowed, rtol=1e-5, atol=0)
            limit, times = other.limit
            np.testing.assert_array_equal(limit * np.asarray(times, limit.dtype), other.allowed)


@pytest.mark.parametrize("name", ["lenet", "two-conv-pooled"])
def test_one_product_in_place_of_two_adds_little_to_a_bound_and_takes_nothing_away(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks.get(name)
    probe = probes.probe(network, "seed-1", dtype="float32", batch=32)
    trace = network.run(probe.params, probe.x, probe.y).trace
    judged = judge.Judge(network, "float32")
    products: list[torch.Tensor] = []
    into_weight = _linear._into_weight

    def counted(*operands: Any) -> torch.Tensor:
        products.append(into_weight(*operands))
        return products[-1]

    monkeypatch.setattr(_linear, "_into_weight", counted)
    found, made = [], []
    for most in (-1.0, _linear.TOGETHER):
        monkeypatch.setattr(_linear, "TOGETHER", most)
        products.clear()
        found.append(judged.items(probe.params, probe.x, probe.y, trace))
        made.append(len(products))
    assert made[1] < made[0]
    for two, one in zip(*found, strict=True):
        if two.quantity.kind == "parameter_gradient" and two.quantity.name.endswith(f"weight{GRAD}"):
            assert two.end_to_end is not None
            assert one.end_to_end is not None
            assert (one.end_to_end.allowed >= two.end_to_end.allowed * (1 - 1e-4)).all(), two.quantity.name
            assert one.end_to_end.allowed.sum() <= two.end_to_end.allowed.sum() * (1 + 2 * _linear.TOGETHER)


def test_what_a_judgement_made_is_gone_with_it() -> None:
    """Without waiting for the search for cycles: a second judgement would have the memory of two."""
    network = networks.get("two-conv-pooled")
    probe = probes.probe(network, "seed-1", dtype="float32", batch=2)
    trace = network.run(probe.params, probe.x, probe.y).trace
    judged = judge.Judge(network, "float32")
    compare(judged.each(probe.params, probe.x, probe.y, trace), trace, probe="p")
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        compare(judged.each(probe.params, probe.x, probe.y, trace), trace, probe="p")
        gc.collect()
        held = [tuple(a.shape) for a in gc.garbage if isinstance(a, torch.Tensor | np.ndarray)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert held == []


def test_an_item_may_be_let_go_of_before_the_next_one_is_made() -> None:
    """Comparing one by one gives the checks of comparing what was all kept."""
    network = networks.get("two-conv-pooled")
    probe = probes.probe(network, "seed-1", dtype="float32", batch=2)
    trace = network.run(probe.params, probe.x, probe.y).trace
    judged = judge.Judge(network, "float32")
    given = (probe.params, probe.x, probe.y, trace)
    assert compare(judged.each(*given), trace, probe="p") == compare(judged.items(*given), trace, probe="p")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 9, 30, 31), (40, 50, 3, 3, 3), (3, 40_000), (70_000,)])
def test_a_survey_on_the_way_gives_the_picture_of_all_planes(
    dtype: type, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "CHUNK", 10_000)
    rng = np.random.default_rng(0)
    r = rng.standard_normal(shape).astype(dtype)
    c = r * (1 + np.finfo(dtype).eps * rng.uniform(-2, 2, shape)).astype(dtype)
    c[: shape[0] // 2] = r[: shape[0] // 2]
    e = (np.abs(r) * 4 * np.finfo(dtype).eps).astype(dtype)
    seen = survey(c, r, e, 2.0)
    assert seen.comparison == survey(c, r, 2 * e).comparison
    assert picture(c, r, e, seen=seen, times=2.0) == picture(c, r, 2 * e)
