"""Softmax and cross-entropy derived as one: dL/dx = (p - y) / n, another right answer for the logits' gradient.

A chain that is written out step by step carries the large -1/p y back through a softmax, or through exp, sum and
quotient, where it all but cancels; and a gradient that goes through the maximum makes up for that. The short form
takes p away from 1, which where p is near 1 is as exact as p is, and no more. Both are right, and torch's own
cross-entropy has the short one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp.compare import Alternative, Item
from manual_bp.guards import one_hot, softmax
from manual_bp.trace import GRAD, Array

_REASON = "(p − y) / n, softmax and cross-entropy derived as one"


def fused(
    items: tuple[Item, ...],
    names: Iterable[str],
    own: Mapping[str, Array],
    reference: Mapping[str, Array],
    targets: Collection[Any],
    *,
    u: float,
) -> tuple[Item, ...]:
    """The items, with the short form as another right answer for those of the gradients that it is the gradient of.

    Parameters
    ----------
    names
        The gradients that are asked for.
    own, reference
        By name, what the candidate reports, and what the reference has over the whole pass.
    targets
        What may be the classes: whole numbers, one for each row of the logits, or a probability for each.
    u
        Unit roundoff of the dtype under judgement.
    """
    found: dict[str, Alternative] = {}
    for name in names:
        base = name.removesuffix(GRAD)
        right, x = reference.get(name), reference.get(base)
        if base == name or right is None or x is None or x.ndim < 2 or right.shape != x.shape or not x.size:
            continue
        logits = own.get(base, x)
        for y in (y for y in targets if isinstance(y, np.ndarray) and logits.shape == x.shape):
            for form, of_own in zip(_forms(x, y, u), _forms(logits, y, u), strict=True):
                if bool((np.abs(form.value - right) <= form.allowed + 2 * u * np.abs(right)).all()):
                    found[name] = of_own
    return tuple(
        replace(item, alternatives=(*item.alternatives, found[item.quantity.name]))
        if item.quantity.name in found
        else item
        for item in items
    )


def _forms(x: Array, y: Array, u: float) -> Iterator[Alternative]:
    """The gradient of the mean over the rows, and that of the sum."""
    if y.dtype.kind in "iu" and y.shape == x.shape[:-1]:
        t, counts = one_hot(y, x.shape[-1])
    elif y.shape == x.shape and bool((np.abs(y.sum(-1) - 1) <= 8 * y.shape[-1] * u).all()):
        t, counts = np.asarray(y, np.float64), np.ones(y.shape[:-1], dtype=bool)
    else:
        return
    wide = np.asarray(x, np.float64)
    p = softmax(wide)
    # the exponent is off by u of itself, the exponential, the sum over n classes and the quotient by some u
    off = u * p * (np.abs(wide - wide.max(-1, keepdims=True)) + x.shape[-1] + 8) + 2 * u * np.abs(p - t)
    for count in (max(1, counts.sum()), 1):
        weight = counts[..., None] / count
        yield Alternative(value=(p - t) * weight, allowed=2 * off * weight, reason=_REASON)
