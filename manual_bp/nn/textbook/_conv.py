"""Convolution (cross-correlation, as in every deep-learning library) by its definition.

With window p, tap k, stride s, dilation d and the padded input x (N, C, *L)::

    y[n,o,p]      = b[o] + sum_c sum_k  w[o,c,k] x[n, c, p s + k d]
    dL/dx[n,c,i]  = sum over all (p, k) with p s + k d = i  of  sum_o w[o,c,k] g[n,o,p]
    dL/dw[o,c,k]  = sum_n sum_p  g[n,o,p] x[n, c, p s + k d]
    dL/db[o]      = sum_n sum_p  g[n,o,p]

where g = dL/dy. With groups, output channel o sees only the input channels of its own group.

Sources: Goodfellow, Bengio & Courville 2016, "Deep Learning", chapter 9 (9.4 to 9.13); Dumoulin &
Visin 2016 (arXiv:1603.07285).
"""

from __future__ import annotations

import math

import numpy as np

from .._layer import Array
from .._window import Window
from .._window_pad import pad, unpad


def conv_forward(x: Array, weight: Array, bias: Array | None, window: Window, *, groups: int = 1) -> Array:
    """Output y from x (N, C, *L), weight (O, C/G, *K) and bias (O,); zero padding by ``window``."""
    n, o, k = len(x), len(weight), math.prod(weight.shape[1:])
    padded = pad(x, window)
    w = weight.reshape(groups, o // groups, k)  # (G, O/G, C/G * K)
    y = np.empty((n, o, *window.outputs(x.shape[2:])), x.dtype)
    for p in np.ndindex(y.shape[2:]):
        patch = padded[window.at(p)].reshape(n, groups, k)  # (N, G, C/G * K)
        y[(..., *p)] = np.einsum("gok,ngk->ngo", w, patch).reshape(n, o)
    return y if bias is None else y + bias.reshape(-1, *(1,) * (x.ndim - 2))


def conv_backward(
    x: Array, weight: Array, upstream: Array, window: Window, *, groups: int = 1
) -> tuple[Array, Array, Array]:
    """(dL/dx, dL/dw, dL/db) from upstream = dL/dy (N, O, *P)."""
    n, o, k = len(x), len(weight), math.prod(weight.shape[1:])
    padded = pad(x, window)
    w = weight.reshape(groups, o // groups, k)  # (G, O/G, C/G * K)
    d_padded, dw = np.zeros_like(padded), np.zeros_like(w)
    positions = np.ndindex(upstream.shape[2:]) if n else ()  # einsum leaves a longdouble sum over nothing uninitialised
    for p in positions:
        patch = padded[window.at(p)].reshape(n, groups, k)  # (N, G, C/G * K)
        g = upstream[(..., *p)].reshape(n, groups, o // groups)  # (N, G, O/G)
        d_padded[window.at(p)] += np.einsum("gok,ngo->ngk", w, g).reshape(n, x.shape[1], *window.kernel)
        dw += np.einsum("ngo,ngk->gok", g, patch)
    db = upstream.sum(axis=(0, *range(2, x.ndim)))
    return unpad(d_padded, window, x.shape[2:]), dw.reshape(weight.shape), db
