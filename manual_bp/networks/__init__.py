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

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType

from manual_bp.equations import describe
from manual_bp.errors import ManualBPError
from manual_bp.network import Network

from . import conv1d, design_graph, design_losses, design_windows, kernel_gradient, large, three_layer, two_conv
from ._layout import from_nhwc, to_nhwc

__all__ = ["DESIGN", "NETWORKS", "SEEDS", "from_nhwc", "get", "to_nhwc"]

_BUILDERS: tuple[Callable[[], Network], ...] = (
    three_layer.build,
    kernel_gradient.build,
    two_conv.plain,
    two_conv.pooled,
    conv1d.build,
    large.lenet,
    large.vgg_block,
    large.vgg11,
    *design_windows.BUILDERS,
    *design_graph.BUILDERS,
    *design_losses.BUILDERS,
)
_PLAIN: Mapping[str, Network] = {network.name: network for network in (build() for build in _BUILDERS)}

#: What there is: one line about each network, by name.
NETWORKS: Mapping[str, str] = MappingProxyType({name: network.title for name, network in _PLAIN.items()})

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
    if name not in _PLAIN:
        close = get_close_matches(name, _PLAIN, n=3, cutoff=0.5)
        wanted = f"did you mean {' or '.join(close)}" if close else f"choose one of {', '.join(_PLAIN)}"
        raise ManualBPError(f"there is no network {name!r}", hint=wanted)
    return describe(_PLAIN[name])
