"""Sliding windows written out for mistakes: stride, padding and dilation are arguments that can be given wrongly.

Zero padding only. x (N, C, *L), g (N, O, *P), w (O, C/G, *K); tap t of window p stands on element p s + t d - b.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from manual_bp.nn import Array

Shape = tuple[int, ...]
Index = tuple[Any, ...]
ALL = slice(None)


def geometry(layer: Any) -> dict[str, Shape]:
    """stride, dilation and padding in front, of a convolution or pooling layer, one number an axis."""
    window = layer.window
    return {"stride": window.stride, "dilation": window.dilation, "padding": window.before}


def taps(
    kernel: Shape, lengths: Shape, outputs: Shape, *, stride: Shape, dilation: Shape, padding: Shape
) -> Iterator[tuple[Shape, Index, Index]]:
    """Each tap, the windows for which it stands on an element of the input, and those elements."""
    for tap in itertools.product(*map(range, kernel)):
        windows, elements = [], []
        for t, n, p, s, d, b in zip(tap, lengths, outputs, stride, dilation, padding, strict=True):
            at = np.arange(p) * s + t * d - b
            inside = (at >= 0) & (at < n)
            windows.append(np.flatnonzero(inside))
            elements.append(at[inside])
        yield tap, (ALL, ALL, *np.ix_(*windows)), (ALL, ALL, *np.ix_(*elements))


def conv_dx(s: Any, *, add: bool = True, **wrong: Shape) -> Array:
    """∂L/∂x[n,c,i] = Σ_o Σ_(p,t): p s + t d - b = i  w[o,c,t] g[n,o,p], with options exchanged for ``wrong`` ones."""
    n, o, *outputs = s.g.shape
    groups = s.layer.groups
    g = s.g.reshape(n, groups, o // groups, *outputs)
    w = s.w.reshape(groups, o // groups, *s.w.shape[1:])
    dx: Array = np.zeros_like(s.x)
    options = geometry(s.layer) | wrong
    for tap, p, i in taps(s.w.shape[2:], s.x.shape[2:], tuple(outputs), **options):
        part = np.einsum("ngo...,goc->ngc...", g, w[(..., *tap)]).reshape(n, -1, *outputs)[p]
        dx[i] = dx[i] + part if add else part
    return dx


def conv_dw(s: Any, *, x: Array | None = None, **wrong: Shape) -> Array:
    """∂L/∂w[o,c,t] = Σ_n Σ_p g[n,o,p] x[n, c, p s + t d - b], with options exchanged for ``wrong`` ones."""
    x = s.x if x is None else x
    groups = s.layer.groups
    dw: Array = np.zeros_like(s.w)
    options = geometry(s.layer) | wrong
    for tap, p, i in taps(s.w.shape[2:], x.shape[2:], s.g.shape[2:], **options):
        g_p, x_i = _grouped(s.g[p], groups), _grouped(x[i], groups)
        here: Index = (..., *tap)
        dw[here] = np.einsum("ngop,ngcp->goc", g_p, x_i).reshape(dw.shape[:2])
    return dw


def conv_y(s: Any, *, x: Array | None = None, **wrong: Shape) -> Array:
    """y[n,o,p] = b[o] + Σ_c Σ_t w[o,c,t] x[n, c, p s + t d - b], with options exchanged for ``wrong`` ones."""
    x = s.x if x is None else x
    n, o, *outputs = s.y.shape
    groups = s.layer.groups
    y: Array = np.zeros_like(s.y)
    w = s.w.reshape(groups, o // groups, *s.w.shape[1:])
    options = geometry(s.layer) | wrong
    for tap, p, i in taps(s.w.shape[2:], x.shape[2:], tuple(outputs), **options):
        x_i = x[i].reshape(n, groups, -1, *x[i].shape[2:])
        part = np.einsum("ngc...,goc->ngo...", x_i, w[(..., *tap)])
        y[p] += part.reshape(n, o, *part.shape[3:])
    return y + s.b.reshape(-1, *(1,) * len(outputs)) if s.layer.bias else y


def _grouped(a: Array, groups: int) -> Array:
    """(N, C, *L) as (N, G, C/G, elements)."""
    return a.reshape(len(a), groups, a.shape[1] // groups, -1)


def gather(s: Any, fill: float, **wrong: Shape) -> Array:
    """The elements of every window, (N, C, *P, K), with ``fill`` where a window reaches over the edge."""
    kernel = s.layer.window.kernel
    found = np.full((*s.y.shape, int(np.prod(kernel))), fill, s.x.dtype)
    for k, (_, p, i) in enumerate(taps(kernel, s.x.shape[2:], s.y.shape[2:], **(geometry(s.layer) | wrong))):
        found[(*p, k)] = s.x[i]
    return found


def scatter(s: Any, parts: Array, *, add: bool = True, **wrong: Shape) -> Array:
    """What each window gives its elements, (N, C, *P, K), summed up in them: (N, C, *L)."""
    dx: Array = np.zeros_like(s.x)
    kernel, outputs = s.layer.window.kernel, parts.shape[2:-1]
    for k, (_, p, i) in enumerate(taps(kernel, s.x.shape[2:], outputs, **(geometry(s.layer) | wrong))):
        part = parts[..., k][p]
        dx[i] = dx[i] + part if add else part
    return dx


def ones_like(shape: Shape) -> Shape:
    """1 on every axis."""
    return (1,) * len(shape)


def more(shape: Shape, by: int = 1) -> Shape:
    """Each entry larger by ``by``."""
    return tuple(n + by for n in shape)
