"""The table of quantities: one row each, and behind each row all that is known of it. Plain values for templates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from manual_bp.render import _html_panel, _text
from manual_bp.render._graph_svg import abbreviated
from manual_bp.render._html_maps import Drawn, MapsView
from manual_bp.render._html_panel import LONGEST_NAME, ElementView, Judged, ProbeLine
from manual_bp.render._html_words import (
    Badge,
    DiagnosisView,
    FormulaView,
    badge,
    breakable,
    diagnosis_of,
    formula_of,
    off,
    sentence,
)
from manual_bp.render._say import WORD, Story, cause, comparison, phase
from manual_bp.report import HARMLESS, SEVERITY, Check

#: Said in place of heatmaps that would have made the file too large, or whose record is damaged.
NOT_DRAWN = "Its pictures are not drawn here; the JSON of this report holds them."


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


def _row(
    story: Story, order: int, rank: int, check: Check, checks: list[Check], pictures: Mapping[str, Drawn]
) -> RowView:
    key = row_id(order)
    found = comparison(check)
    used = found.used if found else math.nan
    way = phase(check).removesuffix(" pass")
    drawn = pictures.get(key)
    said = _html_panel.sentence_of(story, check, found)
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
        off=off(found, kink=check.kink.elements if check.kink and check.status == "kink" else 0),
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
        sentence=said,
        facts=_html_panel.facts(story, check),
        note="" if check.note in said else sentence(check.note),
        diagnosis=diagnosis_of(check),
        formula=formula_of(check),
        maps=drawn.view if drawn else None,
        no_maps=NOT_DRAWN if check.picture and not drawn else "",
        judged=tuple(_html_panel.judged(check)),
        worst=tuple(_html_panel.elements(found)) if found else (),
        worst_more=_html_panel.more(found),
        kink=_html_panel.kink(check),
        probes=tuple(_html_panel.probe_line(other, other is check) for other in checks) if len(checks) > 1 else (),
    )


def _badness(story: Story, check: Check) -> tuple[int, bool, float]:
    found = comparison(check)
    used = found.used if found else 0.0
    return SEVERITY.index(check.status), check.name != story.report.first_wrong, -used if used == used else -math.inf


def _sortable(number: float) -> str:
    """A number that JavaScript reads; NaN sorts as the worst."""
    return "Infinity" if math.isnan(number) or number == math.inf else repr(float(number))
