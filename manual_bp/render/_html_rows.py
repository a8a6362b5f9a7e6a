"""The table of quantities: one row each, and behind each row all that is known of it. Plain values for templates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

from manual_bp.render import _text
from manual_bp.render._graph_svg import TONE, abbreviated
from manual_bp.render._html_maps import Drawn, MapsView
from manual_bp.render._mathml import formula
from manual_bp.render._say import SYMBOL, WORD, Story, cause, comparison, phase, referee, tolerance
from manual_bp.report import HARMLESS, SEVERITY, Check, Comparison, Status

MEANING: dict[Status, str] = {
    "pass": "agrees, up to rounding",
    "wrong": "this step itself computes it wrongly",
    "inherited": "off only because an earlier quantity is; the step itself is right",
    "kink": "differs where the function has no single derivative, by another valid choice",
    "missing": "the candidate did not report it",
    "extra": "the reference has no quantity of this name",
    "mismatch": "another shape or dtype than the reference's",
    "nonfinite": "NaN or infinite where it should not be",
}


#: Said in place of heatmaps that would have made the file too large, or whose record is damaged.
NOT_DRAWN = "Its pictures are not drawn here; the JSON of this report holds them."

#: Longer names are shortened in the table; behind the row they are told in full.
LONGEST_NAME = 96


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A status to be seen: symbol and word, and a tone for the colour."""

    status: str
    symbol: str
    word: str
    tone: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class FormulaView:
    """A formula as MathML or escaped text, and where it stands."""

    markup: Markup
    source: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One comparison as a line of a table."""

    name: str
    what: str
    tone: str
    off: str
    error: str
    used: str
    at: str
    candidate: str
    reference: str
    allowed: str
    passing: str


@dataclass(frozen=True, kw_only=True)
class ElementView:
    """One of the worst elements."""

    at: str
    candidate: str
    reference: str
    error: str
    allowed: str
    used: str


@dataclass(frozen=True, kw_only=True)
class ProbeLine:
    """What one probe saw of a quantity."""

    name: str
    badge: Badge
    used: str
    off: str
    shown: bool


@dataclass(frozen=True, kw_only=True)
class DiagnosisView:
    """What explains it, how sure that is, and what to do."""

    title: str
    names: tuple[str, ...]
    sure: str
    evidence: str
    hint: str
    location: str


@dataclass(frozen=True, kw_only=True)
class RowView:
    """One quantity. The numbers called ``by_...`` are what the table is sorted by."""

    id: str
    badge: Badge
    name: str
    shown: Markup
    symbol: str
    step: str
    made_by: str
    probe: str
    probe_shown: str
    off: str
    error: str
    used: str
    first: bool
    quiet: bool
    search: str
    by_order: int
    by_rank: int
    by_off: str
    by_error: str
    by_used: str
    # behind the row
    sentence: str
    facts: tuple[tuple[str, str], ...]
    note: str
    diagnosis: DiagnosisView | None
    formula: FormulaView | None
    maps: MapsView | None
    no_maps: str
    judged: tuple[Judged, ...]
    worst: tuple[ElementView, ...]
    worst_more: str
    kink: tuple[str, ...]
    probes: tuple[ProbeLine, ...]


def rows(story: Story, pictures: Mapping[str, Drawn]) -> tuple[RowView, ...]:
    """Every quantity with its worst check over the probes, the worst first. ``pictures`` by row identifier."""
    worst_first = sorted(range(len(story.quantities)), key=lambda i: _badness(story, story.quantities[i]))
    rank = {i: place for place, i in enumerate(worst_first)}
    by_name: dict[str, list[Check]] = {}
    for check in story.report.checks:
        by_name.setdefault(check.name, []).append(check)
    found = [_row(story, i, rank[i], check, by_name[check.name], pictures) for i, check in enumerate(story.quantities)]
    return tuple(found[i] for i in worst_first)


def row_id(order: int) -> str:
    """The identifier of a quantity's row on the page; names are not used for it, as they may hold anything."""
    return f"q{order}"


