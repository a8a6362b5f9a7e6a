"""Dumps: what is exported and what is judged, in every form and layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from manual_bp import dumps, networks
from manual_bp.errors import ManualBPError
from manual_bp.probes import probe
from manual_bp.trace import Array
from tests.dump_fixtures import FORMS, THREE, answers, filled, place, refused, statuses


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fixture_holds_what_both_sides_start_from_and_what_torch_finds(
    form: dumps.Form, dtype: str, tmp_path: Path
) -> None:
    made = probe(THREE, "ties", dtype=dtype)
    path = place(tmp_path, form)
    dumps.write(path, form, *dumps.fixture(THREE, made))
    found = dumps.read(path)
    given, expected = found.part("given/"), found.part("expected/")
    assert given.keys() == {"x", "y", *made.params}
    assert all(given[name].tobytes() == array.tobytes() for name, array in made.params.items())
    assert expected.keys() == answers(THREE, made).keys() == {w.name for w in found.manifest.wanted}  # type: ignore[union-attr]  # it was written with a manifest
    assert all(array.dtype == dtype for array in (*given.values(), *expected.values()))
    # small integers: sums are exact here, so the engine's numbers are torch's
    np.testing.assert_array_equal(expected["z1"], answers(THREE, made)["z1"])
    np.testing.assert_allclose(expected["x.grad"], answers(THREE, made)["x.grad"], rtol=1e-5)


def test_a_manifest_tells_everything_that_a_program_needs(tmp_path: Path) -> None:
    dumps.write(
        tmp_path,
        "bin",
        *dumps.fixture(networks.get("kernel-gradient"), probe(networks.get("kernel-gradient"), "printed")),
    )
    said = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert (said["format"], said["version"], said["network"], said["dtype"]) == (
        "manual-bp-fixture", 1, "kernel-gradient", "float64",
    )  # fmt: skip
    weight = next(entry for entry in said["given"] if entry["name"] == "x1.weight")
    assert weight | {"crc32": 0} == {
        "name": "x1.weight", "role": "parameter", "at": "given/x1.weight", "shape": [1, 1, 2, 2],
        "torch_shape": [1, 1, 2, 2], "dtype": "float64", "layout": "OIHW", "crc32": 0,
    }  # fmt: skip
    update = next(entry for entry in said["wanted"] if entry["name"] == "x1.weight.new")
    assert (update["kind"], update["fill_in"], update["expected"]) == (
        "update", "candidate/x1.weight.new", "expected/x1.weight.new",
    )  # fmt: skip
    assert "η = 0.1" in update["equation"]
    assert np.fromfile(tmp_path / "given" / "x.bin", "<f8")[0] == 0.51  # the seed's printed input


def test_without_torchs_numbers_the_fixture_asks_for_the_same(tmp_path: Path) -> None:
    made = probe(THREE, "batch")
    with_them, without = dumps.fixture(THREE, made)[0], dumps.fixture(THREE, made, expected=False)
    assert without[0].wanted == with_them.wanted
    assert not any(name.startswith("expected/") for name in without[1])


def test_the_same_fixture_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        dumps.write(tmp_path / name, "npz", *dumps.fixture(THREE, probe(THREE, "ties"), expected=False))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_an_export_never_mixes_with_the_numbers_of_an_earlier_run(tmp_path: Path) -> None:
    path = filled(tmp_path / "fixture", "bin")
    with pytest.raises(ManualBPError, match="holds numbers that a program wrote"):
        dumps.write(path, "bin", *dumps.fixture(THREE, probe(THREE, "batch"), expected=False))
    assert dumps.judge_dump(path).ok  # nothing was touched


def test_a_folder_of_somebody_elses_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a browser extension"}', "utf-8")
    with pytest.raises(ManualBPError, match="is no fixture"):
        dumps.write(tmp_path, "bin", *dumps.fixture(THREE, probe(THREE, "batch"), expected=False))
    assert "browser" in (tmp_path / "manifest.json").read_text("utf-8")


@pytest.mark.parametrize("form", FORMS)
def test_right_numbers_are_right(form: dumps.Form, tmp_path: Path) -> None:
    report = dumps.judge_dump(filled(place(tmp_path, form), form))
    assert report.ok
    assert len(report.checks) == 23
    assert [info.name for info in report.probes] == ["ties"]
    assert report.steps[1].op.startswith("Conv2d")


def test_a_mistake_is_isolated_and_what_follows_is_only_inherited(tmp_path: Path) -> None:
    wrong = answers(THREE, probe(THREE, "ties"))["a2.grad"] / 4  # the error divided among the window
    report = dumps.judge_dump(filled(tmp_path / "d.npz", "npz", change={"a2.grad": wrong}))
    assert report.first_wrong == "a2.grad"
    # the program's other numbers are the right ones, so the step after the wrong one does not fit it
    assert statuses(report) == {"a2.grad": "wrong", "a1.grad": "wrong"}


@pytest.mark.parametrize("form", FORMS)
def test_missing_extra_and_misshapen_are_verdicts(form: dumps.Form, tmp_path: Path) -> None:
    change = {
        "a2": None,
        "z3": np.zeros(7),
        "a3": np.full((4, 1), 0.5, np.float32),
        "a1.gradient": np.zeros((4, 1, 6, 6)),
    }
    report = dumps.judge_dump(filled(place(tmp_path, form), form, change=change))
    found = {name: status for name, status in statuses(report).items() if status not in ("wrong", "inherited")}
    assert found == {"a2": "missing", "z3": "mismatch", "a3": "mismatch", "a1.gradient": "extra"}
    notes = {check.name: check.note for check in report.checks}
    assert notes["z3"] == "has shape 7, expected 4×1 (NC)"
    assert notes["a3"] == "is float32, expected float64"
    assert "did you mean 'a1.grad'" in notes["a1.gradient"]


def test_not_a_number_is_a_verdict(tmp_path: Path) -> None:
    bad = np.full((4, 1, 6, 6), np.nan)
    report = dumps.judge_dump(filled(tmp_path / "d.npz", "npz", change={"z1.grad": bad}))
    assert statuses(report)["z1.grad"] == "nonfinite"


def test_what_a_fused_program_does_not_have_can_be_left_out(tmp_path: Path) -> None:
    path = filled(tmp_path / "d.npz", "npz", change=dict.fromkeys(("flat", "flat.grad", "z1"), None))
    assert set(statuses(dumps.judge_dump(path))) == {"flat", "flat.grad", "z1"}
    report = dumps.judge_dump(path, complete=False)
    assert report.ok
    (said,) = (finding for finding in report.findings if finding.kind == "coverage")
    assert "z1, flat, flat.grad" in said.text


def test_numbers_alone_name_their_fixture_or_are_given_it(tmp_path: Path) -> None:
    made = probe(THREE, "ties")
    dumps.write(tmp_path / "fixture.npz", "npz", *dumps.fixture(THREE, made))
    np.savez(tmp_path / "mine.npz", **answers(THREE, made))  # type: ignore[arg-type]  # NumPy's stub takes its own options for arrays
    np.savez(tmp_path / "named.npz", fixture=np.array("fixture.npz"), **answers(THREE, made))  # type: ignore[arg-type]  # NumPy's stub takes its own options for arrays
    with pytest.raises(ManualBPError, match="does not say which fixture it answers"):
        dumps.judge_dump(tmp_path / "mine.npz")
    assert dumps.judge_dump(tmp_path / "mine.npz", fixture=tmp_path / "fixture.npz").ok
    assert dumps.judge_dump(tmp_path / "named.npz").ok


def test_a_folder_of_fixtures_is_one_report(tmp_path: Path) -> None:
    for name in ("ties", "batch"):
        filled(tmp_path / f"{name}.npz", "npz", name=name)
    report = dumps.judge_dump(tmp_path)
    assert report.ok
    assert [info.name for info in report.probes] == ["batch", "ties"]
    filled(tmp_path / "other.npz", "npz", network=networks.get("kernel-gradient"), name="printed")
    with pytest.raises(ManualBPError, match="mixes three-layer in float64 and kernel-gradient in float64"):
        dumps.judge_dump(tmp_path)


def test_class_indices_updates_and_buffers_travel(tmp_path: Path) -> None:
    for name in ("design-batch-norm", "design-adamw"):
        report = dumps.judge_dump(filled(tmp_path / f"{name}.npz", "npz", network=networks.get(name), name="batch"))
        assert report.ok, statuses(report)
    assert any(check.kind == "update" for check in report.checks)


def test_a_program_that_changes_its_weights_is_told_so(tmp_path: Path) -> None:
    path = filled(tmp_path / "fixture", "bin")
    weights = path / "given" / "z1.weight.bin"
    weights.write_bytes((np.fromfile(weights, "<f8") * 2).tobytes())
    with pytest.raises(ManualBPError, match=r"given/z1\.weight is not what was exported"):
        dumps.judge_dump(path)


def test_an_empty_comparison_is_an_error(tmp_path: Path) -> None:
    dumps.write(tmp_path / "f.npz", "npz", *dumps.fixture(THREE, probe(THREE, "ties")))
    with pytest.raises(ManualBPError, match=r"holds no numbers of a program yet.*let it write candidate/z1"):
        dumps.judge_dump(tmp_path / "f.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManualBPError, match="holds no fixture"):
        dumps.judge_dump(tmp_path / "empty")
    refused(tmp_path / "absent.npz", "no such file")


def channels_last_pass(given: Mapping[str, Array]) -> dict[str, Array]:
    """The convolution of the three-layer network as a channels-last program writes it, forward only."""
    x, kernel = given["x"], given["z1.weight"]  # (N, 8, 8, 1), (3, 3, 1, 1)
    z1 = np.zeros((len(x), 6, 6, 1)) + given["z1.bias"]
    for p in range(3):
        for r in range(3):
            z1 += x[:, p : p + 6, r : r + 6] @ kernel[p, r]
    return {"z1": z1, "a1": np.maximum(z1, 0)}


def test_channels_last_is_exported_and_expected_back(tmp_path: Path) -> None:
    manifest, arrays = dumps.fixture(THREE, probe(THREE, "ties"), last=True)
    layouts = {entry.name: entry.layout for entry in (*manifest.given, *manifest.wanted)}
    assert (layouts["x"], layouts["z1.weight"], layouts["z1.weight.grad"]) == ("NHWC", "HWIO", "HWIO")
    assert (layouts["flat"], layouts["z3.weight"], layouts["z3"]) == ("N(HWC)", "(HWC)O", "NC")
    found = channels_last_pass({name.removeprefix("given/"): array for name, array in arrays.items()})
    np.testing.assert_array_equal(arrays["expected/a1"], found["a1"])
    candidate = {name.replace("expected/", "candidate/"): a for name, a in arrays.items() if "expected/" in name}
    candidate |= {f"candidate/{name}": a for name, a in found.items()}
    dumps.write(tmp_path / "d.npz", "npz", manifest, {**arrays, **candidate})
    assert dumps.judge_dump(tmp_path / "d.npz").ok


def test_several_channels_are_flattened_in_the_stored_order() -> None:
    network = networks.get("two-conv-two-hidden")
    made = probe(network, "asymmetric")
    _, torch_order = dumps.fixture(network, made)
    _, last = dumps.fixture(network, made, last=True)
    n = made.batch
    flat = torch_order["expected/flat"].reshape(n, 6, 4, 4).transpose(0, 2, 3, 1).reshape(n, -1)
    np.testing.assert_array_equal(last["expected/flat"], flat)
    # the dense layer reads the same product of the permuted vector and the permuted weights
    z = last["expected/flat"] @ last["given/zh1.weight"] + last["given/zh1.bias"]
    np.testing.assert_allclose(z, torch_order["expected/zh1"], rtol=1e-12)


def test_the_wrong_axes_are_a_mismatch_and_not_a_reshape(tmp_path: Path) -> None:
    network = networks.get("two-conv-two-hidden")
    manifest, arrays = dumps.fixture(network, probe(network, "batch"), last=True)
    candidate = {name.replace("expected/", "candidate/"): a for name, a in arrays.items() if "expected/" in name}
    candidate["candidate/zc1"] = candidate["candidate/zc1"].transpose(0, 3, 1, 2)  # torch's order, not the fixture's
    dumps.write(tmp_path / "d.npz", "npz", manifest, {**arrays, **candidate})
    report = dumps.judge_dump(tmp_path / "d.npz")
    assert statuses(report) == {"zc1": "mismatch"}
    assert "expected 5×6×6×4 (NHWC)" in report.checks[3].note


def test_a_program_may_say_the_layout_itself(tmp_path: Path) -> None:
    made = probe(THREE, "ties")
    dumps.write(tmp_path / "fixture.npz", "npz", *dumps.fixture(THREE, made))
    found = answers(THREE, made)
    mine = {**found, "z1": found["z1"].transpose(0, 2, 3, 1), "z1.grad": found["z1.grad"].transpose(0, 2, 3, 1)}
    text = {"fixture": np.array("fixture.npz"), "layouts": np.array('{"z1": "NHWC"}')}
    np.savez(tmp_path / "mine.npz", **text, **mine)  # type: ignore[arg-type]  # NumPy's stub takes its own options for arrays
    assert dumps.judge_dump(tmp_path / "mine.npz").ok
    np.savez(tmp_path / "bad.npz", **text | {"layouts": np.array('{"zz": "NHWC"}')}, **mine)  # type: ignore[arg-type]  # NumPy's stub takes its own options for arrays
    with pytest.raises(ManualBPError, match="gives a layout for zz"):
        dumps.judge_dump(tmp_path / "bad.npz")


def test_a_layout_that_fits_nothing_is_refused() -> None:
    made = probe(THREE, "ties")
    with pytest.raises(ManualBPError, match=r"layout is given for 'z1\.wieght'.*did you mean z1\.weight"):
        dumps.fixture(THREE, made, layouts={"z1.wieght": "HWIO"}, expected=False)
    with pytest.raises(ManualBPError, match="does not fit"):
        dumps.fixture(THREE, made, layouts={"z1.weight": "IO"}, expected=False)
