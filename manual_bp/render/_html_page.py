"""The page from top to bottom as plain values: verdict, network, quantities, and what else there is to know."""

from __future__ import annotations

import json
from dataclasses import dataclass

from markupsafe import Markup

from manual_bp.render import _html_maps, _text
from manual_bp.render._graph_svg import GraphView, graph
from manual_bp.render._html_maps import MapsView
from manual_bp.render._html_rows import (
    Badge,
    DiagnosisView,
    FormulaView,
    RowView,
    badge,
    diagnosis_of,
    formula_of,
    row_id,
    rows,
    sentence,
)
from manual_bp.render._say import Story, comparison, phase
from manual_bp.report import HARMLESS, SEVERITY, Check, Report, Status


@dataclass(frozen=True, kw_only=True)
class HeroView:
    """The first thing a reader sees: right or wrong, where first, why, and what it should have been."""

    tone: str
    symbol: str
    word: str
    headline: str
    told: tuple[str, ...]
    diagnosis: DiagnosisView | None
    formula: FormulaView | None
    element: str
    maps: MapsView | None
    caption: str
    href: str
    others: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ProbeView:
    """One probe: what it is, and what it cannot show."""

    name: str
    description: str
    setting: str
    reveals: str
    blind: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PageView:
    """All that the templates need."""

    title: str
    name: str
    setting: tuple[str, ...]
    partial: bool
    hero: HeroView
    graph: GraphView | None
    counts: tuple[tuple[Badge, int], ...]
    steps: tuple[str, ...]
    rows: tuple[RowView, ...]
    legend: tuple[Badge, ...]
    findings: tuple[tuple[str, str, str], ...]
    power: str
    probes: tuple[ProbeView, ...]
    notes: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    command: str
    value_scale: str
    used_scale: str
    numbers: Markup


def page(report: Report) -> PageView:
    """The whole page of a report whose texts are fit to print."""
    story = Story(report)
    ids = {check.name: row_id(order) for order, check in enumerate(story.quantities)}
    ranked = sorted(story.quantities, key=lambda check: (check is not story.first, SEVERITY.index(check.status)))
    pictures = _html_maps.draw([(ids[check.name], check) for check in ranked])
    table = rows(story, pictures)
    hero = _hero(story, ids, table)
    statuses: list[Status] = list(story.counts)
    return PageView(
        title=f"{hero.symbol} {report.title or report.network}: {hero.headline}",
        name=report.title or report.network,
        setting=tuple(story.setting[1 if not report.title else 0 :]),
        partial=report.partial,
        hero=hero,
        graph=graph(story, {name: f"#{id}" for name, id in ids.items()}),
        counts=tuple((badge(status), story.counts[status]) for status in statuses),
        steps=tuple(dict.fromkeys(check.step for check in story.quantities)),
        rows=table,
        legend=tuple(badge(status) for status in statuses),
        findings=tuple((kind, found.name, found.text) for kind, found in story.findings),
        power=sentence(story.power),
        probes=tuple(_probes(report)),
        notes=report.notes,
        environment=tuple((name.replace("_", "-"), version or "unknown") for name, version in report.environment.items()),
        command=report.command,
        value_scale=_html_maps.legend_values(),
        used_scale=_html_maps.legend_used(),
        numbers=_inert({id: drawn.numbers for id, drawn in pictures.items()}),
    )


def _inert(numbers: dict[str, str]) -> Markup:
    """A JSON text that cannot end the script element it stands in, whatever its strings hold."""
    text = "{" + ",".join(f"{json.dumps(id)}:{value}" for id, value in numbers.items()) + "}"
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


# ------------------------------------------------------------------------------------ the verdict


