"""A file is written whole or not at all."""

import os
import stat

import pytest

from manual_bp import files
from manual_bp.errors import ManualBPError


def test_text_is_written_with_its_folders_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "a" / "b" / "report.md"
    assert files.write_text(path, "one\n∂\n") == path
    files.write_text(path, "two\n")
    assert path.read_bytes() == b"two\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["report.md"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ManualBPError, match=r"cannot write .*report\.json: no space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_permissions_are_kept_and_new_files_obey_the_mask(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("")
    old.chmod(0o640)
    mask = os.umask(0o027)
    try:
        files.write_text(old, "x")
        files.write_text(new, "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    files.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("name", ["", "file/below", "null\0name", "x" * 300])
def test_what_cannot_be_written_is_one_clear_error(tmp_path, name):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(ManualBPError, match="cannot write") as caught:
        files.write_text(f"{tmp_path}/{name}", "x")
    assert "\n" not in str(caught.value)


def test_a_lone_surrogate_is_written_as_its_escape(tmp_path):
    files.write_text(tmp_path / "x", "a\ud800")
    assert (tmp_path / "x").read_bytes() == b"a\\ud800"


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf{}")
    assert files.read_text(tmp_path / "x") == "{}"
