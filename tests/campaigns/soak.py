"""``python -m tests.campaigns soak``: false alarms over random correct networks. There must be none.

Each network is computed several times, every step by an implementation of its own, on numbers that are hard on
rounding, and judged like anybody's. An alarm is any status but pass, and a kink where there is nothing to choose.
"""

from __future__ import annotations

import argparse
import collections
import math
import re
import sys
import warnings
from typing import Any
from unittest import mock

import numpy as np

from manual_bp import _torch_side
from manual_bp.fuzz import REGIMES, Source, draw_network, draw_probe
from manual_bp.network import Network
from manual_bp.nn import Array
from manual_bp.report import Check
from manual_bp.runner import judge_run
from tests.campaigns._pool import run
from tests.campaigns.variants import dressed

#: Networks a task, so that a task is worth handing to another process.
TASK = 20
#: Implementations of every network, besides the engine's own.
IMPLEMENTATIONS = 2


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns soak", description=__doc__)
    parser.add_argument("--networks", type=int, default=3000, help="random networks, each in both dtypes")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: all cores)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="take over nothing from a run that was killed")
    options = parser.parse_args(arguments)
    tasks = [
        {"seed": options.seed, "first": i, "last": min(i + TASK, options.networks)}
        for i in range(0, options.networks, TASK)
    ]
    total = merge(run(tasks, soak, name="soak", workers=options.workers, resume=not options.fresh))
    sys.stdout.write(table(total) + "\n")
    return 1 if total["alarms"] else 0


def soak(task: dict[str, int]) -> dict[str, Any]:
    """The networks of one task: counts, alarms, and by rule the largest share of the bound that was used."""
    found = _empty()
    # nobody looks at a picture of each check, and drawing them takes a third of the time
    with warnings.catch_warnings(), mock.patch("manual_bp.compare.picture", return_value=None):
        warnings.simplefilter("ignore", UserWarning)  # padding='same' with an even kernel costs torch a copy
        for number in range(task["first"], task["last"]):
            for result in _network(task["seed"], number):
                _add(found, result)
    return found


def _network(seed: int, number: int) -> Any:
    """Everything about one network, in both dtypes."""
    rng = np.random.default_rng([seed, number])
    network = draw_network(Source.random(rng), name=f"random-{number}")
    hard = str(rng.choice([name for name in REGIMES if name != "normal"]))
    batch = int(rng.integers(1, 5))
    candidates = [dressed(network, rng) for _ in range(IMPLEMENTATIONS)]
    for dtype in ("float32", "float64"):
        judge = _torch_side.judge.Judge(network, dtype)
        for regime in ("normal", hard):
            yield _judged(judge, candidates, f"{seed}/{number}", regime, number, batch)


def _judged(judge: Any, candidates: list[Network], label: str, regime: str, seed: int, batch: int) -> dict[str, Any]:
    """Every implementation on the same numbers."""
    network, dtype = judge.network, str(judge.dtype).removeprefix("torch.")
    probe = draw_probe(network, regime, seed=seed, batch=batch, dtype=dtype)
    plain = network.run(probe.params, probe.x, probe.y)
    result = _empty()
    if plain.failure or not all(np.isfinite(a).all() for a in plain.trace.values()):
        result["left_out"] = 1  # a layer refuses this batch, or the numbers overflow: nothing to say about rounding
        return result
    result["networks"] = 1
    result["regimes"][f"{regime} {dtype}"] = 1
    for candidate in candidates:
        run_ = candidate.run(probe.params, probe.x, probe.y)
        checks, findings = judge_run(judge, probe, run_, strict_kinks=False)
        result["checks"] += len(checks)
        result["runs"] += 1
        result["reference"] += sum(f.kind == "reference" for f in findings)
        if run_.failure:
            result["alarms"].append([label, dtype, regime, run_.failure.step, "raised", run_.failure.error, "", 0.0])
        # rounding alone can make a tie or a zero, on one side
        kinks = any(_has_kinks(network, {**plain.trace, **t}, probe.y) for t in ({}, run_.trace))
        for check in checks:
            _measure(result["rules"], check, dtype, kinks)
            result["kinks"] += check.status == "kink"
            status = check.status
            if not kinks and status == "pass" and check.end_to_end and check.end_to_end.mismatched:
                status = "outside end to end"  # excused, for every step is right; but the bound should have held
            if status == "pass" or (status == "kink" and kinks):
                continue
            how = {n.name: type(n.layer).__name__ for n in candidate.nodes}.get(
                check.step, type(candidate.loss).__name__
            )
            result["alarms"].append([label, dtype, regime, check.name, status, check.rule, how, _used(check)])
    return result


