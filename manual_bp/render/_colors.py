"""The styles of the terminal views: colours every theme defines, none that is white, black or bright by itself."""

from __future__ import annotations

from manual_bp.render._say import SYMBOL, WORD
from manual_bp.report import Status

STYLE: dict[Status, str] = {
    "pass": "green",
    "wrong": "bold red",
    "nonfinite": "bold red",
    "mismatch": "bold red",
    "missing": "bold red",
    "extra": "bold red",
    "inherited": "magenta",
    "kink": "yellow",
}

QUIET = "dim"
TITLE = "bold"


def mark(status: Status) -> str:
    """Symbol and word."""
    return f"{SYMBOL[status]} {WORD[status]}"
