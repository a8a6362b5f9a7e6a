"""Dumps: what is exported, what is judged, what is refused, and how two of them differ."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp import dumps, networks
from manual_bp.dumps import _npz
from manual_bp.dumps._npz import npz_bytes, read_npz
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.probes import Probe, probe
from manual_bp.report import Report
from manual_bp.trace import Array

THREE = networks.get("three-layer")
FORMS: tuple[dumps.Form, ...] = ("npz", "safetensors", "bin")


def place(folder: Path, form: str) -> Path:
    return folder / ("fixture" if form == "bin" else f"fixture.{form}")


def answers(network: Network, made: Probe) -> dict[str, Array]:
    """What a right program finds: the engine's own pass."""
    trace = network.run(made.params, made.x, made.y).trace
    return {name: array for name, array in trace.items() if name != "x" and name not in made.params}


def filled(
    path: Path,
    form: dumps.Form,
    *,
    network: Network = THREE,
    name: str = "ties",
    change: Mapping[str, Array | None] | None = None,
    **options: Any,
) -> Path:
    """A fixture that a program filled in, right but for ``change`` (None: left out)."""
    made = probe(network, name, dtype=options.pop("dtype", "float64"))
    manifest, arrays = dumps.fixture(network, made, **options)
    found = {**answers(network, made), **(change or {})}
    candidate = {f"candidate/{n}": a for n, a in found.items() if a is not None}
    dumps.write(path, form, manifest, arrays)
    if form == "bin":
        for where, array in candidate.items():
            (path / f"{where}.bin").write_bytes(np.ascontiguousarray(array).tobytes())
    else:
        dumps.write(path, form, manifest, {**arrays, **candidate})
    return path


def statuses(report: Report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks if check.status != "pass"}


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ManualBPError) as caught:
        dumps.read(path)
    assert all(word in str(caught.value) for word in (path.name, *words)), caught.value
    assert caught.value.hint


# ---------------------------------------------------------------------------------------------------- export


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
    assert expected.keys() == answers(THREE, made).keys() == {w.name for w in found.manifest.wanted}  # type: ignore[union-attr]
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


# ---------------------------------------------------------------------------------------------------- judging


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
    np.savez(tmp_path / "mine.npz", **answers(THREE, made))  # type: ignore[arg-type]
    np.savez(tmp_path / "named.npz", fixture=np.array("fixture.npz"), **answers(THREE, made))  # type: ignore[arg-type]
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


# ---------------------------------------------------------------------------------------------------- layouts


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
    np.savez(tmp_path / "mine.npz", **text, **mine)  # type: ignore[arg-type]
    assert dumps.judge_dump(tmp_path / "mine.npz").ok
    np.savez(tmp_path / "bad.npz", **text | {"layouts": np.array('{"zz": "NHWC"}')}, **mine)  # type: ignore[arg-type]
    with pytest.raises(ManualBPError, match="gives a layout for zz"):
        dumps.judge_dump(tmp_path / "bad.npz")


def test_a_layout_that_fits_nothing_is_refused() -> None:
    made = probe(THREE, "ties")
    with pytest.raises(ManualBPError, match=r"layout is given for 'z1\.wieght'.*did you mean z1\.weight"):
        dumps.fixture(THREE, made, layouts={"z1.wieght": "HWIO"}, expected=False)
    with pytest.raises(ManualBPError, match="does not fit"):
        dumps.fixture(THREE, made, layouts={"z1.weight": "IO"}, expected=False)


# ---------------------------------------------------------------------------------------------------- bad files


