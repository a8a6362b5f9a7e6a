"""How much a set of probes could have seen: mistakes are planted, and it is counted which of them show.

A comparison that finds nothing is worth as much as the mistakes it would have found. For every mistake of the
catalogue in every step where it makes a difference, the step is computed with the mistake on each probe's own operands:
the probe reveals it if a number leaves its certified bound.

The counts of the built-in networks' default probes are measured once (``python -m tests.campaigns power``) and
shipped as data/power.json, so that naming them costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.measure import outside
from manual_bp.network import Network
from manual_bp.report import Power
from manual_bp.trace import GRAD, Array, Run, bit_identical

if TYPE_CHECKING:
    from manual_bp.mutants import Site
    from manual_bp.probes import Probe
    from manual_bp_torch.judge import Judge

#: Classes of mistakes that are named when nobody reveals them; of the others only the number is given.
NAMED = 12

MEASURED = "measured on these probes"
SHIPPED = "measured beforehand on the default probes (data/power.json)"


@dataclass(frozen=True)
class Count:
    """Which of the planted mistakes each probe reveals: one flag for each site, in the order of `mutants.sites`."""

    planted: int
    by_probe: Mapping[str, tuple[bool, ...]]

    def power(self, sites: Sequence[Site] | None, *, origin: str) -> Power:
        """The count as a report shows it; without ``sites`` what is unseen stays unnamed."""
        seen = [any(flags) for flags in zip(*self.by_probe.values(), strict=True)]
        alone = {name: sum(flags) for name, flags in self.by_probe.items()}
        return Power(
            planted=self.planted,
            revealed=sum(seen),
            by_probe=alone,
            unseen=()
            if sites is None
            else _classes(site for site, shown in zip(sites, seen, strict=True) if not shown),
            origin=origin,
            text=_text(self.planted, sum(seen), alone),
        )


def measure_power(network: Network, probes: Sequence[Probe], *, judge: Judge | None = None) -> Power:
    """Plant every mistake in every step, and look on every probe whether it shows.

    Parameters
    ----------
    probes
        All of one dtype.
    judge
        The torch side, if the caller has built it already: it supplies the bounds.
    """
    from manual_bp.mutants import sites

    found = sites(network, dtype=_dtype(probes))
    return count_revealed(network, probes, found, judge=judge).power(found, origin=MEASURED)


def count_revealed(
    network: Network, probes: Sequence[Probe], sites: Sequence[Site], *, judge: Judge | None = None
) -> Count:
    """Which of these planted mistakes each probe reveals."""
    judge = judge or _torch_side.judge.Judge(network, _dtype(probes))
    flags = {}
    for probe in probes:
        view = _View(network, probe, judge)
        with np.errstate(all="ignore"):
            flags[probe.name] = tuple(view.reveals(site) for site in sites)
    return Count(len(sites), flags)


def lookup(network: Network, probes: Sequence[Probe], *, seed: int, batch: int) -> Power | None:
    """What is known beforehand of these probes: something for the built-in networks, default seed and batch.

    Any choice of the default probes will do. None if nothing is known.
    """
    if seed != 0 or batch != 1 or not probes or not _is_built_in(network):
        return None
    stored = _shipped().get(network.name, {}).get(_dtype(probes))
    if stored is None or any(probe.name not in stored["revealed"] for probe in probes):
        return None
    planted = int(stored["planted"])
    count = Count(planted, {probe.name: _unpack(stored["revealed"][probe.name], planted) for probe in probes})
    seen_by_all = all(any(flags) for flags in zip(*count.by_probe.values(), strict=True))
    return count.power(None if seen_by_all else _sites_of(network, _dtype(probes), planted), origin=SHIPPED)


def pack(flags: Iterable[bool]) -> str:
    """Flags as hexadecimal digits, the first flag the lowest bit."""
    return f"{sum(1 << i for i, flag in enumerate(flags) if flag):x}"


def _unpack(digits: str, number: int) -> tuple[bool, ...]:
    bits = int(digits, 16)
    return tuple(bool(bits >> i & 1) for i in range(number))


@cache
def _shipped() -> dict[str, Any]:
    path = files("manual_bp.data") / "power.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))["networks"] if path.is_file() else {}
    return found


def _is_built_in(network: Network) -> bool:
    from manual_bp import networks

    if network.name not in networks.NETWORKS:
        return False
    known = networks.get(network.name)
    return (known.nodes, known.loss, known.optimizer) == (network.nodes, network.loss, network.optimizer)


def _sites_of(network: Network, dtype: str, planted: int) -> Sequence[Site] | None:
    """The sites that were counted; None if the catalogue has changed since."""
    from manual_bp.mutants import sites

    found = sites(network, dtype=dtype)
    return found if len(found) == planted else None


def _dtype(probes: Sequence[Probe]) -> str:
    first = probes[0]
    return str(first.x.dtype) if first.x.dtype.kind == "f" else str(next(iter(first.params.values())).dtype)


def _text(planted: int, revealed: int, alone: Mapping[str, int]) -> str:
    first, *others = alone
    if not others:
        return f"{first} alone reveals {revealed} of {planted} planted mistakes"
    return f"these probes reveal {revealed} of {planted} planted mistakes; {first} alone {alone[first]}"


def _classes(unseen: Iterable[Site]) -> tuple[str, ...]:
    """Mistakes that nobody reveals, in plain words, each with the steps it was planted in."""
    steps: dict[str, list[str]] = {}
    for site in unseen:
        steps.setdefault(site.mutant.title, []).append(site.step)
    named = [f"{title} ({', '.join(where)})" for title, where in steps.items()]
    more = len(named) - NAMED
    return (*named[:NAMED], f"and {more} more kinds of mistakes") if more > 0 else tuple(named)


class _View:
    """One probe: the right run, what may differ from it, and what each step sees."""

    def __init__(self, network: Network, probe: Probe, judge: Judge) -> None:
        self.network, self.probe = network, probe
        self.run: Run = network.run(probe.params, probe.x, probe.y)
        items = judge.items(probe.params, probe.x, probe.y, self.run.trace)
        answers = {item.quantity.name: item.isolated or item.end_to_end for item in items}
        self.allowed = {name: answer.allowed for name, answer in answers.items() if answer is not None}
        self.seen = dict(self._seen())

    def reveals(self, site: Site) -> bool:
        """Whether some faulty quantity leaves its bound."""
        from manual_bp.mutants import StepMutant, names_of

        if not isinstance(site.mutant, StepMutant):
            return self._reveals_run(site)
        if site.step == "update":
            return any(
                self._shows(name, site.mutant.results(seen)["new"], seen.new)
                for name, seen in self.seen["update"].items()
            )
        seen = self.seen[site.step]
        for role, wrong in site.mutant.results(seen).items():
            (name,) = names_of(self.network, site.step, (role,))
            if self._shows(name, wrong, seen.result(role)):
                return True
        return False

    def _reveals_run(self, site: Site) -> bool:
        """The same for a mistake that takes more than one step: the whole pass."""
        run = site.mutant.plant(self.network, site.step).run(self.probe.params, self.probe.x, self.probe.y)
        if run.mutations or run.failure:
            return True
        return any(self._shows(name, run.trace[name], self.run.trace[name]) for name in site.faulty)

    def _shows(self, name: str, wrong: Array, right: Array) -> bool:
        if wrong.shape != right.shape:
            return True
        return not bit_identical(wrong, right) and bool(outside(wrong, right, self.allowed[name]).any())

    def _seen(self) -> Iterator[tuple[str, Any]]:
        """The operands of every step, by its name."""
        from manual_bp.mutants import Seen, SeenLoss, SeenUpdate

        network, trace = self.network, self.run.trace
        for node in network.nodes:
            own = {p: self.probe.params[f"{node.name}.{p}"] for p in _parameters(node.layer)}
            inputs = tuple(trace[name] for name in node.inputs)
            yield node.name, Seen.of(node.layer, own, inputs, trace[node.name + GRAD])
        yield network.loss_name, SeenLoss.of(network.loss, trace[network.output], self.probe.y)
        if network.optimizer is not None:
            yield (
                "update",
                {
                    f"{name}.new": SeenUpdate.of(network.optimizer, self.probe.params[name], trace[name + GRAD])
                    for name in network.parameter_shapes()
                },
            )


def _parameters(layer: Any) -> tuple[str, ...]:
    return (*layer.parameter_shapes(), *layer.buffer_shapes())
