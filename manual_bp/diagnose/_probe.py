"""One probe of a comparison as it is kept: what was reported, what is expected, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from manual_bp.compare import Item
from manual_bp.trace import Array

#: Statuses that a diagnosis is made for.
DIAGNOSED = frozenset({"wrong", "nonfinite", "mismatch"})


@dataclass(frozen=True, kw_only=True)
class KeptProbe:
    """References to one probe's arrays; nothing is copied.

    ``shares`` computes what each of several readers of a quantity gives to its gradient, by the reader's name.
    """

    name: str
    values: Mapping[str, Array]
    reported: Mapping[str, Array]
    items: Mapping[str, Item]
    statuses: Mapping[str, str]
    before: Mapping[str, Array]
    shares: Callable[[str], Mapping[str, Array]] | None = None

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in self.values.values()) + sum(
            i.isolated.value.nbytes + i.isolated.allowed.nbytes for i in self.items.values() if i.isolated
        )

    @property
    def wrong(self) -> bool:
        """Whether there is something to be diagnosed on it."""
        return any(s in DIAGNOSED for s in self.statuses.values())
