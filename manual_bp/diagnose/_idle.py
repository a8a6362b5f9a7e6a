"""Hypotheses that would be no mistake: what they make of right numbers is right.

That a quantity is another one explains nothing where both are the same in right code, too (the two biases of a torch
LSTM have one gradient): then the other one is wrong in the same way, and this is what is to be explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from manual_bp.network import INPUT, TARGET
from manual_bp.nn._layer import Array

from ._case import BEFORE, RIGHT, Case
from ._evaluate import MISFIT, Evaluator
from ._node import Node, leaves, walk
from ._setting import Setting


def idle(tree: Node, s: Setting, cases: Sequence[Case]) -> bool:
    """Whether an edited formula reads a quantity that the right one does not, and with right numbers gives the right.

    Two kinds of right numbers are tried: each of those other quantities as it should be by itself, all else as the
    candidate has it, on every probe on which the result is wrong; and the reference's own pass, on every probe.
    """
    foreign = _numbers(tree) - _numbers(s.root)
    if not foreign or any(name.startswith((BEFORE, RIGHT)) for name in foreign):
        return False
    try:
        alone = all(_mended(tree, foreign, case) for case in cases if case.wrong)
        return alone or all(_whole(tree, s, case) for case in cases)
    except MISFIT:
        return False


def _numbers(root: Node) -> set[str]:
    """The quantities whose numbers a formula reads, not their shapes alone."""
    return {n.options["name"] for _, n in walk(root, shapes=False) if n.op == "operand"}


def _mended(tree: Node, foreign: set[str], case: Case) -> bool:
    right = {name: case.mended[name] for name in foreign if name in case.mended}
    if not right:
        return False
    world = {name: right[name] if name in right else case.look(name) for name in leaves(tree)}
    return _gives(tree, world, case.right, case.allowed, case.dtype)


def _whole(tree: Node, s: Setting, case: Case) -> bool:
    given = {INPUT, TARGET, *s.graph.parameters()}
    world: dict[str, Array] = {}
    for name in leaves(tree):
        own = name.removeprefix(RIGHT)
        world[name] = case.whole[own].value if own in case.whole or own not in given else case.look(own)
    expected = case.whole[s.quantity]
    return _gives(tree, world, expected.value, expected.allowed, case.dtype)


def _gives(tree: Node, world: Mapping[str, Array], right: Array, allowed: Array, dtype: str) -> bool:
    evaluator = Evaluator(world)
    with np.errstate(all="ignore"):
        value = evaluator.value(tree)
        if value.shape != right.shape:
            return False
        bound = 4 * evaluator.error(tree, dtype) + (allowed if allowed.shape == right.shape else 0.0)
        return bool(np.all((np.abs(value - right) <= bound) | (value == right) | (np.isnan(value) & np.isnan(right))))
