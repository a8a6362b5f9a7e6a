"""Markdown that stays a table, stays harmless and stays below the cap."""

import re
from dataclasses import replace

import pytest
from builders import EXAMPLES, HOSTILE, forgotten_mask, large, unrotated_kernel
from markdown_it import MarkdownIt

from manual_bp.render import markdown, render

PARSER = MarkdownIt("commonmark").enable("table")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_only_html_is_what_folds(name):
    tags = set()
    for token in PARSER.parse(render(EXAMPLES[name](), "markdown")):
        for part in [token, *(token.children or [])]:
            if part.type in ("html_block", "html_inline"):
                tags |= set(re.findall(r"<[^>]*>", part.content))
    assert tags == {"<details>", "</details>", "<summary>", "</summary>"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_row_of_a_table_has_all_its_cells(name):
    lines = render(EXAMPLES[name](), "markdown").splitlines()
    width = 0
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line)) - 1
            width = width if before.startswith("|") else cells
            assert cells == width, line


def test_hostile_names_are_shown_as_they_are():
    shown = []
    for token in PARSER.parse(render(EXAMPLES["hostile"](), "markdown")):
        shown += [part.content for part in token.children or [] if part.type in ("text", "code_inline")]
    escaped = HOSTILE.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\u202e", "\\u202e").replace("\n", " ")
    assert any(escaped + "z1.grad" in text for text in shown)


@pytest.mark.parametrize(
    "text", ["@someone", "#12", "a_b_c", "*x*", "$x$", "https://x.y", "www.x.y", "[a](b)", "~~x~~"]
)
def test_prose_is_no_markup(text):
    inline = PARSER.parseInline(markdown.prose(text))[0]
    assert [part.type for part in inline.children] == ["text"] * len(inline.children)
    assert "".join(part.content for part in inline.children) == text
    assert not re.search(r"[@#$_*~\[]|://|www\.", re.sub(r"&#\d+;", "", markdown.prose(text)))


@pytest.mark.parametrize("text", ["a", "`", "``a`", "a|b", " b "])
def test_a_code_span_shows_its_text(text):
    parts = PARSER.parseInline(markdown.code(text))[0].children
    assert [part.type for part in parts] == ["code_inline"]
    assert parts[0].content.replace("\\|", "|") == text.strip()


def test_the_first_wrong_step_comes_first():
    text = render(unrotated_kernel(), "markdown")
    top = text[: text.index("<details>")]
    for phrase in (
        "### ✗ WRONG three-layer: 1 of 16",
        "**First wrong: z1 = Conv2d",
        "the kernel is not rotated",
        "`x.grad`",
    ):
        assert phrase in top
    rows = [line for line in top.splitlines() if line.startswith("| ✗")]
    assert len(rows) == 1
    assert "inherited" in render(forgotten_mask(), "markdown")


def test_the_picture_is_a_block_of_code():
    fences = [token for token in PARSER.parse(render(unrotated_kernel(), "markdown")) if token.type == "fence"]
    assert len(fences) == 1
    assert fences[0].content.startswith("where: batch 1, channel 0")
    assert "██" in fences[0].content
    hostile = PARSER.parse(render(EXAMPLES["hostile"](), "markdown"))
    assert any(token.type == "fence" and "</script>" in token.content for token in hostile)


def test_below_the_cap_and_says_what_it_left_out():
    report = large(60)
    many = [
        replace(check, name=f"{check.name}.{number}" + "x" * 300) for number in range(30) for check in report.checks
    ]
    text = render(replace(report, checks=tuple(many), first_wrong=many[3].name), "markdown")
    assert len(text.encode()) < 900 * 1024
    assert "more rows left out" in text or "Left out, as this report is capped" in text
    assert text.startswith("### ✗ WRONG")
    assert text.count("<details>") == text.count("</details>")


def test_one_endless_name_does_not_break_the_cap():
    report = forgotten_mask()
    checks = tuple(replace(check, name="|" * 500_000 + check.name, note="@" * 500_000) for check in report.checks)
    text = render(replace(report, checks=checks, first_wrong=checks[12].name, network="`" * 500_000), "markdown")
    assert len(text.encode()) < 900 * 1024
