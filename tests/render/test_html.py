"""The HTML page as text: what it says, where it says it, and that nothing a user wrote can act in it."""

import hashlib
import json
import re
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace

import numpy as np
import pytest
from builders import EXAMPLES, HOSTILE, all_right, checks_of, forgotten_mask, report, tie, unrotated_kernel
from example_numbers import three_layer
from html_reader import Page, page_of, quantity

from manual_bp.render import html, render
from manual_bp.render._html_words import breakable
from manual_bp.report import Diagnosis, Finding
from manual_bp.report_lesson import Grid, LessonStep, Worked

# ------------------------------------------------------------------------------------ it is safe


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_is_whole_and_fetches_nothing(name):
    text = html.render(EXAMPLES[name]())
    page = Page(text)
    assert page.unbalanced == []
    assert page.open == []
    assert text.startswith("<!doctype html>")
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], tag
        for key in ("src", "href", "action", "srcset", "data"):
            target = attributes.get(key) or ""
            assert target.startswith(("#", "data:")) or not target, (tag, target)
    assert {tag for tag, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "base"})
    addresses = set(re.findall(r"""(?:https?:)?//[^\s"'<>)]+""", re.sub(r"<script>.*?</script>", "", text, flags=re.S)))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}


@pytest.mark.parametrize("name", ["unrotated kernel", "hostile"])
def test_the_policy_names_the_hash_of_the_style_and_the_script_and_nothing_else(name):
    page = page_of(EXAMPLES[name]())
    policies = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    numbers, script = page.scripts
    assert [a.get("type") for a in page.all("script")] == ["application/json", None]
    hashes = {
        part: "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for part, text in (("style-src", page.styles[0]), ("script-src", script))
    }
    expected = f"default-src 'none'; style-src '{hashes['style-src']}'; script-src '{hashes['script-src']}'; "
    assert policies == [expected + "img-src data:; base-uri 'none'; form-action 'none'"]
    json.loads(numbers)


def test_hostile_names_are_only_text():
    page = page_of(EXAMPLES["hostile"]())
    tidy = HOSTILE.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\u202e", "\\u202e").replace("\n", " ")
    assert tidy in "".join(page.words)
    assert len(page.scripts) == 2
    assert len(page.styles) == 1


