"""Two functions, ``forward(x, *params) -> (output, cache)`` and ``backward(upstream, cache)``, as a layer object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manual_bp.adapters import Adapter
from manual_bp.layer_objects import _methods
from manual_bp.trace import Array


class Pair:
    """A layer object made of functions; its parameters are attributes, handed to ``forward`` in torch's order."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], names: tuple[str, ...]) -> None:
        self._forward, self._backward, self._names = forward, backward, names
        self._cache: Any = None
        self._x: Any = None
        self._output: Any = None

    def adapter(self) -> Adapter:
        """Where the parameters are."""
        return Adapter(params={name: _attribute(name) for name in self._names})

    def hold(self, params: dict[str, Array]) -> None:
        """Take parameters, so that there is something to read."""
        for name, value in params.items():
            setattr(self, _attribute(name), value)

    def forward(self, x: Array) -> Any:
        """Output; what else the function returns is kept for `backward`."""
        returned = self._forward(x, *(getattr(self, _attribute(name)) for name in self._names))
        output, self._cache = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
        if isinstance(returned, tuple) and len(returned) != 2:
            output, self._cache = returned[0], returned[1:]
        self._x, self._output = x, output
        return output

    def backward(self, upstream: Array) -> Any:
        """Gradients, as the function returns them; a function of one argument is a derivative f'(x)."""
        wanted = [a.name for a in _methods.arguments(self._backward) if a.required]
        if len(wanted) == 1 and not self._names:
            return upstream * self._backward(self._x)
        spread = isinstance(self._cache, tuple) and len(wanted) == 1 + len(self._cache) and len(wanted) > 2
        if self._cache is None:
            params = [getattr(self, _attribute(name)) for name in self._names]
            returned, _ = (
                _methods.call_backward(self._backward, upstream, x=self._x, output=self._output, cache=None, rate=1.0)
                if len(wanted) == 2
                else (self._backward(upstream, self._x, *params[: len(wanted) - 2]), False)
            )
            return returned
        return self._backward(upstream, *self._cache) if spread else self._backward(upstream, self._cache)


def _attribute(name: str) -> str:
    return "param_" + name.replace(".", "_")
