"""Heatmaps: the planes of a quantity as four small images, and their numbers for whoever points at a cell."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from manual_bp.render import _html_colors, _text
from manual_bp.render._say import comparison
from manual_bp.report import Check, Picture, Plane

#: The largest side of an image on the screen, and the smallest, in pixels.
_LARGEST, _SMALLEST, _CELL = 184, 26, 36

#: Bytes that all pictures of one page may take. What is left out is said, and stands in the JSON.
BUDGET = 450_000

#: Planes of a quantity that is not right which are drawn before any of those that are.
SOON = 4

TITLES = ("candidate", "reference", "difference", "error / allowed")


@dataclass(frozen=True, kw_only=True)
class MapView:
    """One image, and what it shows."""

    title: str
    what: str
    src: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class MapsView:
    """What the template draws of one quantity: the first plane's images, and the choice among the others.

    ``worst_row`` and ``worst_col`` are in cells, ``width`` and ``height`` in pixels; ``low``, ``high`` and ``most`` are
    the ends of the scales.
    """

    id: str
    maps: tuple[MapView, ...]
    rows: int
    cols: int
    width: int
    height: int
    worst_row: int
    worst_col: int
    planes: tuple[str, ...]
    note: str
    readout: tuple[tuple[str, str], ...]
    low: str
    high: str
    most: str
    special: bool


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A view and the numbers behind it, a JSON text."""

    view: MapsView
    numbers: str


def draw(checks: Sequence[tuple[str, Check]]) -> dict[str, Drawn]:
    """The pictures of quantities, by their identifier; the first in ``checks`` matter most.

    What is not right gets its worst planes first, then every quantity its worst one, then all the others, until
    :data:`BUDGET` is spent.
    """
    wanted = [
        (check.status == "pass" or turn >= SOON, turn, place, key, plane)
        for place, (key, check) in enumerate(checks)
        for turn, plane in enumerate(check.picture.planes if check.picture else ())
        if _is_whole(plane)
    ]
    left = BUDGET
    chosen: dict[str, list[Plane]] = {}
    for *_, key, plane in sorted(wanted, key=lambda entry: entry[:3]):
        left -= _cost(plane)
        if left < 0:
            break
        chosen.setdefault(key, []).append(plane)
    return {
        key: _draw(key, check, check.picture, tuple(chosen[key]))
        for key, check in checks
        if check.picture and key in chosen
    }


# ------------------------------------------------------------------------------------ one quantity


def _draw(key: str, check: Check, picture: Picture, planes: tuple[Plane, ...]) -> Drawn:
    scale = _largest(
        v for plane in planes for v in (*plane.candidate, *plane.reference, *_html_colors.difference(plane))
    )
    most = _largest(value for plane in planes for value in plane.used)
    first = planes[0]
    images = _html_colors.images(first, scale, most)
    width, height = _size(first)
    told = comparison(check)
    marked = told.worst_index if told else None
    at = _worst(first, marked)
    view = MapsView(
        id=key,
        maps=tuple(
            MapView(title=title, what=what, src=src, alt=f"{title} of {check.name}, {first.label or 'the whole of it'}")
            for title, what, src in zip(TITLES, _whats(picture), images, strict=True)
        ),
        rows=first.rows,
        cols=first.cols,
        width=width,
        height=height,
        worst_row=at // first.cols,
        worst_col=at % first.cols,
        planes=tuple(_title(plane) for plane in planes),
        note=_note(picture, planes),
        readout=_readout(first, at, check.shape),
        low=_text.value(-scale, 3) if scale else "−",
        high=_text.value(scale, 3) if scale else "+",
        most=_text.used(most) if most > 1 else "",
        special=any(not math.isfinite(v) for plane in planes for v in (*plane.candidate, *plane.reference)),
    )
    others = (_html_colors.images(plane, scale, most) for plane in planes[1:])
    payload = [_payload(plane, check.shape, drawn, marked) for plane, drawn in zip(planes, ((), *others), strict=True)]
    return Drawn(view=view, numbers=json.dumps(payload, separators=(",", ":"), allow_nan=False))


def _whats(picture: Picture) -> tuple[str, str, str, str]:
    ours = "what the hand-written pass gave"
    theirs = "what this step should have given" if picture.against == "isolated" else "what torch's own pass gave"
    return ours, theirs, "candidate − reference", "how far beyond rounding"


def _note(picture: Picture, planes: Sequence[Plane]) -> str:
    parts = []
    if picture.planes_total > len(planes):
        parts.append(f"{len(planes)} of {picture.planes_total} planes, the worst first")
    height, width = planes[0].block
    if (height, width) != (1, 1):
        parts.append(f"a cell is the worst of {height} × {width} elements")
    if picture.against == "end_to_end":
        parts.append("compared over the whole pass")
    return "; ".join(parts)


