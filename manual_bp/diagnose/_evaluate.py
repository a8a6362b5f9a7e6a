"""The value of a formula on one probe, and how far a correct computation of it may be off.

Values are computed in float64. The error is a running one: with unit roundoff u of the candidate's precision, every
operation adds its own rounding to what it inherits,

- linear in each argument: Σ_i f(|a_1|, .., e_i, .., |a_k|) + γ_n f(|a_1|, .., |a_k|), n the number of terms;
- element by element: |f(a ± e) - f(a)| + 8 u |f(a)|;
- moves and masks: nothing of their own.

Two correct computations of one formula are each within e of its exact value. So the reported number may be 4 e off:
twice e for two sides, and twice that for another order of the same formula (a division where this one multiplies).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from manual_bp.nn._layer import Array

from ._node import Node
from ._ops import OPS

#: What NumPy raises when an edit does not fit the shapes: such an edit is simply none.
MISFIT = (ValueError, IndexError, TypeError, ZeroDivisionError, KeyError, AttributeError, OverflowError, MemoryError)

TINY = {"float32": float(np.finfo(np.float32).tiny), "float64": float(np.finfo(np.float64).tiny)}
ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}


#: Half the distance of two numbers next to 0.
_LEAST = {"float16": 2.0**-25, "bfloat16": 2.0**-134, "float32": 2.0**-150}


class Evaluator:
    """Evaluates formulas on one probe; what does not depend on the edit is computed once.

    Parameters
    ----------
    look
        From the name of a quantity to its array; raises KeyError if it is not known.
    """

    def __init__(self, look: Callable[[str], Array] | Mapping[str, Array]) -> None:
        self._look = look.__getitem__ if isinstance(look, Mapping) else look
        self._kept: dict[Node, Array] = {}
        self._errors: dict[tuple[float, float], dict[Node, Array]] = {}

    def keep(self, root: Node) -> Array:
        """The value of the right formula; its parts are remembered for the edited ones."""
        return self._value(root, self._kept)

    def value(self, root: Node) -> Array:
        """The value of an edited formula. Raises one of `MISFIT` if the edit does not fit."""
        return self._value(root, {})

    def _value(self, node: Node, memo: dict[Node, Array]) -> Array:
        found = self._kept.get(node)
        if found is None:
            found = memo.get(node)
        if found is None:
            found = memo[node] = self._compute(node, [self._value(a, memo) for a in node.args])
        return found

    def _compute(self, node: Node, args: list[Array]) -> Array:
        if node.op == "operand":
            return np.asarray(self._look(node.options["name"]), np.float64)
        if node.op == "const":
            return np.asarray(node.options["value"], np.float64)
        return np.asarray(OPS[node.op].value(*args, **node.options))

    def error(self, root: Node, dtype: str) -> Array:
        """Bound on the rounding error of one computation of the formula in that precision."""
        return self._error(root, ROUNDOFF[dtype], TINY[dtype], {}, {})

    def _error(self, node: Node, u: float, tiny: float, values: dict[Node, Array], memo: dict[Node, Array]) -> Array:
        if node in self._kept:  # what an edit leaves alone rounds as it did
            memo = self._errors.setdefault((u, tiny), {})
        if node in memo:
            return memo[node]
        if node.op == "computed_in":  # the whole formula in a lower precision
            low = node.options["to"]
            found = 2 * self._error(node.args[0], ROUNDOFF[low], _LEAST[low], values, {})
            memo[node] = found
            return found
        args = [self._value(a, values) for a in node.args]
        errors = [self._error(a, u, tiny, values, memo) for a in node.args]
        y = self._value(node, values)
        memo[node] = found = self._rule(node, args, errors, y, u, tiny)
        return found

    def _rule(self, node: Node, args: list[Array], e: list[Array], y: Array, u: float, tiny: float) -> Array:
        if node.op in ("operand", "const"):
            return np.zeros(y.shape)
        op, options = OPS[node.op], node.options
        if op.kind in ("mask", "move") and not any(np.any(i) for i in e):
            return np.zeros(y.shape)
        if op.kind == "mask":
            return np.zeros(y.shape)
        if op.kind == "move":
            plain = node.op not in ("element", "fill", "round")
            return np.asarray(np.abs(op.value(e[0], **options)) if plain else _spread(e[0], y))
        if op.kind == "where":
            return np.where(args[0] > 0, e[1], e[2])
        if op.kind == "select":
            return np.full(y.shape, float(np.max(e[0], initial=0.0)))
        if op.kind == "softmax":
            size = np.abs(y) if node.op == "softmax" else np.abs(y) + 1
            relative = 2 * np.max(e[0], initial=0.0) + (args[0].shape[options["axis"]] + 12) * u
            return np.asarray(relative * size + tiny)
        if op.kind == "map":
            return _mapped(op.value, options, args, e, y, u, tiny)
        sizes = [np.abs(a) for a in args]
        if node.op == "add":  # linear in all its terms together
            return np.asarray(_gamma(len(args), u) * op.value(*sizes) + op.value(*e) + tiny)
        if options.get("by", 0) < 0:
            options = {**options, "by": -options["by"]}
        # of the backward formulas only the first two arguments enter linearly; masks and winners come from the rest
        linear = len(args) if op.kind == "linear" else _LINEAR.get(node.op, 1)
        total = _gamma(op.terms(*args, **node.options), u) * op.value(*_mixed(sizes, args, linear), **options)
        for i in range(linear):
            if np.any(e[i]):
                changed = [*sizes[:i], e[i], *sizes[i + 1 :]]
                total = total + op.value(*_mixed(changed, args, linear), **options)
        return np.asarray(total + tiny)


#: How many leading arguments enter linearly, where it is not one.
_LINEAR = {"conv_dx": 2, "conv_dw": 2}


def _mixed(sizes: list[Array], args: list[Array], linear: int) -> list[Array]:
    return [*sizes[:linear], *args[linear:]]


def _gamma(n: int, u: float) -> float:
    return n * u / (1 - n * u) if n * u < 0.5 else 1.0


def _spread(e: Array, y: Array) -> Array:
    return np.broadcast_to(np.max(e, initial=0.0), y.shape)


def _mapped(
    f: Callable[..., Array],
    options: Mapping[str, object],
    args: list[Array],
    e: list[Array],
    y: Array,
    u: float,
    tiny: float,
) -> Array:
    found = 8 * u * np.abs(y) + tiny
    for i, error in enumerate(e):
        if not np.any(error):
            continue
        moved = [f(*args[:i], args[i] + s * error, *args[i + 1 :], **options) for s in (1, -1)]
        found = found + np.maximum(*(np.nan_to_num(np.abs(m - y), nan=0.0) for m in moved))
    return np.asarray(found)
