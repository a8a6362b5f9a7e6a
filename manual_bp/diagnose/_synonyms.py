"""Which explanations are one and the same mistake in other words.

Two edited formulas that agree on numbers drawn at random are the same function, whatever they are called; the plainest
name is kept. Two that differ there, but not on the probes, are really two: the probes cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from manual_bp.network import TARGET
from manual_bp.nn._layer import Array
from manual_bp.trace import GRAD, NEW

from ._case import BEFORE, RIGHT, SHARE, Case
from ._evaluate import MISFIT, Evaluator
from ._node import Node
from ._search import Found
from ._setting import Setting

#: What is drawn, and how the draw is described.
DRAWS = ("random numbers", "larger random numbers")


def merge(found: Sequence[Found], s: Setting, case: Case) -> list[Found]:
    """One explanation for each different mistake, the plainest first."""
    order = sorted(found, key=lambda f: (f.edit.cost, len(f.edit.name)))
    if len(order) < 2:
        return list(order)
    worlds = [_world(s, case, draw) for draw in range(len(DRAWS))]
    kept: list[tuple[Found, list[Array | None]]] = []
    for one in order:
        values = [_value(world, one.edit.tree) for world in worlds]
        # a number and a count of the same value are two explanations, whatever the draws say: the sizes are the probes'
        if not any(_same(values, known) for other, known in kept if not _by_accident(one, other)):
            kept.append((one, values))
    return [one for one, _ in kept]


def _by_accident(one: Found, other: Found) -> bool:
    """Whether two factors have the same value only because of the sizes: a number, examples, or other elements."""
    kinds = {_kind(one), _kind(other)}
    return (one.edit.sized or other.edit.sized) and len(kinds) > 1 and "" not in kinds


def _kind(found: Found) -> str:
    if found.edit.identifier == "constant-factor":
        return "number"
    if not found.edit.sized:
        return ""
    return "examples" if "example" in found.edit.name else "others"


def _same(a: list[Array | None], b: list[Array | None]) -> bool:
    return all(_equal(x, y) for x, y in zip(a, b, strict=True))


def _equal(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is None and b is None
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        scale = float(np.max(np.where(np.isfinite(b), np.abs(b), 0.0), initial=0.0))
        same = (np.abs(a - b) <= 1e-9 * scale) | (a == b) | (np.isnan(a) & np.isnan(b))
        # another form of the same function may overflow where this one does not
        told = np.isfinite(a) & np.isfinite(b)
        if told.any() and 4 * told.sum() >= told.size:
            same = same[told]
    return bool(same.all())


def _value(world: Evaluator, tree: Node) -> Array | None:
    try:
        with np.errstate(all="ignore"):
            return world.value(tree)
    except MISFIT:
        return None


def _world(s: Setting, case: Case, draw: int) -> Evaluator:
    """Operands drawn at random, of the shapes of a probe; outputs of steps follow from their inputs."""
    rng = np.random.default_rng([7, draw])
    known: dict[str, Array] = {}
    parameters = s.graph.parameters()

    def drawn(like: Array, name: str) -> Array:
        if like.dtype.kind != "f":
            return like
        numbers = rng.standard_normal(like.shape) * (1 + 2 * draw)
        if name.endswith(("running_var", ".mask")):
            return np.asarray(np.abs(numbers) + 0.5 if "var" in name else (numbers > 0).astype(np.float64))
        return np.asarray(numbers)

    def look(name: str) -> Array:
        if name not in known:
            known[name] = make(name)
        return known[name]

    def make(name: str) -> Array:
        if name == TARGET:
            return case.look(name)  # labels and probabilities keep their range
        if name == RIGHT + s.quantity:
            return drawn(np.asarray(case.right, np.float64), name)
        like = case.look(name)
        if name.startswith(SHARE):  # what a reader passes on unchanged, or subtracts, is the same by both its names
            for other, array in case.values.items():
                for sign in (1.0, -1.0) if other.endswith(GRAD) else ():
                    if np.array_equal(like, sign * array):
                        return sign * look(other)
            return drawn(like, name)
        own = name.removeprefix(BEFORE)
        if own == name and not name.endswith((GRAD, NEW)) and name not in parameters:
            tree = s.graph.formula(name, s.shapes)
            if tree is not None:
                try:
                    return evaluator.value(tree)
                except MISFIT:
                    pass
        return drawn(like, name)

    evaluator = Evaluator(look)
    return evaluator
