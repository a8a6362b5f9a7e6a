"""The one error that a user of the tool is meant to read."""

from __future__ import annotations


class ManualBPError(Exception):
    """Something outside the tool is wrong: an argument, a file, a shape, a number.

    Parameters
    ----------
    what
        What is wrong and where, one sentence without a full stop.
    hint
        What to do about it, one sentence without a full stop; may be empty.

    The command line prints ``error: what. hint.`` on one line and leaves with exit code 2.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what}. {hint}." if hint else f"{what}.")
