"""Logarithms with a guard: ``log(p + 1e-7)`` and its kind, another right answer for a loss.

From-scratch losses keep log away from 0 by a small number. That changes the loss a little, everywhere and not by
rounding, and it is meant: what agrees with such a form, guard and all, is accepted, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from manual_bp.compare import Alternative, Item
from manual_bp.trace import GRAD, Array

#: From the largest guard that still is one, to the smallest that changes anything.
_SIZES = (*(float(f"1e-{k}") for k in range(5, 17)), *(float(np.finfo(t).eps) for t in (np.float32, np.float64)))

#: How many of the forms that give the same loss are carried on to the gradients behind it.
_MOST = 3

#: A guard that changes no probability: the loss as it is.
_NONE = 1e-300


@dataclass(frozen=True)
class LogLoss:
    """A loss made of logarithms of probabilities.

    ``kind`` is "softmax" (logits, one class a row), "sigmoid" (logits), "probability" (of the one of two classes) or
    "classes" (probabilities, one class a row).
    """

    kind: str
    reduction: str


def guarded(items: tuple[Item, ...], loss: LogLoss, output: str, x: Array, y: Array, *, u: float) -> tuple[Item, ...]:
    """The items, those of the loss and of the gradient of its input with the guarded forms as other right answers.

    Parameters
    ----------
    output
        Name of the loss's input.
    x, y
        That input, as the candidate has it, and the target.
    u
        Unit roundoff of the dtype under judgement.
    """
    forms = _sound(loss, x, y, u)
    alternatives = {
        "loss": tuple(Alternative(value=np.asarray(v), allowed=np.asarray(e), reason=r) for v, e, _, _, r in forms),
        output + GRAD: tuple(Alternative(value=g, allowed=e, reason=r) for _, _, g, e, r in forms),
    }
    return tuple(
        replace(item, alternatives=(*item.alternatives, *alternatives.get(item.quantity.name, ()))) for item in items
    )


def fitting(loss: LogLoss, x: Array, y: Array, claimed: Array, *, u: float) -> list[tuple[Array, str]]:
    """The gradient of the loss's input, and the form in words, of the guarded forms that give the claimed loss."""
    with np.errstate(all="ignore"):
        fit = [form for form in _sound(loss, x, y, u) if bool((np.abs(claimed - form[0]) <= form[1]).all())]
    return [(slope, reason) for _, _, slope, _, reason in fit[:_MOST]]


def carried_on(items: tuple[Item, ...], told: tuple[Item, ...], reason: str) -> tuple[Item, ...]:
    """The items, those that a guarded gradient changes with what becomes of it as another right answer.

    ``told`` are the items of a candidate that reports this gradient. One that does not report it has rounded it on the
    way, which the bounds of the items here take in.
    """
    known = {item.quantity.name: item.isolated for item in told}

    def with_it(item: Item) -> Item:
        own, other = item.isolated, known.get(item.quantity.name)
        if own is None or other is None or np.array_equal(own.value, other.value, equal_nan=True):
            return item
        more = Alternative(value=other.value, allowed=own.allowed + other.allowed, reason=reason)
        return replace(item, alternatives=(*item.alternatives, more))

    return tuple(map(with_it, items))


def recognised(
    items: tuple[Item, ...], kinds: Iterable[str], output: str, x: Array, y: Array, *, u: float
) -> LogLoss | None:
    """The loss of such a kind that gives the reference's own numbers, None if none does: a weighted one, say."""
    right = {item.quantity.name: item.isolated.value for item in items if item.isolated is not None}
    for kind, reduction in product(kinds, ("mean", "sum")):
        loss = LogLoss(kind, reduction)
        with np.errstate(all="ignore"):
            form = next(_forms(loss, np.asarray(x, np.float64), y, u, sizes=(_NONE,)), None)
            if form is None:  # of no examples
                continue
            value, e_value, slope, e_slope, _ = form
            parts = (("loss", value, e_value), (output + GRAD, slope, e_slope))
            told = [(v, e, right[name]) for name, v, e in parts if name in right]
            if told and all(v.shape == r.shape and bool((np.abs(v - r) <= e).all()) for v, e, r in told):
                return loss
    return None


