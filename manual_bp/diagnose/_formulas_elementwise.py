"""Activations as trees: f(x), and ∂L/∂x = ∂L/∂y · f'(x)."""

from __future__ import annotations

import math
from typing import Any

from manual_bp import nn

from ._node import Node, add, const, fn, mul, node, one_minus

_K, _A = math.sqrt(2 / math.pi), 0.044715  # of GELU's approximation by tanh


def forward_of(layer: Any, x: Node) -> Node | None:
    """f(x), None if the layer is no activation known here."""
    match layer:
        case nn.ReLU():
            return fn("relu", x, "y")
        case nn.Sigmoid():
            return fn("sigmoid", x, "y")
        case nn.Tanh():
            return fn("tanh", x, "y")
        case nn.LeakyReLU():
            return node("where", _positive(x), x, mul(const(layer.negative_slope, "the negative slope"), x), says="y")
        case nn.SiLU():
            return mul(x, fn("sigmoid", x, "σ(x)"), says="y")
        case nn.Softplus():
            z = mul(const(layer.beta, "β"), x, says="β x")
            soft = mul(fn("softplus", z), const(1 / layer.beta, "1/β"), says="log(1 + e^(β x)) / β")
            return node("where", node("greater", z, than=layer.threshold, says="β x > threshold"), x, soft, says="y")
        case nn.GELU(approximate="tanh"):
            return mul(const(0.5), x, add(const(1.0), _t(x), says="1 + t"), says="y")
        case nn.GELU():
            return mul(x, fn("cdf", x, "Φ(x)"), says="y")
    return None


def slope_of(layer: Any, x: Node, g: Node) -> Node:
    """∂L/∂x of an activation."""
    match layer:
        case nn.ReLU():
            return mul(g, _positive(x), says="∂L/∂x")
        case nn.Sigmoid():
            y = fn("sigmoid", x, "y")
            return mul(g, y, one_minus(y), says="∂L/∂x")
        case nn.Tanh():
            square = fn("square", fn("tanh", x, "y"), "y²")
            return mul(g, one_minus(square), says="∂L/∂x")
        case nn.LeakyReLU():
            slope = node("where", _positive(x), const(1.0), const(layer.negative_slope, "the negative slope"))
            return mul(g, slope.called("the slope"), says="∂L/∂x")
        case nn.SiLU():
            s = fn("sigmoid", x, "σ(x)")
            return mul(g, s, add(const(1.0), mul(x, one_minus(s), says="x (1 − σ(x))")), says="∂L/∂x")
        case nn.Softplus():
            z = mul(const(layer.beta, "β"), x, says="β x")
            above = node("greater", z, than=layer.threshold, says="β x > threshold")
            return mul(g, node("where", above, const(1.0), fn("sigmoid", z, "σ(β x)"), says="the slope"), says="∂L/∂x")
        case nn.GELU(approximate="tanh"):
            t = _t(x)
            inner = mul(
                const(_K, "√(2/π)"), add(const(1.0), mul(const(3 * _A, "3 a"), fn("square", x, "x²"))), says="u'"
            )
            first = mul(const(0.5), add(const(1.0), t, says="1 + t"), says="½ (1 + t)")
            second = mul(const(0.5), x, one_minus(fn("square", t, "t²")), inner, says="½ x (1 − t²) u'")
            return mul(g, add(first, second, says="f'(x)"), says="∂L/∂x")
        case nn.GELU():
            slope = add(fn("cdf", x, "Φ(x)"), mul(x, fn("pdf", x, "φ(x)"), says="x φ(x)"), says="f'(x)")
            return mul(g, slope, says="∂L/∂x")
    raise TypeError(f"{type(layer).__name__} is no activation known here")


def _positive(x: Node) -> Node:
    return node("greater", x, than=0.0, says="the mask x > 0")


def _t(x: Node) -> Node:
    """t = tanh(k (x + a x³))."""
    cubic = mul(const(_A, "a"), fn("cube", x, "x³"), says="a x³")
    return fn("tanh", mul(const(_K, "√(2/π)"), add(x, cubic), says="u"), "t")