def raw_npz(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(array: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text.encode()


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    whole = npz_bytes({"a": np.arange(1000.0), "b": np.arange(1000.0)})
    for size in (0, 10, 500, len(whole) - 30, len(whole) - 1):
        (tmp_path / "half.npz").write_bytes(whole[:size])
        refused(tmp_path / "half.npz")


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    arrays = {"a": np.arange(40.0), "b": np.arange(3, dtype="i4")}
    whole, rng = npz_bytes(arrays), np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] ^= 1 << rng.integers(8)
        (tmp_path / "hurt.npz").write_bytes(bytes(data))
        try:
            found = read_npz(tmp_path / "hurt.npz")
        except ManualBPError:
            continue
        # numbers have checksums; a name or the length of the table of contents has none
        assert {array.tobytes() for array in found.values()} <= {array.tobytes() for array in arrays.values()}


def test_pickles_are_refused_and_not_opened(tmp_path: Path) -> None:
    # the text that NumPy writes before a pickled array; what follows would run when it is unpickled
    evil = header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + b"cos\nsystem\n(S'touch pwned'\ntR."
    refused(raw_npz(tmp_path / "evil.npz", {"a.npy": evil}), "a holds pickled objects")
    (tmp_path / "evil2.npz").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    refused(tmp_path / "evil2.npz", "not an npz file")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999,), }\n")}, "claims shape"),
        ({"a.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n")}, "claims shape"),
        ({"a.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }\n") + bytes(8)}, "and has 8"),
        ({"a.npy": header(" " * 50_000 + "\n")}, "damaged"),
        ({"a.npy": header("{'descr': '<f8'" + " " * 200_000 + "}\n", (2, 0))}, "damaged"),
        ({"a.npy": header("((((" * 1000)}, "damaged"),
        ({"a.npy": b"\x93NUMPY\x09\x00"}, "version 9.0"),
        ({"a.npy": b"text"}, "damaged"),
        ({"a.npy": npy(np.zeros(2, [("x", "f8")]))}, "which is no number"),
        ({"a.npy": npy(np.array(["x", "y"]))}, "which is no number"),
        ({"a.npy": npy(np.array("x"))}, "is text"),
        ({"readme.txt": b"hello"}, "'readme.txt', which is no array"),
        ({"../../a.npy": npy(np.zeros(2))}, "cannot be the name"),
        ({"a//b.npy": npy(np.zeros(2))}, "cannot be the name"),
    ],
)  # fmt: skip  # one case a line
def test_what_is_no_plain_array_is_refused(members: Mapping[str, bytes], words: str, tmp_path: Path) -> None:
    refused(raw_npz(tmp_path / "bad.npz", members), words)


@pytest.mark.filterwarnings("ignore:Duplicate name")  # of zipfile, which is made to write one here
def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        for value in (1.0, 2.0):
            archive.writestr("a.npy", npy(np.array(value)))
    refused(tmp_path / "twice.npz", "holds a twice")


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_npz, "UNPACKED", 1 << 16)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros(1 << 22, np.uint8)))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 13
    refused(tmp_path / "bomb.npz", "claims to unpack to 4194")


def test_big_endian_and_fortran_order_are_read_right(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    raw_npz(tmp_path / "a.npz", {"a.npy": npy(np.asfortranarray(array)), "b.npy": npy(array.astype(">f8"))})
    for found in read_npz(tmp_path / "a.npz").values():
        np.testing.assert_array_equal(found, array)
        assert found.flags.c_contiguous
        assert found.dtype == np.float64


def test_safetensors_survives_transposed_arrays(tmp_path: Path) -> None:
    made = probe(THREE, "ties")
    manifest, arrays = dumps.fixture(THREE, made, expected=False)
    turned = {"candidate/z1.weight.grad": np.arange(9.0).reshape(3, 3).T.reshape(1, 1, 3, 3)}
    assert not np.arange(9.0).reshape(3, 3).T.flags.c_contiguous
    dumps.write(
        tmp_path / "a.safetensors",
        "safetensors",
        manifest,
        {**arrays, "candidate/z1": np.arange(6.0).reshape(2, 3).T, **turned},
    )
    found = dumps.read(tmp_path / "a.safetensors").candidate()
    np.testing.assert_array_equal(found["z1"], np.arange(6.0).reshape(2, 3).T)


def test_broken_safetensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path / "whole.safetensors", "safetensors")
    whole = path.read_bytes()
    for data in (b"", whole[:4], whole[:-3], b"\xff" * 100, b"PK\x03\x04"):
        (tmp_path / "bad.safetensors").write_bytes(data)
        refused(tmp_path / "bad.safetensors")
    refused(tmp_path / "absent.safetensors", "no such file")
    monkeypatch.setitem(sys.modules, "safetensors", None)  # what Python remembers of a package that is not there
    with pytest.raises(ManualBPError, match="which is not installed"):
        dumps.read(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2, "written_by": "manual-bp 9.9"}, "written by a newer manual-bp (manual-bp 9.9)"),
        ({"format": "something"}, "is no fixture"),
        ({"given": None}, "'given' is missing or no list"),
        ({"dtype": "bfloat16"}, "no fixture in 'bfloat16'"),
        ({"seed": "0"}, "'seed' is missing or no int"),
        ({"wanted": [{"name": "../../etc/passwd"}]}, "damaged"),
        ({"network": "four-layer"}, "there is no network 'four-layer'. did you mean three-layer"),
        ({"batch": 3}, "x has shape (4, 1, 8, 8)"),
        ({"network": "kernel-gradient"}, "lacks x1.weight of network 'kernel-gradient'"),
    ],
)
def test_a_foreign_or_damaged_manifest_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = filled(tmp_path, "bin")
    said = json.loads((path / "manifest.json").read_text("utf-8"))
    (path / "manifest.json").write_text(json.dumps(said | change), "utf-8")
    with pytest.raises(ManualBPError) as caught:
        dumps.judge_dump(path)
    assert words in str(caught.value)


