"""Edits that only move, drop or repeat the numbers of an array."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from manual_bp.nn._layer import Array


def _at(a: Array, axis: int, index: Any) -> tuple[Any, ...]:
    return (slice(None),) * (axis % a.ndim) + (index,)


def _flip(a: Array, *, axes: tuple[int, ...]) -> Array:
    return np.flip(a, axes)


def _permute(a: Array, *, axes: tuple[int, ...]) -> Array:
    return a.transpose(axes)


def _roll(a: Array, *, axis: int, by: int) -> Array:
    """Moved on cyclically."""
    return np.roll(a, by, axis)


def _shift(a: Array, *, axis: int, by: int) -> Array:
    """Moved on, zeros move in."""
    out = np.zeros_like(a)
    n = a.shape[axis]
    if by > 0:
        out[_at(a, axis, slice(by, None))] = a[_at(a, axis, slice(0, n - by))]
    else:
        out[_at(a, axis, slice(0, n + by))] = a[_at(a, axis, slice(-by, None))]
    return out


def _only(a: Array, *, axis: int, index: int) -> Array:
    """One slice, zeros elsewhere."""
    out = np.zeros_like(a)
    out[_at(a, axis, index)] = a[_at(a, axis, index)]
    return out


def _without(a: Array, *, axis: int, index: int) -> Array:
    """One slice set to zero."""
    out = a.copy()
    out[_at(a, axis, index)] = 0
    return out


def _pick(a: Array, *, axis: int, index: int) -> Array:
    """One slice in place of all: the axis is gone."""
    return np.asarray(a[_at(a, axis, index)])


def _spread(a: Array, *, axis: int, index: int) -> Array:
    """One slice repeated along the axis."""
    return np.broadcast_to(a[_at(a, axis, slice(index, index + 1 or None))], a.shape)


def _pooled(a: Array, *, axes: tuple[int, ...], mean: bool) -> Array:
    """Every element gets the sum (the mean) over the axes."""
    found = a.mean(axis=axes, keepdims=True) if mean else a.sum(axis=axes, keepdims=True)
    return np.broadcast_to(found, a.shape)


def _reread(a: Array, *, axes: tuple[int, ...]) -> Array:
    """The same memory read in another order: transposed, and put back into the old shape."""
    return a.transpose(axes).reshape(a.shape)


def _unread(a: Array, *, axes: tuple[int, ...]) -> Array:
    """The inverse of `_reread`: filled as if the axes stood in that order."""
    shape = tuple(a.shape[i] for i in axes)
    return a.reshape(shape).transpose(np.argsort(axes))


def _shuffle(a: Array, *, axis: int, groups: int) -> Array:
    """Channels counted as c G + g in place of g C/G + c."""
    n = a.shape[axis]
    split = a.reshape(*a.shape[:axis], groups, n // groups, *a.shape[axis + 1 :])
    return split.swapaxes(axis, axis + 1).reshape(a.shape)


def _border(a: Array, *, margins: tuple[int, ...]) -> Array:
    """Only what lies at least so far from every edge of the last axes; zeros at the border."""
    out = np.zeros_like(a)
    inside: Any = (
        ...,
        *(slice(m, max(n - m, m)) for m, n in zip(margins, a.shape[a.ndim - len(margins) :], strict=True)),
    )
    out[inside] = a[inside]
    return out


def _element(a: Array, *, index: int, value: float) -> Array:
    """One element overwritten, by its place in memory."""
    out = np.array(a, order="C")
    out.reshape(-1)[index] = value
    return out


def _fill(a: Array, *, value: float) -> Array:
    return np.full(a.shape, value)


def _triangle(a: Array, *, lower: bool) -> Array:
    return np.tril(a) if lower else np.triu(a)


def _flat(a: Array) -> Array:
    return a.reshape(-1)


def _reshape(a: Array, *, shape: tuple[int, ...]) -> Array:
    return a.reshape(shape)


def _merge(a: Array, *, first: int, last: int) -> Array:
    """Axes ``first`` to ``last`` merged into one."""
    ndim = max(a.ndim, 1)
    a = a.reshape(a.shape or (1,))
    first, last = first % ndim, last % ndim
    return a.reshape(*a.shape[:first], math.prod(a.shape[first : last + 1]), *a.shape[last + 1 :])


def _squeeze(a: Array) -> Array:
    return a.squeeze()


MOVES: dict[str, Callable[..., Array]] = {
    "flip": _flip,
    "permute": _permute,
    "roll": _roll,
    "shift": _shift,
    "only": _only,
    "without": _without,
    "pick": _pick,
    "spread": _spread,
    "pooled": _pooled,
    "reread": _reread,
    "unread": _unread,
    "shuffle": _shuffle,
    "border": _border,
    "element": _element,
    "fill": _fill,
    "triangle": _triangle,
    "flat": _flat,
    "reshape": _reshape,
    "merge": _merge,
    "squeeze": _squeeze,
}
