"""What a stream can show follows from the stream and its environment, and from nothing else."""

import io

import pytest

from manual_bp.errors import ManualBPError
from manual_bp.render import Look, look_for


class Stream(io.StringIO):
    def __init__(self, *, terminal=False, encoding="utf-8"):
        super().__init__()
        self._terminal, self._encoding = terminal, encoding

    def isatty(self):
        return self._terminal

    @property
    def encoding(self):
        return self._encoding


@pytest.mark.parametrize(
    ("terminal", "environ", "color"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"FORCE_COLOR": "0"}, False),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_color(terminal, environ, color):
    assert look_for(Stream(terminal=terminal), environ=environ).color is color


def test_an_explicit_choice_beats_the_environment():
    stream = Stream(terminal=True)
    assert look_for(stream, color="always", environ={"NO_COLOR": "1"}).color
    assert not look_for(stream, color="never", environ={"FORCE_COLOR": "1"}).color


@pytest.mark.parametrize(
    ("encoding", "unicode"),
    [("utf-8", True), ("utf-16", True), ("cp1252", False), ("ascii", False), ("odd", False), (None, True)],
)
def test_characters(encoding, unicode):
    assert look_for(Stream(encoding=encoding), environ={}).unicode is unicode


@pytest.mark.parametrize(
    ("columns", "width"), [("100", 100), ("10", 40), ("wide", 200), ("", 200), ("0", 200), ("-5", 200)]
)
def test_columns_decide_and_what_is_piped_is_wide(columns, width):
    assert look_for(Stream(), environ={"COLUMNS": columns}).width == width


def test_a_closed_stream_is_no_terminal():
    stream = io.StringIO()
    stream.close()
    assert not look_for(stream, environ={}).color


def test_too_narrow_is_an_error():
    with pytest.raises(ManualBPError, match="39 columns is too narrow"):
        Look(width=39)
