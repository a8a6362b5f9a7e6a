"""Names the mistake behind a wrong quantity: the operation's own definition with one edit, held against the numbers.

Every step is defined by a formula. A mistake is a formula with one edit: an operand flipped, swapped or masked, a sum
for a mean, a term or factor forgotten, an option changed, a derivative at the wrong point. All such edits are computed
on the candidate's own operands; one is named only if it gives the reported numbers within the bound, on every probe.
"""

from __future__ import annotations

from ._case import Case
from ._diagnose import Effort, diagnose, explain
from ._evidence import Evidence, attach, searching
from ._graph import Graph, Step
from ._locate import in_network, place_of

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
