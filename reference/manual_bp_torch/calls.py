"""How a reference is called: a module with its inputs, a function with what it asks for by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from manual_bp.inputs import is_several


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a module is called with its inputs: one, several, or several by name."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (x if is_several(x) else (x,)), {}


def call_by_name(function: Callable[..., Any], offered: Mapping[str, Any]) -> Any:
    """Call a function with those of the offered arguments that it takes: by name, the others in order."""
    try:
        wanted = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
        ]
    except (TypeError, ValueError):
        wanted = ["params", "x", "y"]
    left = [name for name in offered if name not in wanted]
    return function(*(offered[name] if name in offered else offered[left.pop(0)] for name in wanted))
