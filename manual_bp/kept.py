"""Whole arrays of both sides beside a report, which itself keeps statistics, worst elements and pooled pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manual_bp.compare import Item
from manual_bp.files import write_bytes
from manual_bp.report import Check
from manual_bp.trace import Array, Trace


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Collects arrays while a comparison runs; hand it to ``judge_network`` or ``verify`` as ``keep``.

    ``arrays`` has, by ``PROBE/QUANTITY/``: ``candidate``; ``expected`` (what the step should have made of the
    candidate's own operands) and ``allowed`` (how far from it is right); ``reference`` (the reference's own pass).

    Attributes
    ----------
    everything
        Keep right quantities too; otherwise only those that differ.
    """

    everything: bool = False
    arrays: dict[str, Array] = field(default_factory=dict)

    def add(self, probe: str, items: Iterable[Item], trace: Trace, checks: Iterable[Check]) -> None:
        """Keep what one probe gave."""
        wanted = {check.name for check in checks if self.everything or check.status != "pass"}
        known = {item.quantity.name: item for item in items}
        for name in [*known, *(name for name in trace if name not in known)]:
            if name not in wanted:
                continue
            item, found = known.get(name), {}
            if name in trace:
                found["candidate"] = trace[name]
            if item and item.isolated:
                found |= {"expected": item.isolated.value, "allowed": item.isolated.allowed}
            if item and item.end_to_end:
                found["reference"] = item.end_to_end.value
            self.arrays.update({f"{probe}/{name}/{part}": np.array(array) for part, array in found.items()})

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write an npz file (compressed, no pickle) in one go; ManualBPError when that cannot be done."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays)  # type: ignore[arg-type]  # names hold a slash: none is an option of it
        return write_bytes(path, buffer.getvalue())
