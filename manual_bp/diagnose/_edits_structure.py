"""Edits between neighbouring operations: exchanged in order, a factor that belongs elsewhere, a step made twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ._axes import Kind, axes_words
from ._node import (
    Node,
    add,
    const,
    exchange,
    fn,
    inverse_count,
    mul,
    node,
    one_minus,
    put,
    scaled,
    total,
    walk,
)

#: identifier, name, cost, node
PartEdit = tuple[str, str, float, Node]
Shapes = Callable[[Node], tuple[int, ...]]
Axes = tuple[int, ...]


def commuted(part: Node, shapes: Shapes, kind: Kind) -> Iterator[PartEdit]:
    """Two operations in the other order: the square of a sum for a sum of squares, ε inside a root for outside."""
    if part.op == "fn":
        name, (a,) = part.options["name"], part.args
        if a.op == "add" and name in ("sqrt", "square", "abs", "exp", "log", "reciprocal"):
            for i, term in enumerate(a.args):
                others = a.args[:i] + a.args[i + 1 :]
                identifier = "epsilon-outside" if any(t.says == "ε" for t in others) else "operations-exchanged"
                yield (
                    identifier,
                    f"{_called(part)}: only {_called(term)} is put through {name}, the rest is added afterwards",
                    1.3,
                    add(fn(name, term), *others),
                )
        if a.op == "fn" and a.options["name"] == "sqrt" and name == "reciprocal" and a.args[0].op == "add":
            terms = a.args[0].args
            if len(terms) == 2:
                yield (
                    "epsilon-outside",
                    f"{_called(part)}: {_called(terms[1])} stands outside of the root",
                    1.2,
                    fn("reciprocal", add(fn("sqrt", terms[0]), terms[1])),
                )
        if a.op == "sum":
            yield (
                "operations-exchanged",
                f"{_called(part)}: {name} of each element, then the sum",
                1.6,
                total(fn(name, a.args[0]), a.options["axes"], keep=a.options["keep"]),
            )
    if part.op == "add":
        for i, term in enumerate(part.args):
            inner, sign = (term.args[0], term.options["by"]) if term.op == "scale" else (term, 1.0)
            if inner.op == "fn" and inner.options["name"] in ("sqrt", "square", "cube", "abs", "exp", "log"):
                name, rest = inner.options["name"], part.args[:i] + part.args[i + 1 :]
                whole = fn(name, add(*rest, scaled(inner.args[0], sign)))
                identifier = {"square": "square-outside"}.get(name, "operations-exchanged")
                identifier = "epsilon-inside" if any(t.says == "ε" for t in rest) else identifier
                yield (
                    identifier,
                    f"{_called(part)}: {name} of the whole, not of {_called(inner.args[0])} alone",
                    1.3,
                    whole,
                )
    if part.op == "sum" and part.args[0].op == "mul" and len(part.args[0].args) >= 2:
        axes, keep = part.options["axes"], part.options["keep"]
        sums = [total(f, axes, keep=keep) for f in part.args[0].args]
        yield (
            "sum-of-products",
            f"{_called(part)}: the product of the sums, not the sum of the products",
            1.4,
            mul(*sums),
        )
        for i, factor in enumerate(part.args[0].args if keep else ()):
            rest = part.args[0].args[:i] + part.args[0].args[i + 1 :]
            outside = mul(factor, total(mul(*rest), axes, keep=keep), says=part.says)
            words = f"{_called(part)}: {_called(factor)} stands outside of the sum"
            yield "operations-exchanged", words, 1.5, outside
    if part.op == "mul" and len(part.args) > 1:
        for i, whole in enumerate(part.args):
            others = part.args[:i] + part.args[i + 1 :]
            for j, term in enumerate(whole.args if whole.op == "add" and len(whole.args) > 1 else ()):
                reached = mul(*others, add(*whole.args[:j], *whole.args[j + 1 :]))
                words = " · ".join(_called(o) for o in others)
                yield (
                    "parentheses",
                    f"{_called(term).removeprefix('−')} is not multiplied by {words}, as if parentheses were missing",
                    1.4,
                    add(reached, term, says=part.says),
                )
    if part.op == "fn" and part.options["name"] == "reciprocal" and part.args[0].op == "sum":
        inner = part.args[0].args[0]
        ndim = len(shapes(inner))
        for k in range(1, ndim + 1):
            for over in itertools.combinations(range(ndim), k):
                words = f"divided by the number of {axes_words(kind, ndim, over)}, not by {_called(part.args[0])}"
                yield "wrong-count", words, 1.3, inverse_count(inner, over, "1/n")
    if part.op == "sum" and part.args[0].op == "fn":
        axes, keep, inner = part.options["axes"], part.options["keep"], part.args[0]
        yield (
            "square-outside",
            f"{_called(part)}: {inner.options['name']} of the sum",
            1.6,
            fn(inner.options["name"], total(inner.args[0], axes, keep=keep)),
        )
    if part.op == "matmul" and part.options["left"]:
        a, b = (total(x, (0,), keep=True) for x in part.args)
        both = node("matmul", a, b, left=True, right=False)
        share = inverse_count(part.args[0], (0,), "1/n")
        for words, cost, product in (
            ("the product of the sums over the examples", 1.4, both),
            ("the product of the means over the examples", 1.5, mul(both, share, share)),
            ("the sum over the examples times the mean over them", 1.6, mul(both, share)),
        ):
            yield "sum-of-products", f"{_called(part)}: {words}", cost, product


def other_axes(root: Node, shapes: Shapes, kind: Kind) -> Iterator[PartEdit]:
    """Sums, and what they are divided by, all over other axes at once: the statistics of a normalisation."""
    found: dict[tuple[int, Axes], list[Node]] = {}
    for _, n in walk(root):
        if n.op in ("sum", "inverse_count") and n.options["axes"] is not None and n.options.get("keep", True):
            same = found.setdefault((len(shapes(n.args[0])), n.options["axes"]), [])
            if n not in same:
                same.append(n)
    for (ndim, own), nodes in found.items():
        if sum(n.op == "sum" for n in nodes) < 2:
            continue
        for k in range(1, ndim + 1):
            for axes in itertools.combinations(range(ndim), k):
                if axes != own:
                    words = f"{axes_words(kind, ndim, axes)}, not over the {axes_words(kind, ndim, own)}"
                    yield "wrong-axes", f"all means run over the {words}", 1.3, _over(root, nodes, axes, {})


def _over(root: Node, nodes: list[Node], axes: Axes, done: dict[Node, Node]) -> Node:
    """The tree with other axes in some of its nodes; what stood in two places still is one node."""
    if root not in done:
        args = tuple(_over(a, nodes, axes, done) for a in root.args)
        options = {**root.options, "axes": axes} if root in nodes else root.options
        done[root] = replace(root, args=args, options=options)
    return done[root]


def every_logarithm(root: Node) -> Iterator[PartEdit]:
    """A little number added inside of every logarithm, or every one to another base."""
    logs = list(dict.fromkeys(n for _, n in walk(root) if n.op == "fn" and n.options["name"] == "log"))
    if len(logs) < 2:
        return
    for eps in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16):
        tree = root
        for n in logs:
            tree = exchange(tree, n, fn("log", add(n.args[0], const(eps))))
        yield "term-extra", f"{eps:g} is added inside of every logarithm", 1.5, tree
    for base in ("log2", "log10"):
        tree = root
        for n in logs:
            tree = exchange(tree, n, fn(base, n.args[0]))
        yield "log-base", f"every logarithm is {base}", 1.4, tree


def _called(part: Node) -> str:
    return part.says or {"fn": str(part.options.get("name", "")), "sum": "the sum"}.get(part.op, part.op)


def extra_factors(
    root: Node, part: Any, siblings: list[Node], shapes: Shapes
) -> Iterator[tuple[str, str, float, Node]]:
    """A factor that belongs to another part of the formula, multiplied in where it does not: whole trees."""
    numbers = [(f.name, v) for f in _fields(part) if f.name != "eps" for v in _numbers(getattr(part, f.name))]
    factors: list[tuple[str, Node, float]] = []
    for name, value in numbers:
        for number, words in ((value, name), (1 - value, f"1 − {name}"), (1 / value if value else 0.0, f"1/{name}")):
            if number not in (0.0, 1.0) and math.isfinite(number):
                factors.append((words, const(number, words), 1.7))
    named = [n for n in siblings if n.says and n.op not in ("operand",)]
    known: set[str] = set()
    for n in [n for n in siblings if n.op == "operand"] + named:
        if n.says not in known and not n.says.startswith(("∂L", "y", "L")):
            known.add(n.says)
            factors.append((n.says, n, 1.9))
    for n in named:
        if n.op == "softmax" or (n.op == "fn" and n.options["name"] in ("sigmoid", "tanh")):
            slope = one_minus(fn("square", n)) if n.options.get("name") == "tanh" else mul(n, one_minus(n))
            words = f"1 − ({n.says})²" if n.options.get("name") == "tanh" else f"{n.says} (1 − {n.says})"
            factors.append((f"the derivative {words}", slope, 1.3))
    places = [((), root)] + [(p, n) for p, n in walk(root) if p and (n.op == "operand" or _is_term(root, p))]
    seen: set[int] = set()
    for path, place in places:
        shape = shapes(place)
        for words, factor, cost in factors:
            if factor is place:
                continue
            if factor.op != "const":
                try:
                    if np.broadcast_shapes(shapes(factor), shape) != shape:
                        continue
                except (ValueError, KeyError, IndexError, TypeError):
                    continue
            if id(place) in seen and path:
                continue
            where = f"{place.says or 'a term'}" if path else "the result"
            yield (
                "factor-extra",
                f"{where} is multiplied by {words}, which does not belong there",
                cost + (0.3 if path else 0.0),
                put(root, path, mul(place, factor)),
            )
        seen.add(id(place))


def _is_term(root: Node, path: tuple[int, ...]) -> bool:
    parent = root
    for i in path[:-1]:
        parent = parent.args[i]
    return parent.op == "add" and len(parent.args) > 1


def _fields(part: Any) -> Any:
    try:
        return fields(part)
    except TypeError:
        return ()


def _numbers(value: Any) -> list[float]:
    if isinstance(value, bool):
        return []
    if isinstance(value, float):
        return [value]
    if isinstance(value, tuple) and value and all(isinstance(v, float) for v in value) and len(value) <= 2:
        return list(value)
    return []


def clips(place: Node) -> Iterator[PartEdit]:
    """Values kept away from 0 and 1, or cut off."""
    for eps in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16):
        yield "clipped", f"is clipped to [{eps:g}, 1 − {eps:g}]", 1.4, node("clip", place, low=eps, high=1 - eps)
        yield "clipped", f"is kept above {eps:g}", 1.6, node("clip", place, low=eps, high=math.inf)
        yield "term-extra", f"has {eps:g} added to it", 1.8, add(place, const(eps))
    for by, words in ((1.0, "large"), (-1.0, "small")):
        yield "term-extra", f"is one too {words}", 2.4, add(place, const(by))
    for top in (1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 20.0, 50.0, 100.0):
        yield "clipped", f"is clipped to ±{top:g}", 1.6, node("clip", place, low=-top, high=top)
        yield "clipped", f"is cut off at {top:g}", 1.6, node("clip", place, low=-math.inf, high=top)


def slopes(g: Node, x: Node, y: Node) -> Iterator[PartEdit]:
    """∂L/∂x of an activation with another derivative: another function's, in x or in y, or at the wrong point."""
    of = "derivative-of-other-function"
    one_minus_y = one_minus(y)
    table: tuple[tuple[str, str, float, Node], ...] = (
        (of, "y (1 − y), the sigmoid's derivative", 1.2, mul(y, one_minus_y)),
        (of, "1 − y², the derivative of tanh", 1.2, one_minus(fn("square", y))),
        (of, "1 + y²", 1.6, add(const(1.0), fn("square", y))),
        (of, "x (1 − x)", 1.4, mul(x, one_minus(x))),
        (of, "1 − x²", 1.4, one_minus(fn("square", x))),
        (of, "e^x", 1.6, fn("exp", x)),
        (of, "e^−x", 1.6, fn("exp", scaled(x, -1.0))),
        (of, "y", 1.4, y),
        (of, "1 − y", 1.4, one_minus_y),
        (of, "x", 1.5, x),
        (of, "1/y", 2.0, fn("reciprocal", y)),
        (of, "σ(x)", 1.3, fn("sigmoid", x)),
        (of, "σ(x) (1 − σ(x))", 1.3, fn("sigmoid slope", x)),
        (of, "1 − tanh²(x)", 1.3, fn("tanh slope", x)),
        (of, "¼, the sigmoid's derivative at 0", 1.4, const(0.25)),
        ("derivative-wrong-point", "σ'(y): at the output", 1.2, fn("sigmoid slope", y)),
        ("derivative-wrong-point", "tanh'(y): at the output", 1.2, fn("tanh slope", y)),
        (of, "the mask x > 0", 1.3, node("greater", x, than=0.0)),
        (of, "the mask y > 0", 1.4, node("greater", y, than=0.0)),
        (of, "sign(x)", 1.5, fn("sign", x)),
        (of, "|x|", 1.6, fn("abs", x)),
        (of, "x²", 1.6, fn("square", x)),
        (of, "y²", 1.6, fn("square", y)),
        (of, "√y", 1.8, fn("sqrt", y)),
        (of, "2 x", 1.7, scaled(x, 2.0)),
        (of, "Φ(x)", 1.5, fn("cdf", x)),
        ("derivative-missing", "1: the derivative is forgotten", 1.0, const(1.0)),
    )
    for identifier, words, cost, slope in table:
        yield identifier, f"multiplied with {words}", cost, mul(g, slope)
    for s in (0.01, 0.1, 0.2, 0.3, 0.25, 0.05, 0.001):
        slope = node("where", node("greater", x, than=0.0), const(1.0), const(s))
        yield of, f"multiplied with the derivative of a leaky ReLU with slope {s:g}", 1.5, mul(g, slope)
