"""The built-in networks, by name.

Three of them answer questions that people asked about the backward pass of convolutional networks. In the sources of
the equations they are called seeds:

- seed 000 asks how the error goes on from a max-pooling layer to the convolution before it: `three-layer`;
- seed 001 derives the gradient of a convolution's kernel and prints one with all its digits: `kernel-gradient`;
- seed 002 asks for the delta of a convolution from the delta of the next one: `two-conv-two-hidden`,
  `two-conv-pooled` and `conv1d`.

`lenet`, `vgg-block` and `vgg11` are of the size that people train. The `design-...` networks are small; each has what
makes one more class of mistakes visible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from manual_bp.errors import ManualBPError

from ._titles import TITLES

if TYPE_CHECKING:
    from manual_bp.network import Network

    from ._layout import from_nhwc, to_nhwc

__all__ = ["DESIGN", "NETWORKS", "SEEDS", "from_nhwc", "get", "to_nhwc"]

_HOME = {name: module for module, titles in TITLES.items() for name in titles}

#: What there is: one line about each network, by name.
NETWORKS: Mapping[str, str] = MappingProxyType({k: title for titles in TITLES.values() for k, title in titles.items()})

#: Those with the equations of a seed.
SEEDS = ("three-layer", "kernel-gradient", "two-conv-two-hidden", "two-conv-pooled", "conv1d")

#: The designed set.
DESIGN = tuple(name for name in NETWORKS if name.startswith("design-"))


@cache
def get(name: str) -> Network:
    """The built-in network of that name, with a symbol and an equation for each of its quantities.

    Raises
    ------
    ManualBPError
        There is none; the error names the closest ones.
    """
    if name not in _HOME:
        close = get_close_matches(name, _HOME, n=3, cutoff=0.5)
        wanted = f"did you mean {' or '.join(close)}" if close else f"choose one of {', '.join(_HOME)}"
        raise ManualBPError(f"there is no network {name!r}", hint=wanted)
    from manual_bp.equations import describe

    return describe(_built(_HOME[name])[name])


@cache
def _built(module: str) -> Mapping[str, Network]:
    """The networks of a module by name, without what `describe` adds."""
    found = [build() for build in import_module(f"{__name__}.{module}").BUILDERS]
    return {network.name: replace(network, title=NETWORKS[network.name]) for network in found}


def __getattr__(name: str) -> object:
    if name not in ("from_nhwc", "to_nhwc"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}._layout"), name)  # needs NumPy; to list the networks does not
