"""The built-in networks, by name.

Three of them answer questions that people asked about the backward pass of convolutional networks. In the sources of
the equations they are called seeds:

- seed 000 asks how the error goes on from a max-pooling layer to the convolution before it: `three-layer`;
- seed 001 derives the gradient of a convolution's kernel and prints one with all its digits: `kernel-gradient`;
- seed 002 asks for the delta of a convolution from the delta of the next one: `two-conv-two-hidden`,
  `two-conv-pooled` and `conv1d`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType

from manual_bp.errors import ManualBPError
from manual_bp.network import Network

from . import three_layer
from ._layout import from_nhwc, to_nhwc

__all__ = ["NETWORKS", "from_nhwc", "get", "to_nhwc"]

_BUILDERS: Mapping[str, Callable[[], Network]] = {
    "three-layer": three_layer.build,
}

#: What there is: one line about each network, by name.
NETWORKS: Mapping[str, str] = MappingProxyType({name: build().title for name, build in _BUILDERS.items()})


@cache
def get(name: str) -> Network:
    """The built-in network of that name, with a symbol and an equation for each of its quantities.

    Raises
    ------
    ManualBPError
        There is none; the error names the closest ones.
    """
    if name not in _BUILDERS:
        close = get_close_matches(name, _BUILDERS, n=3, cutoff=0.5)
        wanted = f"did you mean {' or '.join(close)}" if close else f"choose one of {', '.join(_BUILDERS)}"
        raise ManualBPError(f"there is no network {name!r}", hint=wanted)
    return _BUILDERS[name]()
