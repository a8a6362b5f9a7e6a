"""What a stream can show: its width, colours and characters. Nothing else in the views looks at the outside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TextIO

from manual_bp.errors import ManualBPError

#: Columns when nobody looks at a screen: wide enough that no table of ours is shortened.
PIPED_WIDTH = 200

#: Every character beyond ASCII that the views themselves draw.
DRAWN = "✓✗↳∧≠·█▓▒─│╭╮╯├┤┼●→←▲◀…×Δ–"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How wide, whether with ANSI colours, whether with characters beyond ASCII."""

    width: int = 160
    color: bool = False
    unicode: bool = True

    def __post_init__(self) -> None:
        if self.width < 40:
            raise ManualBPError(f"a width of {self.width} columns is too narrow for a report", hint="give at least 40")


def look_for(
    stream: TextIO,
    *,
    color: Literal["auto", "always", "never"] = "auto",
    environ: Mapping[str, str] | None = None,
) -> Look:
    """The look of a stream.

    ``color`` "auto": NO_COLOR beats FORCE_COLOR beats TERM=dumb beats whether the stream is a terminal (each variable
    counts when it is set and not empty; FORCE_COLOR=0 forces none). The width is COLUMNS, else the terminal's, else
    wide: what is piped is never wrapped or shortened.
    """
    environ = os.environ if environ is None else environ
    terminal = _is_terminal(stream)
    width = _columns(environ) or (_terminal_width(stream) if terminal else PIPED_WIDTH)
    return Look(width=width, color=_colored(color, environ, terminal), unicode=_can_draw(stream))


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # ValueError: the stream is closed
        return False


def _columns(environ: Mapping[str, str]) -> int | None:
    text = environ.get("COLUMNS", "")
    return max(int(text), 40) if text.isdecimal() and 0 < int(text) <= 10_000 else None


def _terminal_width(stream: TextIO) -> int:
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = shutil.get_terminal_size((80, 24)).columns
    return max(columns or 80, 40)  # some terminals say 0


def _colored(color: str, environ: Mapping[str, str], terminal: bool) -> bool:
    if color != "auto":
        return color == "always"
    if environ.get("NO_COLOR"):
        return False
    if force := environ.get("FORCE_COLOR"):
        return force not in ("0", "false")
    return terminal and environ.get("TERM") != "dumb"


def _can_draw(stream: TextIO) -> bool:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        DRAWN.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