def badge(status: Status) -> Badge:
    """A status as symbol, word, tone and meaning."""
    return Badge(status=status, symbol=SYMBOL[status], word=WORD[status], tone=TONE[status], meaning=MEANING[status])


def formula_of(check: Check) -> FormulaView | None:
    """The formula that a quantity must satisfy, if it is known."""
    if not check.equation and not check.equation_latex:
        return None
    return FormulaView(markup=Markup(formula(check.equation_latex, check.equation)), source=check.source)


def diagnosis_of(check: Check) -> DiagnosisView | None:
    """The diagnosis in words, if there is one."""
    found = check.diagnosis
    if found is None:
        return None
    alternatives = found.alternatives if found.confidence == "ambiguous" else ()
    names = tuple(dict.fromkeys([found.name, *alternatives]))
    title = {"certain": "Why", "ambiguous": "Why: one of these", "unexplained": "Why"}[found.confidence]
    sure = {
        "certain": "Certain: nothing else that was tried explains it",
        "ambiguous": "Each explains it equally well",
        "unexplained": f"No known mistake explains it{': ' + found.residual if found.residual else ''}",
    }[found.confidence]
    return DiagnosisView(
        title=title,
        names=tuple(map(sentence, names)) if any(names) else ("No known mistake explains it",),
        sure=sure if any(names) or found.residual else "",
        evidence=sentence(found.evidence),
        hint=sentence(found.hint),
        location=found.location,
    )


def sentence(text: str) -> str:
    """The text with a capital letter in front, unless it starts with a name or formula."""
    word = text.split(maxsplit=1)[0] if text else ""
    starts = word == "a" or (len(word) > 1 and word.isalpha() and word.islower())
    return text[0].upper() + text[1:] if starts else text


def breakable(text: str) -> Markup:
    """The text, escaped, that may be broken after the dots of a long name."""
    return Markup(".<wbr>").join(escape(part) for part in text.split("."))


# ------------------------------------------------------------------------------------ one row


def _row(
    story: Story, order: int, rank: int, check: Check, checks: list[Check], pictures: Mapping[str, Drawn]
) -> RowView:
    key = row_id(order)
    found = comparison(check)
    used = found.used if found else math.nan
    way = phase(check).removesuffix(" pass")
    drawn = pictures.get(key)
    return RowView(
        id=key,
        badge=badge(check.status),
        name=check.name,
        shown=breakable(_text.shorten(check.name, LONGEST_NAME)),
        symbol="" if check.symbol == check.name else check.symbol,
        step=check.step,
        made_by=" ".join(filter(None, [abbreviated(check.step, 16), way])),
        probe=check.probe,
        probe_shown=_text.shorten(check.probe, 16),
        off=_off(found),
        error=_text.error(found.max_abs_error) if found else "",
        used=_text.used(used) if found else "",
        first=check.name == story.report.first_wrong and check.status not in HARMLESS,
        quiet=check.status == "pass",
        search=" ".join([check.name, check.symbol, check.step, check.probe, WORD[check.status], cause(check)]).lower(),
        by_order=order,
        by_rank=rank,
        by_off=str(found.mismatched if found else -1),
        by_error=_sortable(found.max_abs_error if found else -1.0),
        by_used=_sortable(used if found else -1.0),
        sentence=_sentence(story, check, found),
        facts=_facts(story, check),
        note=sentence(check.note),
        diagnosis=diagnosis_of(check),
        formula=formula_of(check),
        maps=drawn.view if drawn else None,
        no_maps=NOT_DRAWN if check.picture and not drawn else "",
        judged=tuple(_judged(check)),
        worst=tuple(_elements(found)) if found else (),
        worst_more=_more(found),
        kink=_kink(check),
        probes=tuple(_probe_line(other, other is check) for other in checks) if len(checks) > 1 else (),
    )


