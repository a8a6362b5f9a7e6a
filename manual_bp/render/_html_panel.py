"""Behind a row: both comparisons, the worst elements, the kink, and what every probe saw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from manual_bp.render import _text
from manual_bp.render._html_words import Badge, badge, off
from manual_bp.render._say import WORD, Story, comparison, not_right_alone, referee, tolerance
from manual_bp.report import Check, Comparison

#: Longer names are shortened in the table; behind the row they are told in full.
LONGEST_NAME = 96


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


def sentence_of(story: Story, check: Check, found: Comparison | None) -> str:
    """What came out, in one sentence."""
    if check.status == "pass" and found is not None:
        count, share = _text.count(found.elements, "element"), _text.used(found.used)
        return f"All {count} agree; the one closest to its bound uses {share} of it."
    if not_right_alone(check):
        return f"{check.name} {check.note}."
    if check.status == "inherited":
        return f"{check.name} differs from torch's only because an earlier quantity does: {check.step} itself is right."
    return story.what_is_off(check) + "."


def facts(story: Story, check: Check) -> tuple[tuple[str, str], ...]:
    """What else there is to know, name by name."""
    seen = story.where_seen(check)
    facts = [
        ("Name", check.name if len(check.name) > LONGEST_NAME else ""),
        ("Made by", story.step_title(check)),
        ("Shape", f"{_text.shape(check.shape)} {check.dtype}".strip()),
        ("Seen on", f"probe {check.probe}" + (f"; {WORD[check.status]} {seen}" if seen else "")),
        ("Rule", check.rule),
        ("Who is off", referee(check)),
    ]
    return tuple((name, text) for name, text in facts if text)


def judged(check: Check) -> list[Judged]:
    """The comparisons that were made: the step alone, the whole pass."""
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
        off=off(found),
        error=_text.error(found.max_abs_error),
        used=_text.used(found.used),
        at=_text.index(found.worst_index) or "–",
        candidate=candidate,
        reference=reference,
        allowed=f"± {_text.error(found.allowed)}",
        passing=tolerance(found) if not found.used <= 1 else "",
    )


def elements(found: Comparison) -> list[ElementView]:
    """The worst elements outside the bound."""
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


def more(found: Comparison | None) -> str:
    """How many elements outside the bound are not listed; empty when all are."""
    left = found.mismatched - len(found.worst) if found and found.worst else 0
    return f"and {_text.count(left, 'more element')} outside the bound" if left > 0 else ""


def kink(check: Check) -> tuple[str, ...]:
    """Where it touches a point without a derivative, and what torch does there."""
    if check.kink is None:
        return ()
    found = check.kink
    where = [_text.index(at) or "the only element" for at in found.indices]
    left = max(found.elements - len(where), 0)
    places = _text.listed(where, 12) + (f" and {left} more" if left else "")
    count = _text.count(found.elements, "element")
    lines = [
        f"{count} at a point without a derivative, where more than one answer is right.",
        f"Convention: {found.convention}." if found.convention else "",
        f"Where: {places}." if where else "",
    ]
    return tuple(filter(None, lines))


def probe_line(check: Check, shown: bool) -> ProbeLine:
    """What one probe saw; ``shown`` marks the one whose numbers the panel holds."""
    found = comparison(check)
    return ProbeLine(
        name=check.probe,
        badge=badge(check.status),
        used=_text.used(found.used) if found else "",
        off=off(found),
        shown=shown,
    )