def _title(plane: Plane) -> str:
    return plane.label or (f"plane {_text.index(plane.index)}" if plane.index else "all elements")


def _readout(plane: Plane, cell: int, shape: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    """The worst cell in words, as the page shows it before anybody points anywhere."""
    candidate, reference = plane.candidate[cell], plane.reference[cell]
    texts = _text.pair(candidate, reference)
    where = _element(plane, cell, shape)
    # pictures hold nine digits, the verdict does not depend on them
    gone = candidate == reference and plane.used[cell] > 0
    difference = "≈ 0" if gone else _text.error(candidate - reference)
    values = (where, *texts, difference, _text.used(plane.used[cell]))
    return tuple(zip(("index", *TITLES), values, strict=True))


def _element(plane: Plane, cell: int, shape: tuple[int, ...]) -> str:
    """``[0, 2, 3, 4]``, or ``[0, 2, 4:6, 8:10]`` for a pooled cell."""
    sizes = _sizes(plane, shape)
    spans = zip(divmod(cell, plane.cols), plane.block, (0, 0, *sizes)[-2:], strict=True)
    parts = [*map(str, plane.index), *[_span(at * block, block, size) for at, block, size in spans][2 - len(sizes) :]]
    return f"[{', '.join(parts)}]" if parts else "the only element"


def _span(start: int, block: int, size: int) -> str:
    end = min(start + block, size)
    return str(start) if end - start <= 1 else f"{start}:{end}"


def _sizes(plane: Plane, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the axes that lie in the plane: two, or one of a vector, or none of a single number."""
    return shape[len(plane.index) :][-2:]


def _payload(
    plane: Plane, shape: tuple[int, ...], images: Sequence[str], marked: tuple[int, ...] | None
) -> dict[str, Any]:
    """Numbers of one plane; what is the same as the candidate, or zero throughout, is left out."""
    candidate = [_short(value, 7) for value in plane.candidate]
    reference = [_short(value, 7) for value in plane.reference]
    difference = [_short(value, 3) for value in _html_colors.difference(plane)]
    width, height = _size(plane)
    found: dict[str, Any] = {
        "index": list(plane.index), "block": list(plane.block), "sizes": list(_sizes(plane, shape)),
        "rows": plane.rows, "cols": plane.cols, "width": width, "height": height, "worst": _worst(plane, marked),
        "candidate": candidate, "used": [_short(value, 3) for value in plane.used],
    }  # fmt: skip  # a record
    if reference != candidate:
        found["reference"] = reference
    if any(difference):
        found["difference"] = difference
    if images:
        found["src"] = list(images)
    return found


def _short(value: float, digits: int) -> float | str:
    if not math.isfinite(value):
        return _text.value(value)
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded


def _cost(plane: Plane) -> int:
    """About how many bytes a plane takes in the page: four images and, unless it is all zeros, 24 a cell."""
    cells = plane.rows * plane.cols
    zeros = sum(value == 0 for value in plane.candidate)
    return 1400 + 6 * cells + 24 * cells - 16 * zeros


# ------------------------------------------------------------------------------------ small questions


def _largest(values: Iterable[float]) -> float:
    return max((abs(value) for value in values if math.isfinite(value)), default=0.0)


def _worst(plane: Plane, marked: tuple[int, ...] | None) -> int:
    """The worst cell; of several that are equally bad to three digits the one that holds the element told of."""
    used = [math.inf if math.isnan(share) else share for share in plane.used]
    worst = max(used)
    if marked is not None and marked[: len(plane.index)] == plane.index:
        row, col = (0, 0, *marked[len(plane.index) :])[-2:]
        cell = row // plane.block[0] * plane.cols + col // plane.block[1]
        if 0 <= cell < len(used) and used[cell] >= 0.99 * worst:
            return cell
    return used.index(worst)


def _is_whole(plane: Plane) -> bool:
    """Whether a plane holds the numbers it promises; a record may have been edited by hand."""
    cells = plane.rows * plane.cols
    sides = (plane.candidate, plane.reference, plane.used)
    return 0 < cells <= 4096 and plane.rows > 0 and all(len(side) == cells for side in sides)


def _size(plane: Plane) -> tuple[int, int]:
    """Width and height on the screen: square cells, except that a single row or column stays visible."""
    cell = min(_LARGEST / max(plane.rows, plane.cols), _CELL)
    return max(round(plane.cols * cell), _SMALLEST), max(round(plane.rows * cell), _SMALLEST)


def for_the_top(view: MapsView) -> MapsView:
    """The same view with the first three images alone, under words that need no explanation."""
    titles = ("hand-written", "should be", "difference")
    maps = tuple(replace(image, title=title, what="") for image, title in zip(view.maps, titles, strict=False))
    return replace(view, maps=maps)
