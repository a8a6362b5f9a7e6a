"""What a fixture says of itself: which network, which probe, which arrays are given and which are to be filled in.

The manifest is JSON::

    {"format": "manual-bp-fixture", "version": 1, "written_by": "manual-bp 0.1.0 with torch 2.13.0",
     "network": "three-layer", "probe": "digits", "description": "...", "dtype": "float64", "seed": 0, "batch": 1,
     "given":  [{"name": "z1.weight", "shape": [1, 1, 3, 3], "dtype": "float64", "layout": "OIHW",
                 "torch_shape": [1, 1, 3, 3], "role": "parameter", "crc32": 2951925760, "at": "given/z1.weight"}, ...],
     "wanted": [{"name": "z1", "shape": [1, 1, 6, 6], "dtype": "float64", "layout": "NCHW",
                 "torch_shape": [1, 1, 6, 6], "kind": "value", "equation": "...", "fill_in": "candidate/z1",
                 "expected": "expected/z1"}, ...]}

A fixture of a case of your own says ``"case": "case.py:NAME"``, a path from the fixture's own folder, and ``"digest"``,
the sha256 of that file; names and layouts are then those of the case's candidate.

``shape`` is the shape as stored, in the axes that ``layout`` names (null: torch's); ``torch_shape`` is torch's.
Keys that this version does not know are ignored; a higher ``version`` is refused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from manual_bp.errors import ManualBPError
from manual_bp.report import Kind
from manual_bp.trace import Array

FORMAT = "manual-bp-fixture"
VERSION = 1

GIVEN, WANTED, EXPECTED = "given/", "candidate/", "expected/"

Role = Literal["parameter", "buffer", "input", "target", "upstream"]

DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")

Shape = tuple[int, ...]
T = TypeVar("T")

_AGAIN = "write the fixture again with manual-bp export"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An array of a fixture: its shape and dtype as stored, its axes, and torch's shape."""

    name: str
    shape: Shape
    dtype: str
    layout: str | None
    torch_shape: Shape


@dataclass(frozen=True, kw_only=True)
class Given(Entry):
    """An array that both sides start from; ``crc32`` is that of its bytes, little-endian, in C order."""

    role: Role
    crc32: int

    @property
    def at(self) -> str:
        """Where it stands."""
        return GIVEN + self.name


@dataclass(frozen=True, kw_only=True)
class Wanted(Entry):
    """An array that the program is to find."""

    kind: Kind
    equation: str = ""

    @property
    def fill_in(self) -> str:
        """Where the program puts it."""
        return WANTED + self.name

    @property
    def expected(self) -> str:
        """Where torch's stands, unless the fixture was exported without."""
        return EXPECTED + self.name


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """See the module; ``given`` and ``wanted`` are in execution order."""

    network: str
    probe: str
    description: str
    dtype: str
    seed: int
    batch: int
    given: tuple[Given, ...]
    wanted: tuple[Wanted, ...]
    written_by: str = ""
    case: str = ""
    digest: str = ""

    def torch_shapes(self) -> list[Shape]:
        """Shapes of all that is more than a matrix, from which the sizes inside a flattened axis are read."""
        return [entry.torch_shape for entry in (*self.given, *self.wanted) if len(entry.torch_shape) > 2]

    def to_json(self) -> str:
        """The manifest as JSON text, one array a line."""
        plain = asdict(self)
        given = [asdict(g) | {"at": g.at} for g in self.given]
        wanted = [asdict(w) | {"fill_in": w.fill_in, "expected": w.expected} for w in self.wanted]
        left_out = ("given", "wanted", *(() if self.case else ("case", "digest")))
        head = {k: v for k, v in plain.items() if k not in left_out}
        lines = [f" {_text(k)}: {_text(v)}" for k, v in {"format": FORMAT, "version": VERSION, **head}.items()]
        for key, entries in (("given", given), ("wanted", wanted)):
            lines.append(f" {_text(key)}: [\n" + ",\n".join(f"  {_text(entry)}" for entry in entries) + "\n ]")
        return "{\n" + ",\n".join(lines) + "\n}\n"


