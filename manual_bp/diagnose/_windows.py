"""Sliding windows with wrong options: reads outside of the input give ``fill``, writes there nothing.

x (N, C, *L), g and y (N, O, *P), w (O, C/G, *K). Tap t of window p stands on element i = p s + t d - b.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from manual_bp.nn._layer import Array
from manual_bp.nn._window import Shape, Window

Index = tuple[Any, ...]
_ALL = slice(None)


def taps(kernel: Shape, lengths: Shape, outputs: Shape, window: Window) -> Iterator[tuple[Shape, Index, Index]]:
    """Each tap, the windows in which it stands on an element of the input, and those elements, both as slices."""
    for tap in itertools.product(*map(range, kernel)):
        windows: list[Any] = [_ALL, _ALL]
        elements: list[Any] = [_ALL, _ALL]
        for t, n, p, s, d, b in zip(tap, lengths, outputs, window.stride, window.dilation, window.before, strict=True):
            start = t * d - b
            first = max(0, -(start // s)) if start < 0 else 0
            last = min(p - 1, (n - 1 - start) // s)
            if last < first:
                break
            windows.append(slice(first, last + 1))
            elements.append(slice(first * s + start, last * s + start + 1, s))
        else:
            yield tap, tuple(windows), tuple(elements)


def _grouped(a: Array, groups: int) -> Array:
    """(N, C, *L) as (N, G, C/G, elements)."""
    return a.reshape(len(a), groups, a.shape[1] // groups, -1)


def conv(x: Array, w: Array, *, window: Window, outputs: Window, groups: int) -> Array:
    """y[n,o,p] = Σ_c Σ_t w[o,c,t] x[n, c, p s + t d - b]; ``outputs`` says how many windows there are."""
    o = len(w)
    shape = outputs.outputs(x.shape[2:])
    y = np.zeros((len(x), groups, o // groups, *shape))
    w = w.reshape(groups, o // groups, -1, *w.shape[2:])  # (G, O/G, C/G, *K)
    for tap, p, i in taps(window.kernel, x.shape[2:], shape, window):
        at: Index = (..., *tap)
        part = w[at] @ _grouped(x[i], groups)  # (N, G, O/G, elements)
        y[(_ALL, *p)] += part.reshape(y[(_ALL, *p)].shape)
    return y.reshape(len(x), o, *shape)


def conv_dx(g: Array, w: Array, x: Array, *, window: Window, groups: int, order: str = "") -> Array:
    """∂L/∂x[n,c,i] = Σ_o Σ_(p,t): p s + t d - b = i  w[o,c,t] g[n,o,p].

    ``order`` "taps" or "windows": the share of the last tap (or window) overwrites the others.
    """
    dx = np.zeros(x.shape)
    w = w.reshape(groups, len(w) // groups, -1, *w.shape[2:])
    if order == "windows":
        return _by_windows(g, w, dx, window, groups)
    for tap, p, i in taps(window.kernel, x.shape[2:], g.shape[2:], window):
        at: Index = (..., *tap)
        part = w[at].swapaxes(-1, -2) @ _grouped(g[p], groups)  # (N, G, C/G, elements)
        part = part.reshape(dx[i].shape)
        dx[i] = part if order == "taps" else dx[i] + part
    return dx


def _by_windows(g: Array, w: Array, dx: Array, window: Window, groups: int) -> Array:
    """Every window writes its whole patch, so that the last one to cover an element wins."""
    lengths = dx.shape[2:]
    padded = np.zeros(
        (*dx.shape[:2], *(n + b + s for n, b, s in zip(lengths, window.before, window.span, strict=True)))
    )
    n, c = dx.shape[:2]
    flat = w.reshape(groups, w.shape[1], -1)  # (G, O/G, C/G * K)
    for p in np.ndindex(*g.shape[2:]):
        patch = np.einsum("gok,ngo->ngk", flat, g[(..., *p)].reshape(n, groups, -1))
        target = padded[window.at(p)]
        if target.size == patch.size:
            target[...] = patch.reshape(target.shape)
    inside: Index = (_ALL, _ALL, *(slice(b, b + k) for b, k in zip(window.before, lengths, strict=True)))
    return np.asarray(padded[inside].reshape(n, c, *lengths))


def conv_dw(g: Array, x: Array, w: Array, *, window: Window, groups: int) -> Array:
    """∂L/∂w[o,c,t] = Σ_n Σ_p g[n,o,p] x[n, c, p s + t d - b]."""
    dw = np.zeros((groups, len(w) // groups, *w.shape[1:]))
    for tap, p, i in taps(window.kernel, x.shape[2:], g.shape[2:], window):
        parts = _grouped(g[p], groups) @ _grouped(x[i], groups).swapaxes(-1, -2)  # (N, G, O/G, C/G)
        at: Index = (..., *tap)
        dw[at] = parts.sum(axis=0)
    return dw.reshape(w.shape)


def gather(x: Array, window: Window, outputs: Shape, fill: float, skip: int | None = None) -> Array:
    """The elements of every window, (N, C, *P, K); the tap ``skip`` is left at ``fill``."""
    count = int(np.prod(window.kernel))
    found = np.full((*x.shape[:2], *outputs, count), fill)
    place = {tap: k for k, tap in enumerate(itertools.product(*map(range, window.kernel)))}
    for tap, p, i in taps(window.kernel, x.shape[2:], outputs, window):
        found[(*p, ..., place[tap])] = x[i]
    if skip is not None:
        found[..., skip] = fill
    return found


def scatter(parts: Array, lengths: Shape, window: Window, order: str = "") -> Array:
    """What each window gives its elements, (N, C, *P, K), summed up in them: (N, C, *L)."""
    dx = np.zeros((*parts.shape[:2], *lengths))
    place = {tap: k for k, tap in enumerate(itertools.product(*map(range, window.kernel)))}
    if order == "windows":
        return _patches(parts, dx, window)
    for tap, p, i in taps(window.kernel, lengths, parts.shape[2:-1], window):
        part = parts[(*p, ..., place[tap])]
        dx[i] = part if order == "taps" else dx[i] + part
    return dx


def _patches(parts: Array, dx: Array, window: Window) -> Array:
    lengths = dx.shape[2:]
    place = list(itertools.product(*map(range, window.kernel)))
    for p in np.ndindex(*parts.shape[2:-1]):
        for k, tap in enumerate(place):
            at = [
                q * s + t * d - b
                for q, s, t, d, b in zip(p, window.stride, tap, window.dilation, window.before, strict=True)
            ]
            if all(0 <= i < n for i, n in zip(at, lengths, strict=True)):
                dx[(_ALL, _ALL, *at)] = parts[(_ALL, _ALL, *p, k)]
    return dx


def maximum(
    x: Array, *, window: Window, ceil: bool, outputs: Window, fill: float = -np.inf, skip: int | None = None
) -> Array:
    """The largest element of each window."""
    shape = outputs.outputs(x.shape[2:], ceil=ceil)
    found = gather(x, window, shape, fill, None)
    if skip is not None:
        found[..., skip] = -np.inf
    return np.asarray(found.max(axis=-1))


def maximum_dx(
    g: Array, x: Array, *, window: Window, winner: str = "first", order: str = "", to: Window | None = None
) -> Array:
    """Each window's error to its winner: "first", "last", "all" of the equal ones, "shared" among them, or "every" one.

    Or wrongly: "smallest", "transposed", "tap K" (always the same place), "of all channels" (that of the first one).

    ``to`` are the windows into which it is put back, if they are others than those the winners are found in.
    """
    values = gather(x, window, g.shape[2:], -np.inf)
    if winner == "every":
        chosen = np.isfinite(values).astype(np.float64)
    elif winner in ("first", "last"):
        k = values.shape[-1]
        at = values.argmax(axis=-1) if winner == "first" else k - 1 - values[..., ::-1].argmax(axis=-1)
        chosen = (np.arange(k) == at[..., None]).astype(np.float64)
    elif winner == "smallest":
        low = np.where(np.isfinite(values), values, np.inf)
        chosen = (np.arange(values.shape[-1]) == low.argmin(axis=-1)[..., None]).astype(np.float64)
    elif winner.startswith("tap "):
        chosen = np.zeros(values.shape)
        chosen[..., int(winner.removeprefix("tap "))] = 1
    elif winner in ("of all channels", "of all examples"):
        axis = 1 if winner == "of all channels" else 0
        chosen = np.broadcast_to(_first(values[:, :1] if axis else values[:1]), values.shape)
    elif winner == "transposed":
        first = (np.arange(values.shape[-1]) == values.argmax(axis=-1)[..., None]).astype(np.float64)
        square = first.reshape(*first.shape[:-1], *window.kernel).swapaxes(-1, -2)
        if square.shape[-2:] != tuple(window.kernel[-2:]):
            raise ValueError("only a square window has a transposed winner")
        chosen = square.reshape(first.shape)
    else:
        chosen = (values == values.max(axis=-1, keepdims=True)).astype(np.float64)
        if winner == "shared":
            chosen /= chosen.sum(axis=-1, keepdims=True)
    if order in ("taps-winners", "windows-winners"):
        return _winners(chosen * g[..., None], chosen, x.shape[2:], window)
    return scatter(chosen * g[..., None], x.shape[2:], to or window, order)


def _first(values: Array) -> Array:
    """1 at the first largest element of each window."""
    return np.asarray(np.arange(values.shape[-1]) == values.argmax(axis=-1)[..., None], np.float64)


def _winners(parts: Array, chosen: Array, lengths: Shape, window: Window) -> Array:
    """Only the winner's element is assigned, not added to: the last window to choose it overwrites the earlier ones."""
    dx = np.zeros((*parts.shape[:2], *lengths))
    place = list(itertools.product(*map(range, window.kernel)))
    for p in np.ndindex(*parts.shape[2:-1]):
        for k, tap in enumerate(place):
            at = [
                q * s + t * d - b
                for q, s, t, d, b in zip(p, window.stride, tap, window.dilation, window.before, strict=True)
            ]
            if all(0 <= i < n for i, n in zip(at, lengths, strict=True)):
                here = (_ALL, _ALL, *at)
                won = chosen[(_ALL, _ALL, *p, k)] > 0
                dx[here] = np.where(won, parts[(_ALL, _ALL, *p, k)], dx[here])
    return dx


