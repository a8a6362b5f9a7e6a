"""The catalogue of planted mistakes: each is flagged, and blamed on exactly the quantities that it makes wrong."""

from __future__ import annotations

import inspect
import re
from functools import cache

import pytest

from manual_bp import mutants, networks, nn, probes
from manual_bp.errors import ManualBPError
from manual_bp.mutants import CATALOGUE, HYPOTHESES, Site, StepMutant
from manual_bp.network import chain
from manual_bp.nn import Layer, Loss, Optimizer
from tests.campaigns._judging import BLAMED, bench, same
from tests.campaigns._networks import NAMES, network_of
from tests.campaigns._selection import Case, by_size, pairs
from tests.campaigns.detection import by_rules, judged, right

BY_SIZE = by_size(NAMES)


@cache
def smallest(mutant: str, dtype: str) -> tuple[str, Site]:
    """The smallest network in which a mistake makes a difference, and where."""
    for name in BY_SIZE:
        for site in mutants.sites(network_of(name), dtype=dtype, only=[mutant]):
            return name, site
    raise AssertionError(f"{mutant} can be planted nowhere")


def dtype_of(mutant: str) -> str:
    """Half of the mistakes are judged in either precision."""
    wanted = ("float64", "float32")[list(CATALOGUE).index(mutant) % 2]
    return wanted if wanted in CATALOGUE[mutant].dtypes else "float64"


def test_the_catalogue_is_large_and_its_ids_are_unique() -> None:
    every = [mutant.id for family in mutants._FAMILIES for mutant in family.MISTAKES]
    assert len(every) == len(set(every)) == len(CATALOGUE) >= 120
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id_) for id_ in every)
    assert all(mutant.title and mutant.title[0] != " " for mutant in CATALOGUE.values())


def test_every_hypothesis_is_documented_and_used() -> None:
    assert {mutant.hypothesis for mutant in CATALOGUE.values()} == set(HYPOTHESES)


def test_every_kind_of_step_has_mistakes_of_its_own() -> None:
    parts = [getattr(nn, name) for name in nn.__all__]
    kinds = {part for part in parts if inspect.isclass(part) and issubclass(part, (Layer, Loss, Optimizer))}
    kinds -= {Layer, Loss, Optimizer, nn.Identity, nn.Dropout}  # the mask of Dropout is no quantity of a network
    everywhere = {mutant.id for mutant in mutants._generic.MISTAKES}
    own = {kind for m in CATALOGUE.values() if isinstance(m, StepMutant) and m.id not in everywhere for kind in m.on}
    assert kinds <= own


@pytest.mark.parametrize("mutant", CATALOGUE)
def test_it_is_flagged_and_blamed_exactly(mutant: str) -> None:
    dtype = dtype_of(mutant)
    name, site = smallest(mutant, dtype)
    judge = bench(name, dtype)
    planted = site.mutant.plant(judge.network, site.step)
    found: set[str] = set()
    wanted = BLAMED if site.mutant.kind == "wrong" else {"kink"}
    for probe, right_run in zip(judge.probes, judge.runs, strict=True):
        run = planted.run(probe.params, probe.x, probe.y)
        if same(run, right_run):
            continue
        statuses = {check.name: check.status for check in judge.judge.checks(probe, run)}
        blamed = {quantity for quantity, status in statuses.items() if status in BLAMED}
        assert blamed <= (site.faulty if site.mutant.kind == "wrong" else set()), f"{site} on {name}, {probe.name}"
        found |= {quantity for quantity, status in statuses.items() if status in wanted}
        if found >= site.faulty:
            break
    assert found >= site.faulty, f"{site} on {name} ({dtype}): expected {sorted(site.faulty)}, found {sorted(found)}"


def test_a_step_on_a_branch_that_changes_its_upstream_gradient_is_blamed() -> None:
    """It produces no quantity alone: only a share of its input's gradient, whose sum another step completes."""
    judge = bench("branches", "float64")
    planted = mutants.get("in-place-backward").plant(judge.network, "tanh")
    run = planted.run(judge.probes[0].params, judge.probes[0].x, judge.probes[0].y)
    blamed = {c.name: c.note for c in judge.judge.checks(judge.probes[0], run) if c.status in BLAMED}
    assert blamed == {"relu.grad": "tanh changed upstream gradient in place in its backward pass"}


