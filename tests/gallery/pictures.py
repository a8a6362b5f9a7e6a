"""Pictures of a report: the terminal as SVG, and for the README the page as Chromium shows it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from manual_bp.files import write_text
from manual_bp.render import render
from manual_bp.report import Report

PICTURE, DIGEST = "page.png", "page.sha256"

COLUMNS = 100

#: Dark enough a ground that both of GitHub's themes show it as a terminal.
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207),
     (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255),
     (86, 212, 221), (240, 246, 252)],
)  # fmt: skip  # eight colours and eight bright ones

#: rich's own template names a font to be fetched from a server.
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px;
line-height: {line_height}px; }}
{styles}
</style><defs>{lines}</defs><rect width="100%" height="100%" fill="#161b22"/>
<g transform="translate({terminal_x}, 14)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>"""


def digest(page: str) -> str:
    """What tells whether the picture is that of this page."""
    return hashlib.sha256(page.encode()).hexdigest() + "\n"


def current(folder: Path, page: str) -> bool:
    """Whether the picture there is that of this page."""
    known = folder / DIGEST
    return (folder / PICTURE).is_file() and known.is_file() and known.read_text(encoding="utf-8") == digest(page)


def take(folder: Path, page: str) -> bool:
    """Take the picture of a page; False where there is no Chromium to do it."""
    browser = chromium()
    if browser is None:
        return False
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--headless", "--no-sandbox"])
        shown = running.new_page(viewport={"width": 1180, "height": 900})
        shown.set_content(page)
        shown.screenshot(path=folder / PICTURE)
        running.close()
    write_text(folder / DIGEST, digest(page))
    return True


def chromium() -> str | None:
    """The Chromium that MANUAL_BP_CHROMIUM names, or an installed one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("MANUAL_BP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def terminal(report: Report) -> str:
    """The top of the report in a terminal as SVG: all that stands before the table of quantities."""
    top = render(report, "full", width=COLUMNS, color=True).split("\x1b[1mQuantities")[0].rstrip()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), _environ={})
    console.print(Text.from_ansi(top), soft_wrap=True)
    return console.export_svg(theme=THEME, code_format=_SVG, unique_id="t", font_aspect_ratio=0.602) + "\n"
