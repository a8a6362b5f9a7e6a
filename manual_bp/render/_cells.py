"""The picture of a plane in characters, two a cell, so that a cell is about as wide as high."""

from __future__ import annotations

import math

from manual_bp.render import _text
from manual_bp.report import Picture, Plane

#: A cell beyond the bound, by its error relative to the plane's largest.
LEGEND = "· within the bound   ▒ off   ▓ over 10 %   █ over 50 % of the largest error"

WITHIN, NOT_FINITE = "· ", "!!"


def title(plane: Plane, found: Picture) -> str:
    """``where: batch 1, channel 0 (the worst of 2 planes); a cell is the worst of 2×2 elements``."""
    place = plane.label or (f"plane {_text.index(plane.index)}" if plane.index else "the whole array")
    others = f" (the worst of {found.planes_total} planes)" if found.planes_total > 1 else ""
    height, width = plane.block
    pooled = f"; a cell is the worst of {height}×{width} elements" if (height, width) != (1, 1) else ""
    return f"where: {place}{others}{pooled}{'; whole pass' if found.against == 'end_to_end' else ''}"


def blocks(plane: Plane) -> list[list[str]]:
    """The cells, row by row."""
    sizes = [abs(c - r) for c, r in zip(plane.candidate, plane.reference, strict=True)]
    largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
    cells = [_block(share, size, largest) for share, size in zip(plane.used, sizes, strict=True)]
    return [cells[i * plane.cols : (i + 1) * plane.cols] for i in range(plane.rows)]


def _block(share: float, size: float, largest: float) -> str:
    if share <= 1:
        return WITHIN
    if not math.isfinite(size):
        return NOT_FINITE
    return ("█" if size >= largest / 2 else "▓" if size >= largest / 10 else "▒") * 2
