"""Where a layer object keeps its parameters and gradients: said by an `Adapter`, or found by looking.

From-scratch libraries differ in four ways: what the methods are called, where parameters live (``layer.W``,
``layer.params["W"]``), where gradients go (``layer.dW``, ``layer.grads["W"]``, returned with dx, or applied at once),
and how arrays are laid out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.trace import Array

FORWARD = ("forward", "forward_pass", "fprop", "forward_propagation", "feedforward", "loss", "__call__")
BACKWARD = ("backward", "backward_pass", "bprop", "backprop", "backward_propagation", "gradient", "grad")

_NAMES = {
    "weight": ("weight", "weights", "W", "w", "kernel", "kernels", "filters", "filter", "K", "gamma", "scale", "theta"),
    "bias": ("bias", "biases", "b", "B", "beta", "shift", "w0", "b0", "intercept"),
}
_BAGS = ("params", "parameters", "_params", "weights", "trainable", "variables")
_GRADIENT_BAGS = ("grads", "gradients", "_grads", "grad", "dparams", "derivatives")
_GRADIENT_OF = (
    "d{}",
    "d_{}",
    "grad_{}",
    "{}_grad",
    "{}_gradient",
    "{}_grads",
    "g{}",
    "delta_{}",
    "dL_d{}",
    "dl_d{}",
    "{}grad",
    "grad{}",
)

#: The factor by which a layer that applies its gradient at once is told to do so: a power of two, so large that the
#: parameter's own rounding vanishes in the difference.
UPDATE_RATE = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Where a layer keeps what is to be compared.

    Attributes
    ----------
    forward, backward
        Method names, or functions: ``forward(layer, x) -> output`` and ``backward(layer, upstream) -> dx``. A
        ``backward`` may also return ``(dx, dweight, dbias)``, gradients in torch's order of parameters, or a mapping.
    params
        torch's parameter name -> where the layer keeps it: an attribute path such as ``"W"`` or ``"params.W"`` (a dot
        goes into attributes and mappings alike).
    grads
        torch's parameter name -> where the layer keeps its gradient after ``backward``; or a function of the layer.
    layouts
        By torch's parameter name, ``x`` or ``output``: how the layer lays it out, such as "IO" or "NHWC".
    applied
        The layer applies its gradient at once, ``w -= rate * dw``, with the rate as the second argument of ``backward``;
        the gradient is read off the difference.
    """

    forward: str | Callable[..., Any] = ""
    backward: str | Callable[..., Any] = ""
    params: Mapping[str, str] = field(default_factory=dict)
    grads: Mapping[str, str | Callable[[Any], Any]] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    applied: bool = False


def find(layer: Any, adapter: Adapter | None, names: Mapping[str, tuple[int, ...]]) -> Adapter:
    """Fill in what an adapter leaves open.

    Parameters
    ----------
    names
        Shapes of torch's parameters, by name.

    Raises
    ------
    ManualBPError
        If a method or a parameter cannot be found; it lists what the layer has.
    """
    known = adapter or Adapter()
    forward = known.forward or _method(layer, FORWARD, "forward")
    backward = known.backward or _method(layer, BACKWARD, "backward")
    params = {name: known.params.get(name) or _parameter(layer, name, shape) for name, shape in names.items()}
    grads = {name: g for name in names if (g := known.grads.get(name) or _gradient(name, params[name]))}
    return replace(known, forward=forward, backward=backward, params=params, grads=grads)


