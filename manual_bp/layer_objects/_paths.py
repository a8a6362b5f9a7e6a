"""Paths into a layer object: ``W``, ``params.W``, ``layers[0].W``, ``W_g[:3, 4:]``, and several that may be tried.

A dot goes into attributes and mappings alike; brackets hold an index, a key or a slice, of a list, a mapping or an
array. Nothing is evaluated: what stands in brackets is read by a parser of its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, MutableMapping
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.trace import Array

#: What an attribute is called in which a parameter object keeps its array.
BOXES = ("value", "data", "val", "array", "param")

Key = str | int | slice | tuple[int | slice, ...]

_Step = tuple[str, Key]

_PART = re.compile(r"\.?([A-Za-z_]\w*)|\[([^\]]*)\]")


@cache
def parse(path: str) -> tuple[_Step, ...]:
    """A path as steps: ("name", "W") for an attribute or key, ("item", key) for what stands in brackets.

    Raises
    ------
    ManualBPError
        If it cannot be read.
    """
    steps: list[_Step] = []
    at = 0
    while at < len(path):
        match = _PART.match(path, at)
        if match is None:
            raise ManualBPError(f"{path!r} is no path", hint="write it like W, params.W, layers[0].W or W[:-1]")
        name, inside = match.groups()
        steps.append(("name", name) if name else ("item", _key(inside, path)))
        at = match.end()
    return tuple(steps)


def _key(text: str, path: str) -> Key:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and ":" not in text:
        try:
            key = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            key = None
        if isinstance(key, (int, str)):
            return key
    try:
        keys = tuple(slice(*(int(n) if n else None for n in p.split(":"))) if ":" in p else int(p) for p in parts)
    except (ValueError, TypeError):
        raise ManualBPError(
            f"{text!r} in the path {path!r} is no index", hint="write an index, a key in quotes, or slices: W[:-1]"
        ) from None
    return keys if len(keys) > 1 else keys[0]


@cache
def _alternatives(path: str) -> tuple[tuple[_Step, tuple[tuple[_Step, ...], ...]], ...]:
    """The paths that ``|`` separates, in their order: a first step, and what follows it in each that begins with it."""
    alike = groupby(map(parse, path.split("|")), key=lambda steps: steps[0])
    return tuple((first, tuple(steps[1:] for steps in every)) for first, every in alike)


def read(layer: Any, path: str) -> Any:
    """What is at a path; the first that exists of several separated by ``|``; None if there is nothing.

    A parameter object (an array with its gradient beside it) counts as its array.
    """
    for first, every in _alternatives(path):
        begun = _step(layer, *first)
        if begun is None:  # of hundreds of paths most begin where nothing is
            continue
        for rest in every:
            value = begun
            for kind, key in rest:
                value = _step(value, kind, key)
                if value is None:
                    break
            if value is not None and not callable(value):
                return unboxed(value)
    return None


def _step(value: Any, kind: str, key: Key) -> Any:
    if kind == "name" and not isinstance(value, Mapping):
        try:
            return getattr(value, str(key), None)
        except Exception:  # noqa: BLE001  # a property of somebody else's that does not work yet
            return None
    try:
        return (unboxed(value) if isinstance(key, (slice, tuple)) else value)[key]
    except (KeyError, IndexError, TypeError):
        return None


def unboxed(value: Any) -> Any:
    """The array of a parameter object; anything else as it is."""
    box = boxed(value)
    return getattr(value, box) if box else value


def boxed(value: Any) -> str | None:
    """The attribute in which a parameter object keeps its array; None if it is none."""
    if value is None or isinstance(value, (np.ndarray, np.generic, int, float, str, Mapping, list, tuple)):
        return None
    return next((name for name in BOXES if isinstance(getattr(value, name, None), np.ndarray)), None)


def write(layer: Any, path: str, array: Array) -> None:
    """Put an array at a path; what shared its memory with the old one shares it with the new one.

    Raises
    ------
    ManualBPError
        If nothing can be put there.
    """
    *owners, (kind, last) = parse(path)
    owner: Any = layer
    for step_kind, key in owners:
        owner = _step(owner, step_kind, key)
    if (kind == "item" and isinstance(last, (slice, tuple))) or (
        kind == "item" and isinstance(unboxed(owner), np.ndarray)
    ):
        _write_slice(layer, path, unboxed(owner), last, array)
        return
    old = _step(owner, kind, last)
    box = boxed(old)
    try:
        if box:
            setattr(old, box, array)
        elif isinstance(owner, MutableMapping) or kind == "item":
            owner[last] = array
        else:
            setattr(owner, str(last), array)
    except (AttributeError, TypeError):
        if not isinstance(old, np.ndarray) or old.shape != array.shape:
            raise ManualBPError(f"nothing can be put at {path!r} of the layer", hint="name the array itself") from None
        old[...] = array  # a property without a setter hands out the array that it reads


def _write_slice(layer: Any, path: str, owner: Any, key: Key, array: Array) -> None:
    if not isinstance(owner, np.ndarray):
        raise ManualBPError(f"there is no array at {path!r} of the layer", hint="slices go into arrays")
    if owner.dtype != array.dtype:  # a float64 array would make the layer compute in float64
        whole = path[: path.rindex("[")]
        write(layer, whole, owner.astype(array.dtype))
        owner = read(layer, whole)
    owner[key] = array.reshape(owner[key].shape)


def aliases(layer: Any, array: Any) -> Iterator[str]:
    """Other paths, one or two steps deep, at which the very same array is."""
    for name, value in list(vars(layer).items()) if hasattr(layer, "__dict__") else []:
        if value is array:
            yield name
        elif isinstance(value, Mapping):
            yield from (f"{name}[{key!r}]" for key, v in value.items() if v is array and isinstance(key, (str, int)))
        elif isinstance(value, list):
            yield from (f"{name}[{i}]" for i, v in enumerate(value) if v is array)
