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
        if base == name or right is None or x is None or x.ndim < 2 or right.shape != x.shape:
            continue
        logits = own.get(base, x)
        for y in (y for y in targets if isinstance(y, np.ndarray)):
            for count, value, e in _forms(x, y, u):
                if bool((np.abs(value - right) <= 2 * e + 2 * u * np.abs(right)).all()) and logits.shape == x.shape:
                    value, e = next((v, e) for n, v, e in _forms(logits, y, u) if n == count)
                    found[name] = Alternative(value=value, allowed=2 * e, reason=_REASON)
    return tuple(
        replace(item, alternatives=(*item.alternatives, found[item.quantity.name]))
        if item.quantity.name in found
        else item
        for item in items
    )


def _forms(x: Array, y: Array, u: float) -> Iterator[tuple[float, Array, Array]]:
    """For the mean and the sum over the rows: what is divided by, the gradient, and how far off it may be."""
    if not x.size:
        return
    if y.dtype.kind in "iu" and y.shape == x.shape[:-1]:
        counts = (y >= 0) & (y < x.shape[-1])  # an index beside the classes is one to ignore
        one_hot = np.eye(x.shape[-1])[np.where(counts, y, 0)]
    elif y.shape == x.shape and bool((np.abs(y.sum(-1) - 1) <= 8 * y.shape[-1] * u).all()):
        counts, one_hot = np.ones(y.shape[:-1], dtype=bool), np.asarray(y, np.float64)
    else:
        return
    shifted = np.asarray(x, np.float64) - x.max(-1, keepdims=True)
    p = np.exp(shifted)
    p /= p.sum(-1, keepdims=True)
    # the exponent is off by u of itself, the exponential, the sum over n classes and the quotient by some u
    off = u * p * (np.abs(shifted) + x.shape[-1] + 8)
    for count in (float(max(1, counts.sum())), 1.0):
        value = (p - one_hot) * counts[..., None] / count
        yield count, value, (off + 2 * u * np.abs(p - one_hot)) * counts[..., None] / count