def _method(layer: Any, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if callable(getattr(layer, name, None)):
            return name
    raise ManualBPError(
        f"{type(layer).__name__} has no {what} method that is called {', '.join(names[:4])} or the like",
        hint=f"say which one it is: Adapter({what}='its name')",
    )


def _parameter(layer: Any, name: str, shape: tuple[int, ...]) -> str:
    places = [*_places(layer, name)]
    fitting = [path for path, value in places if _fits(value, shape)]
    if fitting:
        return fitting[0]
    if places:
        return places[0][0]
    raise ManualBPError(
        f"{type(layer).__name__} has nothing that looks like {name!r} of shape {shape}; it has {_inventory(layer)}",
        hint=f"say where it is: Adapter(params={{{name!r}: 'its attribute'}})",
    )


def _places(layer: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Where a parameter of that name may be, with what is there now (None if it is not initialised yet)."""
    for word in _NAMES.get(name, (name,)):
        if hasattr(layer, word) and _is_parameter(getattr(layer, word)):
            yield _inner(word, getattr(layer, word))
        for bag in _BAGS:
            held = getattr(layer, bag, None)
            if isinstance(held, Mapping) and word in held and _is_parameter(held[word]):
                yield _inner(f"{bag}.{word}", held[word])


def _is_parameter(value: Any) -> bool:
    return value is None or isinstance(value, np.ndarray) or _boxed(value) is not None


def _boxed(value: Any) -> str | None:
    """The attribute in which a parameter object keeps its array."""
    return (
        next((n for n in ("value", "data", "val", "array") if isinstance(getattr(value, n, None), np.ndarray)), None)
        if not isinstance(value, np.ndarray)
        else None
    )


def _inner(path: str, value: Any) -> tuple[str, Any]:
    box = _boxed(value)
    return (f"{path}.{box}", getattr(value, box)) if box else (path, value)


def _fits(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, np.ndarray) and sorted(n for n in value.shape if n > 1) == sorted(
        n for n in shape if n > 1
    )


def _gradient(name: str, parameter: str) -> str:
    """Where a gradient may be found after the backward pass; decided then, so these are several paths."""
    path = parameter.split(".")
    word = path[-1] if path[-1] not in ("value", "data", "val", "array") else path[-2]
    tries = []
    if path[-1] != word:  # a parameter object keeps its gradient beside its value
        owner = ".".join(path[:-1])
        tries += [f"{owner}.{g}" for g in ("grad", "gradient", "g", "d")]
    for w in dict.fromkeys((word, *_NAMES.get(name, (name,)))):
        tries += [f"{bag}.{key}" for bag in _GRADIENT_BAGS for key in (w, f"d{w}", f"d_{w}", f"grad_{w}")]
        tries += [pattern.format(w) for pattern in _GRADIENT_OF]
        tries += [pattern.format(w.lower()) for pattern in _GRADIENT_OF]
    return "|".join(dict.fromkeys(tries))


def read(layer: Any, path: str | Callable[[Any], Any]) -> Any:
    """What is at a path; the first that exists of several separated by ``|``; None if there is nothing."""
    if callable(path):
        return path(layer)
    for one in path.split("|"):
        value: Any = layer
        for part in one.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
            if value is None:
                break
        if value is not None and not callable(value):
            return value
    return None


def write(layer: Any, path: str, array: Array) -> None:
    """Put an array at a path."""
    *owners, last = path.split(".")
    owner: Any = layer
    for part in owners:
        owner = owner[part] if isinstance(owner, Mapping) else getattr(owner, part)
    if isinstance(owner, MutableMapping):
        owner[last] = array
    else:
        setattr(owner, last, array)


def layouts_for(shape: tuple[int, ...] | None, torch_shape: tuple[int, ...], letters: str) -> list[str]:
    """Layouts under which an array of ``shape`` may be torch's of ``torch_shape``, torch's own first.

    ``letters`` is torch's layout. Axes of size one that torch does not have are allowed. Conventions in use come
    before arbitrary permutations.
    """
    if shape is None:
        return [letters]
    usual = {
        "OI": ["OI", "IO"],
        "OIHW": ["OIHW", "HWIO", "IOHW", "OHWI", "HWOI"],
        "OIL": ["OIL", "LIO", "OLI", "IOL"],
    }.get(letters, [letters])
    rest = ["".join(p) for p in permutations(letters)] if len(letters) <= 4 else []
    sizes = dict(zip(letters, torch_shape, strict=True))
    found = []
    for text in dict.fromkeys((*usual, *rest)):
        fitted = _with_ones(text, sizes, shape)
        if fitted and fitted not in found:
            found.append(fitted)
    return found


def _with_ones(text: str, sizes: Mapping[str, int], shape: tuple[int, ...]) -> str | None:
    """The layout with a ``1`` for each extra axis of size one, if the array's shape is that; else None."""
    out, letters = [], list(text)
    for n in shape:
        if letters and sizes[letters[0]] == n:
            out.append(letters.pop(0))
        elif n == 1:
            out.append("1")
        else:
            return None
    return "".join(out) if not letters else None


def _inventory(layer: Any) -> str:
    names = [n for n in vars(layer) if not re.match(r"__", n)] if hasattr(layer, "__dict__") else []
    return ", ".join(names[:12]) or "no attributes"
