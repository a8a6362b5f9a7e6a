"""``python -m tests.gallery``: write the example reports into reports/gallery.

A record is kept as it is where a new run says the same; the views are made of the record, letter by letter.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from manual_bp.files import write_text
from manual_bp.render import render
from manual_bp.report import Report
from manual_bp.report_json import dumps, read

from .examples import EXAMPLES
from .pictures import current, take, terminal
from .same import differences

#: The one whose page is a picture in the README.
SHOWN = "unrotated-kernel"

FOLDER = Path(__file__).parents[2] / "reports" / "gallery"


def views(report: Report) -> Mapping[str, str]:
    """File ending -> text of each view of a record; nothing in them depends on the machine."""
    return {
        ".json": dumps(report),
        ".html": render(report, "html"),
        ".md": render(report, "markdown"),
        ".txt": render(report, "full", width=80),
        ".svg": terminal(report),
        ".log": render(report, "concise"),
    }


def committed() -> dict[str, Report]:
    """The records in the folder, by name."""
    return {name: read(FOLDER / f"{name}.json") for name in EXAMPLES}


def main() -> int:
    """Run every comparison, and write what has changed."""
    reports = {}
    for name, example in EXAMPLES.items():
        made, path = example.report(), FOLDER / f"{name}.json"
        known = read(path) if path.is_file() else None
        reports[name] = made if known is None or differences(known, made) else known
        for ending, text in views(reports[name]).items():
            write_text(FOLDER / f"{name}{ending}", text)
        sys.stdout.write(f"{name}: {reports[name].verdict}\n")
    page = render(reports[SHOWN], "html")
    if not current(FOLDER, page) and not take(FOLDER, page):
        sys.stderr.write("no Chromium here (name one in MANUAL_BP_CHROMIUM): the picture is not renewed\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
