"""Names the mistake behind a wrong quantity: the operation's own definition with one edit, held against the numbers.

Every step is defined by a formula. A mistake is a formula with one edit: an operand flipped, swapped or masked, a sum
for a mean, a term or factor forgotten, an option changed, a derivative at the wrong point. All such edits are computed
on the candidate's own operands; one is named only if it gives the reported numbers within the bound, on every probe.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what type checkers and editors see; _HOME below is what runs, and a test holds the two together
    from ._case import Case
    from ._diagnose import Effort, diagnose, explain
    from ._evidence import Evidence, attach, searching
    from ._graph import Graph, Step
    from ._locate import in_network, place_of

#: What is imported when it is first used -> the module that it comes from. A right pass needs no search for mistakes.
_HOME = {
    "Case": "_case",
    "Effort": "_diagnose",
    "Evidence": "_evidence",
    "Graph": "_graph",
    "Step": "_graph",
    "attach": "_evidence",
    "diagnose": "_diagnose",
    "explain": "_diagnose",
    "in_network": "_locate",
    "place_of": "_locate",
    "searching": "_evidence",
}

__all__ = [
    "Case",
    "Effort",
    "Evidence",
    "Graph",
    "Step",
    "attach",
    "diagnose",
    "explain",
    "in_network",
    "place_of",
    "searching",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # found without this function from now on
    return value