def crc(array: Array) -> int:
    """crc32 of an array's bytes, little-endian, in C order."""
    return zlib.crc32(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes())


def from_json(text: str, path: object) -> Manifest:
    """Read a manifest; ``path`` names its file in errors.

    Raises
    ------
    ManualBPError
        It is not JSON, not a manifest, damaged, or of a newer version.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManualBPError(f"{path}: the manifest is not JSON: {error}", hint=_AGAIN) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ManualBPError(f"{path} is no fixture: its manifest does not say {FORMAT!r}", hint=_AGAIN)
    version = found.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ManualBPError(
            f"{path} was written by a newer manual-bp ({found.get('written_by') or 'unknown'}): "
            f"its format is version {version}, this one reads {VERSION}",
            hint="update manual-bp",
        )
    try:
        manifest = Manifest(
            given=tuple(_given(entry) for entry in _typed(found, "given", list)),
            wanted=tuple(_wanted(entry) for entry in _typed(found, "wanted", list)),
            network=_typed(found, "network", str),
            probe=_typed(found, "probe", str),
            description=_typed(found, "description", str),
            dtype=_typed(found, "dtype", str),
            seed=_typed(found, "seed", int),
            batch=_typed(found, "batch", int),
            written_by=_typed(found, "written_by", str),
            case=_typed(found, "case", str) if "case" in found else "",
            digest=_typed(found, "digest", str) if "digest" in found else "",
        )
        if manifest.dtype not in ("float32", "float64"):
            raise ValueError(f"there is no fixture in {manifest.dtype!r}")
    except ValueError as error:
        raise ManualBPError(f"{path}: the manifest is damaged: {error}", hint=_AGAIN) from error
    for entries in (manifest.given, manifest.wanted):
        names = [entry.name for entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ManualBPError(f"{path}: the manifest lists {twice[0]} twice", hint=_AGAIN)
    return manifest


def _given(entry: Any) -> Given:
    role = _typed(entry, "role", str)
    if role not in get_args(Role):
        raise ValueError(f"there is no role {role!r}")
    return Given(role=role, crc32=_typed(entry, "crc32", int), **_array(entry))  # type: ignore[arg-type]  # checked above


def _wanted(entry: Any) -> Wanted:
    kind = _typed(entry, "kind", str)
    if kind not in get_args(Kind):
        raise ValueError(f"there is no kind {kind!r}")
    return Wanted(kind=kind, equation=_typed(entry, "equation", str), **_array(entry))  # type: ignore[arg-type]  # checked above


def _array(entry: Any) -> dict[str, Any]:
    layout = entry.get("layout") if isinstance(entry, Mapping) else None
    if layout is not None and not isinstance(layout, str):
        raise ValueError(f"the layout {layout!r} is no text")
    name, dtype = _typed(entry, "name", str), _typed(entry, "dtype", str)
    check_name(name)
    if dtype not in DTYPES:
        raise ValueError(f"{name} is {dtype!r}, not one of {', '.join(DTYPES)}")
    return {
        "name": name,
        "dtype": dtype,
        "layout": layout,
        "shape": _shape(entry, "shape"),
        "torch_shape": _shape(entry, "torch_shape"),
    }


def check_name(name: str) -> None:
    """ValueError for a name that would leave its folder, or that no file can bear."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name or len(name) > 200:
        raise ValueError(f"{name!r} cannot be the name of an array")


def _shape(entry: Any, key: str) -> Shape:
    sizes = _typed(entry, key, list)
    if not all(type(n) is int and n >= 0 for n in sizes):
        raise ValueError(f"{key} {sizes} is no shape")
    return tuple(sizes)


def _typed(entry: Any, key: str, wanted: type[T]) -> T:
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if type(value) is not wanted:
        raise ValueError(f"{key!r} is missing or no {wanted.__name__}")
    return value


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
