"""The power count says of a probe what the judge does there, and the shipped counts are the measured ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manual_bp import mutants, networks, nn, power, probes
from manual_bp.network import chain
from tests.campaigns._judging import bench
from tests.campaigns.power import NAMES, count


@pytest.mark.parametrize("probe_name", ["digits", "ties"])
def test_a_mistake_is_counted_where_the_judge_shows_it(probe_name: str) -> None:
    judge = bench("three-layer", "float64")
    sites = mutants.sites(judge.network)[::4]
    ((index, probe),) = [(i, p) for i, p in enumerate(judge.probes) if p.name == probe_name]
    (flags,) = power.count_revealed(judge.network, [probe], sites, judge=judge.judge).by_probe.values()
    for site, revealed in zip(sites, flags, strict=True):
        run = site.mutant.plant(judge.network, site.step).run(probe.params, probe.x, probe.y)
        statuses = {check.status for check in judge.judge.checks(judge.probes[index], run)}
        assert revealed == (statuses != {"pass"}), str(site)
    assert any(flags)
    assert not all(flags)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_shipped_counts_are_the_measured_ones(dtype: str) -> None:
    shipped = power._shipped()
    assert shipped["three-layer"][dtype] == count({"network": "three-layer", "dtype": dtype})


def test_every_built_in_network_of_a_size_to_be_measured_has_counts() -> None:
    assert set(power._shipped()) == set(NAMES)
    for name, by_dtype in power._shipped().items():
        for found in by_dtype.values():
            assert set(found["revealed"]) == set(probes.probe_names(networks.get(name)))


def test_a_set_of_probes_reveals_what_any_of_them_does() -> None:
    network = networks.get("three-layer")
    chosen = probes.probe_set(network)
    every = power.lookup(network, chosen, seed=0, batch=1)
    assert every is not None
    assert every.revealed == every.planted == len(mutants.sites(network))
    planted, digits = every.planted, every.by_probe["digits"]
    assert every.text == f"these probes reveal {planted} of {planted} planted mistakes; digits alone {digits}"
    assert every.unseen == ()

    alone = power.lookup(network, chosen[:1], seed=0, batch=1)
    assert alone is not None
    assert alone.revealed == every.by_probe["digits"] < every.planted
    assert alone.text == f"digits alone reveals {alone.revealed} of {alone.planted} planted mistakes"
    assert any("batch" in name or "example" in name for name in alone.unseen)


def test_nothing_is_said_of_what_was_not_measured() -> None:
    network = networks.get("three-layer")
    chosen = probes.probe_set(network)
    assert power.lookup(network, chosen, seed=1, batch=1) is None
    assert power.lookup(network, chosen, seed=0, batch=2) is None
    assert power.lookup(network, [replace(chosen[0], name="mine")], seed=0, batch=1) is None
    other = chain("three-layer", {"flat": nn.Flatten(), "z": nn.Linear(64, 1)}, nn.MSELoss(), (1, 8, 8))
    assert power.lookup(other, chosen, seed=0, batch=1) is None


def test_a_network_of_your_own_is_measured() -> None:
    network = chain("mine", {"z": nn.Linear(3, 2), "a": nn.Tanh()}, nn.MSELoss(), (3,))
    found = power.measure_power(network, probes.probe_set(network, seed=4, dtype="float32"))
    assert found.planted == len(mutants.sites(network, dtype="float32"))
    assert 0 < max(found.by_probe.values()) <= found.revealed <= found.planted
    assert found.origin == power.MEASURED


def test_flags_survive_packing() -> None:
    flags = (True, False, False, True, True, False, True, False, False)
    assert power._unpack(power.pack(flags), len(flags)) == flags
