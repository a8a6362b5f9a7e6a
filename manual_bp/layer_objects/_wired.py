"""A layer object with everything known about it: how it is called, where its parameters and gradients are, its axes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from manual_bp.adapters import UPDATE_RATE, Adapter
from manual_bp.errors import ManualBPError
from manual_bp.layer_objects import _methods
from manual_bp.layer_objects._adding import keeps_adding
from manual_bp.layer_objects._pairs import Pair
from manual_bp.layer_objects._parameters import Wiring, gradient_paths
from manual_bp.layer_objects._paths import aliases, read, write
from manual_bp.layer_objects._views import View, same_but_ones
from manual_bp.trace import GRAD, Array

_OUTPUT = ("output", "out", "outputs", "result", "y", "a", "z", "activation", "activations", "value", "y_pred")
INPUT_GRADIENT = (
    "dinputs", "dinput", "dx", "dX", "derivatives", "d_inputs", "d_input", "grad_input", "input_grad", "input_gradient",
    "grad_inputs", "inputs_grad", "d_x", "grad_x", "x_grad", "gradient", "grad", "dA_prev", "delta", "dz", "downstream",
)  # fmt: skip


@dataclass
class Wired:
    """A layer that can be run with torch's parameters.

    Attributes
    ----------
    wiring
        torch's parameter -> where the layer keeps it.
    views
        By torch's parameter, how each of its pieces is laid out.
    inputs
        How many inputs it takes; several are a tuple, and so is dL/dx then.
    """

    layer: Any
    adapter: Adapter
    training: bool
    has_parameters: bool
    wiring: Wiring = field(default_factory=dict)
    views: dict[str, tuple[View, ...]] = field(default_factory=dict)
    inputs: int = 1
    notes: list[str] = field(default_factory=list)
    _x: Any = None
    _output: Any = None
    _cache: Any = None
    _returned: frozenset[str] = frozenset()

    def check(self) -> None:
        """Raise `ManualBPError` if it has no forward or no backward method."""
        if not (self.adapter.forward or _methods.method(self.layer, _methods.FORWARD)):
            raise _missing(self.layer, "forward", _methods.FORWARD)
        if not (self.adapter.backward or _methods.method(self.layer, (*_methods.BACKWARD, *_methods.DERIVATIVE))):
            raise _missing(self.layer, "backward", _methods.BACKWARD)

    def method(self, which: Literal["forward", "backward"]) -> Any:
        """The function of the layer's author that does it."""
        own = getattr(self.adapter, which)
        if callable(own):
            return own
        if isinstance(self.layer, Pair):
            return self.layer.function(which)
        names = _methods.FORWARD if which == "forward" else (*_methods.BACKWARD, *_methods.DERIVATIVE)
        return getattr(self.layer, str(own or _methods.method(self.layer, names)), None)

    def due(self) -> list[str]:
        """The gradients that it should have after `backward`: of its parameters, by torch's names, and of x."""
        names = [name for name, paths in self.wiring.items() if paths]
        if not returns_none(self.method("backward")):
            names.append("x")
        return [name for name in names if self.adapter.grads.get(name, "") is not None]

    # ------------------------------------------------------------------ forward

    def call_forward(self, x: Any) -> Any:
        """The layer's own output, as it lays it out."""
        _methods.reset(self.layer)
        _methods.set_mode(self.layer, self.training)
        own = self.adapter.forward or str(_methods.method(self.layer, _methods.FORWARD))
        if callable(own):
            returned = own(self.layer, x)
        else:
            returned = _methods.call_forward(getattr(self.layer, own), x, training=self.training)
        self._x, self._cache = x, None
        if isinstance(returned, tuple) and returned:
            returned, self._cache = returned[0], returned[1] if len(returned) == 2 else returned[1:]
        if returned is None:
            returned = _methods.attribute(self.layer, _OUTPUT)
        if returned is None:
            raise ManualBPError(
                f"the forward method of {type(self.layer).__name__} returned nothing, and the layer holds no output",
                hint="say where it is: Adapter(forward=lambda layer, x: (layer.forward(x), layer.output)[1])",
            )
        if isinstance(returned, list) and len(returned) == 1:
            returned = returned[0]
        self._output = np.asarray(returned)
        return self._output

    def forward(self, params: Mapping[str, Array], x: Any) -> Array:
        """Its output with torch's parameters."""
        self.put(params)
        output = self.call_forward(x)
        if not self._holds(params):  # it has initialised itself in this very call
            self.put(params)
            output = self.call_forward(x)
        return np.array(output)

    def put(self, params: Mapping[str, Array]) -> None:
        """Write torch's parameters into the layer, and zeros into its gradients, which may be accumulated."""
        for name, paths in self.wiring.items():
            for path, piece in zip(paths, self._pieces(name, params[name]), strict=True):
                others = list(aliases(self.layer, read(self.layer, path)))
                write(self.layer, path, piece)
                kept = read(self.layer, path)
                for other in others:
                    if other != path and read(self.layer, other) is not kept:
                        write(self.layer, other, kept)
                try:
                    old = self._stored(name, path)
                except (AttributeError, LookupError, TypeError):
                    continue  # a function of somebody's, and there is no gradient before the first backward pass
                if isinstance(old, np.ndarray) and old.shape == piece.shape and old is not kept and old.flags.writeable:
                    old[...] = 0

    def _pieces(self, name: str, value: Array) -> list[Array]:
        views = self.views[name]
        if not views:
            return []
        return [
            np.array(view.to_layer(part.reshape(view.torch)))
            for view, part in zip(views, np.split(value, len(views)) if len(views) > 1 else [value], strict=True)
        ]

    def _holds(self, params: Mapping[str, Array]) -> bool:
        for name, paths in self.wiring.items():
            for path, piece in zip(paths, self._pieces(name, params[name]), strict=True):
                held = read(self.layer, path)
                if not isinstance(held, np.ndarray) or held.shape != piece.shape or not np.array_equal(held, piece):
                    return False
        return True

    # ------------------------------------------------------------------ backward

    def backward(self, params: Mapping[str, Array], upstream: Any) -> tuple[Any, dict[str, Array]]:
        """dL/dx as the layer lays it out, and the gradients of its parameters in torch's."""
        before = {path: np.array(read(self.layer, path)) for paths in self.wiring.values() for path in paths}
        handed = np.array(upstream)
        with np.errstate(all="ignore"):
            returned, rated = self._call_backward(upstream)
        if not np.array_equal(handed, upstream, equal_nan=True):
            self.notes.append(f"{type(self.layer).__name__} changes the upstream gradient that it is handed in place")
        dx, given = self._sorted_out(returned)
        rated |= self.adapter.applied
        self._returned = frozenset(self.wiring if rated else given)
        gradients: dict[str, Array] = {}
        for name, paths in self.wiring.items():
            pieces = [given[name]] if name in given else [self._gradient(name, p, before[p], rated) for p in paths]
            if not pieces or any(piece is None for piece in pieces):
                continue
            if not rated and any(self._stored(name, p) is not None and self._moved(p, before[p]) for p in paths):
                self.notes.append(f"{type(self.layer).__name__} changes {name} in its backward pass")
            if any(keeps_adding(self.layer, piece) for piece in pieces):
                self.notes.append(f"{type(self.layer).__name__} adds to its gradients: zero them before each pass")
            said = callable(self.adapter.grads.get(name))  # a function may hand over torch's own layout, told by shape
            whole = [
                piece if said and view.shaped_as_torch(piece) else view.to_torch(piece)
                for view, piece in zip(self.views[name], map(np.asarray, pieces), strict=False)
            ]
            value = whole[0] if len(whole) == 1 else np.concatenate(whole)
            fits = same_but_ones(value.shape, params[name].shape)
            gradients[name + GRAD] = value.reshape(params[name].shape) if fits else value
        return dx, gradients

    def holds(self, name: str) -> bool:
        """Whether the layer keeps the gradient of a parameter, neither returned nor used by its last backward pass."""
        paths = self.wiring[name]
        return name not in self._returned and all(self._stored(name, path) is not None for path in paths)

    def _call_backward(self, upstream: Any) -> tuple[Any, bool]:
        own = self.adapter.backward or _methods.method(self.layer, _methods.BACKWARD)
        rate = UPDATE_RATE
        if callable(own):
            return own(self.layer, upstream, *((rate,) if self.adapter.applied else ())), False
        if own:
            function = getattr(self.layer, own)
            if self.adapter.applied and sum(a.required for a in _methods.arguments(function)) < 2:
                return function(upstream, *((rate,) if len(_methods.arguments(function)) > 1 else ())), True
            return _methods.call_backward(
                function, upstream, x=self._x, output=self._output, cache=self._cache, rate=rate
            )
        function = getattr(self.layer, str(_methods.method(self.layer, _methods.DERIVATIVE)))
        if self.has_parameters:
            return _methods.call_backward(
                function, upstream, x=self._x, output=self._output, cache=self._cache, rate=rate
            )
        slope = np.asarray(function() if not _methods.arguments(function) else function(self._x))
        if slope.ndim == upstream.ndim + 1:  # a Jacobian for each row
            return np.einsum("...i,...ij->...j", upstream, slope), False
        return upstream * slope, False

    def _sorted_out(self, returned: Any) -> tuple[Any, dict[str, Any]]:
        """dL/dx and the parameter gradients that were returned, by torch's names."""
        names = [name for name, paths in self.wiring.items() if paths]
        if isinstance(returned, Mapping):
            return _from_mapping(returned, names)
        if isinstance(returned, list) and len(returned) == 1:
            returned = returned[0]
        if self.inputs > 1 and isinstance(returned, (tuple, list)):
            return tuple(returned[: self.inputs]), dict(zip(names, returned[self.inputs :], strict=False))
        if isinstance(returned, (tuple, list)):
            values = _ordered([*returned], [np.shape(self._x), *(self.views[n][0].layer for n in names)])
            return values[0], dict(zip(names, values[1:], strict=False))
        if returned is None:
            returned = _methods.attribute(self.layer, INPUT_GRADIENT)
        return returned, {}

    def _stored(self, name: str, path: str) -> Any:
        said = self.adapter.grads.get(name, "")
        if said is None:
            return None
        if said == "":
            return read(self.layer, gradient_paths(name, path))
        if callable(said):
            return said(self.layer)
        paths = (said,) if isinstance(said, str) else tuple(said)
        return read(self.layer, paths[self.wiring[name].index(path)])

    def _moved(self, path: str, before: Array) -> bool:
        return not np.array_equal(before, np.asarray(read(self.layer, path)), equal_nan=True)

    def _gradient(self, name: str, path: str, before: Array, rated: bool) -> Any:
        value = None if rated else self._stored(name, path)
        if value is None:
            after = np.asarray(read(self.layer, path))
            if rated or not np.array_equal(before, after):  # it was applied at once
                return (before - after) / before.dtype.type(UPDATE_RATE)
        return value[-1] if isinstance(value, list) and value else value


