"""How often a planted mistake is named, and named rightly: part of ``python -m tests.campaigns detection``, or alone.

A name is *right* if the formula that it stands for makes the planted mistake's own numbers again on data that the
search has not seen: another seed and another batch. Whether the words are the catalogue's own is counted besides.

Then every mistake is diagnosed once more with the hypotheses taken away that were right: what is named now is named
by another hypothesis, and counted as wrong unless that one, too, gives the right numbers on unseen data.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from manual_bp import mutants, probes
from manual_bp.diagnose import Case, Effort, Evidence, Graph, explain
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.runner import judge_run

from . import _report
from ._judging import SwiftJudge, statuses_only
from ._networks import NAMES, network_of
from ._pool import run
from ._selection import DTYPES, by_size, cases
from ._selection import Case as Planted

PROBES = ("ties", "saturation", "batch", "asymmetric", "bad-scale", "seed-1")
UNSEEN = ("seed-1", "batch", "seed-2")
#: Mistakes a task.
TASK = 10
#: A search is not stopped by the clock, so that a slow machine finds what a fast one does.
EFFORT = Effort(seconds=3600.0)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns diagnosis", description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NAMES))
    parser.add_argument("--workers", type=int, default=None, help="processes (default: all cores)")
    parser.add_argument("--fresh", action="store_true", help="take over nothing from a run that was killed")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="only this one")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth mistake")
    parser.add_argument("--thorough", action="store_true", help="every mistake in every step of every network")
    parser.add_argument("--list", action="store_true", help="say which ones were named wrongly or not at all")
    options = parser.parse_args(arguments)
    todo = [
        task
        for dtype in options.dtype or DTYPES
        for task in tasks(dtype, options.networks, thorough=options.thorough, every=options.every)
    ]
    results = run(todo, perform, name="diagnosis", workers=options.workers, resume=not options.fresh)
    sys.stdout.write(_report.diagnoses([r for found in results for r in found], details=options.list) + "\n")
    return 0


def tasks(dtype: str, names: Sequence[str], *, thorough: bool = False, every: int = 1) -> list[dict[str, Any]]:
    """Every mistake in every kind of layer, a few at a time, in networks large enough to tell mistakes apart."""
    chosen = [c for c in cases(dtype, names=names, thorough=True) if mutants.get(c.sites[0][0]).kind == "wrong"]
    if not thorough:
        chosen = _one_each(chosen, names)
    by_network: dict[str, list[Planted]] = {}
    for case in chosen[::every]:
        by_network.setdefault(case.network, []).append(case)
    return [
        {
            "what": "diagnosis",
            "network": network,
            "dtype": dtype,
            "cases": [[list(site) for site in case.sites] for case in found[start : start + TASK]],
        }
        for network, found in by_network.items()
        for start in range(0, len(found), TASK)
    ]


def _one_each(chosen: Sequence[Planted], names: Sequence[str]) -> list[Planted]:
    """Each mistake in each class of layers once, in the middle one of the networks where it makes a difference."""
    order = {name: i for i, name in enumerate(by_size(names))}
    places: dict[tuple[str, str], list[Planted]] = {}
    for case in sorted(chosen, key=lambda c: (order[c.network], c.key)):
        ((mutant, step),) = case.sites
        part = mutants.part_of(network_of(case.network), step)
        places.setdefault((mutant, type(part).__name__), []).append(case)
    return [found[len(found) // 2] for found in places.values()]


def perform(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The diagnoses of some mistakes in one network: a record for each wrong quantity."""
    statuses_only()
    bench = _bench(task["network"], task["dtype"])
    return [record for sites in task["cases"] for record in bench.diagnosed(*sites[0])]


@cache
def _bench(network: str, dtype: str) -> _Bench:
    return _Bench(network_of(network), dtype)


class _Bench:
    """One network: the probes of the search, those that it does not see, and a judge that knows them."""

    def __init__(self, network: Network, dtype: str) -> None:
        self.network, self.dtype = network, dtype
        self.judge = SwiftJudge(network, dtype)
        self.seen = [probes.probe(network, name, dtype=dtype, batch=2) for name in PROBES]
        self.unseen = [probes.probe(network, name, dtype=dtype, batch=3, seed=11) for name in UNSEEN]

    def cases(self, candidate: Network, chosen: Iterable[Probe], wanted: Iterable[str]) -> dict[str, list[Case]]:
        """The wanted quantities of a candidate on some probes."""
        evidence = Evidence(Graph.of(self.network))
        for probe in chosen:
            outcome = candidate.run(probe.params, probe.x, probe.y)
            judge_run(self.judge, probe, outcome, strict_kinks=False, evidence=evidence)
        return {quantity: evidence.cases(quantity) for quantity in wanted}

    def diagnosed(self, mutant: str, step: str) -> list[dict[str, Any]]:
        """What is said of each quantity that the mistake makes wrong."""
        site = mutants.Site(mutants.get(mutant), step, mutants.get(mutant).faulty(self.network, step))
        candidate, wanted = mutants.plant(self.network, [site]), site.mutant.hypothesis
        seen = self.cases(candidate, self.seen, site.faulty)
        unseen = self.cases(candidate, self.unseen, site.faulty)
        records = []
        for quantity in sorted(q for q in site.faulty if any(c.wrong for c in seen[q])):
            full, right = _one(self.network, seen[quantity], unseen[quantity], wanted, frozenset())
            without, _ = _one(self.network, seen[quantity], unseen[quantity], wanted, right | {wanted})
            key = f"{self.network.name} {self.dtype} {site} {quantity}"
            records.append({"key": key, "dtype": self.dtype, "full": full, "without": without})
        return records


def _one(
    network: Network, seen: Sequence[Case], unseen: Sequence[Case], wanted: str, without: frozenset[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    """Diagnose one quantity; and the identifiers of what explains it."""
    start = time.perf_counter()
    effort = Effort(seconds=EFFORT.seconds, without=without)
    diagnosis, found = explain(Graph.of(network), seen, effort=effort)
    seconds = time.perf_counter() - start
    right = [f for f in found if all(_holds(c, f) for c in unseen)]
    if diagnosis.confidence == "unexplained":
        outcome = "unexplained"
    elif not found:
        outcome = "right"  # a plain fact: which elements are not finite, or that there is one alone
    elif len(found) == 1:
        outcome = "right" if right else "wrong"
    else:
        outcome = "ambiguous" if right else "wrong"
    record = {
        "outcome": outcome,
        "said": diagnosis.residual if outcome == "unexplained" else diagnosis.name,
        "words": diagnosis.identifier == wanted,
        "seconds": seconds,
    }
    return record, frozenset({f.edit.identifier for f in found} | {diagnosis.identifier})


def _holds(case: Case, found: object) -> bool:
    try:
        return bool(case.leftover(found.edit.tree) <= 1.0)  # type: ignore[attr-defined]  # a Found
    except (ValueError, IndexError, TypeError, KeyError):
        return False