@pytest.mark.parametrize("mutant", [m.id for m in CATALOGUE.values() if m.kind == "kink"])
def test_another_subgradient_is_wrong_under_strict_kinks(mutant: str) -> None:
    name, site = smallest(mutant, "float64")
    judge = bench(name, "float64")
    statuses = judge.statuses(site.mutant.plant(judge.network, site.step), strict_kinks=True)
    assert site.faulty <= {quantity for quantity, status in statuses.items() if status == "wrong"}


def test_mistakes_that_change_nothing_are_not_planted() -> None:
    network = chain(
        "still", {"conv": nn.Conv2d(1, 1, 1), "pool": nn.MaxPool2d(1), "flat": nn.Flatten()}, nn.MSELoss(), (1, 3, 3)
    )
    planted = {str(site) for site in mutants.sites(network)}
    assert "conv-kernel-not-rotated@conv" not in planted  # a kernel of one element
    assert "maxpool-all-ties@pool" not in planted  # windows of one element
    assert "flatten-y-channels-last@flat" not in planted  # one channel
    assert "conv-dx-stride-ignored@conv" not in planted
    assert "conv-y-bias-forgotten@conv" in planted


def test_rows_that_no_window_covers_cannot_be_dropped() -> None:
    network = chain(
        "odd", {"conv": nn.Conv2d(1, 1, 2), "pool": nn.AvgPool2d(2), "flat": nn.Flatten()}, nn.MSELoss(), (1, 6, 6)
    )
    assert not mutants.get("conv-dx-last-row-dropped").applies(network, "conv")


def test_float32_inside_is_no_mistake_in_float32() -> None:
    network = networks.get("conv1d")
    in_double = {site.mutant.id for site in mutants.sites(network, dtype="float64")}
    in_single = {site.mutant.id for site in mutants.sites(network, dtype="float32")}
    assert {"dx-float32-inside", "dw-nudged"} <= in_double - in_single


def test_planting_leaves_the_network_and_its_probes_alone() -> None:
    network = networks.get("three-layer")
    probe = probes.probe(network, "digits")
    before = network.run(probe.params, probe.x, probe.y)
    for site in mutants.sites(network)[::7]:
        site.mutant.plant(network, site.step).run(probe.params, probe.x, probe.y)
    after = network.run(probe.params, probe.x, probe.y)
    assert same(after, before)


def test_two_mistakes_can_be_planted_in_one_step() -> None:
    network = networks.get("three-layer")
    chosen = [s for s in mutants.sites(network) if str(s) in ("conv-kernel-not-rotated@z1", "conv-dw-rotated@z1")]
    judge = bench("three-layer", "float64")
    statuses = judge.statuses(mutants.plant(network, chosen))
    assert {name for name, status in statuses.items() if status in BLAMED} == {"x.grad", "z1.weight.grad"}


def test_the_reference_rules_of_detection_see_what_they_can() -> None:
    case = Case("three-layer", "float64", (("conv-kernel-not-rotated", "z1"),))
    ours, others = judged(case), by_rules(case)["verdicts"]
    assert ours["exact"]
    assert ours["said"] == ["x.grad"]
    assert others["assert_close, every quantity"] == {"flagged": True, "blamed": True}
    # the weights of a network with one convolution do not depend on the gradient of its input
    assert not others["assert_close, weight gradients"]["flagged"]
    assert others["gradcheck, slow mode"]["flagged"]


def test_right_networks_raise_no_alarm_of_ours_and_some_of_others() -> None:
    found = right("three-layer", "float64")["alarms"]
    assert found["ours"] == 0
    assert found["gradcheck, slow mode"] > 0  # at ties and zeros there is no derivative to be measured


def test_pairs_are_of_different_steps_and_always_the_same() -> None:
    names = ("conv1d", "three-layer")
    chosen = pairs("float64", 20, names=names)
    assert chosen == pairs("float64", 20, names=names)
    assert len({case.key for case in chosen}) == 20
    for case in chosen:
        network = network_of(case.network)
        first, second = (mutants.get(m).faulty(network, step) for m, step in case.sites)
        assert first
        assert second
        assert not first & second


def test_pairs_are_both_named_and_nothing_else() -> None:
    for case in pairs("float64", 6, names=("conv1d", "three-layer")):
        assert judged(case)["exact"], case.key


def test_an_unknown_mistake_is_refused() -> None:
    with pytest.raises(ManualBPError, match="no planted mistake 'kernel'"):
        mutants.get("kernel")
