"""The network as a drawing: each step a box with its verdict, each tensor an arrow down and its gradient one up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from manual_bp.render import _text
from manual_bp.render._graph_layout import Layout, Link, arrange
from manual_bp.render._say import SYMBOL, WORD, Story
from manual_bp.report import SEVERITY, Check, Status, StepInfo

#: Sizes in pixels. The gap between layers holds the labels of the arrows.
NODE_WIDTH, NODE_HEIGHT, INPUT_HEIGHT, PARAMETER_LINE, GAP = 212, 47, 31, 16, 48
SIDE, PATH_WIDTH, LANE_GAP, TOP = 56, 30, 36, 14

#: How far the arrows of a step are from its middle: forward on the left, backward on the right.
FORWARD, BACKWARD = -16, 16

#: Where a passing link leaves a step and enters one, from the step's middle towards the link's lane.
PORT = 72

#: About how wide a character of a small label is.
CHARACTER = 6.2

#: Characters of a name beside an arrow.
LABEL = 18

#: One colour and one kind of line each; the word says which status it is.
TONE: dict[Status, str] = {
    "pass": "good", "kink": "kink", "inherited": "inherited", "wrong": "bad", "nonfinite": "bad", "mismatch": "bad",
    "missing": "bad", "extra": "bad",
}  # fmt: skip  # a table


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A verdict as words at a place; ``anchor`` is SVG's text-anchor."""

    text: str
    tone: str
    x: float
    y: float
    anchor: str = "start"


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """One step: a box at (x, y), what stands in it, and where a click leads."""

    x: float
    y: float
    width: float
    height: float
    title: str
    operation: str
    verdict: str
    tone: str
    parameters: tuple[Mark, ...]
    tooltip: str
    href: str
    step: str
    first: bool


@dataclass(frozen=True, kw_only=True)
class ArrowView:
    """One tensor on its way down, or its gradient on its way up."""

    path: str
    head: str
    direction: str
    tone: str
    label: Mark | None
    first: Mark | None
    tooltip: str
    href: str


@dataclass(frozen=True, kw_only=True)
class GraphView:
    """The drawing and its size."""

    width: float
    height: float
    nodes: tuple[NodeView, ...]
    arrows: tuple[ArrowView, ...]
    note: str
    summary: str

    @property
    def labelled(self) -> tuple[ArrowView, ...]:
        """The arrows with a label, drawn once more above all lines."""
        return tuple(arrow for arrow in self.arrows if arrow.label)


def graph(story: Story, hrefs: Mapping[str, str]) -> GraphView | None:
    """The drawing of a report's steps; None where it lists none. ``hrefs``: where each quantity is on the page."""
    steps = _with_inputs(story.network)
    if not steps:
        return None
    last = [step.name for step in steps.values() if step.role == "update" and not step.inputs]
    layout = arrange({step.name: step.inputs for step in steps.values()}, last)
    place = _Place(layout, steps)
    checks = {check.name: check for check in story.quantities}
    first = story.first if story.report.verdict == "fail" else None
    arrows = _arrows(layout, place, checks, first, hrefs)
    marked = any(arrow.first for arrow in arrows)
    nodes = tuple(_node(step, place, story, first, hrefs, pinned=not marked) for step in steps.values())
    noun = "connection" if layout.dropped == 1 else "connections"
    return GraphView(
        width=place.width,
        height=place.height,
        nodes=nodes,
        arrows=tuple(arrows),
        note=f"{layout.dropped} long {noun} not drawn" if layout.dropped else "",
        summary=f"The network's {_text.count(len(steps), 'step')}: values run down, gradients run up.",
    )


def _with_inputs(steps: tuple[StepInfo, ...]) -> dict[str, StepInfo]:
    """The steps by name; what the first ones read without any step producing it (``x``) becomes an input."""
    known = {step.name for step in steps}
    outside = dict.fromkeys(name for step in steps for name in step.inputs if name not in known)
    inputs = {name: StepInfo(name=name, op="input", inputs=(), role="input") for name in outside}
    found = dict(inputs)
    for step in steps:
        found.setdefault(step.name, step)
    return found


