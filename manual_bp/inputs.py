"""Inputs that are one array, a tuple of arrays, or arrays by name: ``x``; ``x[0]``, ``x[1]``; ``query``, ``key``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from manual_bp.trace import Array

INPUT = "x"


def is_several(x: Any) -> bool:
    """Whether it is more than one input: a mapping, or a tuple of arrays (a list is one array, written out)."""
    return isinstance(x, Mapping) or (isinstance(x, tuple) and len(x) > 0 and all(np.ndim(part) for part in x))


def named(x: Any) -> dict[str, Any]:
    """The inputs by the names of their quantities."""
    if isinstance(x, Mapping):
        return {str(name): part for name, part in x.items()}
    if is_several(x):
        return {f"{INPUT}[{i}]": part for i, part in enumerate(x)}
    return {INPUT: x}


def rebuilt(x: Any, parts: Mapping[str, Any]) -> Any:
    """Inputs of the same kind as ``x``, from their parts by name."""
    if isinstance(x, Mapping):
        return {name: parts[str(name)] for name in x}
    if is_several(x):
        return tuple(parts[f"{INPUT}[{i}]"] for i in range(len(x)))
    return parts[INPUT]


def mapped(x: Any, function: Callable[[Any], Any]) -> Any:
    """The same inputs, a function applied to each."""
    return rebuilt(x, {name: function(part) for name, part in named(x).items()})


def of_dtype(array: Array, dtype: Any) -> Array:
    """Indices and masks by their numbers: which type of whole numbers holds them says nothing."""
    with np.errstate(invalid="ignore"):  # what is no whole number stays as it is
        same = array.astype(dtype)
    return same if np.array_equal(same, array) else array
