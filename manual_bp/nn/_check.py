"""What the layers, losses and optimisers refuse, and the words they refuse it with."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from numbers import Real
from operator import index
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ._layer import Array, Layer, NNError, Params

F = TypeVar("F", bound=Callable[..., Any])


def _ieee() -> Callable[[F], F]:
    """``np.errstate(all="ignore")`` as a decorator.

    NumPy's own builds its setting anew at every call, which takes longer than a step on one image does. Where NumPy
    keeps the setting is no public name: should it move, NumPy's own decorator serves.
    """
    try:
        from numpy._core.umath import _extobj_contextvar as setting
    except ImportError:
        return np.errstate(all="ignore")
    with np.errstate(all="ignore"):
        ignoring = setting.get()

    def ieee(function: F) -> F:
        @wraps(function)
        def quiet(*args: Any, **named: Any) -> Any:
            token = setting.set(ignoring)
            try:
                return function(*args, **named)
            finally:
                setting.reset(token)

        return cast(F, quiet)

    return ieee


#: Decorates whatever must pass on inf and NaN as IEEE 754 (and torch) do, without NumPy's warnings.
ieee = _ieee()


def check_input(owner: object, x: object, what: str = "input") -> None:
    """Refuse anything but a floating-point array.

    Raises
    ------
    NNError
        ``x`` is no ndarray, or holds integers, booleans, complex numbers or objects.
    """
    if not isinstance(x, np.ndarray):
        raise NNError(
            f"{name_of(owner)}: {what} is a {type(x).__name__}, not a NumPy array; convert it with np.asarray"
        )
    if x.dtype.kind != "f":
        raise NNError(f"{name_of(owner)}: {what} is {x.dtype}, not floating point; convert it with .astype(np.float64)")


def checked(layer: Layer, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """The inputs of a forward pass, if they are as many floating-point arrays as the layer takes."""
    if len(inputs) != layer.n_inputs:
        raise NNError(
            f"{name_of(layer)}: forward takes (params, {layer.n_inputs} input(s)), got {len(inputs)} input(s)"
        )
    for x in inputs:
        check_input(layer, x)
    return inputs


def check_match(owner: object, what: str, array: object, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Return ``array`` if it has exactly this shape and dtype.

    Raises
    ------
    NNError
        Shape or dtype differ: nothing here broadcasts or casts behind the caller's back.
    """
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        raise NNError(f"{name_of(owner)}: {what} is {describe(array)}, expected {dtype} of shape {shape}")
    return array


def parameter(owner: object, params: Params, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Take a parameter (or buffer) by its name, with the shape the layer gives it and the dtype of the input."""
    if name not in params:
        raise NNError(f"{name_of(owner)}: parameter {name!r} is missing; given: {', '.join(params) or 'none'}")
    return check_match(owner, name, params[name], shape, dtype)


def check_choice(owner: object, field: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a hyperparameter that is not one of the words torch knows."""
    if value not in choices:
        raise NNError(f"{name_of(owner)}: {field}={value!r} is not one of {', '.join(map(repr, choices))}")


def check_numbers(owner: object, **fields: object) -> None:
    """Refuse hyperparameters that are not real numbers."""
    for field, value in fields.items():
        if not isinstance(value, Real | np.bool_):
            raise NNError(f"{name_of(owner)}: {field}={value!r} is a {type(value).__name__}; it takes a real number")


def check_length(owner: object, field: str, value: Any) -> int:
    """``value`` as the length of an axis: an integer that is not negative."""
    try:
        length = index(value)
    except TypeError:
        raise NNError(f"{name_of(owner)}: {field}={value!r} is a {type(value).__name__}; it takes an integer") from None
    if length < 0:
        raise NNError(f"{name_of(owner)}: {field}={value!r}; it must not be negative")
    return length


def axis_of(owner: object, dim: int, x: Array) -> int:
    """``dim`` counted from 0; a 0-d array passes for one with a single axis, as in torch."""
    ndim = max(x.ndim, 1)
    if not -ndim <= dim < ndim:
        raise NNError(f"{name_of(owner)}: input has shape {x.shape}, which has no axis {dim}")
    return dim % ndim


def name_of(owner: object) -> str:
    """The class name that opens every message."""
    return type(owner).__name__


def describe(value: object) -> str:
    """dtype and shape of an array, or the type of anything else."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}, not a NumPy array"


def freeze(values: npt.ArrayLike | None) -> npt.ArrayLike | None:
    """An array hyperparameter as nested tuples: a frozen dataclass must neither be changed nor be unhashable."""
    return values if values is None else _tuples(np.asarray(values, dtype=np.float64).tolist())


def _tuples(values: Any) -> Any:
    return tuple(map(_tuples, values)) if isinstance(values, list) else values
