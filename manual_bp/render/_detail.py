"""What a reader needs to mend one wrong quantity: the worst elements, where they sit, the formula, the reason."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from rich.text import Text

from manual_bp.render import _picture, _table, _text
from manual_bp.render._colors import QUIET, STYLE, TITLE, mark
from manual_bp.render._say import OWN_FAULT, Story, cause, comparison, referee, tolerance
from manual_bp.report import Check, Comparison

#: Wrong quantities told in full; the others are in the table, and in the other formats.
MOST = 3

#: Statuses whose picture is shown: an inherited error's would only repeat an earlier one.
PICTURED = OWN_FAULT | {"kink"}

#: A fact: its label, what it says, and the style of what it says.
Fact = tuple[str, str, str]


def first_wrong(story: Story) -> Iterator[Fact]:
    """The answer to "what is the first wrong step, and why": a handful of labelled facts."""
    check = story.first
    if check is None or story.report.ok:
        return
    yield "First wrong", story.step_title(check), STYLE["wrong"]
    symbol = f"{check.symbol}: " if check.symbol else ""
    yield "", symbol + story.what_is_off(check), ""
    for kind, finding in story.about(check):
        yield kind, finding.text, TITLE
    yield from reasons(check)
    found = comparison(check)
    if found and found.worst:
        mine, torch = _text.pair(found.worst[0].candidate, found.worst[0].reference)
        at = _text.index(found.worst[0].index)
        yield "Worst", f"{at}{': ' if at else ''}the candidate says {mine}, should be {torch}", ""
    if check.isolated and check.isolated.mismatched and check.status == "wrong":
        yield "", "(judged alone, on the candidate's own inputs)", QUIET


def reasons(check: Check) -> Iterator[Fact]:
    """Why, what it must be, what to do and where."""
    found = check.diagnosis
    if found:
        yield "Why", cause(check), TITLE
        if found.evidence:
            yield "", found.evidence, ""
    if check.equation:
        yield "Must be", check.equation, TITLE
        if check.source:
            yield "", f"({check.source})", QUIET
    if found and found.hint:
        yield "To do", found.hint, ""
    if found and found.location:
        yield "Where", found.location, ""


def facts(check: Check, *, told: bool) -> Iterator[Fact]:
    """The small print of a wrong quantity; ``told`` says that the reasons stand elsewhere already."""
    if not told:
        yield from reasons(check)
    found = comparison(check)
    if found and found.mismatched:
        yield "Would pass", tolerance(found), ""
    if check.rule:
        yield "Rule", check.rule, ""
    if judged := referee(check):
        yield "Referee", judged, STYLE["kink"]


def heading(check: Check) -> Text:
    """``✗ wrong  x.grad  ∂L/∂x  2×1×8×8 float64  probe digits``."""
    line = Text.assemble((mark(check.status), STYLE[check.status]))
    line.append(f"  {check.name}", TITLE)
    line.append(f"  {check.symbol}" if check.symbol else "")
    return line.append(f"  {_text.shape(check.shape)} {check.dtype}  probe {check.probe}", QUIET)


def elements(found: Comparison, width: int) -> Iterator[Text]:
    """The worst elements: index, both values with the digits that tell them apart, difference, allowed."""
    pairs = [_text.pair(e.candidate, e.reference) for e in found.worst]
    size = len(found.worst)
    places = [_text.index(e.index) or "scalar" for e in found.worst]
    differences = [_text.error(abs(e.candidate - e.reference)) for e in found.worst]
    allowed = [_text.error(e.allowed) for e in found.worst]
    column = _table.Column
    columns = [
        column(head="worst at", cells=places, styles=[""] * size, keep=4),
        column(head="candidate", cells=[c for c, _ in pairs], styles=["red"] * size, right=True, keep=9),
        column(head="should be", cells=[r for _, r in pairs], styles=["green"] * size, right=True, keep=8),
        column(head="difference", cells=differences, styles=[""] * size, right=True, keep=2),
        column(head="allowed", cells=allowed, styles=[QUIET] * size, right=True, keep=3),
    ]
    yield from _table.lines(_table.fit(columns, width, 3), gap=3)
    if (more := found.mismatched - size) > 0:
        yield Text(f"and {_text.count(more, 'more element')} outside the bound", QUIET)


def body(check: Check, width: int) -> list[Text]:
    """Elements and picture, side by side where there is room, else above one another."""
    found = comparison(check)
    left = list(elements(found, width)) if found and found.worst else []
    right = list(_picture.picture(check.picture, width)) if check.picture and check.status in PICTURED else []
    column = max((line.cell_len for line in left), default=0) + 6
    if not left or column + max((line.cell_len for line in right), default=0) > width:
        return left + right
    beside = []
    for one, other in zip_longest(left, right, fillvalue=Text()):
        beside.append(Text.assemble(one, " " * (column - one.cell_len), other))
        beside[-1].rstrip()
    return beside


def kinks(story: Story) -> Iterator[Fact]:
    """Where another valid subgradient was reported, and what torch does there."""
    after = [check.name for check in story.kinks if check.kink is None]
    most = 4
    for check in story.kinks:
        if check.kink is None:
            continue
        places = [_text.index(at) for at in check.kink.indices[:most]]
        more = f" and {check.kink.elements - len(places)} more" if check.kink.elements > len(places) else ""
        seen = story.where_seen(check)
        text = f"{check.name} differs only where the function has no derivative, by another valid subgradient: "
        text += f"{_text.count(check.kink.elements, 'element')}{' ' + seen if seen else ''}, {', '.join(places)}{more}"
        yield mark("kink"), text, STYLE["kink"]
        yield "", f"Convention: {check.kink.convention}", ""
    if after:
        yield mark("kink"), f"{_text.listed(after, 20)}: different only because of that choice", STYLE["kink"]
