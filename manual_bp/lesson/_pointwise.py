"""Activations and normalisations with a run's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from manual_bp.nn import Array
from manual_bp.report_lesson import Grid, Worked

from ._number import Index, at, factor, grid, largest, num
from ._view import View

_ROOT = math.sqrt(2 / math.pi)


def _sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _gelu_slope(x: float, view: View) -> float:
    if getattr(view.layer, "approximate", "none") == "tanh":
        inner = math.tanh(_ROOT * (x + 0.044715 * x**3))
        return 0.5 * (1 + inner) + 0.5 * x * (1 - inner**2) * _ROOT * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + math.erf(x / math.sqrt(2))) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _sigmoid_value(x: float) -> str:
    return f"1 / (1 + exp(-{factor(x)}))" if x > -700 else num(_sigma(x))


#: y = f(x) with the number in it; a class that is missing shows y alone.
_VALUES: dict[str, Callable[[float, View], str]] = {
    "ReLU": lambda x, view: f"max({num(x)}, 0)",
    "LeakyReLU": lambda x, view: num(x) if x > 0 else f"{num(view.options.negative_slope)} · {factor(x)}",
    "Sigmoid": lambda x, view: _sigmoid_value(x),
    "Tanh": lambda x, view: f"tanh({num(x)})",
    "SiLU": lambda x, view: f"{factor(x)} · {factor(_sigma(x))}",
    "Identity": lambda x, view: num(x),
}

#: f'(x) as a product with the numbers in it, from x and y.
_SLOPES: dict[str, Callable[[float, float, View], str]] = {
    "ReLU": lambda x, y, view: "1" if x > 0 else "0",
    "LeakyReLU": lambda x, y, view: "1" if x > 0 else num(view.options.negative_slope),
    "Sigmoid": lambda x, y, view: f"{factor(y)} · (1 - {factor(y)})",
    "Tanh": lambda x, y, view: f"(1 - {factor(y)} · {factor(y)})",
    "SiLU": lambda x, y, view: f"{factor(_sigma(x))} · (1 + {factor(x)} · (1 - {factor(_sigma(x))}))",
    "GELU": lambda x, y, view: factor(_gelu_slope(x, view)),
    "Softplus": lambda x, y, view: factor(_sigma(view.options.beta * x)),
    "Identity": lambda x, y, view: "1",
}


def knows(view: View) -> bool:
    """Whether the layer acts on each element alone, by a function that is known here."""
    return type(view.layer).__name__ in _SLOPES


def value(view: View) -> tuple[Worked, ...]:
    """One element."""
    index = largest(view.y)
    write = _VALUES.get(type(view.layer).__name__)
    result = float(view.y[index])
    expression = write(float(view.x[0][index]), view) if write else num(result)
    note = "" if write else f"at x = {num(view.x[0][index])}"
    return (Worked(label=at(view.symbols["y"], index), expression=expression, result=result, note=note),)


def input_gradient(view: View, index: Index) -> tuple[Worked, ...]:
    """One element that lets the error through, and for a ReLU one that stops it."""
    shown = [_one(view, index, _planes(view, index))]
    if type(view.layer).__name__ in ("ReLU", "LeakyReLU"):
        stopped = np.where(view.x[0] <= 0, np.abs(view.dy), -1.0)
        other = largest(np.maximum(stopped, 0)) if np.any(stopped > 0) else largest(view.x[0] <= 0)
        if view.x[0][other] <= 0 and other != index:
            shown.append(_one(view, other, ()))
    return tuple(shown)


def _one(view: View, index: Index, grids: tuple[Grid, ...]) -> Worked:
    x, y, dy = (float(array[index]) for array in (view.x[0], view.y, view.dy))
    slope = _SLOPES[type(view.layer).__name__](x, y, view)
    note = f"{at(view.symbols['x0'], index)} = {num(x)}"
    if type(view.layer).__name__ == "ReLU":
        note += ", so the error passes" if x > 0 else ", so nothing passes"
    return Worked(
        label=at(view.symbols["dx0"], index),
        expression=f"{factor(dy)} · {slope}",
        result=float(view.dx[0][index]),
        grids=grids,
        note=note,
    )


def _planes(view: View, index: Index) -> tuple[Grid, ...]:
    """For a ReLU on images: what is positive, and what passes."""
    if type(view.layer).__name__ != "ReLU" or view.y.ndim != 4:
        return ()
    plane, around = index[:2], (index[2], index[3])
    positive = [(int(r), int(c)) for r, c in np.argwhere(view.x[0][plane] > 0)]
    return (
        grid(f"{view.symbols['x0']}, positive ones marked", view.x[0][plane], around=around, marked=positive),
        grid(view.symbols["dx0"], view.dx[0][plane], around=around, marked=positive),
    )


def normalised(view: View) -> tuple[Array, Array, Array, tuple[int, ...]]:
    """x̂, μ, 1/√(σ² + ε) (each broadcast to the input's shape) and the axes of a group, none for given statistics."""
    x, layer = view.x[0], view.options
    batch = type(layer).__name__.startswith("BatchNorm")
    shape = (1, -1, *(1,) * (x.ndim - 2)) if batch else ()
    over = (0, *range(2, x.ndim)) if batch else tuple(range(-len(layer.shape), 0))
    if batch and not layer.training and layer.track_running_stats:
        mean, variance = (view.params[name].reshape(shape) for name in ("running_mean", "running_var"))
        over = ()
    else:
        mean, variance = x.mean(axis=over, keepdims=True), x.var(axis=over, keepdims=True)
    scale = 1 / np.sqrt(variance + layer.eps)
    full = [np.broadcast_to(array, x.shape) for array in (mean, scale)]
    return (x - mean) * scale, full[0], full[1], over


def _affine(view: View, name: str, fallback: float) -> Array:
    x = view.x[0]
    if name not in view.params:
        return np.full(x.shape, fallback)
    batch = type(view.layer).__name__.startswith("BatchNorm")
    shape = (1, -1, *(1,) * (x.ndim - 2)) if batch else view.params[name].shape
    return np.broadcast_to(view.params[name].reshape(shape), x.shape)


def norm_value(view: View) -> tuple[Worked, ...]:
    """One element, normalised, scaled and shifted."""
    _, mean, scale, _ = normalised(view)
    index = largest(view.y)
    w, b = _affine(view, "weight", 1.0)[index], _affine(view, "bias", 0.0)[index]
    expression = (
        f"{factor(w)} · ({num(view.x[0][index])} - {factor(mean[index])}) · {factor(scale[index])} + {factor(b)}"
    )
    note = f"μ = {num(mean[index])}, 1/√(v + ε) = {num(scale[index])}"
    return (Worked(label=at(view.symbols["y"], index), expression=expression, result=float(view.y[index]), note=note),)


def norm_gradient(view: View, index: Index) -> tuple[Worked, ...]:
    """One element: directly, through the mean, and through the variance."""
    x_hat, _, scale, over = normalised(view)
    g = view.dy * _affine(view, "weight", 1.0)
    result = float(view.dx[0][index])
    if not over:
        expression, note = (
            f"{factor(g[index])} · {factor(scale[index])}",
            "the statistics are given, nothing comes through them",
        )
    else:
        first = np.broadcast_to(g.mean(axis=over, keepdims=True), g.shape)[index]
        second = np.broadcast_to((g * x_hat).mean(axis=over, keepdims=True), g.shape)[index]
        expression = (
            f"{factor(scale[index])} · ({num(g[index])} - {factor(first)} - {factor(x_hat[index])} · {factor(second)})"
        )
        note = "the error itself, less what goes through the mean, less what goes through the variance"
    return (Worked(label=at(view.symbols["dx0"], index), expression=expression, result=result, note=note),)


def norm_parameter(view: View, name: str) -> tuple[Worked, ...]:
    """Scale or shift: a sum over everything that shares it."""
    gradient = view.dparams[name]
    index = largest(gradient)
    x_hat, *_ = normalised(view)
    share = view.dy * x_hat if name == "weight" else view.dy
    batch = type(view.layer).__name__.startswith("BatchNorm")
    lead: tuple[int | slice, ...] = (slice(None),) * (share.ndim - len(index))
    mine = share[:, index[0]] if batch else share[lead + index]
    note = f"the sum of {np.size(mine)} numbers, the mean of which is {num(np.mean(mine))}"
    expression = f"{np.size(mine)} · {factor(np.mean(mine))}"
    return (
        Worked(
            label=at(view.symbols[f"d{name}"], index), expression=expression, result=float(gradient[index]), note=note
        ),
    )
