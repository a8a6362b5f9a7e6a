"""Losses and update steps as trees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from manual_bp import nn
from manual_bp.network import INPUT

from ._node import Node, add, const, exchange, fn, inverse_count, mul, neg, node, one_minus, operand, scaled, total

_FLOOR = float(np.float32(1e-12))


def loss_formulas(loss: Any, p: Node, t: Node, ndim: int, target_ndim: int) -> tuple[Node, Node] | None:
    """The loss of prediction p and target t, and ∂L/∂p; None if the loss is not known here or has reduction 'none'."""
    if getattr(loss, "reduction", "none") == "none":
        return None
    elementwise = _elementwise(loss, p, t)
    if elementwise is not None:
        value, slope = elementwise
        if loss.reduction == "sum":
            return total(value, None, says="L"), slope
        share = inverse_count(p, None, "1/N of the mean")
        return mul(total(value, None, says="Σ ℓ"), share, says="L"), mul(slope, share, says="∂L/∂p")
    if isinstance(loss, nn.NLLLoss | nn.CrossEntropyLoss) and ndim >= 2:
        return class_formulas(loss, p, class_parts(loss, p, t, ndim, target_ndim))
    return None


def _elementwise(loss: Any, p: Node, t: Node) -> tuple[Node, Node] | None:
    """ℓ and ∂ℓ/∂p of each element."""
    d = add(p, neg(t), says="p − t")
    match loss:
        case nn.MSELoss():
            return fn("square", d, "(p − t)²"), mul(const(2.0), d, says="2 (p − t)")
        case nn.HalfSquaredError():
            return mul(const(0.5, "½"), fn("square", d, "(p − t)²")), mul(d, says="p − t")
        case nn.L1Loss():
            return fn("abs", d, "|p − t|"), fn("sign", d, "sign(p − t)")
        case nn.HuberLoss():
            width = loss.delta
            inside = mul(const(0.5, "½"), fn("square", d, "d²"), says="½ d²")
            size = fn("abs", d, "|d|")
            outside = mul(const(width, "δ"), add(size, const(-width / 2, "−½ δ")), says="δ (|d| − ½ δ)")
            return node("where", _within(d, width), inside, outside), node("clip", d, low=-width, high=width)
        case nn.SmoothL1Loss(beta=beta) if beta > 0:
            inside = mul(const(0.5, "½"), fn("square", d, "d²"), const(1 / beta, "1/β"), says="½ d²/β")
            outside = add(fn("abs", d, "|d|"), const(-beta / 2, "−½ β"), says="|d| − ½ β")
            slope = node("clip", mul(d, const(1 / beta, "1/β"), says="d/β"), low=-1.0, high=1.0)
            return node("where", _within(d, beta), inside, outside), slope
        case nn.BCELoss(weight=weight):
            return _bce(p, t, weight)
        case nn.BCEWithLogitsLoss(weight=weight, pos_weight=positive):
            return _logits(p, t, weight, positive)
    return None


def _within(d: Node, width: float) -> Node:
    return node("within", d, below=width, says="|d| < width")


def _bce(p: Node, t: Node, weight: Any) -> tuple[Node, Node]:
    w = [] if weight is None else [const(np.asarray(weight, np.float64), "the weight")]  # type: ignore[arg-type]  # an array is a constant, too
    first = mul(t, _clamped_log(p, "log p"), says="t log p")
    second = mul(one_minus(t), _clamped_log(one_minus(p), "log(1 − p)"), says="(1 − t) log(1 − p)")
    denominator = node("clip", mul(p, one_minus(p), says="p (1 − p)"), low=_FLOOR, high=1.0, says="p (1 − p)")
    slope = mul(add(p, neg(t), says="p − t"), fn("reciprocal", denominator, "1/(p (1 − p))"), *w)
    return mul(neg(add(first, second, says="the log-likelihood")), *w), slope


def _clamped_log(a: Node, says: str) -> Node:
    return node("clip", fn("log", a, says), low=-100.0, high=np.inf, says=says)


def _logits(z: Node, t: Node, weight: Any, positive: Any) -> tuple[Node, Node]:
    w = [] if weight is None else [const(np.asarray(weight, np.float64), "the weight")]  # type: ignore[arg-type]  # an array is a constant, too
    c = [] if positive is None else [const(np.asarray(positive, np.float64), "the positive weight")]  # type: ignore[arg-type]  # likewise
    s = fn("sigmoid", z, "σ(z)")
    first = mul(*c, t, fn("log_sigmoid", z, "log σ(z)"), says="t log σ(z)")
    second = mul(one_minus(t), fn("log_sigmoid", neg(z), "log(1 − σ(z))"), says="(1 − t) log(1 − σ(z))")
    value = mul(neg(add(first, second, says="the log-likelihood")), *w)
    if not c:
        return value, mul(add(s, neg(t), says="σ(z) − t"), *w)
    share = add(mul(*c, t, says="c t"), one_minus(t), says="c t + 1 − t")
    return value, mul(add(mul(share, s), neg(mul(*c, t, says="c t"))), *w)


@dataclass(frozen=True)
class Classes:
    """The parts of a loss over classes: target as it counts in the sum, its mass, log p, and 1 / count."""

    q: Node
    mass: Node
    logs: Node
    share: Node | None


def class_parts(loss: Any, p: Node, t: Node, ndim: int, target_ndim: int, *, spread: str = "all") -> Classes:
    """Target and mean of a loss over classes; ``spread`` says how the smoothing's share is spread over the classes."""
    logits = isinstance(loss, nn.CrossEntropyLoss)
    logs = node("log_softmax", p, axis=1, says="log softmax") if logits else p
    weight = None if loss.weight is None else np.asarray(loss.weight, np.float64).reshape(-1, *(1,) * (ndim - 2))
    factors = [] if weight is None else [const(weight, "the class weights")]  # type: ignore[arg-type]  # an array is a constant, too
    smoothing = float(getattr(loss, "label_smoothing", 0.0))
    by_class = target_ndim == ndim - 1
    hot = node("one_hot", t, p, axis=1, ignore=float(loss.ignore_index), says="the one-hot target") if by_class else t
    certain = mul(hot, *factors, says="w · one-hot") if factors else hot
    q = certain
    if smoothing:
        counted = total(hot, (1,), keep=True, says="1 where counted") if by_class else const(1.0)
        if spread == "others":
            counted = add(counted, neg(hot))
        share = node("like_classes", p, smoothing=smoothing, spread=spread, says="the smoothing's share")
        smooth = mul(counted, share, *factors, says="the smoothing's share")
        q = add(mul(const(1 - smoothing, "1 − smoothing"), certain), smooth, says="the smoothed target")
    mass = total(q, (1,), keep=True, says="Σ q") if logits else const(1.0)
    if loss.reduction == "sum":
        return Classes(q, mass, logs, None)
    if by_class:
        return Classes(q, mass, logs, fn("reciprocal", total(certain, None, says="Σ w"), "1/N of the mean"))
    return Classes(q, mass, logs, inverse_count(p, tuple(i for i in range(ndim) if i != 1), "1/N of the mean"))