def divisors(lengths: Shape, outputs: Shape, window: Window, count_include_pad: bool, override: int | None) -> Array:
    """How many elements count in each window, (*P)."""
    from manual_bp.nn.textbook import avg_pool_divisor

    found = np.empty(outputs)
    for p in np.ndindex(*outputs):
        found[p] = avg_pool_divisor(p, lengths, window, count_include_pad, override)
    return found


def average(
    x: Array,
    *,
    window: Window,
    outputs: Window,
    ceil: bool,
    count_include_pad: bool,
    divisor: int | None,
    skip: int | None = None,
) -> Array:
    """The mean of each window."""
    shape = outputs.outputs(x.shape[2:], ceil=ceil)
    sums = gather(x, window, shape, 0.0, skip).sum(axis=-1)
    return np.asarray(sums / divisors(x.shape[2:], shape, window, count_include_pad, divisor))


def average_dx(
    g: Array, x: Array, *, window: Window, count_include_pad: bool, divisor: int | None, order: str = ""
) -> Array:
    """Each window's error in equal shares to its elements.

    ``order`` "tiled" lays the errors side by side instead; "repeated" repeats each, the last up to the border.
    """
    share = g / divisors(x.shape[2:], g.shape[2:], window, count_include_pad, divisor)
    if order == "repeated":
        for axis, (n, k) in enumerate(zip(x.shape[2:], window.kernel, strict=True), start=2):
            share = share.take(np.minimum(np.arange(n) // k, share.shape[axis] - 1), axis=axis)
        return np.asarray(share)
    if order == "tiled":
        return np.tile(share, (1, 1, *window.kernel)).reshape(x.shape)
    parts = np.broadcast_to(share[..., None], (*g.shape, int(np.prod(window.kernel))))
    return scatter(parts, x.shape[2:], window, order)
