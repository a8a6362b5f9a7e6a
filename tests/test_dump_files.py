"""Dumps that are damaged, hostile, foreign or of a newer version: one clear sentence each."""

from __future__ import annotations

import io
import json
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manual_bp import dumps
from manual_bp.dumps import _npz
from manual_bp.dumps._npz import npz_bytes, read_npz
from manual_bp.errors import ManualBPError
from manual_bp.probes import probe
from manual_bp.trace import Array
from tests.dump_fixtures import THREE, filled, refused


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