def class_formulas(loss: Any, p: Node, c: Classes) -> tuple[Node, Node]:
    """The loss over classes and its gradient, made of its parts."""
    value = neg(total(mul(c.q, c.logs, says="q log p"), None, says="Σ q log p"))
    if isinstance(loss, nn.CrossEntropyLoss):
        soft = node("softmax", p, axis=1, says="softmax")
        slope = add(mul(soft, c.mass, says="softmax · Σ q"), neg(c.q), says="softmax − q")
    else:
        slope = neg(c.q)
    if c.share is None:
        return value, slope
    return mul(value, c.share, says="L"), mul(slope, c.share, says="∂L/∂p")


# ------------------------------------------------------------------ updates


def update_formula(optimizer: Any, theta: Node, g: Node) -> Node | None:
    """The parameter after the first step of an optimiser; None if it is not known here."""
    rate, decay = const(optimizer.lr, "the learning rate"), getattr(optimizer, "weight_decay", 0.0)
    decoupled = isinstance(optimizer, nn.AdamW)
    if isinstance(optimizer, nn.SGD | nn.Adam) and decay and not decoupled:
        g = add(g, mul(const(decay, "the weight decay λ"), theta, says="λ θ"), says="g + λ θ")
    if isinstance(optimizer, nn.SGD):
        direction = g
        if optimizer.momentum and optimizer.nesterov:
            ahead = mul(const(optimizer.momentum, "the momentum μ"), g, says="μ b")
            direction = add(g, ahead, says="g + μ b")
        return add(theta, neg(mul(rate, direction, says="lr · d")), says="θ − lr d")
    if isinstance(optimizer, nn.Adam):
        beta1, beta2 = optimizer.betas
        m = mul(const(1 - beta1, "1 − β₁"), g, says="m")
        v = mul(const(1 - beta2, "1 − β₂"), fn("square", g, "g²"), says="v")
        m_hat = mul(m, const(1 / (1 - beta1), "the bias correction of m"), says="m̂")
        v_hat = mul(v, const(1 / (1 - beta2), "the bias correction of v"), says="v̂")
        size = add(fn("sqrt", v_hat, "√v̂"), const(optimizer.eps, "ε"), says="√v̂ + ε")
        step = mul(rate, m_hat, fn("reciprocal", size, "1/(√v̂ + ε)"), says="lr m̂ / (√v̂ + ε)")
        start = theta
        if decoupled and decay:
            start = mul(
                theta,
                add(const(1.0), neg(mul(rate, const(decay, "the weight decay λ"), says="lr λ"))),
                says="θ (1 − lr λ)",
            )
        return add(start, neg(step), says="θ − lr m̂ / (√v̂ + ε)")
    return None


