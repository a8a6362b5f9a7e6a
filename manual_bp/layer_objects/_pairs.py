"""Two functions, ``forward(x, *params) -> (output, cache)`` and ``backward(upstream, cache)``, as a layer object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from manual_bp import _torch_side
from manual_bp.adapters import Adapter
from manual_bp.errors import ManualBPError
from manual_bp.layer_objects import _methods
from manual_bp.trace import Array

#: ``bn_param``, ``conv_param``, ``hparameters``: one dictionary of settings.
_SETTINGS = re.compile(r"^(\w+_)?(h(yper)?_?)?(params?|parameters|config|options|opts|settings|kwargs)$", re.IGNORECASE)


class Pair:
    """A layer object made of functions; its parameters are attributes, handed to ``forward`` in torch's order.

    Parameters
    ----------
    names
        torch's parameters, in order.
    settings
        The reference's stride, padding, epsilon and so on, for functions that ask for them by name or as a dictionary.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        names: tuple[str, ...],
        settings: Mapping[str, Any],
    ) -> None:
        self._forward, self._backward, self._names, self._settings = forward, backward, names, settings
        self._cache: Any = None
        self._x: Any = None
        self._output: Any = None

    def adapter(self) -> Adapter:
        """Where the parameters are."""
        return Adapter(params={name: _attribute(name) for name in self._names})

    def function(self, which: str) -> Callable[..., Any]:
        """One of the two."""
        return self._forward if which == "forward" else self._backward

    def hold(self, params: dict[str, Array]) -> None:
        """Take parameters, so that there is something to read."""
        for name, value in params.items():
            setattr(self, _attribute(name), value)

    def _params(self) -> list[Array]:
        return [getattr(self, _attribute(name)) for name in self._names]

    def forward(self, x: Any) -> Any:
        """Output; what else the function returns is kept for `backward`."""
        wanted = [a for a in _methods.arguments(self._forward) if a.required]
        given = [*(x if isinstance(x, tuple) else (x,)), *self._params()]
        surplus = [self._setting(a.name, "forward") for a in wanted[len(given) :] if not a.keyword]
        named = {a.name: self._setting(a.name, "forward") for a in wanted if a.keyword}
        returned = self._forward(*given, *surplus, **named)
        output, self._cache = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
        if isinstance(returned, tuple) and len(returned) != 2:
            output, self._cache = returned[0], returned[1:]
        self._x, self._output = x, output
        return output

    def _setting(self, name: str, which: str) -> Any:
        if name in self._settings:
            return self._settings[name]
        if _SETTINGS.match(name):
            return dict(self._settings)
        raise ManualBPError(
            f"the {which} function wants {name!r} as well",
            hint=f"fix it: lambda *given: {which}(*given, {name}=...)",
        )

    def backward(self, upstream: Array) -> Any:
        """Gradients, as the function returns them; a function of one argument is a derivative f'(x)."""
        arguments = [a for a in _methods.arguments(self._backward) if a.required]
        # a cache that is handed over item by item may have items of the same names as the settings
        spread = isinstance(self._cache, tuple) and len(arguments) == 1 + len(self._cache) and len(arguments) > 2
        if spread:
            return self._backward(upstream, *self._cache)
        # upstream and cache (or input) come first, whatever they are called
        asked = [a.name for a in arguments[2:] if a.name in self._settings or _SETTINGS.match(a.name)]
        settings = {name: self._setting(name, "backward") for name in asked}
        wanted = [a.name for a in arguments if a.name not in settings]
        if len(wanted) == 1 and not self._names and self._cache is None:
            return upstream * self._backward(self._x)
        if self._cache is not None:
            given = [self._cache, upstream] if wanted and _methods.CACHE.match(wanted[0]) else [upstream, self._cache]
        elif len(wanted) == 2:
            return _methods.call_backward(
                self._backward, upstream, x=self._x, output=self._output, cache=None, rate=1.0
            )[0]
        else:
            inputs = self._x if isinstance(self._x, tuple) else (self._x,)
            given = [upstream, *inputs, *self._params()]
        meaning = {**dict(zip(wanted, given, strict=False)), **settings}
        return self._backward(
            *(meaning[a.name] for a in arguments if not a.keyword),
            **{a.name: meaning[a.name] for a in arguments if a.keyword},
        )


def _attribute(name: str) -> str:
    return "param_" + name.replace(".", "_")


def as_layer(layer: Any, adapter: Adapter | None, module: Any) -> tuple[Any, Any, Adapter | None]:
    """A pair of functions as an object, with its module and adapter; the rest as it is."""
    if not isinstance(layer, tuple):
        return layer, module, adapter
    side = _torch_side.layer_reference
    given = adapter.params if adapter else {}
    names = tuple(name for name in side.shapes(module) if given.get(name, "") is not None)
    pair = Pair(layer[0], layer[1], names, side.settings(module))
    pair.hold(side.parameters(module))
    own = pair.adapter()
    return pair, module, replace(adapter, params={**own.params, **adapter.params}) if adapter else own
