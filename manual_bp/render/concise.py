"""One line a finding, ``network:probe: quantity: wrong: ...``, and one that sums up: for editors, logs and grep."""

from __future__ import annotations

from collections.abc import Iterator

from manual_bp.render import _text
from manual_bp.render._look import Look
from manual_bp.render._say import WORD, Story, cause, comparison
from manual_bp.report import Check, Report

_RED, _GREEN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def render(report: Report, look: Look) -> str:
    """One line for every quantity that is wrong itself and for every other finding; a pass is the last line alone."""
    story = Story(_text.tidy(report, unicode=look.unicode))
    text = "\n".join(_lines(story, look.color)) + "\n"
    return text if look.unicode else _text.draw_ascii(text)


def _lines(story: Story, color: bool) -> Iterator[str]:
    def paint(text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if color else text

    network = story.report.network
    for check in story.culprits:
        first = " (first wrong)" if check is story.first else ""
        verdict = paint(WORD[check.status] + first, _RED)
        yield f"{network}:{check.probe}: {check.name}: {verdict}: {_numbers(story, check)}"
    for kind, finding in story.findings:
        probes = ",".join(finding.probes) or "-"
        yield f"{network}:{probes}: {finding.name or finding.step or '-'}: {paint(kind.lower(), _RED)}: {finding.text}"
    yield f"{paint(story.word.lower(), _GREEN if story.report.ok else _RED)}: {story.verdict}"


def _numbers(story: Story, check: Check) -> str:
    """Why, then where it is worst; on one line."""
    found = comparison(check)
    bare = check.status in ("missing", "extra") and check.note
    facts = [check.note if bare else story.what_is_off(check).removeprefix(check.name).lstrip(" :").removeprefix("is ")]
    if found and found.mismatched:
        candidate, reference = _text.pair(found.candidate, found.reference)
        at = _text.index(found.worst_index)
        allowed = _text.error(found.allowed)
        facts.append(f"worst {at + ' ' if at else ''}{candidate} should be {reference}, allowed {allowed}")
    if why := cause(check):
        facts.append(why)
    if check.diagnosis and check.diagnosis.location:
        facts.append(f"at {check.diagnosis.location}")
    return "; ".join(facts)
