"""Edits of a sliding window: its stride, padding, dilation and size, who wins, how shares add up, how is padded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from manual_bp.nn._window import Shape, Window

from ._node import Node, fn, node, scaled

#: Windows of more elements are not tried element by element.
MOST_TAPS = 27

#: identifier, name, cost, node
PartEdit = tuple[str, str, float, Node]


def _conv_options(part: Node, _: Any) -> Iterator[PartEdit]:
    window: Window = part.options["window"]
    yield from ((i, n, c, part.but(window=w)) for i, n, c, w in window_edits(window))
    groups = part.options["groups"]
    if part.op == "conv_dx":
        for order, words in (("windows", "windows"), ("taps", "taps of the kernel")):
            yield (
                "accumulation-overwritten",
                f"overlapping {words} overwrite each other's share, they must add up",
                1.1,
                part.but(order=order),
            )
    if groups > 1:
        yield "groups-ignored", "the groups are ignored", 1.5, part.but(groups=1)


def _window_cost(identifier: str) -> float:
    return 1.0 if "ignored" in identifier else 1.2 if "off-by-one" in identifier else 1.4


def window_edits(window: Window) -> Iterator[tuple[str, str, float, Window]]:
    """One option of a sliding window exchanged; of two that come to the same the first has its name."""
    seen = {window}
    for identifier, name, changes in _window_options(window):
        numbers = [n for field, n in changes.items() if field != "before"]
        if all(min(n) >= 1 for n in numbers):
            changed = replace(window, **changes)
            if changed not in seen:
                seen.add(changed)
                yield identifier, name, _window_cost(identifier), changed


def _window_options(w: Window) -> Iterator[tuple[str, str, dict[str, Shape]]]:
    axes = len(w.stride)
    one, none = (1,) * axes, (0,) * axes
    fitting = tuple(b - (s - k) // 2 for b, s, k in zip(w.before, w.span, w.kernel, strict=True))
    complement = tuple(s - 1 - b for s, b in zip(w.span, w.before, strict=True))
    yield "stride-ignored", "the stride is ignored", {"stride": one}
    yield "dilation-ignored", "the dilation is ignored", {"dilation": one}
    yield "dilation-ignored", "the dilation is ignored, and the padding with it", {"dilation": one, "before": fitting}
    yield "padding-ignored", "the padding is ignored: all is counted from the border of the data", {"before": none}
    for by, words in ((1, "large"), (-1, "small")):
        yield "padding-off-by-one", f"the padding is one too {words}", {"before": tuple(b + by for b in w.before)}
    yield "padding-complement", "padded by kernel − 1 − padding where the padding is due", {"before": complement}
    yield "stride-wrong", "the stride is taken as the kernel's size", {"stride": w.kernel}
    for field, word in (("stride", "stride"), ("before", "padding"), ("dilation", "dilation")):
        yield "axes-exchanged", f"the {word}'s axes are exchanged", {field: getattr(w, field)[::-1]}
    yield "axes-exchanged", "the kernel's axes are exchanged", {"kernel": w.kernel[::-1]}
    yield "dilation-wrong", "the stride is taken for the dilation", {"dilation": w.stride}
    yield "stride-wrong", "the dilation is taken for the stride", {"stride": w.dilation}
    yield "padding-wrong", "the padding counts twice", {"before": tuple(2 * b for b in w.before)}
    yield "padding-wrong", "the padding is halved", {"before": tuple(b // 2 for b in w.before)}
    yield "stride-wrong", "the stride is one too large", {"stride": tuple(s + 1 for s in w.stride)}
    yield "dilation-wrong", "the dilation is one too large", {"dilation": tuple(d + 1 for d in w.dilation)}
    yield "padding-wrong", "the padding is half the kernel ('same')", {"before": tuple(k // 2 for k in w.kernel)}
    yield from _one_axis(w)


def _one_axis(w: Window) -> Iterator[tuple[str, str, dict[str, Shape]]]:
    """The same on one axis alone, and windows that are too small or too large."""
    axes = len(w.stride)

    def on(field: str, axis: int, value: int) -> dict[str, Shape]:
        own: Shape = getattr(w, field)
        return {field: (*own[:axis], value, *own[axis + 1 :])}

    for axis in range(axes if axes > 1 else 0):
        which = f"on spatial axis {axis}"
        yield "stride-ignored", f"the stride is 1 {which}", on("stride", axis, 1)
        yield "dilation-ignored", f"the dilation is 1 {which}", on("dilation", axis, 1)
        yield "padding-ignored", f"the padding is 0 {which}", on("before", axis, 0)
        for value in (w.before[axis] + 1, w.before[axis] - 1):
            yield "padding-off-by-one", f"the padding is {value} {which}", on("before", axis, value)
    for axis in range(axes):
        for by, words in ((-1, "one element too small: its last tap is forgotten"), (1, "one element too large")):
            name = f"the window is {words}, on spatial axis {axis}"
            yield "window-off-by-one", name, on("kernel", axis, w.kernel[axis] + by)
    smaller = tuple(k - 1 for k in w.kernel)
    yield "window-off-by-one", "the window is one element too small on every axis", {"kernel": smaller}


def _maximum(part: Node, _: Any) -> Iterator[PartEdit]:
    yield from ((i, n, c, part.but(window=w)) for i, n, c, w in window_edits(part.options["window"]))
    yield from _skipped(part)
    yield "padding-value-wrong", "the padding holds 0, which can win", 1.1, part.but(fill=0.0)
    options = {"window": part.options["window"], "outputs": part.options["outputs"], "ceil": part.options["ceil"]}
    mean = node("average", part.args[0], count_include_pad=True, divisor=None, **options)
    yield "mean-for-max", "the mean of each window, not its maximum", 1.5, mean
    yield (
        "min-for-max",
        "the smallest element of each window, not the largest",
        1.5,
        scaled(part.with_args((scaled(part.args[0], -1.0),)), -1.0),
    )
    yield (
        "absolute-value",
        "the largest absolute value of each window",
        1.5,
        part.with_args((fn("abs", part.args[0]),)),
    )


def _skipped(part: Node) -> Iterator[PartEdit]:
    for skip, which in ((-1, "last"), (0, "first")):
        yield "window-off-by-one", f"the {which} element of each window is forgotten", 1.2, part.but(skip=skip)


def _maximum_dx(part: Node, _: Any) -> Iterator[PartEdit]:
    yield from ((i, n, c, part.but(window=w)) for i, n, c, w in window_edits(part.options["window"]))
    for winner, identifier, words in (
        ("last", "ties-last", "of several maxima the last one gets the error"),
        ("all", "ties-all", "every one of several equal maxima gets the whole error"),
        ("shared", "ties-shared", "several equal maxima share the error"),
        ("every", "winner-ignored", "every element of the window gets the error, not the winner alone"),
        ("tap 0", "winner-wrong", "the first element of the window gets the error, not the winner"),
        ("smallest", "winner-wrong", "the smallest element gets the error, not the largest"),
    ):
        yield identifier, words, 1.0, part.but(winner=winner)
    taps = list(itertools.product(*map(range, part.options["window"].kernel)))
    for k, tap in enumerate(taps[1:] if len(taps) <= MOST_TAPS else (), start=1):
        words = f"element {list(tap)} of each window gets the error, not the winner"
        yield "winner-wrong", words, 1.2, part.but(winner=f"tap {k}")
    for which in ("channel", "example"):
        words = f"the winners of the first {which} are taken for those of every {which}"
        yield "winner-wrong", words, 1.3, part.but(winner=f"of all {which}s")
    for i, n, c, w in window_edits(part.options["window"]):
        yield i, f"{n}, where the error is put back", c + 0.1, part.but(to=w)
    yield "winner-transposed", "the winner's row is taken for its column", 1.1, part.but(winner="transposed")
    for order in ("windows", "taps", "windows-winners"):
        yield (
            "accumulation-overwritten",
            "windows that share an element overwrite each other's error",
            1.1,
            part.but(order=order),
        )
    g, x = part.args
    share = node("average_dx", g, x, window=part.options["window"], count_include_pad=True, divisor=None, order="")
    yield "mean-for-max", "the error is spread evenly over the window, as for a mean", 1.1, share


def _average(part: Node, _: Any) -> Iterator[PartEdit]:
    yield from ((i, n, c, part.but(window=w)) for i, n, c, w in window_edits(part.options["window"]))
    if part.op == "average":
        yield from _skipped(part)
        largest = {name: part.options[name] for name in ("window", "outputs", "ceil")}
        top = node("maximum", *part.args, fill=-math.inf, **largest)
        yield "max-for-mean", "the largest element of each window, not the mean", 1.5, top
    include, size = part.options["count_include_pad"], math.prod(part.options["window"].kernel)
    words = "the padding is not counted in the divisor" if include else "the padding is counted in the divisor"
    yield "wrong-count", words, 1.0, part.but(count_include_pad=not include)
    yield "mean-missing", "the division by the window's size is missing", 1.0, part.but(divisor=1)
    if part.options["divisor"] is not None:
        yield "wrong-count", "the given divisor is ignored", 1.0, part.but(divisor=None)
    for other, what in (
        (size, f"the kernel's size, {size},"),
        (part.options["window"].kernel[-1], "the kernel's width"),
        (size * size, "the kernel's size squared"),
        (math.prod(part.options["window"].stride), "the product of the strides"),
    ):
        yield "wrong-count", f"divided by {what} everywhere", 1.3, part.but(divisor=other)
    if part.op == "average_dx":
        for order in ("windows", "taps"):
            yield (
                "accumulation-overwritten",
                "windows that share an element overwrite each other's error",
                1.1,
                part.but(order=order),
            )
        yield "order-wrong", "the errors are tiled, where each is to be repeated", 1.2, part.but(order="tiled")
        filled = "the error is repeated beyond the last window: what no window covers has no gradient"
        yield "remainder-filled", filled, 1.2, part.but(order="repeated")
        for winner, which in (("first", "largest element, as for a maximum"), ("tap 0", "first element")):
            one = node("maximum_dx", *part.args, window=part.options["window"], winner=winner, order="")
            yield "max-for-mean", f"the whole error goes to the {which}", 1.5, one


def _pad(part: Node, _: Any) -> Iterator[PartEdit]:
    for mode in ("zeros", "reflect", "replicate", "circular", "symmetric"):
        if mode != part.options["mode"]:
            yield "padding-mode-wrong", f"padded by {mode}, not by {part.options['mode']}", 1.0, part.but(mode=mode)


def _unpad(part: Node, _: Any) -> Iterator[PartEdit]:
    for mode in ("reflect", "replicate", "circular"):
        if mode != part.options["mode"]:
            yield (
                "padding-mode-wrong",
                f"the padding is folded back by {mode}, not by {part.options['mode']}",
                1.2,
                part.but(mode=mode),
            )
    yield (
        "padding-fold-missing",
        "what the copied border got as padding is not handed back to it",
        1.0,
        part.but(mode="zeros"),
    )


#: By operation.
WINDOWS: dict[str, Callable[[Node, Any], Iterator[PartEdit]]] = {
    "conv": _conv_options, "conv_dx": _conv_options, "conv_dw": _conv_options, "maximum": _maximum,
    "maximum_dx": _maximum_dx, "average": _average, "average_dx": _average, "pad": _pad, "unpad": _unpad,
}  # fmt: skip  # a table
