"""The network as a picture in text: a chain across where it is one and fits, else one line a step with its branches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.cells import cell_len
from rich.text import Text

from manual_bp.render import _table, _text
from manual_bp.render._colors import QUIET, STYLE, TITLE, mark
from manual_bp.render._say import SYMBOL, Story, phase
from manual_bp.report import HARMLESS, SEVERITY, Check, Kind, Status, StepInfo

#: More steps than this, and stretches where all is right are folded into one line.
FOLD_ABOVE = 40

#: More branches open at once than this are told by name alone.
MOST_LANES = 6

LABEL, JOINT = 9, 3  # columns of the row's label, and between two steps

FORWARD: tuple[Kind, ...] = ("value",)
BACKWARD: tuple[Kind, ...] = ("gradient",)
PARAMETERS: tuple[Kind, ...] = ("parameter", "parameter_gradient", "update")


def chain(story: Story, width: int) -> Iterator[Text]:
    """Every step with the verdict of its forward and its backward pass, the first wrong one marked."""
    steps = story.network
    if not steps:
        return
    across = list(_across(story, width)) if _is_chain(steps) else []
    yield from across or _down(story, width)


def _is_chain(steps: Sequence[StepInfo]) -> bool:
    return all(step.inputs == (before.name,) for before, step in pairwise(steps))


def worst(story: Story, step: str, kinds: Sequence[Kind]) -> Status | None:
    """The worst status among a step's quantities of some kinds; None where it has none."""
    found = [check.status for check in story.quantities if check.step == step and check.kind in kinds]
    return min(found, key=SEVERITY.index, default=None)


def _first_step(story: Story) -> tuple[Check, str] | None:
    first = story.first
    return (first, first.step) if first is not None and not story.report.ok else None


# ------------------------------------------------------------------------------------------------ across


def _across(story: Story, width: int) -> Iterator[Text]:
    """Names, operations, ``x ──→ ✓ ──→ ✓`` and ``x.grad ←── ✗ wrong ←── ✓`` below one another; nothing if too wide."""
    steps = story.network
    forward = [worst(story, step.name, FORWARD) for step in steps]
    backward = [worst(story, step.name, BACKWARD) for step in steps]
    parameters = [worst(story, step.name, PARAMETERS) for step in steps]
    names = [step.name for step in steps]
    operations = [step.op.split("(")[0] for step in steps]
    forth = [_cell(status, step, "") for status, step in zip(forward, steps, strict=True)]
    back = [_cell(status, step, ".grad") for status, step in zip(backward, steps, strict=True)]
    sides = [_word(status) if status else "" for status in parameters]
    widths = [max(map(cell_len, column)) for column in zip(names, operations, forth, back, sides, strict=True)]
    if LABEL + sum(widths) + JOINT * (len(widths) - 1) > width:  # without the operations, which the table below names
        operations = [""] * len(steps)
        widths = [max(map(cell_len, column)) for column in zip(names, forth, back, sides, strict=True)]
    if LABEL + sum(widths) + JOINT * (len(widths) - 1) > width:
        return
    yield _line("", names, widths, " ", [TITLE] * len(names))
    if any(operations):
        yield _line("", operations, widths, " ", [QUIET] * len(names))
    yield _line("forward", forth, widths, "→", [_style(status) for status in forward])
    yield _line("backward", back, widths, "←", [_style(status) for status in backward])
    if any(sides):
        yield _line("weights", sides, widths, " ", [_style(status) for status in parameters])
    if found := _first_step(story):
        check, name = found
        if name in names:
            at = names.index(name)
            start = LABEL + sum(widths[:at]) + JOINT * at
            text = _text.shorten(f"first wrong: {check.name} ({phase(check)} of {name})", width - 4)
            over = max(0, start + 2 + cell_len(text) - width)
            if over and over + 2 <= start:
                yield Text(" " * (start - cell_len(text) - 1) + text + " ▲", STYLE["wrong"])
            else:
                yield Text(" " * start + "▲ " + text, STYLE["wrong"])


def _cell(status: Status | None, step: StepInfo, suffix: str) -> str:
    if step.role == "input":
        return step.name + suffix
    return _word(status)


def _style(status: Status | None) -> str:
    return STYLE[status] if status else QUIET


def _line(label: str, cells: Sequence[str], widths: Sequence[int], arrow: str, styles: Sequence[str]) -> Text:
    line = Text.assemble((f"{label:<{LABEL}}", QUIET))
    for position, (cell, size, style) in enumerate(zip(cells, widths, styles, strict=True)):
        line.append(cell, style)
        rail = "─" * (size - cell_len(cell))
        if position < len(cells) - 1:
            line.append({"→": f" {rail}→ ", "←": f" ←{rail} "}.get(arrow, " " * (len(rail) + JOINT)), QUIET)
    line.rstrip()
    return line


# ------------------------------------------------------------------------------------------------ down