#: Loss, its allowed error, gradient, its allowed error, and the form in words.
_Form = tuple[Array, Array, Array, Array, str]


def _sound(loss: LogLoss, x: Array, y: Array, u: float) -> list[_Form]:
    """The forms that give numbers: of what is no probability there may be no logarithm."""
    with np.errstate(all="ignore"):
        forms = _forms(loss, np.asarray(x, np.float64), y, u)
        return [form for form in forms if bool(np.isfinite(form[0]).all() and np.isfinite(form[2]).all())]


def _forms(loss: LogLoss, x: Array, y: Array, u: float, sizes: tuple[float, ...] = _SIZES) -> Iterator[_Form]:
    """The loss with guards of these sizes."""
    p, t = _probabilities(loss.kind, x), np.asarray(y)
    examples = len(x)
    rows = loss.kind in ("softmax", "classes")
    if rows and t.dtype.kind in "iu":
        t, counts = one_hot(t, x.shape[-1])
        examples = int(counts.sum())
    count = 1.0 if loss.reduction == "sum" else float(examples if rows else x.size)
    if not count or t.shape != x.shape:  # of no examples, or of another kind
        return
    n, off = x.shape[-1] + 16, 8 * u if loss.kind == "sigmoid" else 0.0
    for form, log, slope in _logs():
        for eps in sizes:
            inside = t * log(p, eps) + (0 if rows else (1 - t) * log(1 - p, eps))
            g = -t * slope(p, eps) + (0 if rows else (1 - t) * slope(1 - p, eps))
            dx = _through(loss.kind, p, g) / count
            # probabilities are off by n u relative to themselves, and so are their logarithms; one minus a sigmoid is
            # off by as much as one is, which is more than itself where that is small
            far = t * np.log1p(off * slope(p, eps)) + (1 - t) * np.log1p(off * slope(1 - p, eps)) if off else 0.0
            e_loss = (4 * n * u * (np.abs(inside) + np.abs(t) + 1) + far).sum() / count
            scale = np.abs(g) * (p if loss.kind in ("softmax", "sigmoid") else 1.0)
            e_dx = 4 * n * u * (scale + (np.abs(g * p).sum(-1, keepdims=True) if loss.kind == "softmax" else 0)) / count
            yield np.asarray(-inside.sum() / count), np.asarray(e_loss), dx, e_dx, form.format(eps)


def one_hot(y: Array, classes: int) -> tuple[Array, Array]:
    """Class indices as rows, of zeros for an index beside the classes, which is one to ignore; and which count."""
    counts = (y >= 0) & (y < classes)
    return np.eye(classes)[np.where(counts, y, 0)] * counts[..., None], counts


def softmax(x: Array) -> Array:
    """Over the last axis."""
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def _probabilities(kind: str, x: Array) -> Array:
    if kind in ("probability", "classes"):
        return x
    if kind == "sigmoid":
        e = np.exp(-np.abs(x))
        return np.asarray(np.where(x < 0, e, 1.0) / (1 + e))
    return softmax(x)


def _through(kind: str, p: Array, g: Array) -> Array:
    """dL/dx from g = dL/dp."""
    if kind == "softmax":
        return np.asarray(p * (g - (g * p).sum(-1, keepdims=True)))
    return g * p * (1 - p) if kind == "sigmoid" else g


_Log = Callable[[Array, float], Array]


def _logs() -> Iterator[tuple[str, _Log, _Log]]:
    """The guarded logarithm in words, itself, and its derivative as it is written (a clip is left out of it)."""
    yield "log(p + {:.3g})", lambda p, e: np.log(p + e), lambda p, e: 1 / (p + e)
    yield (
        "log(clip(p, {0:.3g}, 1 - {0:.3g}))",
        lambda p, e: np.log(np.clip(p, e, 1 - e)),
        lambda p, e: 1 / np.clip(p, e, 1 - e),
    )
    yield "log(max(p, {:.3g}))", lambda p, e: np.log(np.maximum(p, e)), lambda p, e: 1 / np.maximum(p, e)