def returns_none(function: Any) -> bool:
    """Whether its author wrote ``return None``: the first layer of a network, which has nothing to pass on."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return False
    returns = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    return bool(returns) and all(isinstance(v, ast.Constant) and v.value is None for v in returns)


def _missing(layer: Any, what: str, names: tuple[str, ...]) -> ManualBPError:
    return ManualBPError(
        f"{type(layer).__name__} has no {what} method that is called {', '.join(names[:4])} or the like",
        hint=f"say which one it is: Adapter({what}='its name')",
    )


def _from_mapping(returned: Mapping[str, Any], names: list[str]) -> tuple[Any, dict[str, Any]]:
    from manual_bp.layer_objects._parameters import WORDS

    plain = {str(key).removesuffix(GRAD).removeprefix("d_").removeprefix("grad_"): v for key, v in returned.items()}
    plain |= {key[1:]: v for key, v in plain.items() if key.startswith("d") and len(key) > 1}
    dx = next((plain[key] for key in ("x", "X", "input", "inputs", "a_prev", "A_prev", "A") if key in plain), None)
    found = {}
    for name in names:
        leaf = name.rpartition(".")[2]
        hit = next((plain[w] for w in (name, *WORDS.get(leaf, (leaf,))) if w in plain), None)
        if hit is not None:
            found[name] = hit
    return dx, found


def _ordered(values: list[Any], shapes: list[tuple[int, ...]]) -> list[Any]:
    """Returned gradients in the order dx, dweight, dbias; told by their shapes where another order was used."""
    if len(values) != len(shapes) or all(same_but_ones(np.shape(v), s) for v, s in zip(values, shapes, strict=True)):
        return values
    left, ordered = list(values), []
    for shape in shapes:
        fitting = [i for i, v in enumerate(left) if same_but_ones(np.shape(v), shape)]
        if not fitting:
            return values
        ordered.append(left.pop(fitting[0]))
    return ordered