def test_a_manifest_in_which_anything_is_missing_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path, "bin")
    text = (path / "manifest.json").read_text("utf-8")
    for key in json.loads(text)["given"][0].keys() - {"at", "layout"}:
        said = json.loads(text)
        del said["given"][0][key]
        (path / "manifest.json").write_text(json.dumps(said), "utf-8")
        refused(path, "the manifest is damaged", key)
    for text in ("", "[]", "nonsense", "[" * 100_000):
        (path / "manifest.json").write_text(text, "utf-8")
        refused(path)


# ---------------------------------------------------------------------------------------------------- diff


def difference(tmp_path: Path, old: Mapping[str, Any], new: Mapping[str, Any], **options: float) -> dumps.DumpDiff:
    for name, arrays in (("old.npz", old), ("new.npz", new)):
        (tmp_path / name).write_bytes(npz_bytes({k: np.asarray(a) for k, a in arrays.items()}))
    return dumps.compare_dumps(dumps.read(tmp_path / "old.npz"), dumps.read(tmp_path / "new.npz"), **options)


def test_equal_dumps_are_equal_down_to_the_special_numbers(tmp_path: Path) -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, 5e-324, 1e308])
    found = difference(
        tmp_path,
        {"a": odd, "n": np.arange(3), "e": np.zeros((2, 0))},
        {"a": odd, "n": np.arange(3), "e": np.zeros((2, 0))},
    )
    assert found.ok
    assert {array.state for array in found.arrays} == {"same"}


def test_each_kind_of_difference_has_its_word(tmp_path: Path) -> None:
    old = {
        "same": np.zeros(2),
        "gone": np.zeros(2),
        "shape": np.zeros((2, 3)),
        "dtype": np.ones(2),
        "value": np.ones(3),
    }
    new = {
        "same": np.zeros(2),
        "new": np.zeros(2),
        "shape": np.zeros((3, 2)),
        "dtype": np.ones(2, "f4"),
        "value": np.arange(3.0),
    }
    found = difference(tmp_path, old, new)
    assert {array.name: array.state for array in found.arrays} == {
        "same": "same", "gone": "missing", "shape": "shape", "dtype": "dtype", "value": "different", "new": "extra",
    }  # fmt: skip
    assert not found.ok


def test_the_worst_element_and_the_distances_are_told(tmp_path: Path) -> None:
    old = np.linspace(1, 2, 200_000).reshape(400, 500)  # several chunks
    new = old.copy()
    new[3, 4] = np.nextafter(np.nextafter(old[3, 4], 9), 9)
    new[399, 7] *= 1.5
    (array,) = difference(tmp_path, {"a": old}, {"a": new}).arrays
    assert (array.mismatched, array.elements, array.worst_index) == (2, 200_000, (399, 7))
    assert (array.old, array.new) == (old[399, 7], new[399, 7])
    assert array.max_abs_error == abs(new[399, 7] - old[399, 7])
    assert array.max_rel_error == pytest.approx(0.5)
    new[399, 7] = old[399, 7]
    assert difference(tmp_path, {"a": old}, {"a": new}).arrays[0].ulp == 2


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_ulps_count_floating_numbers(dtype: str, tmp_path: Path) -> None:
    one, zero, big = np.ones(1, dtype), np.zeros(1, dtype), np.full(1, np.finfo(dtype).max)
    tiny = np.nextafter(zero, one)
    for old, new, ulp in [(one, np.nextafter(one, zero), 1), (tiny, -tiny, 2), (big, np.full(1, np.inf, dtype), 1)]:
        (array,) = difference(tmp_path, {"a": old}, {"a": new}).arrays
        assert array.ulp == ulp
    assert difference(tmp_path, {"a": -zero}, {"a": zero}).ok


def test_tolerances_are_numpys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old = rng.standard_normal(1000)
    new = old + rng.uniform(-1, 1, 1000) * (1e-3 + 1e-2 * np.abs(old)) * 1.2
    (array,) = difference(tmp_path, {"a": old}, {"a": new}, atol=1e-3, rtol=1e-2).arrays
    assert array.mismatched == np.count_nonzero(~np.isclose(new, old, atol=1e-3, rtol=1e-2)) > 0
    assert difference(tmp_path, {"a": old}, {"a": new}, atol=1).arrays[0].state == "close"
    assert difference(tmp_path, {"a": old}, {"a": old.astype("f4")}, rtol=1e-6).ok
    with pytest.raises(ManualBPError, match="atol is nan"):
        difference(tmp_path, {"a": old}, {"a": new}, atol=float("nan"))


