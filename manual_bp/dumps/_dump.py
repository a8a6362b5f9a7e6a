"""A dump: named arrays from a file of any of the three forms, with the manifest of a fixture or without."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from manual_bp.dumps._folder import MANIFEST, read_folder, write_folder
from manual_bp.dumps._manifest import EXPECTED, GIVEN, WANTED, Manifest, check_name, from_json
from manual_bp.dumps._npz import npz_bytes, read_npz
from manual_bp.dumps._safetensors import read_safetensors, safetensors_bytes
from manual_bp.errors import ManualBPError
from manual_bp.files import is_file, is_folder, write_bytes
from manual_bp.trace import Array, Trace

Form = Literal["npz", "safetensors", "bin"]

#: Names that hold text and no numbers: the manifest; which fixture the file answers; layouts of its arrays, as JSON.
TEXTS = ("manifest", "fixture", "layouts")


@dataclass(frozen=True, kw_only=True)
class Dump:
    """What a file holds.

    Attributes
    ----------
    path
        Where it was read.
    arrays
        By place (``given/x``, ``candidate/z1``), or by bare name where the file has no manifest.
    manifest
        A fixture's own.
    fixture
        The fixture that the file says it answers, a path relative to its own folder; empty if it says none.
    layouts
        By quantity, the layout that the file says its array has.
    """

    path: Path
    arrays: Mapping[str, Array]
    manifest: Manifest | None = None
    fixture: str = ""
    layouts: Mapping[str, str] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Array]:
        """The arrays under ``given/``, ``expected/`` or ``candidate/``, by name."""
        return {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}

    def candidate(self) -> dict[str, Array]:
        """What the program reports, by quantity: in a file without manifest every array, with or without prefix."""
        found = self.part(WANTED)
        if self.manifest is None:
            found |= {n: a for n, a in self.arrays.items() if not n.startswith((GIVEN, EXPECTED, WANTED))}
        return found


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program found for one fixture; ``given`` is in torch's layout, ``candidate`` as stored."""

    path: Path
    fixture: Path
    manifest: Manifest
    given: Trace
    candidate: Trace
    layouts: dict[str, str]


def form_of(path: str | os.PathLike[str]) -> Form:
    """The form that a name asks for: .npz, .safetensors, and a folder of raw files for every other."""
    suffix = Path(path).suffix.lower()
    return "npz" if suffix == ".npz" else "safetensors" if suffix == ".safetensors" else "bin"


def read(path: str | os.PathLike[str]) -> Dump:
    """Read a dump: a folder with a manifest.json, a .npz or a .safetensors file.

    Raises
    ------
    ManualBPError
        It cannot be read, is none of them, is damaged, pickled or hostile, or of a newer version.
    """
    where = Path(path)
    if is_folder(where):
        if not is_file(where / MANIFEST):
            raise ManualBPError(
                f"{path} is a folder without a {MANIFEST}", hint="give a folder that manual-bp export wrote"
            )
        manifest, arrays = read_folder(where)
        return Dump(path=where, arrays=arrays, manifest=manifest)
    texts: dict[str, str]
    if form_of(path) == "safetensors":
        arrays, texts = read_safetensors(path)
    else:
        arrays = read_npz(path)
        texts = {name: _text(path, name, arrays.pop(name)) for name in TEXTS if name in arrays}
    for name in arrays:
        try:
            check_name(name)
        except ValueError as error:
            raise ManualBPError(f"{path}: {error}", hint="use PyTorch's names, such as z1.weight.grad") from None
        if arrays[name].dtype.kind in "US":
            raise ManualBPError(f"{path}: {name} is text", hint="write arrays of numbers")
    return Dump(
        path=where,
        arrays=arrays,
        manifest=from_json(texts["manifest"], path) if "manifest" in texts else None,
        fixture=texts.get("fixture", ""),
        layouts=_layouts(path, texts.get("layouts", "{}")),
    )


def write(
    path: str | os.PathLike[str], form: Form, manifest: Manifest, arrays: Mapping[str, Array], *, force: bool = False
) -> None:
    """Write a fixture.

    Raises
    ------
    ManualBPError
        It cannot be written; or, unless ``force``, there is something already that a program's numbers are in, or that
        is no fixture at all.
    """
    if form == "bin":
        write_folder(Path(path), manifest, arrays, force=force)
        return
    if not force:
        _check_free(path)
    if form == "safetensors":
        write_bytes(path, safetensors_bytes(arrays, {"manifest": manifest.to_json()}))
    else:
        # bytes of UTF-8, not NumPy's text: readers in other languages know numbers only
        text = np.frombuffer(manifest.to_json().encode(), np.uint8)
        write_bytes(path, npz_bytes({"manifest": text, **arrays}))


def _check_free(path: str | os.PathLike[str]) -> None:
    """Refuse to write over anything that cannot be had again by exporting."""
    if not is_file(path):
        return
    hint = "choose another name, or overwrite it with --force"
    try:
        there = read(path)
    except ManualBPError as error:
        raise ManualBPError(f"{path} exists, and is no fixture", hint=hint) from error
    if there.manifest is None:
        raise ManualBPError(f"{path} exists, and is no fixture", hint=hint)
    if numbers := there.part(WANTED):
        first = f"{len(numbers)} arrays" if len(numbers) > 1 else f"{next(iter(numbers))}"
        raise ManualBPError(f"{path} holds {first} that a program wrote", hint=hint)


def _text(path: object, name: str, array: Array) -> str:
    """Text as bytes of UTF-8 or as NumPy's own."""
    try:
        if array.dtype.kind == "U":
            return str(array)
        if array.dtype.kind == "S" or (array.dtype == np.uint8 and array.ndim == 1):
            return array.tobytes().decode()
    except UnicodeDecodeError:
        pass
    raise ManualBPError(f"{path}: {name} is no text", hint="write it as a string or as bytes of UTF-8")


def _layouts(path: object, text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ManualBPError(f"{path}: layouts is no JSON object of texts", hint='write such as {"z1": "NHWC"}')
    return found
