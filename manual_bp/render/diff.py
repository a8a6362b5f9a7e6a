"""Two reports, for a terminal: worse, new, better, still wrong, gone; what is right as before is only counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from manual_bp.render import _table, _text
from manual_bp.render._colors import QUIET, STYLE, TITLE, mark
from manual_bp.render._look import Look
from manual_bp.render._say import Story, comparison
from manual_bp.render.terminal import facts, printed
from manual_bp.report import Check
from manual_bp.report_diff import Change, QuantityChange, ReportDiff

if TYPE_CHECKING:
    from rich.console import RenderableType

_TITLES: dict[Change, tuple[str, str, str]] = {
    "worse": ("✗", "Worse", STYLE["wrong"]),
    "new": ("+", "New", TITLE),
    "better": ("✓", "Better", STYLE["pass"]),
    "still": ("=", "Still wrong", STYLE["inherited"]),
    "gone": ("–", "Gone", STYLE["kink"]),
}

#: Quantities told of each kind.
MOST = 40


def render(found: ReportDiff, look: Look) -> str:
    """The difference as text."""
    return printed(_parts(_text.tidy(found, unicode=look.unicode), look.width), look)


def _parts(found: ReportDiff, width: int) -> Iterator[RenderableType]:
    yield Padding(_headline(found), 0)
    old, new = Story(found.old), Story(found.new)
    lines = [("before", f"{old.symbol} {old.verdict}", ""), ("now", f"{new.symbol} {new.verdict}", "")]
    lines += [("" if i else "careful", text, STYLE["kink"]) for i, text in enumerate(found.differences)]
    yield from facts(lines, width)
    for change, (symbol, title, style) in _TITLES.items():
        changed = found.of(change)
        if not changed:
            continue
        yield ""
        many = _text.count(len(changed), "quantity", "quantities")
        yield Text.assemble((f"{symbol} {title}", style), (f"  {many}", QUIET))
        yield from _rows(changed[:MOST], width)
        if len(changed) > MOST:
            yield Text(f"  and {len(changed) - MOST} more", QUIET)
    if same := found.of("same"):
        yield ""
        yield Text(f"= {_text.count(len(same), 'quantity', 'quantities')} right as before", QUIET)


def _headline(found: ReportDiff) -> Text:
    worse, better = len(found.of("worse")), len(found.of("better"))
    new = sum(not _fine(c.new) for c in found.of("new"))
    told = [f"{worse} worse", *([f"{new} newly compared and wrong"] if new else []), f"{better} better"]
    symbol, word, style = (
        ("✗", "WORSE", STYLE["wrong"]) if found.worse
        else ("✓", "BETTER", STYLE["pass"]) if better or (found.new.ok and not found.old.ok)
        else ("=", "UNCHANGED", TITLE)
    )  # fmt: skip  # three cases below one another
    return Text.assemble((f"{symbol} {word}", f"bold {style}"), f"  {', '.join(told)}")


def _rows(changed: tuple[QuantityChange, ...], width: int) -> Iterator[Text]:
    size = len(changed)
    column = _table.Column
    columns = [
        column(head="quantity", cells=[c.name for c in changed], styles=[TITLE] * size, keep=14, least=28),
        column(head="before", cells=[_state(c.old) for c in changed], styles=[_style(c.old) for c in changed], keep=11),
        column(head="now", cells=[_state(c.new) for c in changed], styles=[_style(c.new) for c in changed], keep=12),
        column(head="why", cells=[c.why for c in changed], styles=[QUIET] * size, keep=1),
    ]
    return _table.lines(_table.fit(columns, width - 2), indent=2)


def _state(check: Check | None) -> str:
    """``✗ wrong 4.7e+14×``."""
    if check is None:
        return "not compared"
    found = comparison(check)
    told = found is not None and found.mismatched and math.isfinite(found.used)
    return mark(check.status) + (f" {_text.used(found.used)}" if found and told else "")


def _style(check: Check | None) -> str:
    return STYLE[check.status] if check else QUIET


def _fine(check: Check | None) -> bool:
    return check is not None and check.status in ("pass", "kink")
