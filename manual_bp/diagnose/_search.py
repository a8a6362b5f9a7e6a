"""The search: which edits of the definition give the reported numbers, on every probe."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ._case import BEFORE, SHARE, Case
from ._edit import Edit
from ._edits import edits
from ._evaluate import MISFIT
from ._factor import factor_edits, fitted_terms, precision_edits
from ._graph import Context, Graph, generic
from ._idle import idle
from ._node import Node, leaves, operand
from ._setting import Setting
from ._thin import thin

#: Largest difference, relative to the largest number, that the first cheap look lets pass.
ROUGH = {"float32": 1e-2, "float64": 1e-5}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Found:
    """An edit that explains what was reported, and its largest leftover in units of the bound."""

    edit: Edit
    leftover: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """One quantity on all probes, ready to be searched.

    Attributes
    ----------
    wrong, right
        The probes on which it is wrong, the most telling one first, and those on which it is right.
    setting
        Formula and shapes on the first of the wrong ones.
    deadline
        When to stop, on the clock of time.monotonic; what was found by then counts.
    without
        Identifiers of hypotheses that are left out.
    """

    wrong: tuple[Case, ...]
    right: tuple[Case, ...]
    setting: Setting
    deadline: float = float("inf")
    without: frozenset[str] = frozenset()

    @cached_property
    def constant(self) -> bool:
        """Whether the same was reported on every probe: nothing says then that it was kept from the one before."""
        first, *others = (case.claimed for case in (*self.wrong, *self.right))
        return bool(others) and all(np.array_equal(first, other, equal_nan=True) for other in others)

    def explain(self, tree: Node) -> float:
        """Largest leftover of an edited formula over all probes; inf if it does not explain them."""
        try:
            leftovers = []
            for case in (*self.wrong, *self.right):
                left = case.leftover(tree)
                if left == float("inf"):
                    return left
                leftovers.append(left)
            return max(leftovers)
        except MISFIT:
            return float("inf")

    def run(self, candidates: Iterable[Edit], look: Case | None = None) -> Iterator[Found]:
        """Those of the edits that explain everything; ``look`` is what is looked at first, the most telling probe."""
        first = look or self.wrong[0]
        rough = ROUGH[first.dtype]
        for n, edit in enumerate(candidates):
            if n % 8 == 0 and time.monotonic() > self.deadline:
                return
            if edit.identifier in self.without or (self.constant and edit.identifier == "stale-cache"):
                continue
            try:
                if not edit.precision and not first.close(edit.tree, rough):
                    continue
            except MISFIT:
                continue
            left = self.explain(edit.tree)
            if edit.identifier == "result-missing" and edit.tree.op == "fill" and not all(map(_zero, self.wrong)):
                continue  # a sum that cancels is not an array that was never written
            if left <= 1.0 and not idle(edit.tree, self.setting, (*self.wrong, *self.right)):
                yield Found(edit=edit, leftover=left)


def _zero(case: Case) -> bool:
    return not case.claimed.any()


def prepare(
    graph: Graph, cases: Sequence[Case], *, seconds: float = 20.0, without: Iterable[str] = ()
) -> Search | None:
    """Write the formula of the quantity and hold it against the reference; None if nothing is wrong."""
    wrong = tuple(sorted((c for c in cases if c.wrong), key=_telling))
    if not wrong:
        return None
    right = tuple(sorted((c for c in cases if not c.wrong), key=lambda c: c.reported.size))
    first = wrong[0]
    shapes = first.shapes()
    root = formula_of(graph, cases, first)
    known = root is not None and not any(name.startswith(SHARE) for name in leaves(root))
    root = root or _holding(graph.shared(first.quantity, shapes), cases) or generic(first.quantity)
    with np.errstate(all="ignore"):
        for case in cases:
            case.evaluator.keep(root)
    setting = Setting(
        graph=graph,
        quantity=first.quantity,
        root=root,
        shapes=shapes,
        shape_of=lambda n: first.evaluator.keep(n).shape,
        target=first.reported.shape,
        dtype=first.dtype,
        known_formula=known,
        context=graph.context(first.quantity, shapes) if known else Context(),
    )
    return Search(
        wrong=wrong, right=right, setting=setting, deadline=time.monotonic() + seconds, without=frozenset(without)
    )


def formula_of(graph: Graph, cases: Sequence[Case], first: Case | None = None) -> Node | None:
    """What the quantity is by definition, if that gives the reference's own numbers; shapes are those of ``first``."""
    first = first or cases[0]
    return _holding(graph.formula(first.quantity, first.shapes()), cases)


