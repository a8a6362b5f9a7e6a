"""What the operations of a formula compute, in float64, and how a rounding error passes through each of them.

Three kinds: a *move* puts numbers elsewhere and rounds nothing; a *linear* operation is linear in each argument and a
sum of ``terms`` products; a *map* acts element by element. Their error rules are those of a running error analysis
(Higham, "Accuracy and Stability of Numerical Algorithms", chapter 3); see `manual_bp.diagnose._evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from manual_bp.nn import _window_pad
from manual_bp.nn._layer import Array
from manual_bp.nn._special import erf, log_softmax, softmax

from . import _moves, _windows


@dataclass(frozen=True)
class Op:
    """One operation: its function of arrays, its kind, and how many products it sums."""

    value: Callable[..., Any]
    kind: str
    terms: Callable[..., int] = lambda *_, **__: 1


def bfloat16(a: Array) -> Array:
    """Rounded to eight significant bits, to even."""
    bits = np.asarray(a, np.float32).view(np.uint32)
    kept = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(a), kept.view(np.float32), a).astype(np.float64)


def rounded(a: Array, *, to: str) -> Array:
    """Through a lower precision and back; "truncated" is bfloat16 cut off, the upper half of a float32."""
    if to == "truncated":
        bits = np.asarray(a, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        return bits.view(np.float32).astype(np.float64)
    return bfloat16(a) if to == "bfloat16" else a.astype(to).astype(np.float64)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "> ½": lambda a: (a > 0.5).astype(np.float64),
    "positive": lambda a: (a > 0).astype(np.float64),
    "sqrt": np.sqrt,
    "square": np.square,
    "cube": lambda a: a * a * a,
    "abs": np.abs,
    "sign": np.sign,
    "reciprocal": lambda a: 1 / a,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "log_sigmoid": lambda a: np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a))),
    "softplus": lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a))),
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "cdf": lambda a: 0.5 * (1 + erf(a * math.sqrt(0.5))),
    "pdf": lambda a: np.exp(-0.5 * a * a) / math.sqrt(2 * math.pi),
    "e^(−x²/2)": lambda a: np.exp(-0.5 * a * a),
    "e^(−x²/2) / 2π": lambda a: np.exp(-0.5 * a * a) / (2 * math.pi),
    "σ(1.702 x)": lambda a: 1 / (1 + np.exp(-1.702 * a)),
    "the hard sigmoid": lambda a: np.clip(0.2 * a + 0.5, 0, 1),
    "the hard sigmoid x/6 + ½": lambda a: np.clip(a / 6 + 0.5, 0, 1),
    "sigmoid slope": lambda a: _slope(1 / (1 + np.exp(-a))),
    "tanh slope": lambda a: 1 - np.tanh(a) ** 2,
    "clip 0 1": lambda a: np.clip(a, 0, 1),
    "clip -1 1": lambda a: np.clip(a, -1, 1),
}


def _slope(s: Array) -> Array:
    return np.asarray(s * (1 - s))


def _sum(a: Array, *, axes: Any, keep: bool) -> Array:
    return np.asarray(a.sum(axis=axes, keepdims=keep))


def _count(a: Array, *, axes: Any) -> int:
    return a.size if axes is None else math.prod(a.shape[i] for i in axes)


def _mul(*factors: Array) -> Array:
    return np.asarray(math.prod(factors[1:], start=factors[0]))


def _add(*terms: Array) -> Array:
    return np.asarray(sum(terms[1:], start=terms[0]))


def _matmul(a: Array, b: Array, *, left: bool, right: bool) -> Array:
    """a b, either of them transposed; for aᵀ b the leading axes of both are merged first."""
    if left:
        return np.asarray(a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1]))
    return np.asarray(a @ (b.T if right else b))


def _like(a: Array, like: Array) -> Array:
    return a.reshape(like.shape)


def _greater(a: Array, *, than: float, tie: float = 0.0, less: bool = False) -> Array:
    found = (a < than) if less else (a > than)
    return np.where(a == than, tie, found.astype(np.float64))


def _pad(x: Array, *, window: Any, mode: str) -> Array:
    if mode == "symmetric":
        b, a = window.before, window.after
        return np.pad(x, ((0, 0), (0, 0), *zip(b, a, strict=True)), mode="symmetric")
    return _window_pad.pad(x, window, mode)


def _unpad(g: Array, x: Array, *, window: Any, mode: str) -> Array:
    return _window_pad.unpad(g, window, x.shape[2:], mode)


def _column(v: Array, like: Array, *, axis: int) -> Array:
    """(C,) so that it broadcasts along that axis of ``like``."""
    return v.reshape(-1, *(1,) * (like.ndim - 1 - axis % like.ndim))


def _one_hot(y: Array, like: Array, *, axis: int, shift: int = 0, ignore: float = math.nan) -> Array:
    """1 at the class of each position, 0 elsewhere and where the class is to be ignored."""
    classes = like.shape[axis]
    counted = y != ignore
    index = np.where(counted, y, 0).astype(np.int64) + shift
    one = np.moveaxis((index[..., None] == np.arange(classes)).astype(np.float64), -1, axis)
    return np.asarray(one * np.expand_dims(counted, axis))


def _smoothed(classes: int, smoothing: float, spread: str) -> Array:
    """What each class gets of the smoothing."""
    return np.asarray(smoothing / {"all": classes, "others": max(classes - 1, 1), "none": 1}[spread])


def _terms_of_conv(_x: Array, w: Array, **_: Any) -> int:
    return math.prod(w.shape[1:]) + 1


OPS: dict[str, Op] = {
    "scale": Op(lambda a, *, by: a * by, "linear"),
    "add": Op(_add, "linear", lambda *a, **_: len(a)),
    "mul": Op(_mul, "linear", lambda *a, **_: len(a)),
    "sum": Op(_sum, "linear", lambda a, *, axes, keep: _count(a, axes=axes)),
    "matmul": Op(
        _matmul,
        "linear",
        lambda a, b, *, left, right: (b.size // b.shape[-1] if left else b.shape[1 if right else 0]) + 1,
    ),
    "conv": Op(_windows.conv, "linear", _terms_of_conv),
    "conv_dx": Op(_windows.conv_dx, "conv_dx", lambda g, w, x, **_: len(w) * math.prod(w.shape[2:]) + 1),
    "conv_dw": Op(_windows.conv_dw, "conv_dx", lambda g, x, w, **_: len(x) * math.prod(g.shape[2:]) + 1),
    "maximum": Op(_windows.maximum, "select"),
    "maximum_dx": Op(_windows.maximum_dx, "conv_dx", lambda g, x, *, window, **_: math.prod(window.kernel) + 2),
    "average": Op(_windows.average, "linear", lambda x, *, window, **_: math.prod(window.kernel) + 2),
    "average_dx": Op(_windows.average_dx, "conv_dx", lambda g, x, *, window, **_: math.prod(window.kernel) + 2),
    "pad": Op(_pad, "move"),
    "unpad": Op(_unpad, "conv_dx", lambda g, x, **_: 8),
    "div": Op(lambda a, b: a / b, "map"),
    "pow": Op(lambda a, *, to: a**to, "map"),
    "fn": Op(lambda a, *, name: FUNCTIONS[name](a), "map"),
    "clip": Op(lambda a, *, low, high: np.clip(a, low, high), "map"),
    "softmax": Op(lambda a, *, axis: softmax(a, axis), "softmax"),
    "log_softmax": Op(lambda a, *, axis: log_softmax(a, axis), "softmax"),
    "greater": Op(_greater, "mask"),
    "within": Op(lambda a, *, below: (np.abs(a) < below).astype(np.float64), "mask"),
    "nonzero": Op(lambda a: (a != 0).astype(np.float64), "mask"),
    "one_hot": Op(_one_hot, "mask"),
    "inverse_count": Op(lambda a, *, axes: np.asarray(1 / max(_count(a, axes=axes), 1)), "mask"),
    "inverse_count_minus": Op(lambda a, *, axes, minus: np.asarray(1 / (_count(a, axes=axes) - minus)), "mask"),
    "count": Op(lambda a, *, axes: np.asarray(float(_count(a, axes=axes))), "mask"),
    "like_classes": Op(lambda a, *, smoothing, spread: _smoothed(a.shape[1], smoothing, spread), "mask"),
    "where": Op(lambda m, a, b: np.where(m > 0, a, b), "where"),
    "like": Op(_like, "conv_dx", lambda a, like: 0),
    "column": Op(_column, "conv_dx", lambda v, like, *, axis: 0),
    "round": Op(rounded, "move"),
    "computed_in": Op(lambda a, *, to: a, "move"),  # the precision enters the error only
    "max_along": Op(lambda a, *, axis: a.max(axis=axis, keepdims=True), "select"),
    **{name: Op(move, "move") for name, move in _moves.MOVES.items()},
}
