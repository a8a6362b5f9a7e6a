"""One edit of a formula."""

from __future__ import annotations

from dataclasses import dataclass

from ._node import Node


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