def _holding(root: Node | None, cases: Sequence[Case]) -> Node | None:
    """A formula, if there is one and it gives the reference's own numbers."""
    return root if root is not None and all(_agrees(c, root) for c in cases) else None


def _telling(case: Case) -> tuple[int, int, int]:
    """Several examples first, then enough wrong elements to tell hypotheses apart, then small arrays."""
    several = int(case.values["x"].shape[0] > 1) if "x" in case.values and case.values["x"].ndim else 0
    return -several, -min(int(case.bad.sum()), 12), sum(a.size for a in case.values.values())


def _agrees(case: Case, root: Node) -> bool:
    """Whether the formula gives the reference's own numbers."""
    try:
        with np.errstate(all="ignore"):
            value = case.evaluator.keep(root)
            if value.shape != case.right.shape:
                return False
            bound = 4 * case.evaluator.error(root, case.dtype)
            if case.allowed.shape == value.shape:
                bound = bound + case.allowed
            off = np.abs(value - case.right) > bound
            off &= ~((value == case.right) | (np.isnan(value) & np.isnan(case.right)))
            if case.excused is not None and case.excused.shape == off.shape:
                off &= ~case.excused
            return not bool(off.any())
    except MISFIT:
        return False


def single(search: Search) -> list[Found]:
    """All explanations by one edit."""
    with np.errstate(all="ignore"):
        found = list(search.run(factor_edits(search.setting, search.wrong)))
        # the plain ones first: where arrays are large, the deadline ends the search among the far-fetched ones
        every = sorted(edits(search.setting), key=lambda e: e.cost)
        few = thin(search.wrong[0], search.setting.graph)
        if few is not None:
            few.evaluator.keep(search.setting.root)
            found += search.run(every, few)
        if all(f.edit.fitted for f in found):  # a number that fits may be one that the definition has
            found += search.run(every)
        if not found:
            found += search.run(precision_edits(search.setting, search.wrong))
        if not found:
            found += search.run(fitted_terms(search.setting, search.wrong))
        if not found and search.constant:
            found += search.run([_same_everywhere(search.setting)])
    return found


def _same_everywhere(s: Setting) -> Edit:
    name = f"{s.quantity} is the same on every probe, whatever it is computed from"
    return Edit(identifier="same-everywhere", name=name, tree=operand(BEFORE + s.quantity), cost=3.5)


def double(search: Search, progress: Progress | None = None) -> list[Found]:
    """Explanations by two edits at once, the cheapest first edits first."""
    first = sorted(
        (e for e in edits(search.setting) if e.cost <= 1.5 and e.identifier not in search.without), key=lambda e: e.cost
    )
    found: list[Found] = []
    seen: set[bytes] = set()
    with np.errstate(all="ignore"):
        for n, edit in enumerate(first):
            if progress:
                progress(n, len(first))
            if time.monotonic() > search.deadline:
                break
            setting = _after(search, edit, seen)
            if setting is None:
                continue
            second = (e for e in edits(setting) if e.cost <= 1.7)
            for pair in search.run(itertools.chain(factor_edits(setting, search.wrong), second)):
                both = replace(
                    pair.edit,
                    name=f"two mistakes at once: {edit.name}; and {pair.edit.name}",
                    identifier=f"{edit.identifier}+{pair.edit.identifier}",
                    cost=edit.cost + pair.edit.cost,
                )
                found.append(Found(edit=both, leftover=pair.leftover))
            if len(found) > 40:
                break
        if progress:
            progress(len(first), len(first))
    return found


def _after(search: Search, edit: Edit, seen: set[bytes]) -> Setting | None:
    """The setting after a first edit, None if it changes nothing or was met before under another name."""
    evaluator = search.wrong[0].evaluator
    try:
        value = evaluator.value(edit.tree)
    except MISFIT:
        return None
    key = np.ascontiguousarray(value).tobytes()
    if key in seen:
        return None
    seen.add(key)
    memo: dict[Node, tuple[int, ...]] = {}

    def shape_of(n: Node) -> tuple[int, ...]:
        if n not in memo:
            memo[n] = evaluator.value(n).shape
        return memo[n]

    return replace(search.setting, root=edit.tree, shape_of=shape_of)