# ------------------------------------------------------------------------------------ places


class _Place:
    """Pixels of layers and lanes. A lane is as wide as a box where it holds one, else as narrow as a line."""

    def __init__(self, layout: Layout, steps: Mapping[str, StepInfo]) -> None:
        self.layout = layout
        boxed = {layout.lane[name] for name in steps}
        self.center: list[float] = []
        right = float(SIDE)
        for lane in range(layout.lanes):
            size = NODE_WIDTH if lane in boxed else PATH_WIDTH
            self.center.append(right + size / 2)
            right += size + (LANE_GAP if lane in boxed else 0)
        self.width = right - LANE_GAP + SIDE if layout.lanes - 1 in boxed else right + TOP

        self.tall = {step.name: _tall(step) for step in steps.values()}
        rows = [0.0] * layout.layers
        for name, number in layout.layer.items():
            rows[number] = max(rows[number], self.tall[name])
        self.top: list[float] = []
        y = float(TOP)
        for row in rows:
            self.top.append(y)
            y += row + GAP
        self.rows = rows
        self.height = y - GAP + TOP

    def x(self, name: str) -> float:
        return self.center[self.layout.lane[name]]

    def y(self, name: str) -> float:
        return self.top[self.layout.layer[name]]

    def bottom(self, name: str) -> float:
        return self.y(name) + self.tall[name]

    def path(self, link: Link, offset: float) -> str:
        """From the source's bottom to the target's top, straight through the layers between, curves in the gaps."""
        source, target = link
        route = self.layout.routes[link]
        out = self._port(source, route[0] if route else self.layout.lane[target], offset)
        into = self._port(target, route[-1] if route else self.layout.lane[source], offset)
        # in a lane of its own the pair runs closer together
        points = [(out, self.bottom(source), self.bottom(source))]
        for number, lane in enumerate(route, self.layout.layer[source] + 1):
            x = self.center[lane] + offset * 0.4
            points.append((x, self.top[number], self.top[number] + self.rows[number]))
        points.append((into, self.y(target) - 1, self.y(target)))
        text = f"M{_px(out)} {_px(points[0][2])}"
        for (x0, _, y0), (x1, y1, y2) in pairwise(points):
            middle = (y0 + y1) / 2
            bend = f" C{_px(x0)} {_px(middle)} {_px(x1)} {_px(middle)} {_px(x1)} {_px(y1)}"
            text += bend if x0 != x1 else ""
            text += f" V{_px(y2)}"
        return text

    def _port(self, name: str, towards: int, offset: float) -> float:
        own = self.layout.lane[name]
        side = (towards > own) - (towards < own)
        return self.x(name) + side * PORT + offset * (0.5 if side else 1)


def _tall(step: StepInfo) -> float:
    if step.role == "input":
        return INPUT_HEIGHT
    return NODE_HEIGHT + (PARAMETER_LINE if step.params else 0)


