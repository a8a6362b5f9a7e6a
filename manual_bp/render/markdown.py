"""GitHub-flavoured Markdown for a pull-request comment or a CI summary, which must stay below one mebibyte.

Names stand in code spans; in prose every character that means something in Markdown or HTML, mentions (``@``) and
formulas (``$``) included, is written as an entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from manual_bp.render import _cells, _text
from manual_bp.render._say import SYMBOL, WORD, Story, cause, comparison, referee, tolerance
from manual_bp.report import Check, Picture, Report

#: Bytes; GitHub refuses a summary of more than 1024 KiB.
CAP = 900 * 1024

#: Room kept for the line that says what was left out.
RESERVE = 1024

#: Wrong quantities told in full.
MOST = 10

#: Longer texts of a user are cut.
LONGEST = 600

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|~#@&$]|(?<=www)\.|:(?=//)")


def render(report: Report) -> str:
    """The verdict, the first wrong step, what is off; folded away: worst elements, and every quantity."""
    story = Story(_text.tidy(report))
    text, room = "", CAP - RESERVE
    left_out: list[str] = []
    for title, block in _blocks(story):
        size = len(block.encode())
        if size <= room and not left_out:
            text, room = text + block, room - size
        else:
            left_out.append(title)
    if left_out:
        names = _text.listed(list(dict.fromkeys(left_out)), 12)
        text += (
            f"\n*Left out, as this report is capped at 900 KiB: {names}. The JSON and HTML reports have everything.*\n"
        )
    return text


def prose(text: str) -> str:
    """The text with nothing in it that Markdown, HTML or GitHub would take for markup."""
    cut = text if len(text) <= LONGEST else _text.shorten(text, LONGEST)
    return _SPECIAL.sub(lambda found: f"&#{ord(found.group())};", cut)


def code(text: str) -> str:
    """A code span that shows the text as it is, in a table too."""
    cut = (text if len(text) <= LONGEST else _text.shorten(text, LONGEST)).strip().replace("|", "\\|")
    if not cut:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", cut)), default=0))
    space = " " if cut[0] == "`" or cut[-1] == "`" else ""
    return f"{fence}{space}{cut}{space}{fence}"


def _blocks(story: Story) -> Iterator[tuple[str, str]]:
    """Title (for the line that says what was left out) and text, the most important first."""
    yield (
        "the verdict",
        f"### {story.symbol} {story.word} {prose(story.verdict)}\n\n{prose(' · '.join(story.setting))}\n",
    )
    if story.first is not None and not story.report.ok:
        yield "the first wrong step", "\n" + "".join(_first(story, story.first))
    off = [check for check in story.quantities if check.status != "pass"]
    if off:
        yield "what is off", "\n" + _table(story, off)
    for check in story.culprits[:MOST]:
        yield f"the elements of {code(check.name)}", "".join(_details(story, check))
    if (hidden := len(story.culprits) - MOST) > 0:
        many = _text.count(hidden, "more wrong quantity is", "more wrong quantities are")
        yield "", f"\n{many} in the table above.\n"
    for check in story.kinks:
        if check.kink:
            places = prose(", ".join(map(_text.index, check.kink.indices[:4])))
            many = _text.count(check.kink.elements, "element")
            told = f"{code(check.name)}, {many} ({places}): {prose(check.kink.convention)}"
            yield "kinks", f"\n{SYMBOL['kink']} **kink** {told}\n"
    yield "findings and notes", "".join(_closing(story))
    yield from _all_quantities(story)


def _first(story: Story, check: Check) -> Iterator[str]:
    yield f"**First wrong: {prose(story.step_title(check))}**\n\n"
    for kind, finding in story.about(check):
        yield f"- {kind}: **{prose(finding.text)}**\n"
    yield f"- {prose(story.what_is_off(check))}\n"
    found, diagnosis = comparison(check), check.diagnosis
    if found and found.worst:
        mine, torch = _text.pair(found.worst[0].candidate, found.worst[0].reference)
        yield f"- Worst: {prose(_text.index(found.worst[0].index))} the candidate says {mine}, should be {torch}\n"
    if diagnosis:
        evidence = f": {diagnosis.evidence}" if diagnosis.evidence else ""
        yield f"- Why: **{prose(cause(check))}**{prose(evidence)}\n"
    if check.equation:
        yield f"- Must be: {code(check.equation)}{prose(f' ({check.source})') if check.source else ''}\n"
    if diagnosis and diagnosis.hint:
        yield f"- To do: {prose(diagnosis.hint)}\n"
    if diagnosis and diagnosis.location:
        yield f"- Where: {code(diagnosis.location)}\n"


def _table(story: Story, checks: Sequence[Check]) -> str:
    head = "|  | quantity | step | shape | error | of allowed | worst at | probe | must be |\n"
    return head + "|---|---|---|---|--:|--:|---|---|---|\n" + "".join(_row(story, check) for check in checks)


def _row(story: Story, check: Check) -> str:
    found = comparison(check)
    numbers = [""] * 3
    if found:
        at = code(_text.index(found.worst_index)) if found.max_abs_error else ""
        numbers = [_text.error(found.max_abs_error), _text.used(found.used), at]
    verdict = f"{SYMBOL[check.status]} {WORD[check.status]}"
    cells = [verdict, code(check.name), code(check.step), story.shape(check), *numbers]
    cells += [code(check.probe), code(check.equation)]
    return "| " + " | ".join(cells) + " |\n"


def _details(story: Story, check: Check) -> Iterator[str]:
    found = comparison(check)
    yield f"\n<details><summary>{WORD[check.status]}: {prose(check.name)}</summary>\n\n"
    if found and found.worst:
        yield "| worst at | candidate | should be | difference | allowed |\n|---|--:|--:|--:|--:|\n"
        for e in found.worst:
            candidate, reference = _text.pair(e.candidate, e.reference)
            cells = [
                code(_text.index(e.index)),
                candidate,
                reference,
                _text.error(abs(e.candidate - e.reference)),
                _text.error(e.allowed),
            ]
            yield "| " + " | ".join(cells) + " |\n"
        yield "\n"
    if check.picture and check.picture.planes:
        yield from _picture(check.picture)
    facts = {
        "": "" if check is story.first else story.what_is_off(check),
        "Why": "" if check is story.first else cause(check),
        "Must be": "" if check is story.first else check.equation,
        "Would pass": tolerance(found) if found and found.mismatched else "",
        "Rule": check.rule,
        "Referee": referee(check),
    }
    for label, text in facts.items():
        if text:
            yield f"- {label + ': ' if label else ''}{prose(text)}\n"
    yield "\n</details>\n"


def _picture(found: Picture) -> Iterator[str]:
    """Where the errors sit, as in the terminal, in a block of code."""
    worst = found.planes[0]
    lines = [_cells.title(worst, found), *("".join(row).rstrip() for row in _cells.blocks(worst))]
    lines.append(_cells.LEGEND)
    fence = "`" * (3 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
    yield "\n".join([fence + "text", *lines, fence]) + "\n\n"


def _closing(story: Story) -> Iterator[str]:
    told = story.about(story.first) if story.first and not story.report.ok else []
    facts = [(kind, finding.text) for kind, finding in story.findings if (kind, finding) not in told]
    facts += [("Power", story.power)] if story.power else []
    facts += [("Blind spot", text) for text in story.blind] + [("Note", text) for text in story.report.notes]
    yield "\n" if facts else ""
    for label, text in facts:
        yield f"- {label}: {prose(text)}\n"
    if story.report.command:
        yield f"\nRun again: {code(story.report.command)}\n"


def _all_quantities(story: Story) -> Iterator[tuple[str, str]]:
    """Every quantity in a folded table, in pieces, so that as many rows as fit are kept."""
    if not story.quantities:
        return
    many = _text.count(len(story.quantities), "quantity", "quantities")
    end = "\n</details>\n"
    head = f"\n<details><summary>All {many}, in execution order</summary>\n\n"
    rows = [_row(story, check) for check in story.quantities]
    room, kept = CAP // 2, 0
    for row in rows:
        room -= len(row.encode())
        if room < 0:
            break
        kept += 1
    table = head + _table(story, ()) + "".join(rows[:kept])
    if kept < len(rows):
        table += f"\n{_text.count(len(rows) - kept, 'more row')} left out, as this report is capped at 900 KiB.\n"
    yield "the table of all quantities", table + end
