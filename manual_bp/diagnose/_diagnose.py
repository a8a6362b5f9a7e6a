"""From the cases of one wrong quantity to its diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from manual_bp.network import INPUT
from manual_bp.report import Diagnosis

from ._case import Case
from ._evaluate import ROUNDOFF
from ._graph import Graph
from ._residual import describe
from ._search import Found, Progress, Search, double, prepare, single
from ._synonyms import merge
from ._words import count, hint_for, number

#: An explanation that is so much dearer than the plainest one is not mentioned beside it.
FAR = 0.65

#: More explanations than these are not listed.
LISTED = 6

#: How many roundings of the largest element are still rounding, and no mistake that is small.
ROUNDINGS = 16


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to search for one quantity, whether for two mistakes at once, and what to leave out."""

    seconds: float = 20.0
    pairs: bool = False
    without: frozenset[str] = frozenset()


def diagnose(
    graph: Graph,
    cases: Sequence[Case],
    *,
    effort: Effort | None = None,
    more: Callable[[], Iterable[Case]] | None = None,
    location: str = "",
    progress: Progress | None = None,
) -> Diagnosis:
    """Name the mistake behind one wrong quantity.

    Parameters
    ----------
    graph
        Who computes what from what.
    cases
        The quantity on every probe, at least one of them wrong.
    more
        Runs the candidate on further probes, if it can be run; asked only if several mistakes explain the given ones.
    location
        Where in the user's code the quantity is made.

    Returns
    -------
    Diagnosis
        "certain" if exactly one mistake explains what was reported on every probe, "ambiguous" if several do,
        "unexplained" with a description of what is off if none does.
    """
    return explain(graph, cases, effort=effort, more=more, location=location, progress=progress)[0]


def explain(
    graph: Graph,
    cases: Sequence[Case],
    *,
    effort: Effort | None = None,
    more: Callable[[], Iterable[Case]] | None = None,
    location: str = "",
    progress: Progress | None = None,
) -> tuple[Diagnosis, list[Found]]:
    """As `diagnose`, with the edited formulas that explain it."""
    effort = effort or Effort()
    with np.errstate(all="ignore"):
        special = _special(cases, location)
        if special is not None:
            return special, []
        search = prepare(graph, cases, seconds=effort.seconds, without=effort.without)
        if search is None:
            raise ValueError(f"none of the {len(cases)} cases is wrong")
        found = merge(single(search), search.setting, search.wrong[0])
        if effort.pairs and all(f.edit.fitted for f in found):  # two plain mistakes before a number that fits
            found = merge(double(search, progress), search.setting, search.wrong[0]) or found
        if len(found) > 1:
            found = _fewest(found)
        asked = ""
        if len(found) > 1 and more is not None:
            fresh = list(more())
            left = [f for f in found if all(_holds(case, f) for case in fresh)]
            if left:
                found = left
                asked = f"; {len(fresh)} more probe{'s were' if len(fresh) > 1 else ' was'} run to tell them apart"
        if not found:
            return _unexplained(search, location, effort), []
        return _named(search, found, location, asked), found


def _fewest(found: list[Found]) -> list[Found]:
    """What was fitted to the numbers yields to what was not, and what is far-fetched to what is plain."""
    plain = [f for f in found if not f.edit.fitted] or found
    return [f for f in plain if f.edit.cost <= plain[0].edit.cost + FAR]


def _holds(case: Case, found: Found) -> bool:
    from ._evaluate import MISFIT

    try:
        return case.leftover(found.edit.tree) <= 1.0
    except MISFIT:
        return False


def _special(cases: Sequence[Case], location: str) -> Diagnosis | None:
    """Numbers that are not finite, in an array that is right apart from them."""
    wrong = [c for c in cases if c.wrong and c.reported.shape == c.right.shape]
    if not wrong or len(wrong) < sum(c.wrong for c in cases):
        return None
    odd = [~np.isfinite(c.claimed) & np.isfinite(c.right) for c in wrong]
    if not all(o.any() and not (c.bad & ~o).any() for o, c in zip(odd, wrong, strict=True)):
        return _one_element(wrong, cases, location)
    many, size = int(odd[0].sum()), odd[0].size
    what = "NaN" if np.isnan(wrong[0].claimed[odd[0]]).all() else "not finite"
    return Diagnosis(
        name=f"{number(many)} of {count(size, 'element')} {'is' if many == 1 else 'are'} {what}, all others are right",
        identifier="nonfinite",
        evidence=f"{_on(wrong, cases)}, first at {[int(i) for i in np.argwhere(odd[0])[0]]}",
        confidence="certain",
        leftover=0.0,
        hint=hint_for("nonfinite"),
        location=location,
    )


