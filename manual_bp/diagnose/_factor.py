"""Constant factors: found by division, then named by what they could be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from manual_bp.trace import GRAD

from ._axes import axes_words
from ._case import RIGHT, SHARE, Case
from ._edit import Edit
from ._evaluate import MISFIT, ROUNDOFF
from ._node import Node, add, const, exchange, fn, inverse_count, leaves, mul, node, operand, scaled, walk
from ._ops import rounded
from ._setting import Setting

#: A factor that is fitted to the numbers needs so many elements to be believed.
ENOUGH = 4

#: What a pooling window's mean is divided by.
WINDOW = "the number of elements of a window"
#: And what it is mistaken for, once in a while: as a factor, a plain number of that size is likelier.
SIDE = "the length of a side of a window"


def factor_edits(s: Setting, wrong: Sequence[Case]) -> Iterator[Edit]:
    """The right result times a factor: a count or its inverse, a plain number, or what fits."""
    ratios = [_ratio(case, s.root) for case in wrong]
    if any(r is None for r in ratios):
        return
    known = [r for r in ratios if r is not None]
    named = False
    for name, identifier, cost, factor in _factors(s):
        try:
            values = [float(case.evaluator.value(factor)) for case in wrong]
        except MISFIT:
            continue
        if all(abs(v - r) <= tolerance * abs(r) for v, (r, tolerance, _) in zip(values, known, strict=True)):
            named = True
            tree, sized = mul(s.root, factor), factor.op != "const"
            yield Edit(identifier=identifier, name=f"{s.quantity} {name}", tree=tree, cost=cost, sized=sized)
    first = known[0][0]
    elements = sum(n for _, _, n in known)
    if named or elements < ENOUGH or any(abs(r - first) > (t + known[0][1]) * abs(first) for r, t, _ in known):
        return
    best = min(known, key=lambda k: k[1])[0]
    if abs(best - 1) < 1e-3:
        name = f"{s.quantity} is off by a relative {best - 1:.3g} everywhere"
        yield Edit(identifier="perturbed", name=name, tree=scaled(s.root, best), cost=4.0, fitted=True)
    else:
        name = f"{s.quantity} is {best:.6g} times the right one (a factor fitted to the numbers)"
        yield Edit(identifier="constant-factor", name=name, tree=scaled(s.root, best), cost=4.0, fitted=True)


def fitted_terms(s: Setting, wrong: Sequence[Case]) -> Iterator[Edit]:
    """The right result plus a number times another quantity, or with the parameters after a step of descent."""
    weights = [n for name, n in leaves(s.root).items() if s.shapes.get(name + GRAD) and name + GRAD != s.quantity]
    for w in weights:
        g = operand(w.options["name"] + GRAD)
        c = _share(wrong, s.root, exchange(s.root, w, g))
        if c is not None:
            tree = exchange(s.root, w, add(w, scaled(g, c)))
            name = f"{w.says} is that of after the update (a step of {-c:.6g} times its gradient)"
            yield Edit(identifier="operand-updated-early", name=name, tree=tree, cost=3.0, fitted=True)
    c = _share(wrong, s.root, node("fill", s.root, value=1.0))
    if c is not None:
        identifier, text = off_by(s, f"{abs(c):.6g} in each element", math.copysign(1.0, c))
        tree = add(s.root, node("fill", s.root, value=c))
        yield Edit(identifier=identifier, name=text, tree=tree, cost=3.1, fitted=True)
    for name, shape in s.shapes.items():
        if shape == s.target and name != s.quantity and not name.startswith(("right:", "before:")) and s.earlier(name):
            c = _share(wrong, s.root, operand(name))
            if c is not None:
                identifier, text = off_by(s, name, c)
                yield Edit(
                    identifier=identifier,
                    name=text,
                    tree=add(s.root, scaled(operand(name), c)),
                    cost=3.2,
                    fitted=True,
                )


def off_by(s: Setting, name: str, by: float) -> tuple[str, str]:
    """Identifier and words of a term that makes the difference.

    Only a formula that is known says whether it was added, or whether its opposite, which belongs there, is missing.
    """
    term = name if abs(by) == 1 else f"{abs(by):.6g} times {name}"
    if s.known_formula:
        return "term-extra", f"{term} is {'added to' if by > 0 else 'subtracted from'} {s.quantity}"
    if by > 0:
        return "term-off", f"{term} is added to {s.quantity}, or has to be subtracted and is not"
    return "term-off", f"{term} is missing from {s.quantity}, or subtracted without need"


def _share(wrong: Sequence[Case], root: Node, extra: Node) -> float | None:
    """The one number c with reported = right + c · extra on every probe; None if there is none."""
    found: list[tuple[float, float]] = []  # how far it may be off through rounding, and the number
    elements = 0
    for case in wrong:
        try:
            right, other = case.evaluator.value(root), case.evaluator.value(extra)
            doubt = 4 * case.evaluator.error(root, case.dtype) + ROUNDOFF[case.dtype] * np.abs(case.claimed)
        except MISFIT:
            return None
        if right.shape != case.claimed.shape or other.shape != right.shape:
            return None
        flat, difference = other.reshape(-1), (case.claimed - right).reshape(-1)
        size = float(flat @ flat)
        if not size or not np.isfinite(size) or not np.isfinite(difference).all():
            return None
        away = float(np.linalg.norm(np.broadcast_to(doubt, right.shape))) / math.sqrt(size)
        found.append((away if np.isfinite(away) else math.inf, float(difference @ flat) / size))
        elements += int(np.count_nonzero(flat))
    off, best = min(found)
    same = all(abs(c - best) <= 1e-4 * abs(best) + away + off for away, c in found)
    if not same or elements < ENOUGH or not best or off > 1e-3 * abs(best):
        return None
    plain = float(f"{best:.4g}")  # the round number that was meant, if it is one
    return plain if abs(plain - best) <= max(1e-6 * abs(best), off) else best


def _ratio(case: Case, root: Node) -> tuple[float, float, int] | None:
    """The one factor between right and reported, its relative uncertainty, and how many elements say so."""
    right, got = case.evaluator.value(root), case.claimed
    if right.shape != got.shape:
        return None
    use = (right != 0) & np.isfinite(right) & np.isfinite(got)
    if case.excused is not None:
        use &= ~case.excused
    if not use.any() or not np.isfinite(got).all():
        return None
    bound = case.evaluator.error(root, case.dtype)
    bound = 4 * bound + (case.allowed if case.allowed.shape == right.shape else 0.0)
    doubt = (np.broadcast_to(bound, right.shape)[use] + ROUNDOFF[case.dtype] * np.abs(right[use])) / np.abs(right[use])
    doubt = np.where(np.isfinite(doubt), doubt, np.inf)
    at = int(np.argmin(doubt))
    factor = float(got[use][at] / right[use][at])
    if factor == 0 or not math.isfinite(factor) or not np.isfinite(doubt[at]):
        return None
    slack = np.broadcast_to(bound, right.shape) + ROUNDOFF[case.dtype] * np.abs(right)
    off = np.abs(got - factor * right) > 2 * (abs(factor) + 1) * slack
    if case.excused is not None:
        off &= ~case.excused
    if (off & np.isfinite(right)).any():
        return None
    return factor, 4 * float(doubt[at]) + 1e-15, int(use.sum())


def _factors(s: Setting) -> Iterator[tuple[str, str, float, Node]]:
    """Words, identifier, cost and formula of each factor that has a name."""
    for value, words in (
        (-1.0, "has the wrong sign"), (2.0, "is twice as large"), (0.5, "is half as large"),
        (3.0, "is three times as large"), (4.0, "is four times as large"), (0.25, "is a quarter"),
        (-2.0, "is twice as large with the wrong sign"),
        (-0.5, "is half as large with the wrong sign"), (10.0, "is ten times as large"), (0.1, "is a tenth"),
        (math.log(2), "is ln 2 times as large (logarithm to another base)"),
        (1 / math.log(2), "is 1/ln 2 times as large (logarithm to another base)"),
        (1 / math.log(10), "is 1/ln 10 times as large (logarithm to another base)"), (math.pi, "is π times as large"),
        (math.sqrt(2), "is √2 times as large"), (math.sqrt(0.5), "is 1/√2 times as large"),
    ):  # fmt: skip  # a table
        base = "logarithm" in words
        identifier = "sign-flipped" if value == -1 else "log-base" if base else "constant-factor"
        yield words, identifier, 0.9 if value == -1 else 1.2, const(value)
    for words, count in _counts(s):
        cost = 1.1 if words.startswith(("the number of examples", "the number of all")) else 1.3
        cost = {WINDOW: 0.6, SIDE: 2.0}.get(words, cost)
        yield f"is divided by {words}: a mean where a sum is due", "mean-for-sum", cost, count
        more = fn("reciprocal", count)
        yield f"is multiplied by {words}: a sum where a mean is due", "sum-for-mean", cost, more
        both = "and has the wrong sign besides"
        yield f"is divided by {words}, {both}", "mean-for-sum", cost + 1.0, mul(const(-1.0), count)
        yield f"is multiplied by {words}, {both}", "sum-for-mean", cost + 1.0, mul(const(-1.0), more)
        yield f"is divided by the root of {words}", "wrong-count", 2.0, fn("sqrt", count)
        yield f"is divided by the square of {words}", "mean-for-sum", 2.0, fn("square", count)
    yield from _roots(s)


def _roots(s: Setting) -> Iterator[tuple[str, str, float, Node]]:
    """√d, d the length of the last axis of what a step reads: what scores of an attention are divided by."""
    if s.known_formula:
        return  # none of the layers that are known here divides by it
    for name, leaf in _operands(s).items():
        shape = s.shapes[name]
        if len(shape) > 1 and shape[-1] > 1:
            root = fn("sqrt", inverse_count(leaf, (len(shape) - 1,), "1/d"), "1/√d")
            words = f"is multiplied by the root of the length of {name}'s last axis: the division by it is missing"
            yield words, "scale-missing", 1.2, fn("reciprocal", root)


def _operands(s: Setting) -> dict[str, Node]:
    """What the formula reads; where there is none, what the steps read and give that make the quantity."""
    found = {name: leaf for name, leaf in leaves(s.root).items() if not name.startswith((RIGHT, SHARE))}
    if found:
        return found
    makers = [s.graph.step(m) for m in s.graph.makers(s.quantity)]
    names = [n for m in makers if m is not None for n in (m.name, *m.inputs)]
    base = s.quantity.removesuffix(GRAD)
    names += s.graph.loss_reads if base == s.graph.loss_name else [base] if base in s.graph.loss_reads else []
    return {n: operand(n) for n in dict.fromkeys(names) if n in s.shapes}


def _counts(s: Setting) -> Iterator[tuple[str, Node]]:
    """1 / count, for every count that the shapes of the operands offer."""
    yield from _windows(s)
    seen: set[tuple[str, tuple[int, ...]]] = set()
    found = _operands(s)
    order = sorted(found.items(), key=lambda item: item[1].options["name"] not in s.graph.makers(s.quantity))
    for name, leaf in order:
        shape = s.shapes.get(name)
        if shape is None:
            continue
        kind, ndim = s.kind_of(name), len(shape)
        for k in range(1, ndim + 1):
            for axes in itertools.combinations(range(ndim), k):
                size = math.prod(shape[a] for a in axes)
                over = axes_words(kind, ndim, axes)
                words = "the number of examples" if over == "examples" else f"the number of {over} of {name}"
                if k == ndim and (ndim > 1 or over != "examples"):
                    words = f"the number of all elements of {name}"
                if size > 1 and (words, axes) not in seen:
                    seen.add((words, axes))
                    yield words, inverse_count(leaf, axes, "1/n")


def _windows(s: Setting) -> Iterator[tuple[str, Node]]:
    """1 / the elements of a pooling window, or of its sides."""
    for _, part in walk(s.root):
        if part.op in ("maximum", "maximum_dx", "average", "average_dx"):
            kernel = part.options["window"].kernel
            yield WINDOW, fn("reciprocal", const(float(math.prod(kernel))))
            if len(kernel) > 1:
                yield SIDE, fn("reciprocal", const(float(kernel[-1])))
            return


def precision_edits(s: Setting, wrong: Sequence[Case]) -> Iterator[Edit]:
    """A result whose numbers all are those of a lower precision, as far off as that precision explains."""
    for to in ("float16", "bfloat16", "float32"):
        if to == s.dtype or not all(_representable(case, to) for case in wrong):
            continue
        tree = node("computed_in", s.root, to=to)
        yield Edit(
            identifier="precision-lowered", name=f"{s.quantity} is computed in {to}", tree=tree, cost=1.6, precision=to
        )


def _representable(case: Case, to: str) -> bool:
    got = case.claimed
    if not np.isfinite(got).all() or got.shape != case.right.shape:
        return False
    with np.errstate(all="ignore"):
        right = np.asarray(case.right, np.float64)
        telling = (right != 0) & (rounded(right, to=to) != right)
        return bool((rounded(got, to=to) == got).all()) and int(telling.sum()) >= min(ENOUGH, right.size)