def test_a_number_beside_nan_is_infinitely_far(tmp_path: Path) -> None:
    (array,) = difference(tmp_path, {"a": [1.0, 2.0]}, {"a": [np.nan, 2.0]}, atol=1e9).arrays
    assert (array.state, array.mismatched, array.max_abs_error, array.worst_index) == ("different", 1, np.inf, (0,))


def test_large_integers_are_not_rounded(tmp_path: Path) -> None:
    (array,) = difference(tmp_path, {"a": [2**53]}, {"a": [2**53 + 1]}).arrays
    assert array.state == "different"


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManualBPError, match=r"no array in common \(a; b\)"):
        difference(tmp_path, {"a": [1.0]}, {"b": [1.0]})


def test_a_fixture_is_compared_by_what_it_expects_in_any_form_and_layout(tmp_path: Path) -> None:
    made = probe(THREE, "ties")
    for form in FORMS:
        dumps.write(place(tmp_path, form), form, *dumps.fixture(THREE, made, last=form == "bin"))
    np.savez(tmp_path / "mine.npz", **answers(THREE, made))  # type: ignore[arg-type]
    fixtures = [dumps.read(place(tmp_path, form)) for form in FORMS]
    for other in fixtures[1:]:
        found = dumps.compare_dumps(fixtures[0], other)
        assert found.ok
        assert len(found.arrays) == 24
    mine = dumps.compare_dumps(fixtures[2], dumps.read(tmp_path / "mine.npz"), atol=1e-14)
    assert mine.ok
    assert len(mine.arrays) == 18


# ---------------------------------------------------------------------------------------------------- commands


def run(*arguments: str) -> tuple[int, str, str]:
    from manual_bp.cli import cli

    result = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value or 0, result.stdout, result.stderr


def test_export_writes_all_probes_into_a_folder(tmp_path: Path) -> None:
    _, out, err = run(
        "export", "three-layer", "-o", str(tmp_path / "all"), "--probe", "all", "--form", "npz", "--no-expected"
    )
    assert out == ""
    assert "6 arrays given, 18 wanted" in err
    assert {p.name for p in (tmp_path / "all").iterdir()} >= {"digits.npz", "ties.npz"}
    with pytest.raises(ManualBPError, match="is one npz file"):
        run("export", "three-layer", "-o", str(tmp_path / "x.npz"), "--probe", "all")
    with pytest.raises(ManualBPError, match="names no array and its axes"):
        run("export", "three-layer", "-o", str(tmp_path / "x.npz"), "--layout", "HWIO")
    assert not (tmp_path / "x.npz").exists()


def test_export_stores_a_layout_that_is_asked_for(tmp_path: Path) -> None:
    run(
        "export",
        "three-layer",
        "-o",
        str(tmp_path / "x.npz"),
        "--layout",
        "z1.weight=HWIO",
        "--no-expected",
        "--batch",
        "3",
    )
    found = dumps.read(tmp_path / "x.npz").arrays
    assert (found["given/z1.weight"].shape, found["given/x"].shape) == ((3, 3, 1, 1), (3, 1, 8, 8))


def test_diff_and_its_exit_codes_need_no_torch(tmp_path: Path) -> None:
    made = probe(THREE, "ties")
    right = answers(THREE, made)
    (tmp_path / "a.npz").write_bytes(npz_bytes(right))
    (tmp_path / "b.npz").write_bytes(npz_bytes({**right, "a1.grad": right["a1.grad"] * 2}))
    (tmp_path / "report.json").write_text("{}", "utf-8")
    code, out, _ = run("diff", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    assert code == 1
    assert "✗ DIFFERENT  1 of 18 arrays; the first is a1.grad" in out
    row = next(line for line in out.splitlines() if "a1.grad" in line and "4×1×6×6" in line)
    assert "✗ different" in row
    assert max(map(len, out.splitlines())) < 200
    with pytest.raises(ManualBPError, match="are a report and a dump"):
        run("diff", str(tmp_path / "a.npz"), str(tmp_path / "report.json"))
    script = (
        "import sys; sys.modules['torch'] = None; sys.argv[0] = 'manual-bp'\n"
        "from manual_bp.cli import main\nmain()"
    )  # fmt: skip
    same = subprocess.run(
        [sys.executable, "-c", script, "diff", str(tmp_path / "a.npz"), str(tmp_path / "a.npz")],
        capture_output=True, text=True, encoding="utf-8", check=False, env={"PYTHONUTF8": "1", "PYTHONPATH": "."},
    )  # fmt: skip
    assert (same.returncode, same.stderr) == (0, "")
    assert "✓ SAME  18 arrays" in same.stdout
