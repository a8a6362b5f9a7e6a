"""One edit of a formula, and what is known about the place where it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ._node import Node

#: What an array's axes mean: an activation (N, C, ...), a parameter (O, C, ...), or neither.
Kind = Literal["activation", "parameter", "other"]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A mistake: the formula as somebody has it who makes this mistake.

    Attributes
    ----------
    identifier
        A stable word for the family of the mistake ("kernel-not-rotated").
    name
        The mistake in plain words.
    tree
        The edited formula.
    cost
        How far-fetched it is; of two that explain the same numbers the cheaper one is named.
    precision
        The lower precision in which the numbers were computed, if that is the mistake.
    fitted
        Whether a number of it was fitted to what was reported.
    sized
        Whether it is a factor that depends on the arrays' sizes: another one may have the same value on these.
    """

    identifier: str
    name: str
    tree: Node
    cost: float = 2.0
    precision: str = ""
    fitted: bool = False
    sized: bool = False


def axis_word(kind: Kind, ndim: int, axis: int) -> str:
    """What an axis is called in a sentence."""
    axis %= max(ndim, 1)
    if kind == "activation":
        words = ["example", "channel" if ndim > 2 else "feature"]
    elif kind == "parameter":
        words = ["output channel" if ndim > 2 else "output", "input channel" if ndim > 2 else "input"]
        if ndim == 1:
            words = ["channel"]
    else:
        words = []
    if axis < len(words):
        return words[axis]
    left = ndim - 1 - axis
    return {0: "column" if ndim - 2 != 1 else "position", 1: "row", 2: "slice"}.get(left, f"index of axis {axis}")


def axes_words(kind: Kind, ndim: int, axes: tuple[int, ...]) -> str:
    """``examples and rows``."""
    words = [axis_word(kind, ndim, a) for a in axes]
    plural = [w.replace("index of", "indices of") if "index" in w else w + "s" for w in words]
    return " and ".join(filter(None, [", ".join(plural[:-1]), plural[-1]])) if plural else "nothing"
