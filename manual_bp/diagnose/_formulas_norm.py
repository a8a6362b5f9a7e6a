"""Normalisation as trees. With δ = ∂L/∂y, ĝ = w δ and s = 1/√(σ² + ε): ∂L/∂x = s (ĝ − mean ĝ − x̂ mean(ĝ x̂))."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manual_bp import nn

from ._node import Node, add, const, fn, inverse_count, mul, neg, node, total

Built = tuple[Node, Node, dict[str, Node]]
Axes = tuple[int, ...]


def batch_norm(layer: Any, x: Node, params: Mapping[str, Node], g: Node, ndim: int) -> Built:
    """Output, ∂L/∂x and the parameters' gradients of a batch normalisation."""
    over = (0, *range(2, ndim))
    affine = {
        name: node("column", params[name], x, axis=1, says=params[name].says) for name in layer.parameter_shapes()
    }
    if layer.training or not layer.track_running_stats:
        return _normalised(x, g, affine, over, over, layer.eps)
    mean = node("column", params["running_mean"], x, axis=1, says="the running mean")
    variance = node("column", params["running_var"], x, axis=1, says="the running variance")
    s = _inverse_root(variance, layer.eps)
    x_hat = mul(add(x, neg(mean), says="x − μ"), s, says="x̂")
    dx = mul(_times_weight(g, affine), s, says="∂L/∂x")
    return _affine(x_hat, affine), dx, _gradients(x_hat, g, affine, over)


def layer_norm(layer: nn.LayerNorm, x: Node, params: Mapping[str, Node], g: Node, ndim: int) -> Built:
    """The same of a layer normalisation."""
    count = len(layer.shape)
    over = tuple(range(ndim - count, ndim))
    affine = {name: params[name] for name in layer.parameter_shapes()}
    return _normalised(x, g, affine, over, tuple(range(ndim - count)), layer.eps)


def _normalised(x: Node, g: Node, affine: Mapping[str, Node], over: Axes, shared: Axes, eps: float) -> Built:
    mean = _mean(x, over, "μ")
    centred = add(x, neg(mean), says="x − μ")
    variance = _mean(fn("square", centred, "(x − μ)²"), over, "σ²")
    s = _inverse_root(variance, eps)
    x_hat = mul(centred, s, says="x̂")
    g_hat = _times_weight(g, affine)
    through_mean = _mean(g_hat, over, "mean ĝ").called("the share through the mean, mean ĝ,")
    product = _mean(mul(g_hat, x_hat, says="ĝ x̂"), over, "mean(ĝ x̂)")
    through_variance = mul(x_hat, product, says="the share through the variance, x̂ mean(ĝ x̂),")
    dx = mul(s, add(g_hat, neg(through_mean), neg(through_variance)), says="∂L/∂x")
    return _affine(x_hat, affine), dx, _gradients(x_hat, g, affine, shared)


def _mean(a: Node, over: Axes, says: str) -> Node:
    return mul(total(a, over, keep=True, says=f"Σ of {says}"), inverse_count(a, over, "1/n"), says=says)


def _inverse_root(variance: Node, eps: float) -> Node:
    deviation = fn("sqrt", add(variance, const(eps, "ε"), says="σ² + ε"), "√(σ² + ε)")
    return fn("reciprocal", deviation, "1/√(σ² + ε)")


def _times_weight(g: Node, affine: Mapping[str, Node]) -> Node:
    return mul(g, affine["weight"], says="ĝ = w δ") if "weight" in affine else g


def _affine(x_hat: Node, affine: Mapping[str, Node]) -> Node:
    y = mul(x_hat, affine["weight"], says="w x̂") if "weight" in affine else x_hat
    return add(y, affine["bias"], says="y") if "bias" in affine else y


def _gradients(x_hat: Node, g: Node, affine: Mapping[str, Node], shared: Axes) -> dict[str, Node]:
    found = {"weight": total(mul(g, x_hat, says="δ x̂"), shared, says="∂L/∂w"), "bias": total(g, shared, says="∂L/∂b")}
    return {name: found[name] for name in affine}