def _down(story: Story, width: int) -> Iterator[Text]:
    """One line a step: name, where it reads from, operation, verdict of both passes; branches as rails."""
    steps = story.network
    shown, folded = _fold(story)
    first = _first_step(story)
    rails = _rails(steps) if not folded else [""] * len(steps)
    status = [[worst(story, step.name, kinds) for kinds in (FORWARD, BACKWARD, PARAMETERS)] for step in steps]
    operations = [step.op if width >= 120 else step.op.split("(")[0] for step in steps]
    dim = [QUIET] * len(steps)
    bold = [TITLE if any(s not in HARMLESS for s in row if s) else "" for row in status]
    here = ["◀ first wrong" if first and first[1] == step.name else "" for step in steps]
    columns = [
        _table.Column(head="step", cells=[step.name for step in steps], styles=bold, keep=9, least=28),
        _table.Column(head="", cells=rails, styles=dim, keep=3),
        _table.Column(head="operation", cells=operations, styles=dim, keep=1, least=16),
        _table.Column(head="reads", cells=_reads(steps), styles=dim, keep=2, least=20),
        *(
            _table.Column(
                head=head,
                cells=["" if step.role == "input" else _word(row[i]) for row, step in zip(status, steps, strict=True)],
                styles=[_style(row[i]) for row in status],
                keep=8 - i,
            )
            for i, head in enumerate(("forward", "backward", "weights"))
        ),
        _table.Column(head="", cells=here, styles=[STYLE["wrong"]] * len(steps), keep=5),
    ]
    layout = _table.fit(columns, width - 2)
    text = list(_table.lines(layout, indent=2))
    yield text[0]
    for i in range(len(steps)):
        if i in shown:
            yield text[i + 1]
        elif i in folded:
            yield Text(f"  ⋮ {_text.count(folded[i], 'step')}, all right", QUIET)


def _word(status: Status | None) -> str:
    """Only a symbol for what is right, a word too for what is not, a dash for what there is not."""
    return "–" if status is None else SYMBOL["pass"] if status == "pass" else mark(status)


def _reads(steps: Sequence[StepInfo]) -> list[str]:
    """The inputs of each step, where they are not simply the step before."""
    befores = [(), *((step.name,) for step in steps)]
    return [
        "" if step.inputs == before or not step.inputs else "← " + ", ".join(step.inputs)
        for before, step in zip(befores, steps, strict=False)
    ]


def _fold(story: Story) -> tuple[set[int], dict[int, int]]:
    """Which steps to show, and after which index how many are folded away (all of them where there are few)."""
    steps = story.network
    if len(steps) <= FOLD_ABOVE:
        return set(range(len(steps))), {}
    faulty = {check.step for check in story.quantities if check.status != "pass"}
    centres = [i for i, step in enumerate(steps) if step.name in faulty or i in (0, len(steps) - 1)]
    shown = {near for i in centres for near in (i - 1, i, i + 1) if 0 <= near < len(steps)}
    folded: dict[int, int] = {}
    start = None
    for i in range(len(steps)):
        if i in shown:
            start = None
        elif start is None:
            start, folded[i] = i, 1
        else:
            folded[start] += 1
    return shown, folded


def _rails(steps: Sequence[StepInfo]) -> list[str]:
    """An arc diagram: ``●─╮`` where a later step than the next one reads this step, ``●─╯`` where that one is."""
    at = {step.name: i for i, step in enumerate(steps)}
    readers: dict[int, list[int]] = {}
    for i, step in enumerate(steps):
        for name in step.inputs:
            if name in at and at[name] < i - 1:
                readers.setdefault(at[name], []).append(i)
    lanes: dict[int, list[int]] = {}  # source: its lane's readers, lanes in the order they are taken
    busy: list[int] = []  # the last row of each lane
    lane_of: dict[int, int] = {}
    for source, targets in sorted(readers.items()):
        free = next((k for k, end in enumerate(busy) if end < source), len(busy))
        busy[free : free + 1] = [max(targets)]
        lane_of[source], lanes[source] = free, targets
    if len(busy) > MOST_LANES:
        return ["●"] * len(steps)
    return [_rail(row, lanes, lane_of, len(busy)) for row in range(len(steps))]


def _rail(row: int, lanes: dict[int, list[int]], lane_of: dict[int, int], count: int) -> str:
    cells = [" "] * count
    reach = -1  # the outermost lane that is joined to the node in this row
    for source, targets in lanes.items():
        lane = lane_of[source]
        if row == source:
            cells[lane] = "╮"
        elif row == max(targets):
            cells[lane] = "╯"
        elif row in targets:
            cells[lane] = "┤"
        elif source < row < max(targets):
            cells[lane] = "│"
            continue
        else:
            continue
        reach = max(reach, lane)
    if reach < 0:
        return "●" + "".join(f" {cell}" for cell in cells)
    crossing = {" ": "─", "│": "┼", "╮": "┬", "╯": "┴", "┤": "┼"}
    joined = [crossing.get(cell, cell) if lane < reach else cell for lane, cell in enumerate(cells)]
    return "●" + "".join(("─" if lane <= reach else " ") + cell for lane, cell in enumerate(joined))
