"""Padding by torch's padding modes, and its adjoint.

Padding is linear and separable: along one axis the padded array is x[index], with one source
index for each padded position (or none, for zeros). Its adjoint therefore sums, into each element,
the gradients of all the positions that were copied from it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ._layer import Array, NNError
from ._window import Index, Window

MODES = ("zeros", "reflect", "replicate", "circular")


@lru_cache(maxsize=512)
def sources(length: int, before: int, after: int, mode: str) -> npt.NDArray[np.intp]:
    """The element of an axis that each padded position copies: x[source] is the padded axis.

    reflect mirrors at the border element without repeating it, replicate repeats it, circular
    continues at the other end.
    """
    source: npt.NDArray[np.intp]
    position = np.arange(-before, length + after)
    if mode == "reflect":
        last = length - 1
        source = last - np.abs(last - np.abs(position))
    elif mode == "replicate":
        source = np.clip(position, 0, length - 1)
    else:
        source = position % length
    source.setflags(write=False)  # shared by all callers through the cache
    return source


def check(layer: str, window: Window, lengths: tuple[int, ...], mode: str) -> None:
    """Raise NNError where the input is too small to be padded so far: torch copies each element at most once a side."""
    limit = {"reflect": -1, "circular": 0}.get(mode)
    if limit is None:
        return
    for axis, (length, b, a) in enumerate(zip(lengths, window.before, window.after, strict=True)):
        if max(b, a) > length + limit:
            raise NNError(
                f"{layer}: padding {max(b, a)} on spatial axis {axis} of length {length}; "
                f"padding_mode={mode!r} takes at most {length + limit} there"
            )


def pad(x: Array, window: Window, mode: str = "zeros") -> Array:
    """The padded input, (N, C, *L) -> (N, C, *(b + L + a)); ``x`` itself where nothing is padded."""
    if not window.padded:
        return x
    if mode == "zeros":
        lengths = [b + n + a for n, b, a in zip(x.shape[2:], window.before, window.after, strict=True)]
        padded = np.zeros((*x.shape[:2], *lengths), x.dtype)
        padded[interior(window, x.shape[2:])] = x
        return padded
    for axis, (b, a) in enumerate(zip(window.before, window.after, strict=True), start=2):
        if b or a:
            x = x.take(sources(x.shape[axis], b, a, mode), axis=axis)
    return x


def unpad(gradient: Array, window: Window, lengths: tuple[int, ...], mode: str = "zeros") -> Array:
    """Adjoint of `pad`: dL/dx from dL/d(padded x)."""
    if not window.padded:
        return gradient
    if mode == "zeros":
        return gradient[interior(window, lengths)]
    for axis, (length, b, a) in enumerate(zip(lengths, window.before, window.after, strict=True), start=2):
        if not (b or a):
            continue
        lead = (slice(None),) * axis
        folded = gradient[(*lead, slice(b, b + length))].copy()
        source = sources(length, b, a, mode)
        for position in (*range(b), *range(b + length, b + length + a)):
            folded[(*lead, source[position])] += gradient[(*lead, position)]
        gradient = folded
    return gradient


def interior(window: Window, lengths: tuple[int, ...]) -> Index:
    """The input's own place within the padded array."""
    return (..., *(slice(b, b + n) for n, b in zip(lengths, window.before, strict=True)))
