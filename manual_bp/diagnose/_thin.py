"""A few channels of a large case: what most edits are held against first.

Along the channels that a layer does not sum over, its formula holds for each channel by itself. An edit that fits a few
of them is then held against everything; one that mixes channels is missed here and found by the whole search after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.nn._layer import Array
from manual_bp.trace import GRAD

from ._case import Case
from ._formulas_elementwise import forward_of
from ._graph import Graph, Step
from ._node import operand

#: Cases whose operands have fewer elements are searched as they are.
LARGE = 100_000

#: Channels that are kept.
KEPT = 3

#: By operand, and what is kept along which of its axes.
Cuts = dict[str, dict[int, slice]]


def thin(case: Case, graph: Graph) -> Case | None:
    """The case with a few channels; None if it is small, or its layer is none that works channel by channel."""
    makers = graph.makers(case.quantity)
    step = graph.step(makers[0]) if len(makers) == 1 else None
    if step is None or case.reported.shape != case.right.shape or len(step.inputs) != 1:
        return None
    names = {*step.inputs, step.name, step.name + GRAD, *step.params.values(), case.quantity}
    if sum(math.prod(case.values[n].shape) for n in names if n in case.values) < LARGE:
        return None
    cuts = _cuts(case, step)
    own = cuts.pop(case.quantity, None) if cuts else None
    if not cuts or own is None:
        return None
    values = {**case.values, **{n: _cut(case.values[n], cut) for n, cut in cuts.items() if n in case.values}}
    before = {**case.before, **{n: _cut(a, cuts[n]) for n, a in case.before.items() if n in cuts}}
    return replace(
        case,
        values=values,
        reported=_cut(case.reported, own),
        right=_cut(case.right, own),
        allowed=_cut(case.allowed, own),
        excused=None if case.excused is None else _cut(case.excused, own),
        before=before,
    )


def _cut(a: Array, cut: Mapping[int, slice]) -> Array:
    return a[tuple(cut.get(axis, slice(None)) for axis in range(a.ndim))]


def _cuts(case: Case, step: Step) -> Cuts:
    """What may be cut, by the kind of layer and of quantity."""
    layer, x, y, g = step.layer, step.inputs[0], step.name, step.name + GRAD
    w, b = step.params.get("weight", ""), step.params.get("bias", "")
    base = case.quantity.removesuffix(GRAD)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        if getattr(layer, "groups", 1) != 1:
            return {}
        axis = case.values[x].ndim - 1 if isinstance(layer, nn.Linear) else 1
        if case.quantity == y:
            kept = _telling(case, axis)
            return {y: {axis: kept}, w: {0: kept}, b: {0: kept}}
        if base == x:
            kept = _telling(case, axis)
            return {x + GRAD: {axis: kept}, x: {axis: kept}, w: {1: kept}}
        if base == w:
            out, into = _telling(case, 0), _telling(case, 1)
            return {w + GRAD: {0: out, 1: into}, w: {0: out, 1: into}, x: {axis: into}, g: {axis: out}, y: {axis: out}}
        return {}
    if case.values[x].ndim < 2 or not _by_channel(layer) or base not in (x, y):
        return {}
    kept = _telling(case, 1)
    parameters = {p: {0: kept} for p in step.params.values() if case.values[p].ndim == 1}
    return {**{n: {1: kept} for n in (x, y, g, x + GRAD)}, **parameters}


def _by_channel(layer: Any) -> bool:
    pools = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d | nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
    norms = nn.BatchNorm1d | nn.BatchNorm2d
    return isinstance(layer, pools | norms) or (layer is not None and forward_of(layer, operand("x")) is not None)


def _telling(case: Case, axis: int) -> slice:
    """The channels around the one with the most wrong elements."""
    n = case.bad.shape[axis]
    wrong = case.bad.sum(axis=tuple(i for i in range(case.bad.ndim) if i != axis))
    first = min(max(int(np.argmax(wrong)) - KEPT // 2, 0), max(n - KEPT, 0))
    return slice(first, first + KEPT)
