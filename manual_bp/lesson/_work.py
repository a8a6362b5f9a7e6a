"""Which module works out a step, by the type of its layer; what is not known shows its number alone."""

from __future__ import annotations

from manual_bp.nn import Array
from manual_bp.report_lesson import Grid, Worked

from . import _conv, _dense, _pointwise, _pool
from ._loss import gradient as loss_gradient
from ._loss import value as loss_value
from ._number import Index, as_plane, at, grid, largest, num
from ._view import View

__all__ = ["given", "input_gradient", "loss_gradient", "loss_value", "parameter_gradient", "value"]


def _kind(view: View) -> str:
    name = type(view.layer).__name__
    return next(
        (family for family in ("Conv", "MaxPool", "AvgPool", "BatchNorm", "LayerNorm") if name.startswith(family)), name
    )


def value(view: View) -> tuple[Worked, ...]:
    """One element of the step's output."""
    works = {
        "Conv": _conv.value,
        "MaxPool": _pool.max_value,
        "AvgPool": _pool.mean_value,
        "Linear": _dense.linear_value,
        "Flatten": _dense.flatten_value,
        "Add": _dense.add_value,
        "Softmax": _dense.softmax_value,
        "LogSoftmax": _dense.softmax_value,
        "BatchNorm": _pointwise.norm_value,
        "LayerNorm": _pointwise.norm_value,
    }
    if _kind(view) in works:
        return works[_kind(view)](view)
    return _pointwise.value(view) if _pointwise.knows(view) else _plain(view.symbols["y"], view.y)


def input_gradient(view: View, k: int, index: Index) -> tuple[Worked, ...]:
    """One element of what the step sends back to its input k."""
    works = {
        "Conv": _conv.input_gradient,
        "MaxPool": _pool.max_gradient,
        "AvgPool": _pool.mean_gradient,
        "Linear": _dense.linear_input,
        "Flatten": _dense.flatten_input,
        "Softmax": _dense.softmax_input,
        "LogSoftmax": _dense.softmax_input,
        "BatchNorm": _pointwise.norm_gradient,
        "LayerNorm": _pointwise.norm_gradient,
    }
    if _kind(view) in works:
        return works[_kind(view)](view, index)
    if _kind(view) == "Add":
        return _dense.passed_on(view, k, index)
    return (
        _pointwise.input_gradient(view, index)
        if _pointwise.knows(view)
        else _plain(view.symbols[f"dx{k}"], view.dx[k], index)
    )


def parameter_gradient(view: View, name: str) -> tuple[Worked, ...]:
    """One element of a parameter's gradient."""
    works = {
        ("Conv", "weight"): _conv.weight_gradient,
        ("Conv", "bias"): _conv.bias_gradient,
        ("Linear", "weight"): _dense.linear_weight,
        ("Linear", "bias"): _dense.linear_bias,
    }
    if (_kind(view), name) in works:
        return works[_kind(view), name](view)
    if _kind(view) in ("BatchNorm", "LayerNorm"):
        return _pointwise.norm_parameter(view, name)
    return _plain(view.symbols[f"d{name}"], view.dparams[name])


def given(symbol: str, array: Array) -> tuple[Worked, ...]:
    """An input or a parameter: its first plane."""
    index = largest(array)
    grids: tuple[Grid, ...] = ()
    if array.ndim:
        plane = as_plane(array[index[:-2]] if array.ndim > 2 else array)
        around = (index[-2], index[-1]) if array.ndim > 1 else (0, index[0])
        where = at(symbol, index[:-2]) if array.ndim > 2 else symbol
        grids = (grid(where, plane, around=around),)
    return (Worked(label=at(symbol, index), expression=num(array[index]), result=float(array[index]), grids=grids),)


def _plain(symbol: str, array: Array, index: Index | None = None) -> tuple[Worked, ...]:
    index = largest(array) if index is None else index
    return (Worked(label=at(symbol, index), expression=num(array[index]), result=float(array[index])),)
