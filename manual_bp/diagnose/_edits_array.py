"""Edits of one array, an operand or the result: flipped, transposed, moved on, reordered, cut short, rounded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ._axes import Kind, axes_words, axis_word
from ._node import Node, fn, node, one_minus

#: identifier, phrase that follows "the kernel ", cost, node
ArrayEdit = tuple[str, str, float, Node]


@dataclass(frozen=True)
class Site:
    """An array of a formula: its node, shape and kind of axes; ``result`` if it is what the formula gives."""

    node: Node
    shape: tuple[int, ...]
    kind: Kind
    result: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def spatial(self) -> tuple[int, ...]:
        """Axes that may be turned: those of the image or kernel, all of a matrix or vector."""
        return tuple(range(2, self.ndim)) if self.ndim > 2 else tuple(range(self.ndim))

    def long(self, axis: int) -> bool:
        return self.shape[axis] > 1


def array_edits(site: Site, dtype: str) -> Iterator[ArrayEdit]:
    """All edits of one array."""
    yield from _precision(site, dtype)
    if math.prod(site.shape) == 1:
        yield from _constants(site)
        return
    yield from _turned(site)
    yield from _along_axes(site)
    yield from _order(site)
    yield from _groups(site)
    yield from _constants(site)
    yield from _cut(site)


def function_edits(site: Site) -> Iterator[ArrayEdit]:
    """The array put through a function that does not belong there."""
    for name, words in (
        ("square", "squared"), ("sqrt", "replaced by its square root"), ("abs", "replaced by its absolute value"),
        ("sign", "replaced by its sign"), ("relu", "cut off at 0"), ("reciprocal", "inverted"),
        ("exp", "exponentiated"),
        ("log", "replaced by its logarithm"), ("sigmoid", "put through a sigmoid"), ("tanh", "put through tanh"),
        ("clip -1 1", "clipped to [−1, 1]"), ("clip 0 1", "clipped to [0, 1]"), ("cube", "cubed"),
        ("> ½", "replaced by a yes or no (> ½)"),
    ):  # fmt: skip  # a table
        identifier = _FUNCTION.get(name, "other-function")
        # cut off at 0 is plainer than kept above a number so small that rounding hides it
        cost = {"abs": 1.7, "relu": 1.2 if site.result else 3.0}.get(name, 3.0)
        yield identifier, f"is {words}", cost, fn(name, site.node)
    yield "complement", "is replaced by one minus itself", 3.0, one_minus(site.node)


_FUNCTION = {
    "square": "squared",
    "sqrt": "root-extra",
    "abs": "absolute-value",
    "relu": "clipped",
    "clip -1 1": "clipped",
    "clip 0 1": "clipped",
}


def _precision(site: Site, dtype: str) -> Iterator[ArrayEdit]:
    for to in ("float32", "float16", "bfloat16", "truncated"):
        if to != dtype:
            words = "is cut off to bfloat16" if to == "truncated" else f"is rounded to {to}"
            yield "precision-lowered", words, 1.5, node("round", site.node, to=to)


def _turned(site: Site) -> Iterator[ArrayEdit]:
    a, axes = site.node, [i for i in site.spatial if site.long(i)]
    for count in range(len(axes), 0, -1):
        for chosen in itertools.combinations(axes, count):
            if chosen == (0,) and axis_word(site.kind, site.ndim, 0) == "example":
                if site.shape[0] > 2:  # two examples in reverse order are each the previous one, which is likelier
                    yield "batch-misaligned", "has its examples in reverse order", 1.4, node("flip", a, axes=chosen)
                continue
            everywhere = len(chosen) == len(site.spatial) and count > 1
            words = "is rotated by 180°" if everywhere else f"is flipped along its {_ordinals(chosen, site.ndim)}"
            yield (
                ("rotated" if count == len(axes) else "flipped"),
                words,
                1.0 if count == len(axes) else 1.2,
                node("flip", a, axes=chosen),
            )
    for axis in (i for i in range(min(site.ndim, 2)) if site.ndim > 2 and site.long(i)):
        words = axes_words(site.kind, site.ndim, (axis,))
        yield "channels-mixed", f"has its {words} in reverse order", 1.4, node("flip", a, axes=(axis,))
    for i, j in itertools.combinations(range(site.ndim), 2):
        if site.shape[i] != site.shape[j] or not site.long(i):
            continue
        order = list(range(site.ndim))
        order[i], order[j] = j, i
        both = node("permute", a, axes=tuple(order))
        name, words = _exchange_words(site, i, j)
        yield name, words, 1.1, both
        if i >= 2 or site.ndim == 2:
            for axis, turn in ((i, "clockwise"), (j, "anticlockwise")):
                yield "turned", f"is turned by 90° {turn}", 1.3, node("flip", both, axes=(axis,))
            yield "turned", "is mirrored at its other diagonal", 1.6, node("flip", both, axes=(i, j))


def _exchange_words(site: Site, i: int, j: int) -> tuple[str, str]:
    if site.ndim == 2:
        return "transposed", "is transposed"
    words, channels = axes_words(site.kind, site.ndim, (i, j)), site.kind in ("image", "kernel")
    if channels and i >= 2:
        return "transposed", f"is transposed in its {words}"
    return "channels-swapped" if channels and j == 1 else "axes-exchanged", f"has its {words} exchanged"


def _along_axes(site: Site) -> Iterator[ArrayEdit]:
    a = site.node
    for axis in range(site.ndim):
        if not site.long(axis):
            continue
        word = axis_word(site.kind, site.ndim, axis)
        wrapped = {"example": "batch-misaligned"}.get(
            word, "channels-mixed" if "channel" in word or "put" in word else "shifted-by-one"
        )
        for by in (1, -1):
            side = "previous" if by > 0 else "next"
            yield (
                wrapped,
                f"is taken from the {side} {word} (the last one wraps around)",
                1.4,
                node("roll", a, axis=axis, by=by),
            )
            yield "shifted-by-one", f"is off by one {word}, zeros moving in", 1.4, node("shift", a, axis=axis, by=by)
        for index, which in ((-1, "last"), (0, "first")):
            yield (
                _family(word, "accumulation-overwritten", site.kind), f"counts in its {which} {word} only", 1.2,
                node("only", a, axis=axis, index=index),
            )  # fmt: skip
            yield (
                _family(word, "dropped", site.kind),
                f"lacks its {which} {word}",
                1.2,
                node("without", a, axis=axis, index=index),
            )
            yield (
                "broadcast",
                f"is that of the {which} {word} for all of them",
                1.6,
                node("spread", a, axis=axis, index=index),
            )
    yield from _overwritten(site)
    yield from _pooled(site)


def _overwritten(site: Site) -> Iterator[ArrayEdit]:
    """What a loop over all positions, or over all examples and positions, leaves that assigns and does not add."""
    if site.ndim < 4 or site.kind != "image" or not all(map(site.long, site.spatial)):
        return
    last = site.node
    for axis in site.spatial:
        last = node("only", last, axis=axis, index=-1)
    yield "accumulation-overwritten", "counts in its last position only", 1.25, last
    if site.long(0):
        words = "counts in the last position of its last example only"
        yield "accumulation-overwritten", words, 1.25, node("only", last, axis=0, index=-1)


def _family(word: str, what: str, kind: Kind) -> str:
    if what == "dropped":
        if word == "position" and kind == "sequence":
            return "off-by-one"
        return {"example": "batch-not-complete", "row": "window-dropped", "column": "window-dropped",
                "position": "window-dropped"}.get(word, "channels-not-summed")  # fmt: skip
    return what


def _pooled(site: Site) -> Iterator[ArrayEdit]:
    axes = tuple(i for i in range(site.ndim) if site.long(i))
    groups = (
        [(i,) for i in axes] + ([site.spatial] if len(site.spatial) > 1 else []) + ([axes] if len(axes) > 1 else [])
    )
    if len(axes) > 2:
        groups += [tuple(i for i in axes if i != j) for j in axes]
    for chosen in dict.fromkeys(groups):
        words = axes_words(site.kind, site.ndim, chosen)
        name = {"examples": "batch-summed", "channels": "channels-summed"}.get(words, "summed")
        if "channel" in words and "example" not in words:
            name = "channels-summed"
        yield name, f"is the sum over all {words}", 1.6, node("pooled", site.node, axes=chosen, mean=False)
        yield (
            name.replace("summed", "averaged"),
            f"is the mean over all {words}",
            1.6,
            node("pooled", site.node, axes=chosen, mean=True),
        )


def _order(site: Site) -> Iterator[ArrayEdit]:
    """The numbers in another order in memory: rows first or columns first, channels last."""
    n = site.ndim
    if not 2 <= n <= 5:
        return
    orders = {tuple(reversed(range(n)))}
    orders.add((0, *range(2, n), 1))
    for i, j in itertools.combinations(range(n), 2):
        swapped = list(range(n))
        swapped[i], swapped[j] = j, i
        orders.add(tuple(swapped))
    for order in sorted(orders):
        if [i for i in order if site.shape[i] > 1] == [i for i in range(n) if site.shape[i] > 1]:
            continue
        if all(site.shape[i] == site.shape[k] for i, k in zip(order, range(n), strict=True)) and order == order[::-1]:
            continue
        names = ", ".join(axis_word(site.kind, n, i) for i in order)
        last = " (channels last)" if order == (0, *range(2, n), 1) and site.kind == "image" and n > 2 else ""
        for move, verb in (("reread", "is read"), ("unread", "is filled")):
            words = f"{verb} in another order in memory: {names}{last}"
            yield "order-wrong", words, 1.2, node(move, site.node, axes=order)


def _groups(site: Site) -> Iterator[ArrayEdit]:
    for axis in range(min(site.ndim, 2)):
        n = site.shape[axis]
        words = axes_words(site.kind, site.ndim, (axis,))
        for groups in (k for k in range(2, n) if n % k == 0):
            yield (
                "groups-mixed",
                f"has its {words} counted across {groups} groups, not within them",
                1.7,
                node("shuffle", site.node, axis=axis, groups=groups),
            )
            for by in (n // groups, -(n // groups)):
                if abs(by) > 1:
                    yield (
                        "groups-mixed",
                        f"is that of the neighbouring group of {abs(by)} {words}",
                        1.7,
                        node("roll", site.node, axis=axis, by=by),
                    )


def _constants(site: Site) -> Iterator[ArrayEdit]:
    yield "ones", "is ignored, as if it were 1", 1.3, node("fill", site.node, value=1.0)
    if site.result:
        yield "result-missing", "is 0 everywhere", 0.1, node("fill", site.node, value=0.0)


def _cut(site: Site) -> Iterator[ArrayEdit]:
    if site.ndim > 2:
        widest = {3: 8, 5: 3}.get(site.ndim, 4)
        for margins in itertools.product(range(widest), repeat=site.ndim - 2):
            if any(margins) and (site.result or len(set(margins)) == 1):
                yield (
                    "border-dropped",
                    f"is 0 at the border ({_times(margins)} wide)",
                    1.3,
                    node("border", site.node, margins=margins),
                )
    if site.result:
        for index, which in ((-1, "last"), (0, "first")):
            yield (
                "single-element",
                f"has its {which} element left at 0",
                1.5,
                node("element", site.node, index=index, value=0.0),
            )
    if site.ndim == 2 and site.shape[0] == site.shape[1]:
        for lower in (True, False):
            yield (
                "triangle",
                f"is 0 {'above' if lower else 'below'} the diagonal",
                2.0,
                node("triangle", site.node, lower=lower),
            )


def _times(numbers: tuple[int, ...]) -> str:
    return "×".join(map(str, numbers))


def _ordinals(axes: tuple[int, ...], ndim: int) -> str:
    words = [{0: "last axis", 1: "last axis but one"}.get(ndim - 1 - a, f"axis {a}") for a in axes]
    return " and ".join(words)
