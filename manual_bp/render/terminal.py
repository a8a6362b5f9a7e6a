"""The whole report, for a terminal: the verdict, the first wrong step and why, the network, each quantity, the details.

Lines of a table are never wrapped: where the width is short, less important columns go. Prose is wrapped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from manual_bp.render import _chain, _detail, _plain, _rows, _text
from manual_bp.render._colors import QUIET, STYLE, TITLE, mark
from manual_bp.render._look import Look
from manual_bp.render._say import Story, not_right_alone
from manual_bp.report import Report, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Prose is set no wider than this, however wide the screen.
PROSE = 110

# Blanks that rich pads a line with, among the codes that end its colours.
_TRAILING = re.compile(r"(?: |\x1b\[[0-9;]*m)+$", re.MULTILINE)


def render(report: Report, look: Look) -> str:
    """The report as text; ANSI colours and characters beyond ASCII only if the look has them."""
    story = Story(_text.tidy(report, unicode=look.unicode))
    return printed(sections(story, look.width), look)


def printed(parts: Iterable[RenderableType], look: Look) -> str:
    """The parts below one another; blank lines are parts too."""
    text = _colored(parts, look.width) if look.color else _plain.printed(parts, look.width)
    return text if look.unicode else _text.draw_ascii(text)


def _colored(parts: Iterable[RenderableType], width: int) -> str:
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=width,
        color_system="standard",
        force_terminal=True,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},  # the look says everything; the view stays a pure function
    )
    with console.capture() as capture:
        for part in parts:
            line = isinstance(part, Text)  # a line of a table fits as it is; everything else may be wrapped
            console.print(part, no_wrap=line, overflow="ignore" if line else "fold", crop=False)
    return _TRAILING.sub(lambda found: found.group().replace(" ", ""), capture.get())


def sections(story: Story, width: int) -> Iterator[RenderableType]:
    """The whole view, part by part."""
    yield from _verdict_line(story)
    yield Padding(Text(" · ".join(story.setting), QUIET), (0, 0, 0, 2))
    yield from _section(facts(_detail.first_wrong(story), width))
    yield from _section(_chain.chain(story, width), "Network")
    yield from _section(_rows.rows(story, width) if story.quantities else (), "Quantities", _rows_note(story))
    yield from _details(story, width)
    yield from _section(facts(_closing(story), width))
    yield ""
    yield from _verdict_line(story)


def facts(found: Iterable[_detail.Fact], width: int, *, indent: int = 2) -> Iterator[RenderableType]:
    """Labels on the left, text wrapped beside them."""
    if rows := tuple(found):
        yield _plain.Facts(rows=rows, label_style=QUIET, left=indent, right=max(0, width - PROSE))


def _section(parts: Iterable[RenderableType], title: str = "", note: str = "") -> Iterator[RenderableType]:
    """The parts under a title, after a blank line; nothing at all where there are none."""
    found = list(parts)
    if not found:
        return
    yield ""
    if title:
        yield Padding(Text.assemble((title, TITLE), (f"  {note}" if note else "", QUIET)), 0)
    yield from found


def _verdict_line(story: Story) -> Iterator[RenderableType]:
    style = STYLE["pass" if story.report.ok else "wrong"]
    yield Padding(Text.assemble((f"{story.symbol} {story.word}", f"bold {style}"), f"  {story.verdict}"), 0)


def _rows_note(story: Story) -> str:
    worst = "; the worst of its probes" if len({check.probe for check in story.report.checks}) > 1 else ""
    return f"each judged on the candidate's own inputs{worst}"


def _details(story: Story, width: int) -> Iterator[RenderableType]:
    inside = width - 4
    telling = [check for check in story.culprits if check.status not in ("missing", "extra")]
    for check in telling[: _detail.MOST]:
        yield ""
        yield Padding(_detail.heading(check), 0)
        yield from (Padding(line, (0, 0, 0, 4)) for line in _detail.body(check, inside))
        yield from facts(_detail.facts(check, told=check is story.first), width, indent=4)
    if hidden := telling[_detail.MOST :]:
        names = _text.listed([check.name for check in hidden], 10)
        yield ""
        yield Padding(Text(f"{_text.count(len(hidden), 'more wrong quantity', 'more wrong quantities')}: {names}"), 0)
    yield from _section(facts(_not_compared(story), width))
    yield from _section(facts(_inherited(story), width))
    yield from _section(facts(_detail.kinks(story), width))


def _not_compared(story: Story) -> Iterator[_detail.Fact]:
    """What one side alone has: nothing to show of it but the names."""
    told: dict[Status, str] = {"missing": "not reported", "extra": "the reference has no quantity of this name"}
    for status, said in told.items():
        names = [check.name for check in story.culprits if check.status == status]
        if names:
            yield mark(status), f"{_text.listed(names, 20)}: {said}", STYLE[status]


def _inherited(story: Story) -> Iterator[_detail.Fact]:
    told: dict[str, list[str]] = {}
    for check in story.inherited:
        alone = "right alone, off only because something earlier is"
        told.setdefault(check.note if not_right_alone(check) else alone, []).append(check.name)
    for said, names in told.items():
        yield mark("inherited"), f"{_text.listed(names, 20)}: {said}", ""


def _closing(story: Story) -> Iterator[_detail.Fact]:
    """Findings, what the probes could not have shown, notes, how to run it again."""
    told = story.about(story.first) if story.first and not story.report.ok else []
    for kind, finding in story.findings:
        if (kind, finding) not in told:
            yield kind, finding.text, STYLE["mismatch" if not story.report.ok else "kink"]
    if story.power:
        yield "Power", story.power, ""
    for position, text in enumerate(story.blind):
        yield "" if position else "Blind spot", text, QUIET
    for position, text in enumerate(story.report.notes):
        yield "" if position else "Note", text, QUIET
    if story.report.command:
        yield "Run again", story.report.command, ""
