"""Edits of a formula's own parts: a term, a factor, a sum, a constant, a function, an option of a window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ._axes import Kind, axes_words, axis_word
from ._edits_windows import WINDOWS
from ._node import Node, add, const, fn, inverse_count, mul, node, one_minus, scaled, total

#: identifier, name, cost, node
PartEdit = tuple[str, str, float, Node]


Shapes = Callable[[Node], tuple[int, ...]]


def part_edits(part: Node, shapes: Shapes, kind: Kind) -> Iterator[PartEdit]:
    """All edits of one node's own operation.

    ``shapes`` gives the shape of any node of the right formula, ``kind`` says what the axes of its parts are called.
    """
    build, over = _BUILDERS.get(part.op), _OVER.get(part.op)
    if build is not None:
        yield from build(part, shapes)
    if over is not None:
        yield from over(part, shapes, kind)


def _called(a: Node, fallback: str) -> str:
    return a.says or fallback


def _add(part: Node, shapes: Shapes) -> Iterator[PartEdit]:
    terms = part.args
    if len(terms) < 2:
        return
    for i, term in enumerate(terms):
        says = _term(part, term, i)
        rest = terms[:i] + terms[i + 1 :]

        def swapped(new: Node, i: int = i) -> Node:
            return add(*terms[:i], new, *terms[i + 1 :], says=part.says)

        name = "bias-missing" if "bias" in says and "correction" not in says else "term-missing"
        name = "branch-missing" if "comes back" in says else "epsilon-missing" if term.says == "ε" else name
        fits = any(shapes(t) == shapes(part) for t in rest)
        # of an operand a, that 1 − a as a whole is missing is as good a name, and a plainer one
        complement = terms[0].op == "const" and term.op == "scale" and term.args[0].op == "operand"
        cost = 1.05 if complement else 1.0
        yield name, f"{says} is missing", cost, add(*rest, says=part.says) if fits else swapped(scaled(term, 0.0))
        yield "term-doubled", f"{says} is added twice", 1.2, swapped(scaled(term, 2.0))
        yield "sign-inside", f"{says} has the wrong sign", 1.1, swapped(scaled(term, -1.0))
        yield "constant-factor-inside", f"{says} is halved", 2.0, swapped(scaled(term, 0.5))
        yield "squared", f"{says} is squared", 3.0, swapped(fn("square", term))
        if len(terms) > 2:
            yield "term-missing", f"only {says} is there, the other terms are missing", 1.2, add(term)
        for axis, n in enumerate(shapes(term)):
            if n > 1:
                yield (
                    "mean-for-sum",
                    f"{says} is divided by {n}",
                    2.4,
                    swapped(mul(term, inverse_count(term, (axis,), "1/n"))),
                )
                yield (
                    "sum-for-mean",
                    f"{says} is multiplied by the {n} along axis {axis}",
                    2.4,
                    swapped(mul(term, node("count", term, axes=(axis,)))),
                )
    if len(terms) == 2:
        yield "factor-for-term", "the two terms are multiplied, not added", 2.5, mul(*terms)


def _term(part: Node, term: Node, i: int) -> str:
    """What a term is called: by its own name, and the name of the sum if that alone says too little."""
    says = _called(term, f"term {i + 1}").removeprefix("−")
    if says.startswith("the "):
        return f"{says} in {part.says}" if says in part.says and says != part.says else says
    return f"the term {says}{_inside(part, says)}"


def _inside(part: Node, says: str = "") -> str:
    """Where a part stands, if that has a name that tells something."""
    told = part.says and part.says != says and not part.says.startswith(("∂", "y", "the sum over all"))
    return f" in {part.says}" if told else ""


def _mul(part: Node, _: Any) -> Iterator[PartEdit]:
    factors = part.args
    if len(factors) < 2:
        return
    for i, factor in enumerate(factors):
        says = _called(factor, f"factor {i + 1}")
        rest = factors[:i] + factors[i + 1 :]

        def swapped(new: Node, i: int = i) -> Node:
            return mul(*factors[:i], new, *factors[i + 1 :], says=part.says)

        missing = f"{_the(says)}{_inside(part)} is missing"
        yield _missing(factor), missing, 0.98 if factor.op == "greater" else 1.02, mul(*rest, says=part.says)
        yield "factor-doubled", f"{_the(says)} is multiplied in twice", 1.5, mul(*factors, factor, says=part.says)
        yield "inverted", f"divided by {says} instead of multiplied", 2.0, swapped(fn("reciprocal", factor))
        if factor.op in ("greater", "nonzero", "within"):
            yield "mask-inverted", f"{says} is inverted", 1.2, swapped(one_minus(factor))


def _mean(part: Node, shapes: Shapes, kind: Kind) -> Iterator[PartEdit]:
    """A sum divided by its count, both over other axes."""
    a, count = part.args[0], part.args[-1]
    if len(part.args) != 2 or a.op != "sum" or count.op != "inverse_count" or not a.options["keep"]:
        return
    inner, ndim = a.args[0], len(shapes(a.args[0]))
    for chosen in (tuple(c) for k in range(1, ndim + 1) for c in itertools.combinations(range(ndim), k)):
        if chosen != a.options["axes"]:
            words = axes_words(kind, ndim, chosen)
            mean = mul(total(inner, chosen, keep=True), inverse_count(inner, chosen, "1/n"), says=part.says)
            yield "wrong-axes", f"{_called(part, 'the mean')} runs over the {words}", 1.2, mean


def _the(says: str) -> str:
    return says if says.startswith("the ") else f"the factor {says}"


def _missing(factor: Node) -> str:
    if factor.op == "greater":
        return "mask-missing"
    if factor.op == "inverse_count" or "1/N of the mean" in factor.says:
        return "sum-for-mean"
    if "upstream" in factor.says:
        return "upstream-ignored"
    return "factor-missing"


def _const(part: Node, _: Any) -> Iterator[PartEdit]:
    value, says = part.options["value"], part.says
    if isinstance(value, np.ndarray):
        yield "option-ignored", f"{says} counts as 1", 1.2, const(1.0)
        yield "constant-wrong", f"divided by {says}", 2.0, replace(part, options={"value": 1 / value})
        if value.size > 1:
            yield (
                "constant-wrong",
                f"{says} is that of the next class",
                2.0,
                replace(part, options={"value": np.roll(value, 1)}),
            )
            yield (
                "constant-wrong",
                f"{says} is that of the previous class",
                2.0,
                replace(part, options={"value": np.roll(value, -1)}),
            )
        return
    others = {0.0: "left out", 2 * value: "doubled", value / 2: "halved", -value: "with the wrong sign",
              1.0: "taken as 1", value * value: "squared", 1 - value: "replaced by one minus itself"}  # fmt: skip
    if value > 0:
        others |= {math.sqrt(value): "replaced by its square root", 1 / value: "inverted"}
    others |= {
        k: f"taken as {k:g}"
        for k in (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 0.1, 0.01, 0.2, 0.5, 0.9, 0.99, 0.999)
        if abs(value) < 1
    }
    for other, words in others.items():
        if other != value and math.isfinite(other):
            name = f"{says} has the wrong sign" if other == -value else f"{says} is {words}"
            yield "constant-wrong", name, 2.2 if words.startswith("taken as") else 1.8, const(other)


def _sum(part: Node, shapes: Shapes, kind: Kind) -> Iterator[PartEdit]:
    (a,), axes, keep = part.args, part.options["axes"], part.options["keep"]
    ndim = len(shapes(a))
    axes = tuple(range(ndim)) if axes is None else axes
    says = _called(part, "the sum")
    for chosen in (tuple(c) for k in range(1, ndim + 1) for c in itertools.combinations(range(ndim), k)):
        words = axes_words(kind, ndim, chosen)
        if set(chosen) <= set(axes):
            mean = mul(part, inverse_count(a, chosen, "1/n"))
            yield "mean-for-sum", f"{says} is a mean over the {words}, not a sum", 1.2, mean
        if chosen != axes:
            yield "wrong-axes", f"{says} runs over the {words}", 1.4, total(a, chosen, keep=keep)
    if keep:
        yield "sum-missing", f"{says} is not summed at all", 1.3, a
    for axis in axes:
        rest = tuple(i - (i > axis and not keep) for i in axes if i != axis)
        for index, which in ((-1, "last"), (0, "first")):
            word = axis_word(kind, ndim, axis)
            one = node("only" if keep else "pick", a, axis=axis, index=index)
            if keep:
                one = total(one, (axis,), keep=True)
            family = (
                {"example": "batch-not-summed"}.get(word, "space-not-summed")
                if which == "first"
                else "accumulation-overwritten"
            )
            yield family, f"{says} takes the {which} {word} only", 1.1, total(one, rest, keep=keep) if rest else one
    if len(axes) > 1:
        spatial = tuple(i for i in axes if i >= 2)
        if spatial and spatial != axes and not keep:
            for index, which in ((0, "first"), (-1, "last")):
                one = a
                for axis in reversed(spatial):
                    one = node("pick", one, axis=axis, index=index)
                rest = tuple(i for i in axes if i < 2)
                yield "space-not-summed", f"{says} takes the {which} position only", 1.1, total(one, rest)
    yield (
        "maximum-for-sum",
        f"{says} is a maximum, not a sum",
        2.5,
        total(node("max_along", a, axis=axes), axes, keep=keep)
        if keep
        else total(node("max_along", a, axis=axes), axes),
    )


def _inverse_count(part: Node, shapes: Shapes, kind: Kind) -> Iterator[PartEdit]:
    (a,), axes = part.args, part.options["axes"]
    ndim = len(shapes(a))
    own = tuple(range(ndim)) if axes is None else axes
    yield "sum-for-mean", f"the division by the number of elements ({part.says}) is missing", 1.0, const(1.0)
    for chosen in (tuple(c) for k in range(1, ndim + 1) for c in itertools.combinations(range(ndim), k)):
        if chosen != own:
            words = axes_words(kind, ndim, chosen)
            yield (
                "wrong-count",
                f"divided by the number of {words}, not by that of {axes_words(kind, ndim, own)}",
                1.4,
                inverse_count(a, chosen, "1/n"),
            )
    yield "wrong-count", "divided by n − 1, not by n", 1.4, node("inverse_count_minus", a, axes=axes, minus=1)
    yield "wrong-count", "divided by n + 1, not by n", 2.0, node("inverse_count_minus", a, axes=axes, minus=-1)
    yield "wrong-count", "divided by √n, not by n", 2.0, fn("sqrt", part)


_MISSING = {"sqrt": "root-missing", "square": "square-missing", "relu": "function-missing"}

_RELATED = {
    "relu": ("abs",), "tanh": ("sigmoid", "tanh slope"), "softplus": ("relu", "exp"), "log_sigmoid": ("sigmoid",),
    "sigmoid": ("tanh", "sigmoid slope", "cdf", "the hard sigmoid", "the hard sigmoid x/6 + ½", "σ(1.702 x)"),
    "cdf": ("sigmoid", "pdf", "σ(1.702 x)"), "pdf": ("cdf", "e^(−x²/2)", "e^(−x²/2) / 2π"), "exp": ("exp2", "expm1"),
    "log": ("log2", "log10", "log1p"), "sqrt": ("square",), "square": ("abs", "cube"), "abs": ("square",),
    "sign": ("abs", "positive"), "cube": ("square",), "reciprocal": (),
}  # fmt: skip  # a table


def _fn(part: Node, _: Any) -> Iterator[PartEdit]:
    (a,), name = part.args, part.options["name"]
    says = _called(part, name)
    yield (
        _MISSING.get(name, "function-missing"),
        f"{says}: the function is not applied ({name} is left out)",
        1.3,
        add(a),
    )
    yield "function-applied-twice", f"{says}: {name} is applied twice", 1.5, fn(name, part)
    for other in _RELATED.get(name, ()):
        yield (
            (
                "log-base"
                if other in ("log2", "log10")
                else "absolute-value"
                if other == "abs"
                else "square-missing"
                if name == "square"
                else "other-function"
            ),
            f"{says}: {other} in place of {name}",
            1.8,
            fn(other, a),
        )
    yield "sign-inside", f"the argument of {says} has the wrong sign", 1.8, fn(name, scaled(a, -1.0))
    for by, words in ((2.0, "2"), (0.5, "½"), (math.sqrt(2), "√2"), (math.sqrt(0.5), "1/√2")):
        yield "constant-factor-inside", f"the argument of {says} is multiplied by {words}", 2.4, fn(name, scaled(a, by))


def _greater(part: Node, _: Any) -> Iterator[PartEdit]:
    says = _called(part, "the mask")
    than = part.options["than"]
    yield "boundary", f"{says}: equality counts as well (≥ for >)", 1.0, part.but(tie=1.0)
    for tie in (-1.0, 0.5, 2.0, -0.5):
        yield "not-a-subgradient", f"{says}: it is {tie:g} where both sides are equal", 1.4, part.but(tie=tie)
    yield "mask-inverted", f"{says} is inverted", 1.2, part.but(less=True)
    for other in (0.0, 1.0, 0.5, -1.0, 2 * than):
        if other != than:
            yield "constant-factor-inside", f"{says}: compared with {other:g}", 2.0, part.but(than=other)
    yield "mask-missing", f"{says} is nonzero for not zero, whatever the sign", 1.8, node("nonzero", part.args[0])


def _where(part: Node, _: Any) -> Iterator[PartEdit]:
    mask, a, b = part.args
    says = _called(part, "the case distinction")
    yield "mask-inverted", f"{says}: the two cases are exchanged", 1.2, node("where", mask, b, a)
    yield "mask-missing", f"{says}: {_called(a, 'the first case')} everywhere", 1.2, a
    yield "mask-missing", f"{says}: {_called(b, 'the second case')} everywhere", 1.2, b
    yield "slope-missing", f"{says}: 0 in the second case", 1.2, mul(mask, a)
    yield "slope-missing", f"{says}: 0 in the first case", 1.4, mul(one_minus(mask), b)


def _within(part: Node, _: Any) -> Iterator[PartEdit]:
    below = part.options["below"]
    for other in dict.fromkeys((1.0, 2 * below, below / 2, below * below, math.sqrt(below), 1 / below)):
        if other != below:
            yield (
                "constant-factor-inside",
                f"the width is taken as {other:g}, not {below:g}",
                1.5,
                part.but(below=other),
            )


def _clip(part: Node, _: Any) -> Iterator[PartEdit]:
    low, high = part.options["low"], part.options["high"]
    yield "clipping-missing", f"{part.says or 'the result'} is not clipped", 1.1, add(part.args[0])
    for k in (2.0, 0.5):
        yield (
            "constant-factor-inside",
            f"{part.says or 'the result'} is clipped {k:g} times as far out",
            1.8,
            part.but(low=low * k, high=high * k),
        )
    for edge in (1.0, high * high):
        yield "constant-factor-inside", f"clipped at {edge:g}", 1.8, part.but(low=-edge if low < 0 else low, high=edge)
    for eps in (1e-15, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5):
        words = f"{part.says or 'the result'} is not cut off, but has {eps:g} added"
        yield "term-extra", words, 1.8, add(part.args[0], const(eps))
    for eps in (1e-15, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5):
        yield "constant-wrong", f"{part.says or 'the result'} is cut off at {eps:g}", 2.0, part.but(low=eps)


def _axis(part: Node, shapes: Shapes) -> Iterator[PartEdit]:
    for axis in range(len(shapes(part.args[0]))):
        if axis != part.options["axis"]:
            yield (
                "wrong-axes",
                f"{part.says or part.op} runs along axis {axis}, not {part.options['axis']}",
                1.2,
                part.but(axis=axis),
            )
    for axis in (part.options["axis"],):
        twice = node(part.op, node("softmax", part.args[0], axis=axis), axis=axis)
        yield "function-applied-twice", f"{part.says or part.op}: softmax is applied twice", 1.3, twice
    if part.op == "log_softmax":
        for eps in (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15):
            inside = fn("log", add(node("softmax", part.args[0], axis=part.options["axis"]), const(eps)))
            yield "epsilon-inside", f"{part.says or part.op}: {eps:g} is added before the logarithm", 1.4, inside
            clipped = node("clip", node("softmax", part.args[0], axis=part.options["axis"]), low=eps, high=math.inf)
            yield "clipped", f"{part.says or part.op}: the softmax is kept above {eps:g}", 1.5, fn("log", clipped)
    if part.op == "softmax":
        yield (
            "other-function",
            f"{part.says or part.op}: exponentials that are not normalised",
            1.6,
            fn("exp", part.args[0]),
        )
        yield "other-function", f"{part.says or part.op}: a sigmoid of each", 1.8, fn("sigmoid", part.args[0])


def _one_hot(part: Node, _: Any) -> Iterator[PartEdit]:
    for shift in (1, -1):
        yield (
            "index-off-by-one",
            f"the class index is off by one ({'+' if shift > 0 else '−'}1)",
            1.2,
            part.but(shift=shift),
        )
    yield "ignore-index", "positions to be ignored count", 1.2, part.but(ignore=math.nan)


_BUILDERS: dict[str, Callable[[Node, Any], Iterator[PartEdit]]] = {
    "add": _add, "mul": _mul, "const": _const, "fn": _fn,
    "greater": _greater, "where": _where, "within": _within, "clip": _clip, "softmax": _axis, "log_softmax": _axis,
    "one_hot": _one_hot, **WINDOWS,
}  # fmt: skip  # a table

#: Edits of what runs over axes: they are called by their names.
_OVER: dict[str, Callable[[Node, Shapes, Kind], Iterator[PartEdit]]] = {
    "mul": _mean, "sum": _sum, "inverse_count": _inverse_count,
}  # fmt: skip  # a table
