"""The digits are the published ones, and small."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from manual_bp import data
from manual_bp.data import digits
from manual_bp.errors import ManualBPError

FILE = files("manual_bp.data").joinpath("digits.npz")
TOOL = Path(__file__).resolve().parent.parent / "tools" / "build_digits.py"


def test_the_file_is_the_published_data() -> None:
    images, labels = digits()
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == (
        "b3b9c8cc11d765ce4264d8748bf3edbafa5038d91c93cf713ddbd6ae8652b410"
    )
    assert images.shape == (1797, 8, 8)
    assert labels.shape == (1797,)
    assert images.dtype == labels.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 16)
    # how often each digit occurs, as the data set's own description says
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_the_file_is_under_80_kilobytes_and_names_its_source_and_licence() -> None:
    assert len(FILE.read_bytes()) < 80_000
    source = files("manual_bp.data").joinpath("SOURCE.md").read_text("utf-8")
    for word in ("Alpaydin", "UCI", "Attribution 4.0", "creativecommons.org", "build_digits.py"):
        assert word in source


def test_the_held_back_part_is_not_in_the_training_part() -> None:
    images, labels = digits()
    train, held = digits(part="train"), digits(part="held-back")
    assert len(train[0]) == 1437
    assert len(held[0]) == 360
    np.testing.assert_array_equal(np.concatenate([train[0], held[0]]), images)
    np.testing.assert_array_equal(np.concatenate([train[1], held[1]]), labels)
    assert set(held[1].tolist()) == set(range(10))


def test_nobody_can_change_the_digits_for_the_others() -> None:
    images, _ = digits()
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0] = 1


def test_the_tool_writes_the_same_bytes_for_the_same_digits() -> None:
    spec = importlib.util.spec_from_file_location("build_digits", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    images, labels = digits()
    first = tool.pack({"images": images, "labels": labels})
    assert first == tool.pack({"images": images, "labels": labels})
    assert len(first) < 80_000


def test_a_damaged_installation_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "digits.npz").write_bytes(FILE.read_bytes()[:1000])
    monkeypatch.setattr(data, "files", lambda name: tmp_path)
    data._load.cache_clear()
    with pytest.raises(ManualBPError, match="install manual-bp again"):
        digits()
    data._load.cache_clear()
