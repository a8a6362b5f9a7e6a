"""The report as one HTML file: nothing is fetched, no script but its own runs, and it reads without any.

What is said is made in :mod:`._html_page` as plain values; the templates only place them. A policy in the page's head
names the hashes of its style and its script, so that nothing a user's text might smuggle in could ever run.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from manual_bp.render import _text
from manual_bp.render._html_page import for_notebook, page
from manual_bp.report import Report

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).with_name("templates")
_STYLES = ("base.css", "page.css", "quantities.css", "lesson.css")
_SCRIPTS = ("table.js", "maps.js", "page.js")


def render(report: Report) -> str:
    """The whole page, ending in a line break; the report's lesson, if it has one, is a chapter of it."""
    style, script = _joined(_STYLES), _joined(_SCRIPTS)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    template = _environment().get_template("page.html.j2")
    view = page(_text.tidy(report))
    text = template.render(page=view, style=Markup(style), script=Markup(script), policy=policy)
    return text.rstrip() + "\n"


def notebook(report: Report) -> str:
    """A fragment for a notebook's output cell: the verdict, why, and the quantities that are not right.

    It holds no script and no page of its own, so that it survives a notebook's sanitiser and keeps the notebook small.
    """
    template = _environment().get_template("notebook.html.j2")
    text = template.render(view=for_notebook(_text.tidy(report)), style=Markup(_joined(("notebook.css",))))
    return text.strip() + "\n"


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # 100 ms; only this view needs it

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _joined(names: tuple[str, ...]) -> str:
    return "\n" + "\n".join(_TEMPLATES.joinpath(name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