@pytest.mark.parametrize(
    "name", ["</script><b>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "'; alert(1); '", "<!--", "n" * 5000]
)
def test_a_hostile_name_everywhere_at_once(name):
    checks = [quantity(name, np.ones((2, 3)) * 2, np.ones((2, 3)), step=name, probe=name, symbol=name, equation=name)]
    bad = report(
        checks, network=name, title=name, command=name, notes=(name,), environment={name: name},
        findings=(Finding(kind="mutation", name=name, step=name, text=name),),
    )  # fmt: skip  # one field after the other
    page = page_of(bad)
    assert page.unbalanced == []
    assert page.open == []
    assert name in "".join(page.words)
    assert not [a for a in page.all("img") if not (a["src"] or "").startswith("data:image/png;base64,")]
    fragment = Page(html.notebook(bad))
    assert fragment.unbalanced == []
    assert fragment.scripts == []


def test_the_numbers_cannot_end_their_script():
    text = html.render(EXAMPLES["hostile"]())
    block = text.split('<script type="application/json" id="numbers">')[1].split("</script>")[0]
    assert not set("<>&") & set(block)


# ------------------------------------------------------------------------------------ what it says


HEADLINES = {
    "all right": "All 16 quantities are right",
    "unrotated kernel": "The backward pass of z1 (Conv2d) is wrong",
    "forgotten mask": "The backward pass of a1 (ReLU) is wrong",
    "tie": "All 16 quantities are right",
    "nan": "The backward pass of loss (BCELoss) gives NaN or infinity",
    "untidy": "z3.bias.grad was not reported",
    "residual": "The gradient of stem is wrong",
}


@pytest.mark.parametrize("name", HEADLINES)
def test_the_headline_says_right_or_the_first_wrong_step(name):
    text = html.render(EXAMPLES[name]())
    found = re.search(r"<h1[^>]*>(.*?)</h1>", text, re.S)
    assert found
    assert found[1].replace("<wbr>", "") == HEADLINES[name]


def test_a_number_is_never_broken_and_a_long_name_may_be():
    assert breakable("off by 0.565 in x.grad") == "off by 0.565 in x.grad"
    assert breakable("features.encoder.block3.0.weight") == "features.<wbr>encoder.<wbr>block3.<wbr>0.<wbr>weight"


def test_a_step_that_failed_is_the_headline_and_why_stands_below_it():
    missing = [
        replace(check, status="missing", note="the candidate did not report it", isolated=None, end_to_end=None)
        if check.kind != "value" else check
        for check in all_right().checks
    ]  # fmt: skip  # one line a thought
    text = "the backward pass of loss raised ValueError: no"
    accident = Finding(kind="wrong", name="loss.grad", step="loss", text=text)
    found = report(missing, findings=(accident,))
    page = page_of(found)
    assert "The backward pass of loss (BCELoss) failed" in page.text
    assert page.text.index("raised ValueError: no") < page.text.index("What it should be")
    assert "z3.grad, a2.grad, z3.weight.grad and 6 more were not reported either" in page.text
    told = render(found, "full", width=100)
    assert "10 of 16 quantities are missing (first a3.grad)" in told
    assert told.index("raised ValueError: no") < told.index("Network\n")
    assert told.count("raised ValueError: no") == 1


def test_a_note_is_said_once():
    assert page_of(tie()).text.count("torch gives the whole gradient to the first maximum") == 1


def test_verdict_then_cause_then_network_then_table():
    text = html.render(unrotated_kernel())
    order = ["WRONG</p>", "<h1", "is off in 93 of 128 elements on both probes", "The kernel is not rotated by 180°",
             "What it should be", 'class="graph"', 'class="rows', "What this run could see"]  # fmt: skip  # one line
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_what_a_reader_needs_of_a_wrong_quantity_is_there():
    found = unrotated_kernel()
    check = next(c for c in found.checks if c.status == "wrong" and c.isolated)
    text = page_of(found).text
    for part in (
        check.equation, check.source, check.rule, "correlate the padded upstream gradient", "my_network.py:41",
        "atol=0.139 alone, or rtol=74 alone", "[1, 0, 5, 5]", "-0.0706994", "-0.00271375", "and 88 more elements",
        "46 of 47 planted mistakes", "no exact zero at a ReLU", "torch 2.13.0", found.command,
        "All 13 quantities before it are right",
    ):  # fmt: skip  # a list
        assert part.lower() in text.lower(), part


def test_a_kink_shows_the_convention_and_stays_right():
    text = page_of(tie()).text
    assert "ALL RIGHT" in text
    assert "torch gives the whole gradient to the first maximum of the window" in text
    assert "1 kink" in text


def test_ambiguous_and_unexplained_diagnoses_say_so():
    two = Diagnosis(name="a sum for a mean", evidence="", confidence="ambiguous", alternatives=("a factor of 4",))
    none = Diagnosis(name="", evidence="", confidence="unexplained", residual="every second column")
    ones = np.ones(4)
    checks = [quantity(name, 2 * ones, ones, diagnosis=why) for name, why in (("a.grad", two), ("b.grad", none))]
    text = page_of(report(checks)).text
    assert "Why: one of these A sum for a mean A factor of 4" in text
    assert "No known mistake explains it: every second column" in text


def test_a_step_that_was_fed_the_wrong_tensor_without_any_wrong_step():
    checks = checks_of("digits", three_layer(0), three_layer(0), set())
    finding = Finding(kind="plumbing", name="a2", step="a2", text="a2 is right for its input, but that is not a1")
    found = report(checks, findings=(finding,), verdict="fail")
    page = page_of(found)
    assert "Every step is right by itself, the whole is not" in page.text
    assert "a2 is right for its input, but that is not a1." in page.text


def test_partial_and_empty_reports_say_so():
    partial = replace(EXAMPLES["all right"](), partial=True)
    assert "All 16 quantities reported so far are right" in page_of(partial).text
    assert "stopped early" in page_of(partial).text
    empty = replace(report([]), steps=(), probes=(), verdict="fail")
    assert "Nothing was compared" in page_of(empty).text


def test_rows_come_worst_first_and_know_their_order():
    rows = [a for a in page_of(EXAMPLES["untidy"]()).all("tbody") if "row" in (a.get("class") or "").split()]
    statuses = [a["data-status"] for a in rows]
    assert statuses[:3] == ["mismatch", "missing", "extra"]
    assert set(statuses[3:]) == {"pass"}
    assert [int(a["data-rank"] or "") for a in rows] == list(range(len(rows)))
    assert sorted(int(a["data-order"] or "") for a in rows) == list(range(len(rows)))


def test_a_quantity_lists_every_probe_and_pictures_only_the_worst():
    numbers = np.arange(12.0).reshape(3, 4)
    checks = [
        quantity(f"q{i}.grad", numbers * (1.001 if probe == 7 else 1), numbers, probe=f"probe {probe}")
        for probe in range(20)
        for i in range(40)
    ]
    text = html.render(report(checks, probes=(), steps=()))
    page = Page(text)
    assert page.text.count("probe 13 ✓ right") == 40
    assert len(page.all("details")) == 40
    assert len(text.encode()) < 1_000_000
    payload = json.loads(page.scripts[0])
    assert len(payload) == 40


def test_hundreds_of_quantities_stay_small_and_say_what_is_not_drawn():
    rng = np.random.default_rng(0)
    big = rng.normal(size=(2, 16, 16))
    checks = [quantity(f"layer{i}.grad", big * (1 + (i == 250) * 1e-3), big) for i in range(300)]
    text = html.render(report(checks, steps=()))
    assert len(text.encode()) < 3_000_000
    payload = json.loads(Page(text).scripts[0])
    assert len(payload["q250"]) == 2, "what is wrong is drawn first, all of it"
    assert 0 < len(payload) < 300
    assert text.count("not drawn here") == 300 - len(payload)


def test_two_renderings_are_the_same_bytes():
    assert html.render(forgotten_mask()) == html.render(forgotten_mask())


# ------------------------------------------------------------------------------------ the lesson


def test_a_lesson_becomes_a_chapter_with_equations_and_numbers():
    grid = Grid(title="a window of x", rows=((1.0, -2.5), (0.0, 4.0)), marked=((1, 1),))
    worked = Worked(label="a[0, 0]", expression="max(1, -2.5, 0, 4)", result=4.0, grids=(grid,), note="4 wins")
    lesson = (
        LessonStep(title="Who wins?", phase="question", prose=("Which </script> of the four?",)),
        LessonStep(
            title="The maximum", phase="forward", name="a", symbol="a⁽²⁾", shape=(1, 1),
            equation="a = max x", equation_latex=r"a = \max x", source="eq. 10", worked=(worked,),
        ),
    )  # fmt: skip  # a record
    page = Page(html.render(replace(unrotated_kernel(), lesson=lesson)))
    assert page.unbalanced == []
    numbers = "a[0, 0] = max(1, -2.5, 0, 4) = 4"
    for part in ("The question", "Which </script> of the four?", numbers, "eq. 10", "4 wins"):
        assert part in page.text, part
    assert [a for a in page.all("td") if a.get("class") == "marked"] == [{"class": "marked"}]
    assert len(page.all("math")) == 1
    assert 'id="lesson"' not in html.render(unrotated_kernel())


# ------------------------------------------------------------------------------------ the notebook and imports


def test_the_notebook_shows_the_top_and_the_worst_rows_without_a_script():
    text = html.notebook(EXAMPLES["large"]())
    page = Page(text)
    assert page.scripts == []
    assert page.unbalanced == []
    assert "is wrong" in page.text
    assert page.text.count("✗ wrong") == 11
    assert "Not shown: 169 right." in page.text
    assert len(text) < 40_000


def test_the_view_loads_neither_torch_nor_a_template_before_it_is_used():
    code = (
        "import sys, manual_bp.render.html; print([m for m in ('torch', 'jinja2', 'latex2mathml') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
