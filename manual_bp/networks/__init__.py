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

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from manual_bp.equations import describe
from manual_bp.errors import ManualBPError
from manual_bp.network import Network

from ._layout import from_nhwc, to_nhwc

__all__ = ["DESIGN", "NETWORKS", "SEEDS", "from_nhwc", "get", "to_nhwc"]

#: Module -> the networks that its BUILDERS build, in their order. A module is imported when one of its is asked for.
_MODULES = {
    "three_layer": ("three-layer",),
    "kernel_gradient": ("kernel-gradient",),
    "two_conv": ("two-conv-two-hidden", "two-conv-pooled"),
    "conv1d": ("conv1d",),
    "large": ("lenet", "vgg-block", "vgg11"),
    "design_windows": (
        "design-geometry",
        "design-channels",
        "design-groups",
        "design-padding",
        "design-overlap",
        "design-mean-pool",
        "design-1d",
        "design-3d",
    ),
    "design_graph": (
        "design-residual",
        "design-twice",
        "design-batch-norm",
        "design-batch-norm-eval",
        "design-layer-norm",
        "design-activations",
        "design-sgd",
        "design-adam",
        "design-adamw",
    ),
    "design_losses": (
        "design-loss-bce",
        "design-loss-logits",
        "design-loss-mse",
        "design-loss-half",
        "design-loss-l1",
        "design-loss-huber",
        "design-loss-smooth-l1",
        "design-loss-nll",
        "design-loss-cross-entropy",
        "design-loss-smoothing",
        "design-loss-pixels",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


@cache
def _built(module: str) -> Mapping[str, Network]:
    """The networks of a module by name, without what `describe` adds."""
    builders = import_module(f"{__name__}.{module}").BUILDERS
    return {network.name: network for network in (build() for build in builders)}


class _Titles(Mapping[str, str]):
    """By name the title of each network; the names are known without building any."""

    def __getitem__(self, name: str) -> str:
        return _built(_HOME[name])[name].title

    def __contains__(self, name: object) -> bool:
        return name in _HOME

    def __iter__(self) -> Iterator[str]:
        return iter(_HOME)

    def __len__(self) -> int:
        return len(_HOME)


#: What there is: one line about each network, by name.
NETWORKS: Mapping[str, str] = _Titles()

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
    return describe(_built(_HOME[name])[name])
