"""Two dumps held against each other, and the commands export and diff."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from manual_bp import dumps
from manual_bp.dumps._npz import npz_bytes
from manual_bp.errors import ManualBPError
from manual_bp.probes import probe
from tests.dump_fixtures import FORMS, THREE, answers, place


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
    np.savez(tmp_path / "mine.npz", **answers(THREE, made))  # type: ignore[arg-type]  # NumPy's stub takes its own options for arrays
    fixtures = [dumps.read(place(tmp_path, form)) for form in FORMS]
    for other in fixtures[1:]:
        found = dumps.compare_dumps(fixtures[0], other)
        assert found.ok
        assert len(found.arrays) == 24
    mine = dumps.compare_dumps(fixtures[2], dumps.read(tmp_path / "mine.npz"), atol=1e-14)
    assert mine.ok
    assert len(mine.arrays) == 18


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
    assert max(map(len, out.splitlines())) <= 200  # the width of a pipe
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