def _one_element(wrong: Sequence[Case], cases: Sequence[Case], location: str) -> Diagnosis | None:
    """One element that is off in an array that is right apart from it, the same on every probe.

    Where it is another one each time, its numbers do not differ from the others', and the formula is to be looked at.
    """
    if not all(int(c.bad.sum()) == 1 and c.bad.size > 2 for c in wrong):
        return None
    places = [tuple(int(i) for i in np.argwhere(c.bad)[0]) for c in wrong]
    if all(c.claimed[p] == 0 for c, p in zip(wrong, places, strict=True)) or len(wrong) < 2:
        return None  # left out at an end, perhaps: an edit says more
    if len(set(places)) > 1:
        return None
    return Diagnosis(
        name="a single element is wrong, all the others are right",
        identifier="single-element",
        evidence=f"{_on(wrong, cases)}: {wrong[0].quantity}{list(places[0])} on {wrong[0].probe}",
        confidence="certain",
        leftover=0.0,
        hint=hint_for("single-element"),
        location=location,
    )


def _on(wrong: Sequence[Case], cases: Sequence[Case]) -> str:
    if len(cases) == 1:
        return "on the one probe"
    return f"on {len(wrong)} of {len(cases)} probes"


def _named(search: Search, found: list[Found], location: str, asked: str) -> Diagnosis:
    best, every = found[0], (*search.wrong, *search.right)
    elements = sum(int(c.bad.sum()) for c in search.wrong)
    few = {1: "the one wrong element", 2: "both wrong elements"}
    what = few.get(elements, f"all {count(elements, 'wrong element')}")
    evidence = f"explains {what} {_on(search.wrong, every)}"
    if search.right:
        evidence += f", and is no difference on the other{'' if len(search.right) == 1 else f' {len(search.right)}'}"
    if best.leftover > 0:
        evidence += f"; largest leftover {best.leftover:.2g} of what rounding allows"
    else:
        evidence += "; to the last digit"
    if best.edit.fitted:
        evidence += "; the number was fitted, not found in the definition"
    alternatives = tuple(f.edit.name for f in found[1 : 1 + LISTED])
    residual = ""
    if len(found) > 1:
        residual = "these probes cannot tell them apart" + (asked or "; " + _proposal(search, found))
    return Diagnosis(
        name=best.edit.name,
        identifier=best.edit.identifier,
        evidence=evidence + (asked if len(found) == 1 else ""),
        confidence="certain" if len(found) == 1 else "ambiguous",
        leftover=best.leftover,
        hint=hint_for(best.edit.identifier),
        location=location,
        alternatives=alternatives,
        residual=residual,
    )


def _proposal(search: Search, found: Sequence[Found]) -> str:
    """A probe that would tell explanations apart which differ on random numbers of the same shapes."""
    x = search.wrong[0].values.get(INPUT)
    batch = len(x) if x is not None and x.ndim else 0
    if any(f.edit.sized for f in found):
        other = batch + 1 if batch else "another number of"
        return f"a probe with {other} examples would, or any in which no two sizes are the same"
    more = " and more than one example" if batch == 1 else ""
    return f"a probe with random numbers everywhere, with no two axes of the same length{more} would"


def _rounding(case: Case) -> float:
    """The largest error in roundings of the largest element; infinite where something is not finite."""
    if case.reported.shape != case.right.shape:
        return np.inf
    largest = float(np.max(np.abs(case.right), initial=0.0))
    error = float(np.max(np.abs(case.claimed - case.right), initial=0.0))
    roundings = error / (largest * ROUNDOFF[case.dtype]) if largest else np.inf
    return roundings if np.isfinite(roundings) else np.inf


def _unexplained(search: Search, location: str, effort: Effort) -> Diagnosis:
    s = search.setting
    name = f"no single mistake in the definition of {s.quantity} explains it"
    if effort.pairs:
        name = f"neither one nor two mistakes in the definition of {s.quantity} explain it"
    roundings = max(map(_rounding, search.wrong))
    hint = hint_for("rounded-like-the-largest") if roundings <= ROUNDINGS else ""
    if hint:
        name += f"; no error is larger than {roundings:.2g} roundings of the largest element"
    stopped = time.monotonic() > search.deadline
    unknown = "" if s.known_formula else "; its step is none that is known here, so only general mistakes were tried"
    return Diagnosis(
        name=name,
        evidence=f"{_on(search.wrong, (*search.wrong, *search.right))}"
        + (f"; the search was stopped after {effort.seconds:g} s" if stopped else "")
        + unknown,
        confidence="unexplained",
        hint=hint,
        location=location,
        residual=describe(search.wrong, s.kind_of(s.quantity)),
    )


__all__ = ["Effort", "diagnose", "explain"]
