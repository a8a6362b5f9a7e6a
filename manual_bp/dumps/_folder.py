"""A fixture as a folder of raw files, for languages without an npz reader.

::

    FOLDER/manifest.json
    FOLDER/fixture.h              shapes, and functions that read and write the files below
    FOLDER/given/z1.weight.bin    little-endian numbers in C order, nothing else
    FOLDER/expected/z1.bin        what PyTorch has
    FOLDER/candidate/z1.bin       what the program writes

A raw file tells neither shape nor dtype: both are the manifest's, and a file of another size is what it looks like.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from manual_bp.dumps._header import header
from manual_bp.dumps._manifest import WANTED, Manifest, Shape, Wanted, from_json
from manual_bp.errors import ManualBPError
from manual_bp.files import exists, is_file, is_folder, read_text, reason, write_bytes, write_text
from manual_bp.trace import Array

MANIFEST, HEADER, SUFFIX = "manifest.json", "fixture.h", ".bin"


def read_folder(folder: Path) -> tuple[Manifest, dict[str, Array]]:
    """The manifest and every array that is there, by place (``given/x``).

    What the program wrote in another size than it should, or should not have written at all, becomes a vector.

    Raises
    ------
    ManualBPError
        No manifest, a newer one, or a given array that is missing or damaged.
    """
    manifest = from_json(read_text(folder / MANIFEST, what="manifest"), folder)
    arrays: dict[str, Array] = {}
    for given in manifest.given:
        path = _path(folder, given.at)
        if _size(path) != math.prod(given.shape) * np.dtype(given.dtype).itemsize:
            what = f"{path} is missing or of another size than was exported"
            raise ManualBPError(what, hint="write the fixture again with manual-bp export")
        arrays[given.at] = _load(path, given.dtype, given.shape)
    for wanted in manifest.wanted:
        if is_file(expected := _path(folder, wanted.expected)):
            arrays[wanted.expected] = _candidate(expected, wanted, manifest)
    known = {wanted.fill_in: wanted for wanted in manifest.wanted}
    there = sorted((folder / WANTED).rglob(f"*{SUFFIX}"))
    places = {path.relative_to(folder).as_posix().removesuffix(SUFFIX): path for path in there}
    for place in (*(place for place in known if place in places), *(place for place in places if place not in known)):
        arrays[place] = _candidate(places[place], known.get(place), manifest)
    return manifest, arrays


def write_folder(folder: Path, manifest: Manifest, arrays: Mapping[str, Array], *, force: bool = False) -> None:
    """Write a fixture into a folder, which may hold other files (the program's source, say).

    Raises
    ------
    ManualBPError
        The folder holds a manifest that is not ours; a program's numbers already, which go only by ``force``; or it
        cannot be written.
    """
    numbers = sorted((folder / WANTED).rglob(f"*{SUFFIX}")) if is_folder(folder / WANTED) else []
    _check_free(folder, [] if force else numbers)
    try:
        for path in numbers:
            path.unlink()
        (folder / MANIFEST).unlink(missing_ok=True)  # while the files change it is no fixture
        for wanted in manifest.wanted:
            _path(folder, wanted.fill_in).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ManualBPError(f"cannot write {folder}: {reason(error)}", hint="choose another folder") from error
    for place, array in arrays.items():
        write_bytes(_path(folder, place), array.astype(array.dtype.newbyteorder("<"), order="C").tobytes())
    write_text(folder / HEADER, header(manifest))
    write_text(folder / MANIFEST, manifest.to_json())


def _check_free(folder: Path, numbers: list[Path]) -> None:
    if numbers:
        raise ManualBPError(
            f"{folder / WANTED} holds numbers that a program wrote for another fixture",
            hint="export to another folder, or remove them with --force",
        )
    if exists(folder / MANIFEST):
        from_json(read_text(folder / MANIFEST, what="manifest"), folder)  # somebody else's is not overwritten


def _path(folder: Path, place: str) -> Path:
    return folder / (place + SUFFIX)


def _size(path: Path) -> int:
    return path.stat().st_size if is_file(path) else -1


def _load(path: Path, dtype: str, shape: Shape | None) -> Array:
    try:
        raw = np.fromfile(path, np.dtype(dtype).newbyteorder("<"))
    except OSError as error:
        raise ManualBPError(f"cannot read {path}: {reason(error)}", hint="give a folder that can be read") from error
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    return native if shape is None else native.reshape(shape)


def _candidate(path: Path, wanted: Wanted | None, manifest: Manifest) -> Array:
    size = _size(path)
    if wanted is not None:
        for dtype in dict.fromkeys((wanted.dtype, "float64", "float32")):
            if size == math.prod(wanted.shape) * np.dtype(dtype).itemsize:
                return _load(path, dtype, wanted.shape)
    dtype = wanted.dtype if wanted is not None else manifest.dtype
    return _load(path, dtype if size % np.dtype(dtype).itemsize == 0 else "uint8", None)