def _hero(story: Story, ids: dict[str, str], table: tuple[RowView, ...]) -> HeroView:
    report = story.report
    first = None if report.verdict == "pass" else story.first
    by_id = {row.id: row for row in table}
    row = by_id[ids[first.name]] if first else None
    maps = row.maps if row else None
    return HeroView(
        tone="good" if report.verdict == "pass" else "bad",
        symbol=story.symbol,
        word=story.word,
        headline=_headline(story, first),
        told=tuple(_told(story, first)),
        diagnosis=diagnosis_of(first) if first else None,
        formula=formula_of(first) if first else None,
        element=_element(first) if first else "",
        maps=_html_maps.without_images(maps) if maps and maps.rows * maps.cols > 1 else None,
        caption=f"{maps.planes[0]}; the worst element is outlined" if maps else "",
        href=f"#{row.id}" if row else "",
        others=tuple(
            (check.name, f"#{ids[check.name]}", diagnosis.names[0] if (diagnosis := diagnosis_of(check)) else "")
            for check in story.culprits
            if first is not None and check.name != first.name
        ),
    )


def _headline(story: Story, first: Check | None) -> str:
    total = len(story.quantities)
    if story.report.verdict == "pass":
        noun = _text.count(total, "quantity", "quantities")
        if not total:
            return "Nothing was compared"
        return f"All {noun} reported so far are right" if story.report.partial else f"All {noun} are right"
    if first is None:
        return "Every step is right by itself, the whole is not" if total else "Nothing was compared"
    name, step = _text.shorten(first.name, 56), _text.shorten(first.step, 56)
    part = {
        "value": f"The forward pass of {step}",
        "gradient": f"The backward pass of {step}",
        "parameter": f"The parameter {name}",
        "parameter_gradient": f"The gradient of {name.removesuffix('.grad')}",
        "update": f"The update of {name.removesuffix('.new')}",
    }[first.kind]
    return {
        "wrong": f"{part} is wrong",
        "nonfinite": f"{part} gives NaN or infinity",
        "missing": f"{name} was not reported",
        "extra": f"{name} is not a quantity of this network",
        "mismatch": f"{name} has the wrong shape or dtype",
        "kink": f"{part} uses another subgradient than torch",
        "inherited": f"{part} differs",
        "pass": f"{part} differs",
    }[first.status]


def _told(story: Story, first: Check | None) -> list[str]:
    """Under the headline: what is off, what is right before it, what follows from it."""
    report = story.report
    if first is None:
        told = [story.verdict.split(": ", 1)[-1] + "."] if story.quantities else []
        told += [f"{sentence(found.text)}." for _, found in story.findings] if report.verdict == "fail" else []
        return list(map(sentence, dict.fromkeys(told)))
    step = story.steps.get(first.step)
    what = f"{first.step} = {step.op}" if step and step.op else first.step
    symbol = f"{first.symbol} ({first.name})" if first.symbol and first.symbol != first.name else first.name
    verb = {"value": "computes", "parameter": "holds"}.get(first.kind, "computes")
    told = [f"{what} {verb} {symbol} in its {phase(first)}. {sentence(story.what_is_off(first))}."]
    before = story.quantities[: story.quantities.index(first)]
    if before and all(check.status in HARMLESS for check in before):
        told.append(f"All {_text.count(len(before), 'quantity', 'quantities')} before it are right.")
    if story.inherited:
        names = _text.listed([check.name for check in story.inherited], 3)
        verb = "is" if len(story.inherited) == 1 else "are"
        told.append(f"{names} {verb} off only because of it." if len(story.culprits) == 1 else f"{names} {verb} off only as a consequence.")
    return told


def _element(check: Check) -> str:
    found = comparison(check)
    if found is None or found.worst_index is None:
        return ""
    candidate, reference = _text.pair(found.candidate, found.reference)
    where = f"At {_text.index(found.worst_index)}" if found.worst_index else "Its only element"
    is_ = " it is" if found.worst_index else " is"
    return f"{where}{is_} {candidate}, and should be {reference} ± {_text.error(found.allowed)}."


# ------------------------------------------------------------------------------------ the rest


def _probes(report: Report) -> list[ProbeView]:
    alone = report.power.by_probe if report.power else {}
    return [
        ProbeView(
            name=probe.name,
            description=sentence(probe.description),
            setting=f"batch {probe.batch}, seed {probe.seed}",
            reveals=f"reveals {alone[probe.name]} of {report.power.planted} planted mistakes alone"
            if report.power and probe.name in alone
            else "",
            blind=tuple(map(sentence, probe.blind)),
        )
        for probe in report.probes
    ]