def update_variants(optimizer: Any, theta: Node, g: Node) -> Iterator[tuple[str, str, float, Node]]:
    """Steps that differ from the right one in a decision, not in one place: identifier, name, cost, formula."""
    right = update_formula(optimizer, theta, g)
    if right is None:
        return
    yield "result-missing", "the parameter stays as it was: no step is made", 1.0, mul(theta)
    yield "function-applied-twice", "the step is made twice with the same gradient", 1.2, exchange(right, theta, right)
    yield "sign-flipped", "the step goes uphill: θ + lr d", 0.9, add(scaled(theta, 2.0), neg(right))
    share = inverse_count(operand(INPUT), (0,), "1/n")
    for words, factor in (("divided", share), ("multiplied", fn("reciprocal", share))):
        changed = exchange(right, g, mul(g, factor))
        identifier = "mean-for-sum" if words == "divided" else "sum-for-mean"
        yield identifier, f"the gradient is {words} by the number of examples once more", 1.3, changed
    decay = getattr(optimizer, "weight_decay", 0.0)
    if isinstance(optimizer, nn.SGD) and decay:
        plain = update_formula(replace(optimizer, weight_decay=0.0), theta, g)
        assert plain is not None, "SGD has a formula"
        yield (
            "factor-missing",
            "the weight decay is not multiplied with the learning rate",
            1.1,
            add(plain, scaled(theta, -decay)),
        )
        decayed = mul(theta, const(1 - optimizer.lr * decay))
        yield (
            "option-mixed-up",
            "the weight decay shrinks θ itself and leaves the momentum alone",
            1.3,
            add(decayed, plain, neg(theta)),
        )
    if isinstance(optimizer, nn.Adam):
        for identifier, name, cost, how in _adam_variants(optimizer):
            yield identifier, name, cost, _adam(optimizer, theta, g, how)


@dataclass(frozen=True)
class _Adam:
    """What stands where in the first step: weights of g and g², what m and v are divided by, and where ε stands."""

    weights: tuple[float, float]
    corrections: tuple[float, float]
    inside: bool = False
    eps_factor: float = 1.0
    shrunk_after: bool = False


def _adam_variants(o: Any) -> Iterator[tuple[str, str, float, _Adam]]:
    b1, b2 = o.betas
    own = (1 - b1, 1 - b2)
    right = _Adam(own, own)
    yield "term-missing", "both bias corrections are forgotten", 1.1, replace(right, corrections=(1.0, 1.0))
    yield "epsilon-inside", "ε stands inside of the root", 1.2, replace(right, inside=True)
    mixed = "option-mixed-up"
    yield mixed, "β₁ and β₂ are exchanged in the averages", 1.2, replace(right, weights=own[::-1])
    yield mixed, "β₁ and β₂ are exchanged in the bias corrections", 1.2, replace(right, corrections=own[::-1])
    bare = _Adam(own[::-1], (1.0, 1.0))
    yield mixed, "β₁ and β₂ are exchanged, and both bias corrections forgotten", 1.6, bare
    yield "factor-missing", "(1 − β) is missing in both averages", 1.4, replace(right, weights=(1.0, 1.0))
    yield mixed, "β stands where 1 − β is due, in both averages", 1.3, replace(right, weights=(b1, b2))
    later = replace(right, corrections=(1 - b1**2, 1 - b2**2))
    yield "off-by-one", "the first step is counted as the second one in the bias corrections", 1.2, later
    yield "off-by-one", "the bias corrections are by β, not by 1 − β", 1.4, replace(right, corrections=(b1, b2))
    words = "ε is added before the bias correction of v, not after it"
    yield "epsilon-outside", words, 1.3, replace(right, eps_factor=1 / own[1] ** 0.5)
    if isinstance(o, nn.AdamW) and o.weight_decay:
        words = "the weight decay shrinks what the step has made, not the parameter before it"
        yield "operations-exchanged", words, 1.2, replace(right, shrunk_after=True)


def _adam(o: Any, theta: Node, g: Node, how: _Adam) -> Node:
    """The first step of Adam with one decision changed."""
    decoupled = isinstance(o, nn.AdamW)
    if o.weight_decay and not decoupled:
        g = add(g, scaled(theta, o.weight_decay))
    m = scaled(g, how.weights[0] / how.corrections[0])
    v = scaled(fn("square", g), how.weights[1] / how.corrections[1])
    eps = const(o.eps * how.eps_factor, "ε")
    size = fn("sqrt", add(v, eps)) if how.inside else add(fn("sqrt", v), eps)
    step = scaled(mul(m, fn("reciprocal", size)), -o.lr)
    kept = 1 - o.lr * o.weight_decay if decoupled else 1.0
    return scaled(add(theta, step), kept) if how.shrunk_after else add(scaled(theta, kept), step)
