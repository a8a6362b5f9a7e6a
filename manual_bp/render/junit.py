"""JUnit XML: one test case a quantity and probe, ``classname`` network.probe, the numbers in the failure's text."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from manual_bp.render import _text
from manual_bp.render._say import Story, cause, comparison, referee, tolerance
from manual_bp.report import HARMLESS, Check, Finding, Report


def render(report: Report) -> str:
    """One suite; a quantity that is off fails (its ``type`` is the status), a kink passes unless kinks are strict."""
    story = Story(_text.tidy(report))
    report = story.report
    suite = ET.Element("testsuite", name=report.network)
    properties = ET.SubElement(suite, "properties")
    for name, value in {
        "verdict": report.verdict, "first_wrong": report.first_wrong or "", "dtype": report.dtype,
        "seed": str(report.seed), **{key: text or "" for key, text in report.environment.items()},
    }.items():  # fmt: skip  # a table
        ET.SubElement(properties, "property", name=name, value=value)
    for check in report.checks:
        _check_case(suite, story, check)
    for kind, finding in story.findings:
        _finding_case(suite, report, kind, finding)
    if not report.ok and suite.find("testcase/failure") is None:
        whole = ET.SubElement(suite, "testcase", classname=report.network, name="verdict", time="0")
        ET.SubElement(whole, "failure", type="fail", message=story.verdict).text = story.verdict
    failures = len(suite.findall("testcase/failure"))
    totals: dict[str, str] = {
        "tests": str(len(suite.findall("testcase"))),
        "failures": str(failures),
        "errors": "0",
        "skipped": "0",
        "time": "0",
    }
    suite.attrib.update(totals)
    root = ET.Element("testsuites", {"name": "manual-bp", **totals})
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _check_case(suite: ET.Element, story: Story, check: Check) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=f"{story.report.network}.{check.probe}", name=check.name, time="0"
    )
    if check.status not in HARMLESS or (check.status == "kink" and story.report.strict_kinks):
        message = cause(check) or f"{check.name} is {check.status}"
        ET.SubElement(case, "failure", type=check.status, message=message).text = numbers(story, check)
    elif check.status == "kink":
        ET.SubElement(case, "system-out").text = numbers(story, check)


def _finding_case(suite: ET.Element, report: Report, kind: str, finding: Finding) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=f"{report.network}.findings", name=f"{kind}: {finding.name}", time="0"
    )
    if report.ok:
        ET.SubElement(case, "system-out").text = finding.text
    else:
        ET.SubElement(case, "failure", type=finding.kind, message=finding.text).text = finding.text


def numbers(story: Story, check: Check) -> str:
    """What a log should hold of one check, line by line, in plain text."""
    facts = {
        "step": story.step_title(check),
        "why": cause(check),
        "evidence": check.diagnosis.evidence if check.diagnosis else "",
        "must be": check.equation,
        "source": check.source,
        "rule": check.rule,
        "note": check.note,
        "referee": referee(check),
    }
    lines = [f"{check.status}: {check.name} {_text.shape(check.shape)} {check.dtype}"]
    for label, found in (("step alone", check.isolated), ("whole pass", check.end_to_end)):
        if found:
            lines.append(
                f"{label}: {found.mismatched} of {found.elements} elements off, largest error "
                f"{_text.error(found.max_abs_error)}, {_text.used(found.used)} of allowed"
            )
    decided = comparison(check)
    if decided and decided.mismatched:
        lines.append(f"would pass: {tolerance(decided)}")
        for element in decided.worst:
            candidate, reference = _text.pair(element.candidate, element.reference)
            at, allowed = _text.index(element.index), _text.error(element.allowed)
            lines.append(f"  {at} candidate {candidate} should be {reference} allowed {allowed}")
    if check.kink:
        places = " ".join(_text.index(at) for at in check.kink.indices[:8])
        lines.append(f"kink: {_text.count(check.kink.elements, 'element')} {places}: {check.kink.convention}")
    return "\n".join(lines + [f"{label}: {text}" for label, text in facts.items() if text])