def _has_kinks(network: Network, trace: dict[str, Array], target: Array) -> bool:
    """Whether anything in this pass has no derivative: a zero at a rectifier, a tie, an exactly right prediction."""
    for node in network.nodes:
        kind, x = type(node.layer).__name__, trace[node.inputs[0]]
        if kind in ("ReLU", "LeakyReLU") and (x == 0).any():
            return True
        if kind.startswith("MaxPool"):
            planes = x.reshape(math.prod(x.shape[:2]), -1)
            if any(len(np.unique(plane)) < plane.size for plane in planes):
                return True
    if type(network.loss).__name__ in ("L1Loss", "SmoothL1Loss"):
        return bool((trace[network.output] == target).any())
    p = trace[network.output]
    return type(network.loss).__name__ == "BCELoss" and bool((p * (1 - p) < 1e-11).any())


def _used(check: Check) -> float:
    sides = [c.used for c in (check.isolated, check.end_to_end) if c is not None]
    return max(sides, default=0.0)


def _measure(rules: dict[str, list[float]], check: Check, dtype: str, kinks: bool) -> None:
    """Keep the largest ``used`` of every rule, isolated and end to end."""
    key = f"{dtype} {generic(check.rule)}"
    known = rules.setdefault(key, [0.0, 0.0, 0])
    known[2] += 1
    if check.status == "pass":
        known[0] = max(known[0], check.isolated.used if check.isolated else 0.0)
        known[1] = max(known[1], check.end_to_end.used if check.end_to_end and not kinks else 0.0)


def generic(rule: str) -> str:
    """A rule without its lengths; of a sum of gradients, only that it is one."""
    rule = re.sub(r", [nm] = \d+", "", rule.removeprefix("certified: "))
    return "a sum over several consumers" if " + " in rule else rule


def _empty() -> dict[str, Any]:
    counts = dict.fromkeys(("networks", "runs", "checks", "kinks", "left_out", "reference"), 0)
    return {**counts, "alarms": [], "rules": {}, "regimes": {}}


def _add(total: dict[str, Any], part: dict[str, Any]) -> None:
    for key in ("networks", "runs", "checks", "kinks", "left_out", "reference"):
        total[key] += part[key]
    total["alarms"] += part["alarms"]
    for regime, n in part["regimes"].items():
        total["regimes"][regime] = total["regimes"].get(regime, 0) + n
    for rule, (isolated, end, n) in part["rules"].items():
        known = total["rules"].setdefault(rule, [0.0, 0.0, 0])
        total["rules"][rule] = [max(known[0], isolated), max(known[1], end), known[2] + n]


def merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All tasks together."""
    total = _empty()
    for part in parts:
        _add(total, part)
    return total


def table(total: dict[str, Any]) -> str:
    """What the campaign prints."""
    dtypes = ("float32", "float64")
    both = f"{'isolated':>12}{'end to end':>12}" * 2
    lines = [
        f"{'largest share of the bound that was used':<52}{'float32':>33}{'float64':>24}",
        f"{'rule':<52}{'checks':>9}{both}",
    ]
    for name in sorted({key.split(" ", 1)[1] for key in total["rules"]}):
        rows = [total["rules"].get(f"{dtype} {name}", [0.0, 0.0, 0]) for dtype in dtypes]
        numbers = "".join(f"{row[0]:>12.3f}{row[1]:>12.3f}" for row in rows)
        lines.append(f"{name[:51]:<52}{sum(row[2] for row in rows):>9}{numbers}")
    count = {r: [total["regimes"].get(f"{r} {dtype}", 0) for dtype in dtypes] for r in REGIMES}
    lines += [
        "",
        f"data (float32 + float64)  {', '.join(f'{r} {a} + {b}' for r, (a, b) in count.items())}",
        f"networks on data          {total['networks']} judged, {total['left_out']} left out (overflow, or refused)",
        f"passes                    {total['runs']} by alternative implementations of every step",
        f"checks                    {total['checks']}, {total['kinks']} of them kinks",
        f"torch itself at fault     {total['reference']} checks",
        f"false alarms              {len(total['alarms'])}",
    ]
    kinds = collections.Counter((a[1], a[5], a[4], a[6]) for a in total["alarms"])
    lines += [f"  {n:>6} x {' | '.join(map(str, kind))}" for kind, n in kinds.most_common(40)]
    lines += [f"    {alarm}" for alarm in total["alarms"][:20]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
