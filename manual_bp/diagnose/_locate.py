"""Where in somebody's code a quantity is made."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from manual_bp.network import Network
from manual_bp.trace import GRAD

from ._graph import Graph


def place_of(function: Any) -> str:
    """``file.py:line`` of a function, method or class; empty if it has no source."""
    try:
        function = inspect.unwrap(function)
        path, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    except (TypeError, OSError):
        return ""
    if path is None:
        return ""
    relative = os.path.relpath(path)
    return f"{path if relative.startswith('..') else relative}:{line}"


def in_network(network: Network) -> Callable[[str], str]:
    """The method of the layer, loss or optimiser that makes a quantity."""
    graph = Graph.of(network)

    def locate(quantity: str) -> str:
        makers = graph.makers(quantity)
        if not makers:
            return ""
        part = graph.part(makers[0])
        method = "step" if makers[0] == "update" else "backward" if quantity.endswith(GRAD) else "forward"
        return place_of(getattr(type(part), method, None))

    return locate
