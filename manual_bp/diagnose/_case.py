"""What is known of one wrong quantity: on each probe what was reported, what is right, and what the step could read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from manual_bp.compare import Expected
from manual_bp.network import TARGET
from manual_bp.nn._layer import Array

from ._evaluate import ROUNDOFF, Evaluator
from ._node import Node

#: Names with a prefix: the reference's answer, a quantity of the pass before, and what one of several readers of a
#: quantity gives to its gradient.
RIGHT, BEFORE, SHARE = "right:", "before:", "share:"


def shown(name: str) -> str:
    """A quantity in words, a share by who gives it."""
    return f"what comes back from {name.removeprefix(SHARE)}" if name.startswith(SHARE) else name


@dataclass(frozen=True, kw_only=True)
class Case:
    """One quantity on one probe.

    Attributes
    ----------
    probe, quantity
        Where and what.
    values
        Every quantity by name: the candidate's own, the replay's where it reported none; ``y`` is the target.
    reported, right, allowed
        What the candidate says, what it should be, and how far it may be off (empty if the shapes differ).
    wrong
        Whether the quantity is wrong on this probe.
    excused
        Elements at a kink whose value is a valid subgradient.
    before
        The values of the probe before, for numbers that were kept too long.
    mended
        What those among ``values`` that are wrong should be, each judged alone.
    whole
        The reference's own pass, by name.
    """

    probe: str
    quantity: str
    values: Mapping[str, Array]
    reported: Array
    right: Array
    allowed: Array
    wrong: bool
    excused: Array | None = None
    before: Mapping[str, Array] = field(default_factory=dict)
    mended: Mapping[str, Array] = field(default_factory=dict)
    whole: Mapping[str, Expected] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return "float32" if self.right.dtype == np.float32 else "float64"

    @cached_property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.look)

    def look(self, name: str) -> Array:
        """An operand by name."""
        if name == RIGHT + self.quantity:
            return self.right
        if name.startswith(BEFORE):
            own = name.removeprefix(BEFORE)
            found = self.before.get(own)
            return self.values[own] if found is None and own in self.values else self.before[own]
        return self.values[name]

    @cached_property
    def claimed(self) -> Array:
        """What was reported, in float64."""
        return np.asarray(self.reported, np.float64)

    @cached_property
    def bad(self) -> Array:
        """Mask of the elements that are wrong."""
        if self.reported.shape != self.right.shape:
            return np.ones(self.reported.shape, bool)
        with np.errstate(all="ignore"):
            off = ~(np.abs(self.claimed - self.right) <= self.allowed)
            off &= ~((self.claimed == self.right) | (np.isnan(self.claimed) & np.isnan(self.right)))
        return np.asarray(off if self.excused is None else off & ~self.excused)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of everything that could have been read."""
        known = {name: a.shape for name, a in self.values.items()}
        return known | {BEFORE + name: a.shape for name, a in self.before.items()}

    @cached_property
    def _sample(self) -> tuple[int, float, float]:
        """The place of a telling element, the largest number reported, and the most that is allowed anywhere."""
        use = np.isfinite(self.claimed)
        if self.excused is not None:
            use &= ~self.excused
        size = np.where(use, np.abs(self.claimed), 0.0)
        telling = np.where(use & self.bad, size, -1.0) if self.bad.shape == size.shape else size
        slack = float(np.max(np.where(np.isfinite(self.allowed), self.allowed, 0.0), initial=0.0))
        return int(np.argmax(telling)), float(np.max(size, initial=0.0)), slack

    def close(self, tree: Node, rough: float) -> bool:
        """Whether an edited formula could be what was reported: a cheap look at its values alone."""
        with np.errstate(all="ignore"):
            value = self.evaluator.value(tree)
            if value.shape != self.claimed.shape:
                return False
            at, size, slack = self._sample
            limit = rough * size + slack
            one, other = value.item(at), self.claimed.item(at)
            if math.isfinite(other) and not abs(one - other) <= limit and not self._excuses(at):
                return False  # most edits end here, by a single number
            same = (value == self.claimed) | (np.isnan(value) & np.isnan(self.claimed))
            fits = same | (np.abs(value - self.claimed) <= limit)
            return bool(np.all(fits if self.excused is None else fits | self.excused))

    def _excuses(self, at: int) -> bool:
        return self.excused is not None and bool(self.excused.reshape(-1)[at])

    def leftover(self, tree: Node) -> float:
        """Largest distance of an edited formula from what was reported, in units of the bound; inf if beyond it.

        The bound is what the check allows plus four times the formula's own rounding error. Where the quantity is
        wrong, what is left must also be small beside what was wrong, else rounding would explain anything.
        """
        with np.errstate(all="ignore"):
            value = self.evaluator.value(tree)
            if value.shape != self.claimed.shape:
                return float("inf")
            bound = 4 * self.evaluator.error(tree, self.dtype)
            if self.allowed.shape == value.shape:
                bound = bound + self.allowed
            size = np.max(np.abs(np.where(np.isfinite(self.claimed), self.claimed, 0.0)), initial=0.0)
            bound = (
                bound + 4 * ROUNDOFF[self.dtype] * size
            )  # another formula may cancel numbers of the array's own size
            difference = np.abs(value - self.claimed)
            same = (value == self.claimed) | (np.isnan(value) & np.isnan(self.claimed))
            if self.excused is not None:
                same |= self.excused
            used = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference / bound))
            worst = float(np.max(used, initial=0.0))
            if not worst <= 1.0:
                return float("inf")
            if self.wrong and self.reported.shape == self.right.shape and tree.op != "computed_in":
                was = np.where(self.bad, np.minimum(np.abs(self.claimed - self.right) / bound, 1e150), 0.0)
                was = np.where(np.isnan(was), 1e150, was)
                left = np.where(self.bad, used, 0.0)
                if not float(np.linalg.norm(left)) <= 0.2 * float(np.linalg.norm(was)):
                    return float("inf")
        return worst


def target_of(values: Mapping[str, Array], y: Array) -> dict[str, Array]:
    """The values with the target among them."""
    return {**values, TARGET: y}
