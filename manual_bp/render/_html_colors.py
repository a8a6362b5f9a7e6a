"""The colours of heatmaps: numbers to shades of two scales that every kind of colour vision tells apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from manual_bp.render import _png
from manual_bp.report import Plane

Color = tuple[int, int, int]

#: Values: blue below zero, near white at zero, orange above; told apart with every kind of colour vision.
_VALUE_STOPS = ["0b4a83", "2f7fbd", "8fc1e3", "f5f3ef", "f3bd85", "dd7f22", "93400a"]
#: Error / allowed: quiet up to the bound, then orange to dark red, by powers of ten.
_INSIDE_STOPS = ["eef1f2", "b9c6cd"]
_OUTSIDE_STOPS = ["f6b26b", "d95f0e", "7a1f02"]
#: NaN and infinities: a colour of neither scale.
_SPECIAL: Color = (64, 20, 92)

#: Values take an odd number of shades, so that zero has one of its own.
_SHADES = 33
_NOT_FINITE = _SHADES
_INSIDE = 12


def images(plane: Plane, scale: float, most: float) -> tuple[str, ...]:
    """Candidate, reference and difference on one scale up to ``scale``, and error / allowed up to ``most``."""
    sides = (plane.candidate, plane.reference, difference(plane))
    values = [[_shade(value, scale) for value in side] for side in sides]
    drawn = [_png.png(plane.rows, plane.cols, cells, _value_palette()) for cells in values]
    used = [_used_shade(value, most) for value in plane.used]
    drawn.append(_png.png(plane.rows, plane.cols, used, _used_palette()))
    return tuple(map(_png.data_uri, drawn))


def difference(plane: Plane) -> tuple[float, ...]:
    """Candidate - reference, cell by cell."""
    return tuple(c - r for c, r in zip(plane.candidate, plane.reference, strict=True))


def legend_values() -> str:
    """The value scale, as an image one pixel high."""
    return _png.data_uri(_png.png(1, _SHADES, range(_SHADES), _value_palette()))


def legend_used() -> str:
    """The scale of error / allowed; its first 12 of 33 shades are inside the bound."""
    return _png.data_uri(_png.png(1, _SHADES, range(_SHADES), _used_palette()))


def _shade(value: float, scale: float) -> int:
    """The shade of a value on a scale from ``-scale`` to ``scale``; only zero itself gets the middle one."""
    if not math.isfinite(value):
        return _NOT_FINITE
    middle = _SHADES // 2
    if value == 0 or scale == 0:
        return middle
    away = max(1, min(middle, round(abs(value) / scale * middle)))
    return middle + away if value > 0 else middle - away


def _used_shade(used: float, most: float) -> int:
    if math.isnan(used):
        return _NOT_FINITE
    if used <= 1:
        return min(round(used * (_INSIDE - 1)), _INSIDE - 1)
    if math.isinf(used) or most <= 1:
        return _SHADES - 1
    share = math.log10(used) / math.log10(most) if most > 1 else 1.0
    return min(_INSIDE + round(share * (_SHADES - 1 - _INSIDE)), _SHADES - 1)


@cache
def _value_palette() -> tuple[Color, ...]:
    return (*_ramp(_VALUE_STOPS, _SHADES), _SPECIAL)


@cache
def _used_palette() -> tuple[Color, ...]:
    return (*_ramp(_INSIDE_STOPS, _INSIDE), *_ramp(_OUTSIDE_STOPS, _SHADES - _INSIDE), _SPECIAL)


def _ramp(stops: Sequence[str], count: int) -> list[Color]:
    """``count`` colours from the first stop to the last, straight between neighbours."""
    points = [tuple(bytes.fromhex(stop)) for stop in stops]
    ramp: list[Color] = []
    for step in range(count):
        place, share = divmod(step * (len(points) - 1) / (count - 1), 1)
        low, high = points[int(place)], points[min(int(place) + 1, len(points) - 1)]
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
        ramp.append((red, green, blue))
    return ramp
