"""Every quantity in execution order, grouped by the step that produces it; what is right stays quiet."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from manual_bp.render import _table, _text
from manual_bp.render._colors import QUIET, STYLE, TITLE
from manual_bp.render._say import SYMBOL, WORD, Story, comparison, phase
from manual_bp.report import Check

BAR = 8

#: In a report with more quantities than this that is not all right, steps without a fault are folded.
FOLD_ABOVE = 60

#: From this width on a step is written with the arguments of its operation.
FULL_STEP = 120


def rows(story: Story, width: int) -> Iterator[Text]:
    """The table, forward pass before backward pass; equations beside or below the quantities."""
    checks = story.quantities
    layout = _table.fit(_columns(story, full=width >= FULL_STEP), width - 2)
    below = story.report.ok and not any(column.head == "must be" for column, _ in layout)
    head, *lines = _table.lines(layout, indent=2)
    folded = _folded(story)
    before = ""
    yield head
    for at, (line, check) in enumerate(zip(lines, checks, strict=True)):
        if at in folded:
            if at - 1 not in folded:
                run = next(count for count in range(1, len(checks) + 1) if at + count not in folded)
                yield Text(f"  ⋮ {_text.count(run, 'quantity', 'quantities')}, all right", QUIET)
            continue
        if phase(check) != before:
            before = phase(check)
            yield Text(before, TITLE)
        yield line
        if below and check.equation:
            yield Text("      " + check.equation, QUIET)


def _folded(story: Story) -> set[int]:
    """Which rows are left out: those of steps without a fault, in a long report that is not all right."""
    checks = story.quantities
    if len(checks) <= FOLD_ABOVE or story.report.ok:
        return set()
    faulty = {(check.step, phase(check)) for check in checks if check.status != "pass"}
    return {at for at, check in enumerate(checks) if (check.step, phase(check)) not in faulty}


def _steps(story: Story, *, full: bool) -> list[str]:
    """The step of each row, once a group: ``z1 = Conv2d(1, 1, kernel_size=3)``, or ``z1 Conv2d``."""
    names, before = [], None
    for check in story.quantities:
        here = check.step, phase(check)
        step = story.steps.get(check.step)
        op = step.op if step and step.role != "input" else ""
        name = f"{check.step} = {op}" if op and full else f"{check.step} {op.split('(')[0]}"
        names.append(name.rstrip() if here != before else "")
        before = here
    return names


def _columns(story: Story, *, full: bool) -> list[_table.Column]:
    checks = story.quantities
    found = [comparison(check) for check in checks]
    quiet = ["" if check.status != "pass" else QUIET for check in checks]
    strong = [STYLE[check.status] if check.status != "pass" else QUIET for check in checks]
    several = len({check.probe for check in story.report.checks}) > 1
    overall = [_text.used(c.end_to_end.used) if c.isolated and c.end_to_end else "" for c in checks]

    def column(head: str, cells: list[str], styles: list[str] = quiet, **options: object) -> _table.Column:
        return _table.Column(head=head, cells=cells, styles=styles, **options)  # type: ignore[arg-type]  # options of Column

    return [
        column("step", _steps(story, full=full), [""] * len(checks), keep=8, elastic=True),
        column("", [SYMBOL[check.status] for check in checks], [STYLE[check.status] for check in checks]),
        column("quantity", [check.name for check in checks], strong, elastic=True),
        column("written", [check.symbol for check in checks], keep=3, elastic=True),
        column("shape", [_text.shape(check.shape) for check in checks], keep=7),
        column("error", [_text.error(f.max_abs_error) if f else "" for f in found], right=True),
        column("of allowed", [_text.used(f.used) if f else "" for f in found], right=True),
        column("", [_bar(f.used) if f else "" for f in found], keep=2),
        column("verdict", [WORD[check.status] for check in checks], strong),
        column("worst at", [_text.index(f.worst_index) if f else "" for f in found], keep=6),
        column("probe", [check.probe if several else "" for check in checks], keep=5, elastic=True),
        column("whole pass", overall, keep=4, right=True),
        column("must be", [check.equation for check in checks], [QUIET] * len(checks), keep=1),
    ]


def _bar(used: float) -> str:
    """The share of the bound that is used, full from one on."""
    filled = round(min(used, 1.0) * BAR) if used == used else BAR
    return "█" * filled + "·" * (BAR - filled)
