"""``python -m tests.campaigns detection``: planted mistakes, flagged and blamed, beside other criteria.

Every mistake of the catalogue is planted in every network where it makes a difference, and the network judged over its
default probes. Flagged: the verdict is not "pass". Blamed: exactly the quantities that the mistake makes wrong are
called wrong in themselves, no other one. Pairs: two mistakes at once. Named: what the mistake is; see
`tests.campaigns.diagnosis`. The rules that people use elsewhere judge the same networks, one step for each mistake,
and the right networks as well, where everything they say is a false alarm.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from manual_bp import mutants
from manual_bp.probes import Probe
from tests.campaigns import _criteria, _report, diagnosis
from tests.campaigns._judging import BLAMED, Bench, bench, blamed, kinks, statuses_only
from tests.campaigns._networks import NAMES
from tests.campaigns._pool import run
from tests.campaigns._selection import DTYPES, Case, cases, inputs_of, pairs, representatives
from tests.campaigns._sensitivity import NETWORKS as SENSITIVE
from tests.campaigns._sensitivity import smallest

#: Cases a task: enough to be worth the probes and the judge that a task makes anew in each process.
TASK = 40
PAIRS = 300
#: Elements of a weight, and of its gradient, whose smallest noticed change is searched, a network and dtype.
DRAWS = 3
QUICK = ("conv1d", "three-layer")
#: gradcheck varies each number by itself: it is run on networks of at most so many, and on these probes besides the
#: first one; elsewhere its slow mode would take minutes.
GRADCHECKED = 200
GRADCHECKED_PROBES = ("ties", "seed-1")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns detection", description=__doc__)
    parser.add_argument("--workers", type=int, default=None, help="processes (default: all cores)")
    parser.add_argument("--fresh", action="store_true", help="take over nothing from a run that was killed")
    parser.add_argument("--quick", action="store_true", help="two small networks only")
    parser.add_argument("--thorough", action="store_true", help="every mistake in every step of every network")
    parser.add_argument("--network", action="append", metavar="NAME", help="only this network; may be repeated")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"pairs of mistakes (default: {PAIRS})")
    options = parser.parse_args(arguments)
    names = tuple(options.network or (QUICK if options.quick else NAMES))
    result = campaign(
        names,
        workers=options.workers,
        resume=not options.fresh,
        thorough=options.thorough,
        number_of_pairs=options.pairs // 10 if options.quick else options.pairs,
        draws=1 if options.quick else DRAWS,
    )
    sys.stdout.write(_report.text(result) + "\n")
    return 0 if _report.perfect(result) else 1


def campaign(
    names: Sequence[str],
    *,
    workers: int | None = None,
    resume: bool = True,
    thorough: bool = False,
    number_of_pairs: int = PAIRS,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """All results, as the table needs them."""
    tasks: list[dict[str, Any]] = []
    for dtype in DTYPES:
        single = cases(dtype, names=names, thorough=thorough)
        tasks += _batches("single", single)
        tasks += _batches("pair", pairs(dtype, number_of_pairs // 2, names=names))
        tasks += _batches("rules", representatives(single))
        tasks += diagnosis.tasks(dtype, names, thorough=thorough)
        tasks += [{"what": "right", "dtype": dtype, "network": name} for name in names]
        tasks += [
            {"what": "smallest", "dtype": dtype, "network": name, "draw": draw, "of": of}
            for name in SENSITIVE
            if name in names
            for draw in range(draws)
            for of in ("weight", "gradient")
        ]
    results = run(tasks, perform, name="detection", workers=workers, resume=resume)
    found: dict[str, Any] = defaultdict(list)
    for task, result in zip(tasks, results, strict=True):
        found[task["what"]] += result
    return dict(found)


def perform(task: dict[str, Any]) -> list[dict[str, Any]]:
    """One task of any kind."""
    statuses_only()
    if task["what"] == "diagnosis":
        return diagnosis.perform(task)
    if task["what"] == "right":
        return [right(task["network"], task["dtype"])]
    if task["what"] == "smallest":
        return [smallest({**task, "what": task["of"]})]
    chosen = [
        Case(task["network"], task["dtype"], tuple((mutant, step) for mutant, step in sites)) for sites in task["cases"]
    ]
    return [by_rules(case) if task["what"] == "rules" else judged(case) for case in chosen]


def judged(case: Case) -> dict[str, Any]:
    """Our verdict on one or two planted mistakes."""
    judge = bench(case.network, case.dtype)
    chosen = [mutants.Site(mutants.get(m), step, mutants.get(m).faulty(judge.network, step)) for m, step in case.sites]
    statuses = judge.statuses(mutants.plant(judge.network, chosen))
    expected = frozenset().union(*(site.faulty for site in chosen if _shows_beside(judge, site, chosen)))
    kink = all(site.mutant.kind == "kink" for site in chosen)
    said = kinks(statuses) if kink else blamed(statuses)
    # a kink is shown in its quantity and in what inherits it; a mistake in its quantities and nowhere else
    exact = expected <= said and not blamed(statuses) if kink else said == expected
    return {
        "key": case.key,
        "dtype": case.dtype,
        "mutants": [m for m, _ in case.sites],
        "kink": kink,
        "flagged": bool(said),
        "exact": exact,
        "expected": sorted(expected),
        "said": sorted(said),
    }


def _shows_beside(judge: Bench, site: mutants.Site, chosen: list[mutants.Site]) -> bool:
    """Whether a mistake still changes a number in company: behind a gradient that is all zeros, none does."""
    if len(chosen) == 1:
        return True
    all_of_them = mutants.plant(judge.network, chosen)
    without = mutants.plant(judge.network, [other for other in chosen if other != site])
    return any(
        mutants.differs(all_of_them.run(p.params, p.x, p.y).trace[name], without.run(p.params, p.x, p.y).trace[name])
        for p in judge.probes
        for name in site.faulty
    )


def by_rules(case: Case) -> dict[str, Any]:
    """What the other rules say of one planted mistake: flagged, and whether what they name first is faulty."""
    judge = bench(case.network, case.dtype)
    ((mutant, step),) = case.sites
    planted = mutants.get(mutant).plant(judge.network, step)
    faulty = mutants.get(mutant).faulty(judge.network, step)
    verdicts: dict[str, dict[str, bool]] = {}
    traces = [planted.run(p.params, p.x, p.y).trace for p in judge.probes]
    quantities = judge.network.quantities()
    for name, rule in _criteria.RULES.items():
        # one probe that a rule finds something on is enough
        found = (rule(quantities, t, r) for t, r in zip(traces, judge.references, strict=True))
        first = next((names[0] for names in found if names), None)
        verdicts[name] = {"flagged": first is not None, "blamed": first in faulty}
    if case.dtype == "float64" and inputs_of(judge.network) <= GRADCHECKED and step != "update":
        for name, fast in zip(_criteria.GRADCHECK, (False, True), strict=True):
            wrong = any(not _criteria.gradcheck(planted, probe, fast=fast) for probe in _gradchecked(judge))
            verdicts[name] = {"flagged": wrong, "blamed": False}
    return {"key": case.key, "dtype": case.dtype, "kink": mutants.get(mutant).kind == "kink", "verdicts": verdicts}


def right(name: str, dtype: str) -> dict[str, Any]:
    """What every rule says of the right network: each word of it is a false alarm."""
    judge = bench(name, dtype)
    quantities = judge.network.quantities()
    alarms: dict[str, int] = {
        "ours": sum(
            any(check.status in BLAMED or check.status in ("inherited", "extra") for check in judge.judge.checks(p, r))
            for p, r in zip(judge.probes, judge.runs, strict=True)
        )
    }
    for rule_name, rule in _criteria.RULES.items():
        alarms[rule_name] = sum(
            bool(rule(quantities, run_.trace, reference))
            for run_, reference in zip(judge.runs, judge.references, strict=True)
        )
    if dtype == "float64" and inputs_of(judge.network) <= GRADCHECKED:
        for rule_name, fast in zip(_criteria.GRADCHECK, (False, True), strict=True):
            alarms[rule_name] = sum(not _criteria.gradcheck(judge.network, p, fast=fast) for p in _gradchecked(judge))
    runs = {rule: len(_gradchecked(judge) if rule in _criteria.GRADCHECK else judge.probes) for rule in alarms}
    return {"network": name, "dtype": dtype, "probes": runs, "alarms": alarms}


def _gradchecked(judge: Bench) -> list[Probe]:
    return [judge.probes[0], *(probe for probe in judge.probes if probe.name in GRADCHECKED_PROBES)]


def _batches(what: str, chosen: Iterable[Case]) -> list[dict[str, Any]]:
    """Cases of one network and dtype together, `TASK` at a time."""
    by_bench: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in chosen:
        by_bench[case.network, case.dtype].append(case)
    return [
        {
            "what": what,
            "network": network,
            "dtype": dtype,
            "cases": [[list(site) for site in case.sites] for case in found[start : start + TASK]],
        }
        for (network, dtype), found in by_bench.items()
        for start in range(0, len(found), TASK)
    ]
