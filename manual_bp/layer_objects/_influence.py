"""Which conventions a layer has whose forward pass agrees with torch's under none: a mistake in it is no other layout.

How well the numbers agree then says little: a forgotten bias leaves as many of them equal, by luck, under a layout that
is not the layer's. But a mistake rarely changes which numbers a number reaches. So one number after the other is
changed, of each parameter and of the input, and the elements of the output that change with it are held against those
that change in torch. That is asked where no good part of the numbers is equal; what it leaves open is decided by the
numbers where they leave no doubt, and else by what is usual, which is tried first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manual_bp.layer_objects._views import View
from manual_bp.trace import Array

#: A forward pass with torch's parameters and torch's input.
Pass = Callable[[Mapping[str, Array], Any], Array]

#: How many numbers of each array are changed.
PLACES = 6
#: How many options are looked at.
OPTIONS = 64
#: What two shares of reached elements must differ by to tell, and two shares of equal elements.
DIFFERENT, PART = 0.1, 0.25
#: So many equal elements are no luck.
FEW = 3
#: The logarithm of how much likelier the numbers must make an option than one that is tried before it.
SURE = 9.0


@dataclass(frozen=True)
class Tried:
    """An option: its own passes, torch's, and for each way to read its output how well that agrees with torch's.

    ``turned`` says that some of its arrays are laid out as nobody lays them out, which only numbers that agree show.
    """

    own: Pass
    reference: Pass
    x: Any
    turned: bool
    views: Sequence[View]
    scores: Sequence[tuple[float, float]]
    elements: int


@dataclass(frozen=True)
class _Reading:
    """A way to read an option's output; ``reached`` is the share of elements that are reached on both sides."""

    option: int
    view: View
    score: tuple[float, float]
    reached: float
    elements: int


def likeliest(tried: Sequence[Tried], params: Mapping[str, Array]) -> tuple[int, View]:
    """Which of the options is the layer's, and how its output is read; the likelier ones come first.

    It is the last, where that agrees.
    """
    agreed, view = max(zip(tried[-1].scores, tried[-1].views, strict=True), key=lambda pair: pair[0])
    if agreed[0] == 1.0:
        return len(tried) - 1, view
    fitting = [k for k, t in enumerate(tried) if not t.turned and max(t.scores)[0] >= 0]  # of the right shape
    most = max((max(tried[k].scores)[0] for k in fitting), default=0.0)
    if fitting and most >= PART and most * tried[fitting[0]].elements >= FEW:
        fitting = [k for k in fitting if max(tried[k].scores)[0] > most - PART]
    readings = [
        _Reading(k, view, score, reached, tried[k].elements)
        for k in fitting[:OPTIONS]
        for view, score, reached in zip(tried[k].views, tried[k].scores, _reach(tried[k], params), strict=True)
        if score[0] >= 0 and not view.turned
    ]
    if not readings:
        return 0, tried[0].views[0]
    top = max(r.reached for r in readings)
    near = [r for r in readings if r.reached >= top - DIFFERENT]
    best = near[0]
    for reading in near[1:]:
        if _beyond_doubt(reading, best, len(near)):
            best = reading
    return best.option, best.view


def _beyond_doubt(new: _Reading, old: _Reading, options: int) -> bool:
    """Whether the numbers speak for the one that comes later: many more of them equal, or a far better correlation."""
    if abs(new.score[0] - old.score[0]) >= PART:
        return new.score[0] > old.score[0]
    left, before = (max(1e-12, 1 - min(1.0, r.score[1] ** 2)) for r in (new, old))  # of the variance, of either sign
    return new.elements * math.log(before / left) > 2 * math.log(options) + SURE


def _reach(tried: Tried, params: Mapping[str, Array]) -> list[float]:
    """By reading: of the elements that change on either side those that do on both, as a share, over all places."""
    rng = np.random.default_rng(0)
    shares: list[list[float]] = []
    try:
        start = tried.reference(params, tried.x), tried.own(params, tried.x)
        for changed, x in _changes(rng, params, tried.x):
            wanted = _differ(tried.reference(changed, x), start[0])
            reached = _differ(tried.own(changed, x), start[1])
            if wanted.any():
                shares.append([_common(wanted, view.to_torch(reached)) for view in tried.views])
    except Exception:  # noqa: BLE001  # what it cannot be run with does not speak for it
        shares = []
    return [sum(of) / len(of) for of in zip(*shares, strict=True)] if shares else [0.0] * len(tried.views)


def _common(a: Array, b: Array) -> float:
    return float((a & b).sum() / (a | b).sum()) if a.shape == b.shape else 0.0


def _changes(rng: np.random.Generator, params: Mapping[str, Array], x: Any) -> Any:
    """(parameters, input) with one number changed, again and again."""
    for name, array in params.items():
        for at in _places(rng, array):
            yield {**params, name: _moved(array, at)}, x
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        for at in _places(rng, x):
            yield params, _moved(x, at)


def _places(rng: np.random.Generator, array: Array) -> list[int]:
    return [int(at) for at in rng.permutation(array.size)[:PLACES]] if array.size > 1 else []


def _moved(array: Array, at: int) -> Array:
    new = np.array(array)
    new.reshape(-1)[at] = 1.5 * new.reshape(-1)[at] + 0.7
    return new


def _differ(a: Array, b: Array) -> Array:
    """Elements of the output that are not the same in both; what is off by rounding alone is."""
    size = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return ~np.isclose(a, b, rtol=1e-9, atol=1e-9 * size, equal_nan=True)
