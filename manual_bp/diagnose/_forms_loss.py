"""Losses once more, as others write them: a mistake may have been made in that form, or be a decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from manual_bp import nn

from ._formulas import exponentials, softmax_jacobian
from ._formulas_loss import class_formulas, class_parts
from ._node import Node, add, const, fn, inverse_count, mul, neg, node, one_minus, total

#: What is to be said of the form, and the formula.
Form = tuple[str, Node]
#: Identifier, name, cost, and loss and gradient of a decision.
Variant = tuple[str, str, float, tuple[Node, Node]]

_BARE = "; what is divided by is not kept away from 0, either"
_BARE_LOG = "; the logarithms are not kept finite, either"


def loss_forms(loss: Any, p: Node, t: Node, ndim: int, target_ndim: int) -> Iterator[Form]:
    """∂L/∂p in other forms."""
    if getattr(loss, "reduction", "none") == "none":
        return
    share = [inverse_count(p, None, "1/N of the mean")] if loss.reduction == "mean" else []
    if isinstance(loss, nn.HuberLoss):
        d = add(p, neg(t), says="p − t")
        outside = mul(const(loss.delta, "δ"), fn("sign", d, "sign(p − t)"), says="δ sign(p − t)")
        inside = node("within", d, below=loss.delta, says="|p − t| < δ")
        yield "", mul(node("where", inside, mul(d, says="p − t"), outside, says="ℓ'"), *share, says="∂L/∂p")
    if isinstance(loss, nn.BCELoss) and loss.weight is None:
        product = mul(p, one_minus(p), says="p (1 − p)")
        yield _BARE, mul(add(p, neg(t), says="p − t"), fn("reciprocal", product, "1/(p (1 − p))"), *share)
        first = mul(t, fn("reciprocal", p, "1/p"), says="t/p")
        second = mul(one_minus(t), fn("reciprocal", one_minus(p), "1/(1 − p)"), says="(1 − t)/(1 − p)")
        yield _BARE, mul(add(neg(first), second, says="−t/p + (1 − t)/(1 − p)"), *share, says="∂L/∂p")
    if isinstance(loss, nn.BCEWithLogitsLoss) and loss.weight is None and loss.pos_weight is None:
        s = fn("sigmoid", p, "σ(z)")
        first = mul(t, one_minus(s), says="t (1 − σ(z))")
        second = mul(one_minus(t), s, says="(1 − t) σ(z)")
        yield "", mul(add(neg(first), second), *share, says="∂L/∂z")
    if isinstance(loss, nn.CrossEntropyLoss) and ndim >= 2:
        c = class_parts(loss, p, t, ndim, target_ndim)
        e, whole = exponentials(p, (1,))
        y = mul(e, fn("reciprocal", whole, "1/Σ e^z"), says="p")
        slope = mul(neg(c.q), fn("reciprocal", y, "1/p"), *([c.share] if c.share else []), says="∂L/∂p = −q/p")
        inner = total(mul(slope, y, says="∂L/∂p · p"), (1,), keep=True, says="Σ ∂L/∂p · p")
        yield "", mul(y, add(slope, neg(inner), says="∂L/∂p − Σ ∂L/∂p · p"), says="∂L/∂z")
        yield "", softmax_jacobian(y, slope, 1)


def loss_value_forms(loss: Any, p: Node, t: Node, ndim: int, target_ndim: int) -> Iterator[Form]:
    """The loss in other forms."""
    if getattr(loss, "reduction", "none") == "none":
        return
    share = [inverse_count(p, None, "1/N of the mean")] if loss.reduction == "mean" else []
    if isinstance(loss, nn.BCELoss) and loss.weight is None:
        first = mul(t, fn("log", p, "log p"), says="t log p")
        second = mul(one_minus(t), fn("log", one_minus(p), "log(1 − p)"), says="(1 − t) log(1 − p)")
        yield _BARE_LOG, mul(neg(total(add(first, second, says="the log-likelihood"), None, says="Σ ℓ")), *share)
    if isinstance(loss, nn.BCEWithLogitsLoss) and loss.weight is None and loss.pos_weight is None:
        away = fn("exp", neg(fn("abs", p, "|z|")), "e^−|z|")
        parts = add(fn("relu", p, "max(z, 0)"), neg(mul(p, t, says="z t")), fn("log1p", away, "log(1 + e^−|z|)"))
        yield "", mul(total(parts, None, says="Σ ℓ"), *share, says="L")
        s = fn("sigmoid", p, "σ(z)")
        first = mul(t, fn("log", s, "log σ(z)"), says="t log σ(z)")
        second = mul(one_minus(t), fn("log", one_minus(s), "log(1 − σ(z))"), says="(1 − t) log(1 − σ(z))")
        yield _BARE_LOG, mul(neg(total(add(first, second, says="the log-likelihood"), None, says="Σ ℓ")), *share)
    if isinstance(loss, nn.CrossEntropyLoss) and ndim >= 2:
        c = class_parts(loss, p, t, ndim, target_ndim)
        e, whole = exponentials(p, (1,))
        logs = fn("log", mul(e, fn("reciprocal", whole, "1/Σ e^z"), says="p"), "log p")
        value = neg(total(mul(c.q, logs, says="q log p"), None, says="Σ q log p"))
        yield _BARE_LOG, mul(value, *([c.share] if c.share else []), says="L")


def loss_variants(loss: Any, p: Node, t: Node, ndim: int, target_ndim: int) -> Iterator[Variant]:
    """Losses that differ in a decision, not in one place."""
    if isinstance(loss, nn.CrossEntropyLoss) and loss.reduction != "none" and loss.label_smoothing and ndim >= 2:
        for spread, words in (
            ("others", "the smoothing is spread over the other classes alone, C − 1 of them"),
            ("none", "the smoothing's share is not divided by the number of classes"),
        ):
            parts = class_parts(loss, p, t, ndim, target_ndim, spread=spread)
            yield "wrong-count", words, 1.3, class_formulas(loss, p, parts)
