"""Weights from a file: exactly the network's, or one sentence that says what is wrong."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manual_bp.errors import ManualBPError
from manual_bp.networks import get
from manual_bp.nn import Array
from manual_bp.trace import bit_identical
from manual_bp.weights import load_weights

THREE = get("three-layer")


def weights() -> dict[str, Array]:
    return THREE.initial(np.random.default_rng(0))


def saved(path: Path, arrays: dict[str, Array]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its stub reads ** as allow_pickle
    return path


def test_weights_come_back_bit_for_bit_in_the_networks_order(tmp_path: Path) -> None:
    given = weights()
    found = load_weights(saved(tmp_path / "w.npz", dict(reversed(given.items()))), THREE)
    assert list(found) == list(given)
    for name, array in given.items():
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.c_contiguous


def test_compressed_files_and_integer_buffers_are_read(tmp_path: Path) -> None:
    network = get("design-batch-norm-eval")
    given = network.initial(np.random.default_rng(0), np.float32)
    np.savez_compressed(tmp_path / "w.npz", **given)  # type: ignore[arg-type]  # its stub reads ** as allow_pickle
    found = load_weights(tmp_path / "w.npz", network, np.float32)
    assert found["norm.num_batches_tracked"].dtype == np.int64


def without(name: str) -> Callable[[dict[str, Array]], dict[str, Array]]:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("z1.bias"), r"has no z1\.bias for network 'three-layer'\. it takes z1\.weight"),
        (lambda w: without("z1.bias")(w) | {"z1.bais": w["z1.bias"]}, r"has no z1\.bias .* rename z1\.bais"),
        (lambda w: w | {"z9.bias": w["z1.bias"]}, r"has z9\.bias, which network 'three-layer' does not have"),
        (lambda w: w | {"z3.weight": w["z3.weight"].T}, r"z3\.weight has shape \(9, 1\), .* takes \(1, 9\)"),
        (lambda w: w | {"z3.weight": w["z3.weight"].astype(np.float32)}, r"z3\.weight is float32, expected float64"),
        (lambda w: w | {"z3.bias": np.array([np.nan])}, r"z3\.bias has 1 of 1 elements that are NaN"),
        (lambda w: w | {"z3.bias": np.array([None])}, "holds pickled objects"),
    ],
)
def test_other_arrays_are_refused(
    change: Callable[[dict[str, Array]], dict[str, Array]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ManualBPError, match=message):
        load_weights(saved(tmp_path / "w.npz", change(weights())), THREE)


@pytest.mark.parametrize("keep", [0, 10, 200, 700, -1])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.npz", weights())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ManualBPError, match="is not an npz file, or only the beginning of one"):
        load_weights(path, THREE)


def test_a_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.npz", weights())
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF  # inside of the first array's numbers
    path.write_bytes(data)
    with pytest.raises(ManualBPError, match="npz"):
        load_weights(path, THREE)


def test_a_header_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    claim = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("z1.weight.npy", header.getvalue())
    with pytest.raises(ManualBPError, match=r"claims shape \(1099511627776,\)"):
        load_weights(tmp_path / "w.npz", THREE)


def test_missing_files_folders_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ManualBPError, match="no such file"):
        load_weights(tmp_path / "none.npz", THREE)
    with pytest.raises(ManualBPError, match="is a directory"):
        load_weights(tmp_path, THREE)
    (tmp_path / "text.npz").write_text("weights")
    with pytest.raises(ManualBPError, match="not an npz file"):
        load_weights(tmp_path / "text.npz", THREE)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "longdouble", "complex128", "object"])
def test_bits_are_compared_not_numbers(dtype: str) -> None:
    a = np.arange(12).reshape(3, 4).astype(dtype)
    assert bit_identical(a, a.copy())
    assert bit_identical(a.T, np.ascontiguousarray(a.T))
    other = a.copy()
    other[1, 2] = 7
    assert not bit_identical(a, other)
    assert not bit_identical(a, a.reshape(4, 3))
    assert not bit_identical(np.float32([0.0]), np.float32([-0.0]))
    assert bit_identical(np.array(np.nan), np.array(np.nan))
