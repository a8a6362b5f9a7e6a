"""The top of the page: right or wrong, where first, why, and what it should have been, for readers of no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from manual_bp.render import _html_maps, _text
from manual_bp.render._html_maps import MapsView
from manual_bp.render._html_rows import RowView
from manual_bp.render._html_words import DiagnosisView, FormulaView, breakable, diagnosis_of, formula_of, sentence
from manual_bp.render._say import Story, comparison, phase
from manual_bp.report import HARMLESS, Check

#: Further mistakes that are named at the top of the page.
MOST_OTHERS = 4


@dataclass(frozen=True, kw_only=True)
class HeroView:
    """The first thing a reader sees: right or wrong, where first, why, and what it should have been."""

    tone: str
    symbol: str
    word: str
    headline: Markup
    told: tuple[Markup, ...]
    diagnosis: DiagnosisView | None
    formula: FormulaView | None
    element: str
    maps: MapsView | None
    caption: str
    href: str
    others: tuple[tuple[str, str, str], ...]
    more: str


def hero_of(story: Story, ids: Mapping[str, str], table: tuple[RowView, ...]) -> HeroView:
    """The top of the page; ``ids``: the rows' identifiers by the quantities' names."""
    report = story.report
    first = None if report.verdict == "pass" else story.first
    # what is missing is told of in one sentence
    others = [check for check in story.culprits if check is not first and check.status != "missing"] if first else []
    by_id = {row.id: row for row in table}
    row = by_id[ids[first.name]] if first else None
    maps = row.maps if row else None
    return HeroView(
        tone="good" if report.verdict == "pass" else "bad",
        symbol=story.symbol,
        word=story.word,
        headline=breakable(_headline(story, first)),
        told=tuple(map(breakable, _told(story, first))),
        diagnosis=diagnosis_of(first) if first else None,
        formula=formula_of(first) if first else None,
        element=_element(first) if first else "",
        maps=_html_maps.for_the_top(maps) if maps and maps.rows * maps.cols > 1 else None,
        caption=maps.planes[0] if maps else "",
        href=f"#{row.id}" if row else "",
        others=tuple((check.name, f"#{ids[check.name]}", _why(story, check)) for check in others[:MOST_OTHERS]),
        more=f"and {len(others) - MOST_OTHERS} more, in the table below" if len(others) > MOST_OTHERS else "",
    )


def _why(story: Story, check: Check) -> str:
    diagnosis = diagnosis_of(check)
    return diagnosis.names[0] if diagnosis else story.what_is_off(check).removeprefix(f"{check.name} ")


def _headline(story: Story, first: Check | None) -> str:
    total = len(story.quantities)
    if story.report.verdict == "pass":
        noun = _text.count(total, "quantity", "quantities")
        if not total:
            return "Nothing was compared"
        return f"All {noun} reported so far are right" if story.report.partial else f"All {noun} are right"
    if first is None:
        return "Every step is right by itself, the whole is not" if total else "Nothing was compared"
    name, step, shared = _text.shorten(first.name, 56), _named(story, first.step), story.readers(first)
    given = first.step in story.steps and story.steps[first.step].role == "input"
    part = {
        "value": f"The input {name}" if given else f"The forward pass of {step}",
        "gradient": f"The gradient of {name.removesuffix('.grad')}" if shared else f"The backward pass of {step}",
        "parameter": f"The parameter {name}",
        "parameter_gradient": f"The gradient of {name.removesuffix('.grad')}",
        "update": f"The update of {name.removesuffix('.new')}",
    }[first.kind]
    if first.status == "missing" and story.about(first):
        return f"{part} failed"  # what happened is told below
    return {
        "wrong": f"{part} {'was changed in place' if story.changed(first) else 'is wrong'}",
        "nonfinite": f"{part} gives NaN or infinity",
        "missing": f"{name} was not reported",
        "extra": f"{name} is not a quantity of this network",
        "mismatch": f"{name} has the wrong shape or dtype",
        "kink": f"{part} uses another subgradient than torch",
        "inherited": f"{part} differs",
        "pass": f"{part} differs",
    }[first.status]


def _named(story: Story, name: str) -> str:
    """``z1 (Conv2d)``."""
    step = story.steps.get(name)
    operation = step.op.split("(")[0] if step else ""
    short = _text.shorten(name, 56)
    return f"{short} ({operation})" if operation.isidentifier() and operation.lower() != name.lower() else short


def _told(story: Story, first: Check | None) -> list[str]:
    """Under the headline: what is off, what is right before it, what follows from it."""
    report = story.report
    if first is None:
        return _told_right(story) if report.verdict == "pass" else [f"{found.text}." for _, found in story.findings]
    step = story.steps.get(first.step)
    what = f"{first.step} = {step.op}" if step and step.op else first.step
    symbol = f"{first.symbol} ({first.name})" if first.symbol and first.symbol != first.name else first.name
    verb = {"value": "computes", "parameter": "holds"}.get(first.kind, "computes")
    made = f"{what} {verb} {symbol} in its {phase(first)}. "
    if first.status == "extra" or (step and step.role == "input"):
        made = ""  # no step of the network makes it
    elif readers := story.readers(first):
        made = f"{symbol} is the sum of what {_text.both(readers)} send back. "
    told = [f"{sentence(found.text)}." for _, found in story.about(first)]
    told.append(f"{made}{story.what_is_off(first)}.")
    before = story.quantities[: story.quantities.index(first)]
    if before and all(check.status in HARMLESS for check in before):
        told.append(f"All {_text.count(len(before), 'quantity', 'quantities')} before it are right.")
    absent = [check.name for check in story.culprits if check.status == "missing" and check is not first]
    if absent:
        also = " either" if first.status == "missing" else ""
        told.append(f"{_few(absent)} {'was' if len(absent) == 1 else 'were'} not reported{also}.")
    if story.inherited:
        names = _few([check.name for check in story.inherited])
        verb = "is" if len(story.inherited) == 1 else "are"
        reason = "because of it" if len(story.culprits) == 1 else "as a consequence"
        told.append(f"{names} {verb} off only {reason}.")
    return told


def _few(names: list[str]) -> str:
    return _text.both(names) if len(names) <= 3 else _text.listed(names, 3)


def _told_right(story: Story) -> list[str]:
    """Against what, how close, and what to keep in mind."""
    if not story.quantities:
        return []
    used = {c.name: found.used for c in story.quantities if c.status == "pass" and (found := comparison(c))}
    told = [f"Every value and gradient agrees with {story.reference}, up to rounding."]
    if closest := max(used, key=used.__getitem__, default=""):
        told = [f"{told[0][:-1]}; the one closest to its bound, {closest}, uses {_text.used(used[closest])} of it."]
    if story.kinks:
        names = _text.listed([check.name for check in story.kinks], 3)
        verb = "touches" if len(story.kinks) == 1 else "touch"
        told.append(f"{names} {verb} a point without a derivative, where more than one answer is right.")
    told += [f"{found.text}." for _, found in story.findings]
    return told


def _element(check: Check) -> str:
    found = comparison(check)
    if found is None or found.worst_index is None:
        return ""
    candidate, reference = _text.pair(found.candidate, found.reference)
    where = f"At {_text.index(found.worst_index)}" if found.worst_index else "Its only element"
    is_ = " it is" if found.worst_index else " is"
    return f"{where}{is_} {candidate}, and should be {reference} ± {_text.error(found.allowed)}."
