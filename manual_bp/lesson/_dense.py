"""The dense layer, sums, flattening and softmax with a run's numbers."""

from __future__ import annotations

import math

import numpy as np

from manual_bp.nn import Array
from manual_bp.report_lesson import Worked

from ._number import Index, as_plane, at, factor, grid, largest, num, sum_of_products
from ._view import View


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def linear_value(view: View) -> tuple[Worked, ...]:
    """One output: a row of weights times the input."""
    index = largest(view.y)
    x, w = view.x[0][index[:-1]], view.params["weight"][index[-1]]
    terms: list[tuple[float, ...]] = [(float(a), float(b)) for a, b in zip(x, w, strict=True)]
    if "bias" in view.params:
        terms.append((float(view.params["bias"][index[-1]]),))
    return (sum_of_products(at(view.symbols["y"], index), terms, view.y[index]),)


def linear_input(view: View, index: Index) -> tuple[Worked, ...]:
    """One input: what all outputs that it entered send back."""
    delta, w = view.dy[index[:-1]], view.params["weight"][:, index[-1]]
    terms = [(float(a), float(b)) for a, b in zip(delta, w, strict=True)]
    return (sum_of_products(at(view.symbols["dx0"], index), terms, view.dx[0][index]),)


def linear_weight(view: View) -> tuple[Worked, ...]:
    """One weight: error of its output times its input, over all examples."""
    o, i = largest(view.dparams["weight"])
    terms = [(float(a), float(b)) for a, b in zip(_rows(view.dy)[:, o], _rows(view.x[0])[:, i], strict=True)]
    return (sum_of_products(at(view.symbols["dweight"], (o, i)), terms, view.dparams["weight"][o, i]),)


def linear_bias(view: View) -> tuple[Worked, ...]:
    """One bias: the errors of its output, over all examples."""
    (o,) = largest(view.dparams["bias"])
    terms = [(float(value),) for value in _rows(view.dy)[:, o]]
    return (sum_of_products(at(view.symbols["dbias"], (o,)), terms, view.dparams["bias"][o]),)


def flatten_value(view: View) -> tuple[Worked, ...]:
    """One element and where it came from."""
    index = largest(view.y)
    source = tuple(int(i) for i in np.unravel_index(int(np.ravel_multi_index(index, view.y.shape)), view.x[0].shape))
    plane = view.x[0][source[:-2]] if len(source) >= 2 else view.x[0]
    grids = (grid(f"{view.symbols['x0']}, read row by row", as_plane(plane), around=(source[-2], source[-1])),)
    note = f"this is {at(view.symbols['x0'], source)}"
    return (
        Worked(
            label=at(view.symbols["y"], index),
            expression=num(view.y[index]),
            result=float(view.y[index]),
            grids=grids,
            note=note,
        ),
    )


def flatten_input(view: View, index: Index) -> tuple[Worked, ...]:
    """One element's error, back in its place."""
    source = tuple(int(i) for i in np.unravel_index(int(np.ravel_multi_index(index, view.dx[0].shape)), view.dy.shape))
    plane = view.dx[0][index[:-2]] if len(index) >= 2 else view.dx[0]
    grids = (grid(f"{view.symbols['dx0']}, back in its shape", as_plane(plane), around=(index[-2], index[-1])),)
    result = float(view.dx[0][index])
    note = f"this is {at(view.symbols['dy'], source)}"
    return (
        Worked(label=at(view.symbols["dx0"], index), expression=num(result), result=result, grids=grids, note=note),
    )


def add_value(view: View) -> tuple[Worked, ...]:
    """One element of a sum."""
    index = largest(view.y)
    terms = [(float(x[index]),) for x in view.x]
    return (sum_of_products(at(view.symbols["y"], index), terms, view.y[index]),)


def passed_on(view: View, k: int, index: Index) -> tuple[Worked, ...]:
    """One element of an error that goes on as it is."""
    result = float(view.dx[k][index])
    return (Worked(label=at(view.symbols[f"dx{k}"], index), expression=num(result), result=result),)


def softmax_value(view: View) -> tuple[Worked, ...]:
    """One probability, or its logarithm."""
    index = largest(view.y)
    row, here = _row(view, index)
    x = view.x[0][row]
    shift = float(x.max())
    total = " + ".join(f"exp({num(v - shift)})" for v in x)
    share = f"exp({num(x[here] - shift)}) / ({total})"
    log = type(view.layer).__name__ == "LogSoftmax"
    return (
        Worked(
            label=at(view.symbols["y"], index),
            expression=f"log({share})" if log else share,
            result=float(view.y[index]),
            note=f"the largest, {num(shift)}, is taken off every exponent first: it cancels, and nothing can overflow",
        ),
    )


def softmax_input(view: View, index: Index) -> tuple[Worked, ...]:
    """One logit's share."""
    row, here = _row(view, index)
    y, dy = view.y[row], view.dy[row]
    if type(view.layer).__name__ == "LogSoftmax":
        expression = f"{factor(dy[here])} - exp({num(y[here])}) · {factor(dy.sum())}"
        note = "the last factor is the sum of the errors of all classes"
    else:
        expression = f"{factor(y[here])} · ({num(dy[here])} - {factor(math.fsum(y * dy))})"
        note = "the number taken off is the sum of error times probability over all classes"
    return (
        Worked(label=at(view.symbols["dx0"], index), expression=expression, result=float(view.dx[0][index]), note=note),
    )


def _row(view: View, index: Index) -> tuple[tuple[int | slice, ...], int]:
    """The row along the layer's axis that an element stands in, and its place there."""
    axis = view.options.dim % len(index)
    return tuple(slice(None) if k == axis else i for k, i in enumerate(index)), index[axis]
