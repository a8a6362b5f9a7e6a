"""Random networks: a planted bug is found and made small, the right engine is left alone, a case can be run again."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp import fuzz, nn
from manual_bp.cli import cli
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.nn import Array, Cache, Gradients
from manual_bp.trace import bit_identical
from tests.campaigns import _pool, soak


@dataclass(frozen=True)
class ForgetfulTanh(nn.Tanh):
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        return Gradients((upstream * (1 - cache),))


@dataclass(frozen=True)
class UnbiasedLinear(nn.Linear):
    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        found = super().backward(cache, upstream)
        return replace(found, params={k: v / 2 if k == "bias" else v for k, v in found.params.items()})


def planted(right: type[nn.Layer], wrong: type[nn.Layer]) -> fuzz.Candidate:
    def exchange(network: Network) -> Network:
        for node in network.nodes:
            if type(node.layer) is right:
                options = {f.name: getattr(node.layer, f.name) for f in fields(node.layer)}
                network = network.with_layer(node.name, wrong(**options))
        return network

    return exchange


@pytest.mark.parametrize(
    ("right", "wrong", "quantity"), [(nn.Tanh, ForgetfulTanh, "x.grad"), (nn.Linear, UnbiasedLinear, "s1.bias.grad")]
)
def test_a_planted_bug_is_shrunk_to_one_layer_and_a_tiny_input(right, wrong, quantity):
    outcome = fuzz.search(seed=3, networks=400, candidate=planted(right, wrong))
    found = outcome.found
    assert found is not None, f"not found in {outcome.networks} networks"
    assert [type(node.layer) for node in found.network.nodes] == [right]
    assert found.wrong == (quantity,)
    assert found.probe.x.size <= 2, found.probe.x.shape
    assert set(np.abs(found.probe.x).ravel()) <= {0.0, 1.0, 2.0}, "round numbers do"


def test_the_engine_agrees_with_torch():
    outcome = fuzz.search(seed=0, networks=40)
    assert outcome.found is None, outcome.found
    assert outcome.networks >= 40


def test_the_seed_decides_the_search():
    """The networks tried, in their order."""

    def tried(seed: int) -> list[str]:
        seen: list[str] = []

        def candidate(network: Network) -> Network:
            seen.append(repr(network.nodes))
            return network

        fuzz.search(seed=seed, networks=8, candidate=candidate)
        return seen

    first = tried(5)
    assert len(first) >= 8
    assert tried(5) == first
    assert tried(6) != first


def test_a_search_without_an_end_is_refused():
    with pytest.raises(ManualBPError, match="budget"):
        fuzz.search()


def test_without_torch_nothing_differs_and_nothing_is_saved(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = CliRunner().invoke(cli, ["fuzz", "--networks", "1", "--save", str(tmp_path)])
    assert isinstance(found.exception, ManualBPError)
    assert "needs torch" in str(found.exception)
    assert list(tmp_path.iterdir()) == []


def test_without_hypothesis_one_clear_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    with pytest.raises(ManualBPError, match=r"needs hypothesis.*pip install 'manual-bp\[campaigns\]'"):
        fuzz.search(networks=1)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("number", range(30))
def test_a_saved_case_is_the_same_network_and_the_same_bits(number, tmp_path):
    network = fuzz.draw_network(fuzz.Source.random(np.random.default_rng(number)))
    probe = fuzz.draw_probe(network, "normal", seed=number, batch=2, dtype="float32")
    path = fuzz.save(tmp_path / "a.case.npz", network, probe)
    again, numbers = fuzz.load(path)
    assert again.nodes == network.nodes
    assert repr(again) == repr(network)
    assert numbers.params.keys() == probe.params.keys()
    assert all(bit_identical(a, probe.params[name]) for name, a in numbers.params.items())
    assert bit_identical(numbers.x, probe.x)
    assert bit_identical(numbers.y, probe.y)


def _case(tmp_path, **changes):
    network = fuzz.draw_network(fuzz.Source.random(np.random.default_rng(1)))
    path = fuzz.save(
        tmp_path / "a.case.npz", network, fuzz.draw_probe(network, "normal", seed=0, batch=1, dtype="float64")
    )
    with np.load(path) as archive:
        arrays = dict(archive)
    manifest = json.loads(arrays["manifest"].tobytes())
    manifest.update(changes)
    arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"case_version": 9}, "version is 9"),
        ({"loss": {"type": "NNError", "options": {}}}, "no loss NNError"),
        ({"loss": {"type": "__builtins__", "options": {}}}, "no loss __builtins__"),
        ({"loss": {"type": "MSELoss", "options": {"colour": 1}}}, "colour"),
        ({"nodes": 3}, "not a saved case"),
        ({"nodes": []}, "no steps"),
    ],
)
def test_a_file_that_is_no_case_is_one_clear_sentence(changes, said, tmp_path):
    with pytest.raises(ManualBPError, match=said):
        fuzz.load(_case(tmp_path, **changes))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ManualBPError, match="cannot read"):
        fuzz.load(tmp_path / "none.case.npz")
    (tmp_path / "text.case.npz").write_text("no archive")
    with pytest.raises(ManualBPError, match="not a saved case"):
        fuzz.load(tmp_path / "text.case.npz")
    np.savez(tmp_path / "other.case.npz", x=np.zeros(3))
    with pytest.raises(ManualBPError, match="manifest"):
        fuzz.load(tmp_path / "other.case.npz")


# ------------------------------------------------------------------ command line


def test_the_command_says_that_all_is_right(tmp_path):
    result = CliRunner().invoke(
        cli, ["fuzz", "--networks", "5", "--seed", "1", "--save", str(tmp_path)], standalone_mode=False
    )
    assert result.return_value == 0, result.output
    assert "agree with torch (seed 1" in result.output
    assert not list(tmp_path.iterdir())


def test_the_command_saves_what_it_finds(tmp_path, monkeypatch):
    # the engine's class itself is made wrong: the network under test is the described one
    monkeypatch.setattr(nn.Tanh, "backward", ForgetfulTanh.backward)
    arguments = ["fuzz", "--networks", "400", "--seed", "3", "--save", str(tmp_path)]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.return_value == 1, result.output
    (path,) = tmp_path.iterdir()
    network, probe = fuzz.load(path)
    assert fuzz.wrong_checks(network, network, probe), "it can be run again"
    assert f"manual-bp compare {path}" in result.output


# ------------------------------------------------------------------ campaigns


def test_a_small_soak_has_no_false_alarm_and_a_table_that_says_so():
    total = soak.merge([soak.soak({"seed": 20, "first": 0, "last": 6})])
    assert total["networks"] > 10
    assert total["alarms"] == []
    assert "false alarms              0" in soak.table(total)


def test_a_soak_notices_a_wrong_implementation(monkeypatch):
    monkeypatch.setattr(soak, "dressed", lambda network, _rng: planted(nn.Linear, UnbiasedLinear)(network))
    total = soak.merge([soak.soak({"seed": 20, "first": 0, "last": 6})])
    assert {name.split(".")[1] for _, _, _, name, status, *_ in total["alarms"] if status == "wrong"} == {"bias"}


def square(task):
    _COUNT.append(task)
    if task == _DIE_AT[0]:
        raise KeyboardInterrupt
    return {"square": task * task}


_COUNT: list[int] = []
_DIE_AT: list[int | None] = [None]


def test_a_killed_campaign_goes_on_where_it_stopped(tmp_path):
    _COUNT.clear()
    _DIE_AT[0] = 3
    with pytest.raises(KeyboardInterrupt):
        _pool.run(range(5), square, name="test", workers=1, saved=tmp_path)
    _DIE_AT[0] = None
    expected = [{"square": n * n} for n in range(5)]
    assert _pool.run(range(5), square, name="test", workers=1, saved=tmp_path) == expected
    assert _COUNT == [0, 1, 2, 3, 3, 4], "what was done is not done again"
    assert not list(tmp_path.iterdir()), "a finished campaign leaves nothing behind"


def test_the_result_does_not_depend_on_the_workers(tmp_path):
    one, two = (_pool.run(range(4), abs, name="test", workers=n, saved=tmp_path) for n in (1, 2))
    assert one == two == [0, 1, 2, 3]
