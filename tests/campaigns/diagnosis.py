"""How often a planted mistake is named, and named rightly: ``python -m tests.campaigns diagnosis``.

A name is *right* if the formula that it stands for makes the planted mistake's own numbers again on data that the
search has not seen: another seed and another batch. Whether the words are the catalogue's own is counted besides.

Then every mistake is diagnosed once more with the hypotheses taken away that were right: what is named now is named
by another hypothesis, and counted as wrong unless that one, too, gives the right numbers on unseen data.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from manual_bp import mutants, networks, probes
from manual_bp.diagnose import Case, Effort, Evidence, Graph, explain
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.runner import judge_run

from ._judging import SwiftJudge

PROBES = ("ties", "saturation", "batch", "asymmetric", "bad-scale", "seed-1")
UNSEEN = ("seed-1", "batch", "seed-2")
DEFAULT = (
    "three-layer",
    "design-geometry",
    "design-channels",
    "design-batch-norm",
    "design-residual",
    "design-sgd",
    "design-adam",
)


@dataclass
class Count:
    """What came out over all mistakes."""

    total: int = 0
    outcome: Counter[str] = field(default_factory=Counter)
    words: int = 0
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    def share(self, outcome: str) -> str:
        return f"{100 * self.outcome[outcome] / max(self.total, 1):5.1f} %"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns diagnosis", description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(DEFAULT))
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth mistake")
    parser.add_argument("--list", action="store_true", help="say which ones were named wrongly or not at all")
    options = parser.parse_args(arguments)
    full, without = Count(), Count()
    for name in options.networks:
        _network(networks.get(name), options.dtype, options.every, full, without)
    _say("with the whole grammar", full, options.list)
    _say("with each mistake's own hypotheses removed", without, options.list)
    return 0


def _network(network: Network, dtype: str, every: int, full: Count, without: Count) -> None:
    sites = [s for s in mutants.sites(network, dtype=dtype) if s.mutant.kind == "wrong"][::every]
    bench = _Bench(network, dtype)
    for n, site in enumerate(sites):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{network.name} {n + 1}/{len(sites)} ")
        candidate = mutants.plant(network, [site])
        seen = bench.cases(candidate, bench.seen, site.faulty)
        unseen = bench.cases(candidate, bench.unseen, site.faulty)
        for quantity in sorted(site.faulty):
            if not any(c.wrong for c in seen[quantity]):
                continue
            label = f"{network.name} {site} {quantity}"
            right = _one(network, label, seen[quantity], unseen[quantity], full, site.mutant.hypothesis, frozenset())
            _one(network, label, seen[quantity], unseen[quantity], without, site.mutant.hypothesis, right)


def _one(
    network: Network,
    label: str,
    seen: Sequence[Case],
    unseen: Sequence[Case],
    count: Count,
    wanted: str,
    without: frozenset[str],
) -> frozenset[str]:
    """Diagnose one quantity; the identifiers of what explains it rightly."""
    start = time.perf_counter()
    diagnosis, found = explain(
        Graph.of(network), seen, effort=Effort(without=without | ({wanted} if without else frozenset()))
    )
    count.seconds.append(time.perf_counter() - start)
    count.total += 1
    count.words += diagnosis.identifier == wanted
    right = [f for f in found if all(_holds(c, f) for c in unseen)]
    if diagnosis.confidence == "unexplained":
        outcome = "unexplained"
        count.silent.append(f"{label}: {diagnosis.residual[:100]}")
    elif not found:
        outcome = "right"  # a plain fact: which elements are not finite, or that there is one alone
    elif len(found) == 1:
        outcome = "right" if right else "wrong"
    else:
        outcome = "ambiguous" if right else "wrong"
    count.outcome[outcome] += 1
    if outcome == "wrong":
        count.wrong.append(f"{label}: {diagnosis.name}")
    return frozenset({f.edit.identifier for f in found} | {diagnosis.identifier})


def _holds(case: Case, found: object) -> bool:
    try:
        return bool(case.leftover(found.edit.tree) <= 1.0)  # type: ignore[attr-defined]  # a Found
    except (ValueError, IndexError, TypeError, KeyError):
        return False


class _Bench:
    """One network: the probes of the search, those that it does not see, and a judge that knows them."""

    def __init__(self, network: Network, dtype: str) -> None:
        self.network = network
        self.judge = SwiftJudge(network, dtype)
        self.seen = [probes.probe(network, name, dtype=dtype, batch=2) for name in PROBES]
        self.unseen = [probes.probe(network, name, dtype=dtype, batch=3, seed=11) for name in UNSEEN]

    def cases(self, candidate: Network, chosen: Iterable[Probe], wanted: Iterable[str]) -> dict[str, list[Case]]:
        """The wanted quantities of a candidate on some probes."""
        evidence = Evidence(Graph.of(self.network))
        for probe in chosen:
            self.judge._key = id(probe)
            run = candidate.run(probe.params, probe.x, probe.y)
            judge_run(self.judge, probe, run, strict_kinks=False, evidence=evidence)
        return {quantity: evidence.cases(quantity) for quantity in wanted}


def _say(title: str, count: Count, details: bool) -> None:
    write = sys.stdout.write
    seconds = np.array(count.seconds or [0.0])
    write(f"{title}: {count.total} wrong quantities\n")
    write(f"  named rightly               {count.share('right')}\n")
    write(f"  named among several         {count.share('ambiguous')}\n")
    write(f"  unexplained                 {count.share('unexplained')}\n")
    write(f"  named wrongly               {count.share('wrong')}\n")
    write(f"  in the catalogue's words    {100 * count.words / max(count.total, 1):5.1f} %\n")
    median, most, longest = np.median(seconds), np.quantile(seconds, 0.95), seconds.max()
    write(f"  seconds a diagnosis         median {median:.2f}, 95 % {most:.2f}, longest {longest:.2f}\n")
    for kind, lines in (("named wrongly", count.wrong), ("unexplained", count.silent)) if details else ():
        for line in lines:
            write(f"    {kind}: {line}\n")