def _px(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


# ------------------------------------------------------------------------------------ boxes


def _node(
    step: StepInfo, place: _Place, story: Story, first: Check | None, hrefs: Mapping[str, str], *, pinned: bool
) -> NodeView:
    own = [check for check in story.quantities if check.step == step.name]
    worst = min(own, key=lambda check: SEVERITY.index(check.status), default=None)
    is_first = first is not None and first.step == step.name
    x, y = place.x(step.name) - NODE_WIDTH / 2, place.y(step.name)
    verdict = mark(worst.status) if worst else ""
    is_input = step.role == "input"
    told = ("first wrong · " if is_first and pinned else "") + (verdict or ("input" if is_input else ""))
    return NodeView(
        x=x,
        y=y,
        width=NODE_WIDTH,
        height=place.tall[step.name],
        title=abbreviated(step.name, int((NODE_WIDTH - 32 - CHARACTER * len(told)) / 7.9)),
        operation="" if is_input else _text.shorten(step.op, 32),
        verdict=told,
        tone=TONE[worst.status] if worst else "none",
        parameters=_parameters(step, own, x + 12, y + NODE_HEIGHT + 4),
        tooltip=": ".join(filter(None, [step.name, step.op, verdict])) + (", the first wrong step" if is_first else ""),
        href=hrefs.get(worst.name, "#quantities") if worst else "#quantities",
        step=step.name,
        first=is_first,
    )


def _parameters(step: StepInfo, own: list[Check], x: float, y: float) -> tuple[Mark, ...]:
    """The verdicts on a step's parameters and their gradients, as many as fit into its box."""
    checks = {check.name: check for check in own}
    right = x + NODE_WIDTH - 24
    marks: list[Mark] = []
    for full in step.params:
        short = full.removeprefix(f"{step.name}.")
        names = (f"{full}.grad", f"{step.name}.{short}.grad", full, f"{step.name}.{short}")
        found = [checks[name].status for name in names if name in checks]
        status = min(found, key=SEVERITY.index, default=None)
        text = f"{SYMBOL[status]} {_text.shorten(short, 12)}.grad" if status else ""
        if not status or x + CHARACTER * len(text) > right:
            continue
        marks.append(Mark(text=text, tone=TONE[status], x=x, y=y))
        x += CHARACTER * len(text) + 12
    return tuple(marks)


# ------------------------------------------------------------------------------------ arrows


def _arrows(
    layout: Layout, place: _Place, checks: Mapping[str, Check], first: Check | None, hrefs: Mapping[str, str]
) -> list[ArrowView]:
    arrows: list[ArrowView] = []
    labelled: set[str] = set()
    for link, route in layout.routes.items():
        source, target = link
        straight = not route and layout.lane[source] == layout.lane[target]
        y = (place.bottom(source) + place.y(target)) / 2
        for name, direction, offset in ((source, "forward", FORWARD), (f"{source}.grad", "backward", BACKWARD)):
            check = checks.get(name)
            if check is None and direction == "backward":
                continue
            flagged = check is not None and first is not None and check.name == first.name and name not in labelled
            at = place.x(source) + offset * (1.6 if straight else 1)
            label = _label(name, check, at, y, direction) if straight and name not in labelled else None
            flag = replace(label, text="first wrong", tone="bad", y=y + 17) if flagged and label else None
            if label:
                labelled.add(name)
            arrows.append(
                ArrowView(
                    path=place.path(link, offset),
                    head="marker-end" if direction == "forward" else "marker-start",
                    direction=direction,
                    tone=TONE[check.status] if check else "none",
                    label=label,
                    first=flag,
                    tooltip=f"{name}, {direction}" + (f": {mark(check.status)}" if check else ""),
                    href=hrefs.get(name, ""),
                )
            )
    # what is wrong is drawn last, on top
    return sorted(arrows, key=lambda arrow: arrow.tone == "bad")


def _label(name: str, check: Check | None, x: float, y: float, direction: str) -> Mark:
    symbol = f"{SYMBOL[check.status]} " if check else ""
    base = name.removesuffix(".grad")
    text = symbol + abbreviated(base, LABEL - len(name) + len(base)) + name[len(base) :]
    return Mark(text=text, tone=TONE[check.status] if check else "none", x=x, y=y, anchor=_anchor(direction))


def abbreviated(name: str, width: int) -> str:
    """``features.block0.sublayer3.linear`` as ``f.b0.s3.linear``: names of modules differ in their numbers."""
    parts = name.split(".")
    for number, part in enumerate(parts[:-1]):
        if len(".".join(parts)) <= width:
            break
        digits = part[len(part.rstrip("0123456789")) :]
        parts[number] = part if part == digits else part[:1] + digits
    text = ".".join(parts)
    return text if len(text) <= width else "…" + text[1 - width :] if len(parts) > 1 else _text.shorten(text, width)


def _anchor(direction: str) -> str:
    return "end" if direction == "forward" else "start"


def mark(status: Status) -> str:
    """Symbol and word."""
    return f"{SYMBOL[status]} {WORD[status]}"
