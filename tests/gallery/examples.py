"""The comparisons behind the example reports: the three-layer network, right and with one mistake each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from manual_bp import networks, nn
from manual_bp.lesson import chapter
from manual_bp.network import Network
from manual_bp.probes import probe
from manual_bp.report import Report
from manual_bp.runner import judge_network

from .mistakes import DividingReLU, LastMaxPool2d, UnmaskedReLU, UnrotatedConv2d


@dataclass(frozen=True, kw_only=True)
class Example:
    """One report: what is exchanged in the network (step -> layer), and the probes it is run on."""

    planted: str
    probes: tuple[str, ...]
    layers: Mapping[str, nn.Layer] = field(default_factory=dict)
    lesson: bool = False

    def report(self) -> Report:
        """Run the comparison."""
        network = networks.get("three-layer")
        chosen = [probe(network, name) for name in self.probes]
        made = judge_network(network, chosen, candidate=self._candidate(network))
        made = replace(made, notes=(self.planted,))
        return replace(made, lesson=chapter(network, chosen[0])) if self.lesson else made

    def _candidate(self, network: Network) -> Network:
        for step, layer in self.layers.items():
            network = network.with_layer(step, layer)
        return network


#: By the names of their files.
EXAMPLES: Mapping[str, Example] = {
    "right": Example(planted="an example report: the network as it is", probes=("digits", "ties"), lesson=True),
    "unrotated-kernel": Example(
        planted="an example report: planted is a convolution whose kernel is not rotated in the backward pass",
        probes=("digits",),
        layers={"z1": UnrotatedConv2d(1, 1, 3)},
        lesson=True,
    ),
    "forgotten-mask": Example(
        planted="an example report: planted is a ReLU whose backward pass forgets the mask",
        probes=("digits",),
        layers={"a1": UnmaskedReLU()},
    ),
    "tie": Example(
        planted="an example report: of equal maxima the pooling gives the last one the gradient, not the first",
        probes=("ties",),
        layers={"a2": LastMaxPool2d(2)},
    ),
    "nan": Example(
        planted="an example report: planted is a ReLU whose slope is written as (1 + z/|z|) / 2",
        probes=("ties",),
        layers={"a1": DividingReLU()},
    ),
}
