"""Every quantity in execution order, grouped by the step that produces it; what is right stays quiet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from manual_bp.render import _table, _text
from manual_bp.render._colors import QUIET, STYLE, TITLE
from manual_bp.render._say import SYMBOL, WORD, Story, comparison, part

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR = 8

#: In a report with more quantities than this that is not all right, steps without a fault are folded.
FOLD_ABOVE = 60

#: From these widths on a step is written with the arguments of its operation (where all is right, formulas come first).
FULL_STEP, FULL_STEP_OK = 120, 180

#: A step with its operation that is longer than this is written by its name alone where there is little room.
LONG_STEP = 20


def rows(story: Story, width: int) -> Iterator[RenderableType]:
    """The table, forward pass before backward pass; equations beside or below the quantities."""
    checks = story.quantities
    full = width >= (FULL_STEP_OK if story.report.ok else FULL_STEP)
    layout = _table.fit(_columns(story, full=full), width - 2)
    below = story.report.ok and not any(column.head == "must be" for column, _ in layout)
    head, *lines = _table.lines(layout, indent=2)
    folded = _folded(story)
    before = ""
    yield head
    for at, (line, check) in enumerate(zip(lines, checks, strict=True)):
        if part(check) != before:
            before = part(check)
            yield Text(before, TITLE)
        if at in folded:
            if folded[at]:
                yield Text(f"  ⋮ {_text.count(folded[at], 'quantity', 'quantities')}, all right", QUIET)
            continue
        yield line
        if below and check.equation:
            yield Padding(Text(check.equation, QUIET), (0, 0, 0, 6))


def _folded(story: Story) -> dict[int, int]:
    """The rows left out: those of steps without a fault, in a long report that is not all right.

    The first of each run has the length of the run, the others have 0.
    """
    checks = story.quantities
    if len(checks) <= FOLD_ABOVE or story.report.ok:
        return {}
    faulty = {(check.step, part(check)) for check in checks if check.status != "pass"}
    folded: dict[int, int] = {}
    start = 0
    for at, check in enumerate(checks):
        if (check.step, part(check)) in faulty:
            continue
        if at - 1 not in folded or part(check) != part(checks[at - 1]):
            start = at
        folded[at] = 0
        folded[start] += 1
    return folded


def _steps(story: Story, *, full: bool) -> list[str]:
    """The step of each row, once a group: ``z1 = Conv2d(1, 1, kernel_size=3)``, ``z1 Conv2d``, or ``z1``."""
    here = [(check.step, part(check)) for check in story.quantities]
    names = {name: _step(story, name, full=full) for name, _ in here}
    if not full and max(map(len, names.values()), default=0) > LONG_STEP:
        names = {name: name for name in names}
    return [names[now[0]] if now != before else "" for before, now in zip([None, *here], here, strict=False)]


def _step(story: Story, name: str, *, full: bool) -> str:
    step = story.steps.get(name)
    if step is None or step.role == "input":
        return name
    return f"{name} = {step.op}" if full else f"{name} {step.op.split('(')[0]}"


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
        column("step", _steps(story, full=full), [""] * len(checks), keep=9, least=None if full else 12),
        column("", [SYMBOL[check.status] for check in checks], [STYLE[check.status] for check in checks], keep=12),
        column("quantity", [check.name for check in checks], strong, keep=14, least=28),
        column("written", [check.symbol for check in checks], keep=2, least=16),
        column("shape", [story.shape(check) for check in checks], keep=8),
        column("error", [_text.error(f.max_abs_error) if f else "" for f in found], right=True, keep=10),
        column("of allowed", [_text.used(f.used) if f else "" for f in found], right=True, keep=11),
        column("", [_bar(f.used) if f else "" for f in found], strong, keep=1),
        column("verdict", [WORD[check.status] for check in checks], strong, keep=13),
        column("worst at", [_text.index(f.worst_index) if f and f.max_abs_error else "" for f in found], keep=6),
        column("probe", [check.probe if several else "" for check in checks], keep=5, least=10),
        column("whole pass", overall, keep=4, right=True),
        # Where all is right, the formulas say more than where the rounding is largest.
        column("must be", [c.equation for c in checks], [QUIET] * len(checks), keep=7 if story.report.ok else 0),
    ]


def _bar(used: float) -> str:
    """The share of the bound that is used, full from one on."""
    filled = round(min(used, 1.0) * BAR) if used == used else BAR
    return "█" * filled + "·" * (BAR - filled)
