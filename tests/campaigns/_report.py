"""The figures of a detection campaign as text."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median, quantiles
from typing import Any

from tests.campaigns._criteria import GRADCHECK, RULES

#: Exceptions that are shown one by one; the rest is counted.
SHOWN = 20
#: The goals: the smallest relative change noticed in isolation, median.
GOALS = {"float64": 1e-14, "float32": 1e-5}


def text(result: dict[str, Any]) -> str:
    """Everything, ready to print."""
    parts = [
        _ours(result),
        diagnoses(result.get("diagnosis", [])),
        _beside(result),
        _smallest(result.get("smallest", [])),
    ]
    return "\n\n".join(part for part in parts if part)


def perfect(result: dict[str, Any]) -> bool:
    """Whether every mistake was flagged and blamed exactly, and no right network."""
    return all(r["exact"] for r in (*result.get("single", []), *result.get("pair", []))) and not any(
        r["alarms"]["ours"] for r in result.get("right", [])
    )


def share(part: int, whole: int) -> str:
    """ "118 of 120 (98.3 %)", or "118 of 118"."""
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole and part != whole else "")


def _ours(result: dict[str, Any]) -> str:
    lines = ["planted mistakes, judged over the default probes"]
    for what, words in (("single", "one mistake"), ("pair", "two mistakes")):
        for dtype in ("float64", "float32"):
            found = [r for r in result.get(what, []) if r["dtype"] == dtype and not r["kink"]]
            if not found:
                continue
            kinds = len({m for r in found for m in r["mutants"]})
            flagged, exact = sum(r["flagged"] for r in found), sum(r["exact"] for r in found)
            lines.append(
                f"  {words:<12} {dtype}  {kinds} kinds in {len(found)} places:"
                f" flagged {share(flagged, len(found))}, blamed exactly {share(exact, len(found))}"
            )
    valid = [r for r in result.get("single", []) if r["kink"]]
    if valid:
        shown = sum(r["exact"] for r in valid)
        lines.append(f"  another valid subgradient: shown as a kink, not as a mistake: {share(shown, len(valid))}")
    failed = [r for r in (*result.get("single", []), *result.get("pair", [])) if not r["exact"]]
    for r in failed[:SHOWN]:
        lines.append(f"  ! {r['key']}: expected {', '.join(r['expected'])}; said {', '.join(r['said']) or 'nothing'}")
    if len(failed) > SHOWN:
        lines.append(f"  ! and {len(failed) - SHOWN} more")
    return "\n".join(lines)


def _beside(result: dict[str, Any]) -> str:
    rules = [r for r in result.get("rules", []) if not r["kink"]]
    if not rules:
        return ""
    head = (
        "criterion",
        "flagged f64",
        "first named is faulty",
        "flagged f32",
        "first named is faulty",
        "false alarms f64",
        "f32",
    )
    rows = [head]
    own = {r["key"]: r for r in result.get("single", [])}
    for name in ("ours", *RULES, *GRADCHECK):
        row = [f"{name}, isolated: certified bounds" if name == "ours" else name]
        for dtype in ("float64", "float32"):
            mine = [r for r in rules if r["dtype"] == dtype]
            said = [r["verdicts"][name] for r in mine if name in r["verdicts"]]
            if name == "ours":
                said = [{"flagged": own[r["key"]]["flagged"], "blamed": own[r["key"]]["exact"]} for r in mine]
            row += [_of(v["flagged"] for v in said), "-" if name in GRADCHECK else _of(v["blamed"] for v in said)]
        for dtype in ("float64", "float32"):
            right = [r for r in result.get("right", []) if r["dtype"] == dtype and name in r["alarms"]]
            alarms, runs = sum(r["alarms"][name] for r in right), sum(r["probes"][name] for r in right)
            row.append(f"{alarms}/{runs}" if runs else "-")
        rows.append(tuple(row))
    notes = (
        "One place for each mistake, in the smallest network where it makes a difference; false alarms: right",
        "networks, each probe by itself. For ours the blame is exact: all faulty quantities, no other. assert_close,",
        "np.allclose, gradcheck: defaults; gradcheck: float64, networks of at most 200 numbers, three probes. CS231n:",
        "max |a - b| / max(1e-8, |a| + |b|) of weights' and input's gradients: below 1e-7 right, above 1e-2 wrong.",
    )
    return "\n".join(["the same mistakes by other criteria", *_table(rows), *(f"  {note}" for note in notes)])


def _of(flags: Iterable[bool]) -> str:
    found = list(flags)
    return f"{sum(found)}/{len(found)}" if found else "-"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


#: How a diagnosis can come out, in words.
OUTCOMES = {
    "right": "named rightly",
    "ambiguous": "named among several that these probes cannot tell apart",
    "unexplained": "unexplained",
    "wrong": "named wrongly",
}


def diagnoses(found: list[dict[str, Any]], *, details: bool = False) -> str:
    """How many mistakes were named, and how well; with ``details`` each one that was not."""
    if not found:
        return ""
    lines = ["the mistake behind each wrong quantity: a right name gives the same numbers on data not seen before"]
    for which, words in (("full", "all hypotheses"), ("without", "its own hypothesis taken away")):
        for dtype in ("float64", "float32"):
            mine = [r[which] for r in found if r["dtype"] == dtype]
            if mine:
                lines.append(f"  {dtype}, {words}: {len(mine)} wrong quantities")
                lines += [f"    {w:<55}{_percent(r['outcome'] == o for r in mine):>8}" for o, w in OUTCOMES.items()]
                if which == "full":
                    lines.append(
                        f"    {'in the very words of the catalogue':<55}{_percent(r['words'] for r in mine):>8}"
                    )
                lines.append(f"    {_times([r['seconds'] for r in mine])}")
    for which in ("full", "without"):
        shown = ("wrong", "unexplained", "ambiguous") if details and which == "full" else ("wrong",)
        told = [r for r in found if r[which]["outcome"] in shown]
        for r in told[: None if details else SHOWN]:
            own = "" if which == "full" else ", its own hypothesis taken away"
            lines.append(f"  ! {r['key']}{own}: {r[which]['outcome']}: {r[which]['said']}")
    return "\n".join(lines)


def _percent(flags: Iterable[bool]) -> str:
    found = list(flags)
    return f"{100 * sum(found) / len(found):.1f} %"


def _times(seconds: list[float]) -> str:
    most = quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
    return f"seconds a diagnosis: median {median(seconds):.2f}, 95 % below {most:.2f}, longest {max(seconds):.2f}"


def _smallest(found: list[dict[str, Any]]) -> str:
    if not found:
        return ""
    lines = ["the smallest relative change of a single number that is noticed (median)"]
    for of in ("weight", "gradient"):
        for dtype in ("float64", "float32"):
            mine = [r for r in found if r["what"] == of and r["dtype"] == dtype]
            if not mine:
                continue
            parts = []
            for what, words in (("isolated", "isolated"), ("end_to_end", "end to end")):
                sizes = [r[what] if r[what] is not None else float("inf") for r in mine]
                parts.append(f"{words} {median(sizes):.1e}")
            goal = f"  (goal {GOALS[dtype]:.0e} isolated)" if of == "weight" else ""
            lines.append(f"  one {of:<9} {dtype}  {', '.join(parts)}, of {len(mine)}{goal}")
    return "\n".join(lines)
