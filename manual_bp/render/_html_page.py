"""The page from top to bottom as plain values: verdict, network, quantities, and what else there is to know."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from manual_bp.render import _html_colors, _html_maps, _text
from manual_bp.render._graph_svg import GraphView, graph
from manual_bp.render._html_hero import HeroView, hero_of
from manual_bp.render._html_lesson import LessonView, chapter
from manual_bp.render._html_rows import RowView, row_id, rows
from manual_bp.render._html_words import Badge, badge, sentence
from manual_bp.render._say import Story
from manual_bp.report import SEVERITY, Report, Status

#: A drawing no wider than this stands beside the text on a wide screen, a wider one below the verdict.
BESIDE = 372


@dataclass(frozen=True, kw_only=True)
class ProbeView:
    """One probe: what it is, and what it cannot show."""

    name: str
    description: str
    setting: str
    reveals: str
    blind: tuple[str, ...]
    blind_title: str


@dataclass(frozen=True, kw_only=True)
class PageView:
    """All that the templates need."""

    title: str
    name: str
    setting: tuple[str, ...]
    partial: bool
    hero: HeroView
    graph: GraphView | None
    layout: str
    counts: tuple[tuple[Badge, int], ...]
    steps: tuple[str, ...]
    rows: tuple[RowView, ...]
    one_probe: bool
    lesson: tuple[LessonView, ...]
    legend: tuple[Badge, ...]
    findings: tuple[tuple[str, str, str], ...]
    power: str
    blind: tuple[str, ...]
    probes: tuple[ProbeView, ...]
    notes: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    command: str
    value_scale: str
    used_scale: str
    numbers: Markup


@dataclass(frozen=True, kw_only=True)
class NotebookView:
    """What a notebook's cell shows: the top of the page, the worst rows, and how many others there are."""

    page: PageView
    rows: tuple[RowView, ...]
    rest: str


#: Rows in a notebook's cell.
MOST_ROWS = 12


def for_notebook(report: Report) -> NotebookView:
    """The top of the page and its worst rows."""
    whole = page(report)
    told = [row for row in whole.rows if not row.quiet]
    shown = tuple(told[:MOST_ROWS])
    left = len(told) - len(shown)
    right = len(whole.rows) - len(told)
    parts = [f"{left} more that are not right" if left else "", f"{right} right" if right else ""]
    rest = " and ".join(filter(None, parts))
    return NotebookView(page=whole, rows=shown, rest=f"Not shown: {rest}." if rest else "")


def page(report: Report) -> PageView:
    """The whole page of a report whose texts are fit to print."""
    story = Story(report)
    ids = {check.name: row_id(order) for order, check in enumerate(story.quantities)}
    ranked = sorted(story.quantities, key=lambda check: (check is not story.first, SEVERITY.index(check.status)))
    pictures = _html_maps.draw([(ids[check.name], check) for check in ranked])
    table = rows(story, pictures)
    hero = hero_of(story, ids, table)
    network = graph(story, {name: f"#{key}" for name, key in ids.items()})
    statuses: list[Status] = list(story.counts)
    return PageView(
        title=f"{hero.symbol} {report.network}: {hero.headline.striptags()}",
        name=report.network,
        setting=tuple(fact for fact in story.setting if fact != report.network),
        partial=report.partial,
        hero=hero,
        graph=network,
        layout="beside" if network and network.width <= BESIDE else "below",
        counts=tuple((badge(status), story.counts[status]) for status in statuses),
        steps=tuple(dict.fromkeys(check.step for check in story.quantities)),
        rows=table,
        one_probe=len({check.probe for check in report.checks}) < 2,
        lesson=chapter(report.lesson),
        legend=tuple(badge(status) for status in statuses),
        findings=tuple((kind, found.name, found.text) for kind, found in story.findings),
        power=sentence(story.power),
        blind=tuple(story.blind),
        probes=tuple(_probes(report)),
        notes=report.notes,
        environment=tuple((name.replace("_", "-"), text or "unknown") for name, text in report.environment.items()),
        command=report.command,
        value_scale=_html_colors.legend_values(),
        used_scale=_html_colors.legend_used(),
        numbers=_inert({key: drawn.numbers for key, drawn in pictures.items()}),
    )


def _inert(numbers: dict[str, str]) -> Markup:
    """A JSON text that cannot end the script element it stands in, whatever its strings hold."""
    text = "{" + ",".join(f'"{key}":{value}' for key, value in numbers.items()) + "}"
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


# ------------------------------------------------------------------------------------ the rest


def _probes(report: Report) -> list[ProbeView]:
    alone = report.power.by_probe if report.power else {}
    return [
        ProbeView(
            name=probe.name,
            description=sentence(probe.description),
            setting=f"batch {probe.batch}, seed {probe.seed}",
            reveals=f"Reveals {alone[probe.name]} of {report.power.planted} planted mistakes alone"
            if report.power and probe.name in alone
            else "",
            blind=probe.blind,
            blind_title=_text.count(len(probe.blind), "blind spot"),
        )
        for probe in report.probes
    ]
