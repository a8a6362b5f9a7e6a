"""The HTML page in a real browser: it loads, filters, sorts, points, prints, and asks for nothing from outside.

The browser is the one that MANUAL_BP_CHROMIUM names, else an installed Chromium or Chrome; without one this is skipped.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from builders import EXAMPLES, PROBES, all_right, forgotten_mask, report, tie, unrotated_kernel
from html_reader import quantity

from manual_bp.render import html
from manual_bp.report import Report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -e .[dev])")

CANDIDATES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get("MANUAL_BP_CHROMIUM") or next(filter(None, map(shutil.which, CANDIDATES)), None)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium here; name one in MANUAL_BP_CHROMIUM")

QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--disable-extensions", "--renderer-process-limit=1",
]  # fmt: skip  # a command line

#: Where an error is planted, and how large it is.
PLANTED = (1, 0, 4, 2)


def planted() -> Report:
    """One wrong element in one plane of one quantity, another error in the other plane, and a right quantity."""
    reference = np.random.default_rng(2).normal(size=(2, 1, 6, 5))
    candidate = reference.copy()
    candidate[PLANTED] += 0.5
    candidate[0, 0, 1, 3] -= 0.25
    checks = [quantity("z1.grad", reference, reference), quantity("x.grad", candidate, reference)]
    return report(checks, probes=PROBES[:1])


REPORTS = {**EXAMPLES, "planted": planted}


Pages = Callable[..., sync_api.Page]


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    """One browser for all tests, and in it one page for each set of options: a page of its own takes a process."""
    made: dict[str, sync_api.Page] = {}

    def page(**options) -> sync_api.Page:
        if repr(options) not in made:
            made[repr(options)] = running.new_context(**options).new_page()
            made[repr(options)].set_default_timeout(60_000)  # a shared machine can be slow
        return made[repr(options)]

    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield page
        running.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Callable[[str], Path]:
    """Each report is made into a page once."""
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def file(name: str) -> Path:
        path = folder / f"{re.sub(r'[^a-z]', '-', name)}.html"
        path.write_text(html.render(REPORTS[name]()), encoding="utf-8")
        return path

    return file


class Visitor:
    """Opens pages and keeps what they complain about and what they ask for."""

    def __init__(self, pages: Pages, files: Callable[[str], Path]) -> None:
        self.pages, self.files = pages, files
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.listening: list[tuple[sync_api.Page, str, Callable]] = []

    def open(self, name: str, *, width: int = 1280, height: int = 800, **options) -> sync_api.Page:
        page = self.pages(**options)
        if not any(heard is page for heard, *_ in self.listening):
            self._listen(page, "console", lambda message: self.complaints.append(message.text))
            self._listen(page, "pageerror", lambda error: self.complaints.append(str(error)))
            self._listen(page, "dialog", lambda dialog: self.complaints.append(dialog.message))
            self._listen(page, "request", lambda request: self.requests.append(request.url))
        if page.viewport_size != {"width": width, "height": height}:
            page.set_viewport_size({"width": width, "height": height})
        page.goto(self.files(name).as_uri())
        return page

    def _listen(self, page: sync_api.Page, event: str, heard: Callable) -> None:
        page.on(event, heard)
        self.listening.append((page, event, heard))

    def leave(self) -> None:
        for page, event, heard in self.listening:
            page.remove_listener(event, heard)


@pytest.fixture
def visit(pages, files) -> Iterator[Visitor]:
    visitor = Visitor(pages, files)
    yield visitor
    visitor.leave()


def shown(page: sync_api.Page) -> list[str]:
    """The names of the rows that are visible, from top to bottom."""
    return page.locator("tbody.row:not([hidden])").evaluate_all("rows => rows.map(row => row.dataset.name)")


def overflow(page: sync_api.Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


# ------------------------------------------------------------------------------------ it loads


@pytest.mark.parametrize("name", REPORTS)
def test_it_loads_quietly_asks_for_nothing_and_fits_a_phone(visit, name):
    page = visit.open(name, width=360, height=740)
    page.evaluate("document.querySelectorAll('details').forEach((one, i) => { if (i < 30) one.open = true; })")
    assert overflow(page) <= 0
    page.set_viewport_size({"width": 1280, "height": 800})
    assert overflow(page) <= 0
    wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
    assert page.locator(".scroll:has(.both)").evaluate_all(wide) == []
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [page.url]
    assert page.locator("img").evaluate_all("all => all.every(image => image.complete && image.naturalWidth > 0)")


def test_the_first_screen_says_what_is_wrong_and_why(visit):
    page = visit.open("unrotated kernel")
    for text in ("The backward pass of z1 (Conv2d) is wrong", "The kernel is not rotated by 180°", "first wrong"):
        box = page.get_by_text(text).first.bounding_box()
        assert box
        assert box["y"] + box["height"] < 800, text


def test_a_script_that_is_not_ours_does_not_run(visit):
    page = visit.open("hostile")
    page.evaluate(
        "const script = document.createElement('script'); script.textContent = 'window.broken = 1';"
        "document.body.append(script)"
    )
    assert page.evaluate("window.broken") is None
    assert any("Content Security Policy" in text for text in visit.complaints)


# ------------------------------------------------------------------------------------ the table


def test_the_status_chips_filter(visit):
    page = visit.open("forgotten mask")
    total = len(shown(page))
    page.locator(".chip[data-status=wrong]").click()
    assert shown(page) == ["z1.grad"]
    assert page.locator(".shown").inner_text() == f"1 of {total} shown"
    page.locator(".chip[data-status=inherited]").click()
    statuses = page.locator("tbody.row:not([hidden])").evaluate_all("rows => rows.map(row => row.dataset.status)")
    assert statuses == ["wrong", "inherited", "inherited", "inherited"]
    page.get_by_role("button", name="Show all").first.click()
    assert len(shown(page)) == total


def test_the_step_and_the_text_filter(visit):
    page = visit.open("unrotated kernel")
    page.locator("select[name=step]").select_option("z3")
    assert set(shown(page)) == {"z3", "a2.grad", "z3.weight.grad", "z3.bias.grad"}
    page.get_by_role("searchbox").fill("WEIGHT right")
    assert shown(page) == ["z3.weight.grad"]
    page.get_by_role("searchbox").fill("no such thing")
    assert shown(page) == []
    assert page.locator(".nothing").is_visible()
    page.locator(".nothing button").click()
    assert len(shown(page)) == 16


def test_the_table_sorts(visit):
    page = visit.open("unrotated kernel")
    execution = [check.name for check in unrotated_kernel().checks[:16]]
    assert shown(page)[0] == "x.grad"
    page.locator("select[name=order]").select_option("order")
    assert shown(page) == execution
    head = page.locator("th[data-sort=used]")
    head.get_by_role("button").click()
    used = page.locator("tbody.row").evaluate_all("rows => rows.map(row => Number(row.dataset.used))")
    assert used == sorted(used, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    used = page.locator("tbody.row").evaluate_all("rows => rows.map(row => Number(row.dataset.used))")
    assert used == sorted(used)
    page.locator("th[data-sort=name]").get_by_role("button").click()
    assert shown(page) == sorted(execution)


def test_links_open_the_row_and_a_step_shows_its_rows(visit):
    page = visit.open("unrotated kernel")
    page.get_by_role("link", name="All numbers of it").click()
    assert page.locator("#q13 .panel").is_visible()
    page.locator("a.node").filter(has_text="Linear").click()
    assert set(shown(page)) == {"z3", "a2.grad", "z3.weight.grad", "z3.bias.grad"}
    page.locator("a.arrow .label").filter(has_text="x.grad").click()
    # the row that a link leads to does not stay hidden; the page hears of the link a moment after the click
    sync_api.expect(page.locator("tbody.row:not([hidden])")).to_have_count(16)
    assert page.locator("#q13 .panel").is_visible()


# ------------------------------------------------------------------------------------ the heatmaps

#: The colours of an image, cell by cell.
PIXELS = """image => {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const data = [...context.getImageData(0, 0, canvas.width, canvas.height).data];
  const cells = [];
  for (let i = 0; i < data.length; i += 4) cells.push(data.slice(i, i + 3).join());
  return [canvas.height, canvas.width, cells];
}"""


def odd_cells(page: sync_api.Page, which: int) -> list[tuple[int, int]]:
    """Cells of one of the four maps of the opened row that are not of the commonest colour."""
    image = page.locator(".row details[open] .map img").nth(which)
    image.evaluate("image => image.decode()")
    _, columns, cells = image.evaluate(PIXELS)
    common = max(set(cells), key=cells.count)
    return [divmod(place, columns) for place, color in enumerate(cells) if color != common]


def opened(visit: Visitor, name: str = "planted", row: str = "x.grad", **options) -> sync_api.Page:
    page = visit.open(name, **options)
    page.locator(f'tbody.row[data-name="{row}"] .opener').click()
    return page


def readout(page: sync_api.Page) -> dict[str, str]:
    lines = page.locator(".row details[open] .readout div")
    return dict(lines.evaluate_all("all => all.map(one => [one.children[0].textContent, one.children[1].textContent])"))


@pytest.mark.parametrize("width", [1280, 360])
def test_the_planted_error_is_at_the_planted_place(visit, width):
    page = opened(visit, width=width)
    assert odd_cells(page, 2) == [PLANTED[2:]]
    assert odd_cells(page, 3) == [PLANTED[2:]]
    frame = page.locator(".row details[open] .frame").nth(2)
    outline = frame.locator(".worst").bounding_box()
    box = frame.locator("img").bounding_box()
    assert outline
    assert box
    column = (outline["x"] + outline["width"] / 2 - box["x"]) / box["width"] * 5
    row = (outline["y"] + outline["height"] / 2 - box["y"]) / box["height"] * 6
    assert (int(row), int(column)) == PLANTED[2:]


def test_pointing_at_a_cell_tells_its_numbers(visit):
    page = opened(visit)
    check = next(check for check in planted().checks if check.name == "x.grad")
    plane = check.picture.planes[0]
    assert readout(page)["index"] == "[1, 0, 4, 2]"
    image = page.locator(".row details[open] .map img").first
    box = image.bounding_box()
    image.hover(position={"x": box["width"] * 0.5 / 5, "y": box["height"] * 5.5 / 6})
    told = readout(page)
    assert told["index"] == "[1, 0, 5, 0]"
    assert float(told["candidate"]) == pytest.approx(plane.candidate[25], rel=1e-6)
    assert told["reference"] == told["candidate"]
    assert told["error / allowed"] == "0 %"
    page.mouse.move(0, 0)
    assert readout(page)["index"] == "[1, 0, 4, 2]"


def test_another_plane_shows_its_own_error(visit):
    page = opened(visit)
    page.locator(".row details[open] select[name=plane]").select_option("1")
    assert odd_cells(page, 2) == [(1, 3)]
    assert readout(page)["index"] == "[0, 0, 1, 3]"
    assert readout(page)["difference"] == "-0.25"
    assert page.locator(".row details[open] .plane").inner_text() == "batch 0, channel 0"
    page.locator(".row details[open] select[name=plane]").select_option("0")
    assert odd_cells(page, 2) == [PLANTED[2:]]


def test_everything_works_from_the_keyboard(visit):
    page = visit.open("planted")
    page.locator('tbody[data-name="x.grad"] .opener').focus()
    page.keyboard.press("Enter")
    assert page.locator("tbody[data-name='x.grad'] .panel").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "plane"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "maps"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, index in (("ArrowUp", "[1, 0, 3, 2]"), ("ArrowRight", "[1, 0, 3, 3]"), ("Home", "[1, 0, 4, 2]")):
        page.keyboard.press(key)
        assert readout(page)["index"] == index
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert not page.locator("tbody[data-name='x.grad'] .panel").is_visible()


# ------------------------------------------------------------------------------------ dark, paper, no script


def background(page: sync_api.Page) -> int:
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(re.findall(r"\d+", color)[0])


def test_dark_where_the_system_is_dark_and_by_the_button(visit):
    assert background(visit.open("planted", color_scheme="light")) > 200
    page = visit.open("planted", color_scheme="dark")
    assert background(page) < 60
    page.get_by_role("button", name="Use the light theme").click()
    assert background(page) > 200
    page.reload()
    assert background(page) > 200
    page.get_by_role("button", name="Use the dark theme").click()
    assert background(page) < 60


CONTRAST = """() => {
  const channel = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const ground = one => rgb(getComputedStyle(one).backgroundColor);
  const behind = one => !one ? [255, 255, 255] : ground(one)[3] === 255 ? ground(one) : behind(one.parentElement);
  const poor = [];
  for (const one of document.querySelectorAll("p, td, th, h1, h2, h3, dt, dd, span, code, button, label, li")) {
    if (!one.checkVisibility() || ![...one.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.push(one.className + ": " + one.textContent.slice(0, 30));
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["forgotten mask", "tie"])
def test_every_text_stands_out_from_its_ground(visit, name, scheme):
    page = visit.open(name, color_scheme=scheme)
    page.locator(".opener").first.click()
    assert page.evaluate(CONTRAST) == []


def test_paper_shows_what_is_wrong_without_a_click(visit):
    page = visit.open("forgotten mask")
    wrong, right = (page.locator(f'tbody[data-name="{name}"] .panel') for name in ("z1.grad", "a1.grad"))
    page.emulate_media(media="print")
    assert wrong.bounding_box()["height"] > 100
    assert not right.is_visible()
    assert not page.locator(".tools").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="null")  # other tests come to this page


def test_without_a_script_everything_can_be_read(visit):
    page = visit.open("forgotten mask", java_script_enabled=False)
    assert not page.locator(".tools").is_visible()
    panel = page.locator("#q12 .panel")
    assert not panel.is_visible()
    page.locator("#q12 summary").first.click()
    assert panel.is_visible()
    assert panel.locator("img").first.is_visible()


def test_what_is_right_says_so_and_how_surely(visit):
    for name, found in (("all right", all_right()), ("tie", tie())):
        page = visit.open(name)
        assert page.locator("h1").inner_text() == "All 16 quantities are right"
        assert page.locator(".hero .power").inner_text().startswith("These probes reveal 46 of 47 planted mistakes")
        assert page.title() == f"✓ {found.network}: All 16 quantities are right"


def test_the_steps_of_a_wrong_network_say_it_in_words(visit):
    page = visit.open("forgotten mask")
    wrong = page.locator("a.node.first")
    assert "✗ wrong" in (wrong.text_content() or "")
    assert wrong.get_attribute("aria-label") == "a1: ReLU(): ✗ wrong, the first wrong step"
    assert forgotten_mask().first_wrong == "z1.grad"