def _badness(story: Story, check: Check) -> tuple[int, bool, float]:
    found = comparison(check)
    used = found.used if found else 0.0
    return SEVERITY.index(check.status), check.name != story.report.first_wrong, -used if used == used else -math.inf


def _off(found: Comparison | None) -> str:
    return f"{found.mismatched:,} of {found.elements:,}".replace(",", " ") if found else ""


def _sortable(number: float) -> str:
    """A number that JavaScript reads; NaN sorts as the worst."""
    return "Infinity" if math.isnan(number) or number == math.inf else repr(float(number))


def _sentence(story: Story, check: Check, found: Comparison | None) -> str:
    if check.status == "pass" and found is not None:
        count, share = _text.count(found.elements, "element"), _text.used(found.used)
        return f"All {count} agree; the one closest to its bound uses {share} of it."
    if check.status == "inherited":
        return f"{check.name} differs from torch's only because an earlier quantity does: {check.step} itself is right."
    return story.what_is_off(check) + "."


def _facts(story: Story, check: Check) -> tuple[tuple[str, str], ...]:
    seen = story.where_seen(check)
    facts = [
        ("Name", check.name if len(check.name) > LONGEST_NAME else ""),
        ("Made by", story.step_title(check)),
        ("Shape", f"{_text.shape(check.shape)} {check.dtype}".strip()),
        ("Seen on", f"probe {check.probe}" + (f"; {check.status} {seen}" if seen else "")),
        ("Rule", check.rule),
        ("Who is off", referee(check)),
    ]
    return tuple((name, text) for name, text in facts if text)


def _judged(check: Check) -> list[Judged]:
    sides = (
        ("this step alone", "on the candidate's own inputs", check.isolated),
        ("the whole pass", "end to end, beside torch's own", check.end_to_end),
    )
    return [_one(name, what, found) for name, what, found in sides if found is not None]


def _one(name: str, what: str, found: Comparison) -> Judged:
    candidate, reference = _text.pair(found.candidate, found.reference)
    return Judged(
        name=name,
        what=what,
        tone="good" if found.used <= 1 else "bad",
        off=_off(found),
        error=_text.error(found.max_abs_error),
        used=_text.used(found.used),
        at=_text.index(found.worst_index) or "–",
        candidate=candidate,
        reference=reference,
        allowed=f"± {_text.error(found.allowed)}",
        passing=tolerance(found) if not found.used <= 1 else "",
    )


def _elements(found: Comparison) -> list[ElementView]:
    views = []
    for element in found.worst:
        candidate, reference = _text.pair(element.candidate, element.reference)
        error = abs(element.candidate - element.reference)
        share = error / element.allowed if element.allowed else math.inf if error else 0.0
        views.append(
            ElementView(
                at=_text.index(element.index) or "–",
                candidate=candidate,
                reference=reference,
                error=_text.error(error),
                allowed=f"± {_text.error(element.allowed)}",
                used=_text.used(share),
            )
        )
    return views


def _more(found: Comparison | None) -> str:
    left = found.mismatched - len(found.worst) if found and found.worst else 0
    return f"and {_text.count(left, 'more element')} outside the bound" if left > 0 else ""


def _kink(check: Check) -> tuple[str, ...]:
    if check.kink is None:
        return ()
    kink = check.kink
    where = [_text.index(at) or "the only element" for at in kink.indices]
    left = max(kink.elements - len(where), 0)
    places = _text.listed(where, 12) + (f" and {left} more" if left else "")
    count = _text.count(kink.elements, "element")
    lines = [
        f"{count} at a point without a derivative, where more than one answer is right.",
        f"Convention: {kink.convention}." if kink.convention else "",
        f"Where: {places}." if where else "",
    ]
    return tuple(filter(None, lines))


def _probe_line(check: Check, shown: bool) -> ProbeLine:
    found = comparison(check)
    return ProbeLine(
        name=check.probe,
        badge=badge(check.status),
        used=_text.used(found.used) if found else "",
        off=_off(found),
        shown=shown,
    )
