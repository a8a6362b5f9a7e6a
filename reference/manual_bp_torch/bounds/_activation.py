"""Bounds of elementwise functions and of softmax.

An elementwise function in working precision is computed with a few roundings; a rule states how many, relative to
the value and, where a common formula cancels, in absolute terms (0.5 (1 + tanh(z/2)) for the sigmoid loses u at
large negative z; it is right all the same).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manual_bp_torch.bounds._model import Alternative, Backward, Bound, Kinks, Operands, Rule


@dataclass(frozen=True)
class Curve:
    """A smooth function of one variable, for the bounds.

    Attributes
    ----------
    derivative
        f'(z), given the module and z.
    lipschitz, curvature
        Bounds of |f'| and |f''| everywhere.
    value_error, derivative_error
        Rounding of f and of f' in units of u, any usual formula, from (module, z, f(z)).
    from_output
        f' in terms of the output, where people write it so, and its rounding in units of u.
    """

    name: str
    derivative: Callable[[nn.Module, Tensor], Tensor]
    lipschitz: float
    curvature: float
    value_error: Callable[[nn.Module, Tensor, Tensor], Tensor]
    derivative_error: Callable[[nn.Module, Tensor], Tensor]
    from_output: Callable[[nn.Module, Tensor], Tensor] | None = None


class Elementwise(Rule):
    """y = f(z), dz = g f'(z)."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve

    def forward(self, s: Operands) -> Bound:
        c, p, (z,), (e_z,) = self.curve, s.precision, s.inputs, s.errors
        slope = torch.clamp(c.derivative(s.module, z).abs() + 2 * c.curvature * e_z, max=c.lipschitz)
        value = s.module(z)
        rounding = p.u * (c.value_error(s.module, z, value) + 16 * c.lipschitz * e_z)
        return Bound(slope * e_z + rounding + p.eta, f"certified: {c.name}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        c, p, (z,), (e_z,) = self.curve, s.precision, s.inputs, s.errors
        top = g.abs() + 2 * e_g
        slope = c.derivative(s.module, z).abs()
        e_slope = c.curvature * e_z + p.u * c.derivative_error(s.module, z)
        e = e_g * (slope + 2 * e_slope) + top * (e_slope + 2 * p.u * slope) + p.eta
        alternatives: tuple[Alternative, ...] = ()
        if c.from_output is not None:
            own = c.from_output(s.module, s.output)
            e_own = e_g * own.abs() + 8 * p.u * top * (own.abs() + p.u + _coefficient(s.output)) + p.eta
            alternatives = (Alternative(g * own, e_own, f"{c.name}' written in terms of the reported output"),)
        return Backward((Bound(e, f"certified: {c.name} dx", top * (slope + 2 * e_slope), alternatives=alternatives),))


def _coefficient(a: Tensor) -> Tensor:
    """Rounding of 1 - a or 1 - a^2 in the derivative, times what it is multiplied with."""
    return torch.clamp(a.abs(), max=1e300) ** 2 + a.abs()


def _sigmoid_slope(_: nn.Module, z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _gelu_slope(module: nn.Module, z: Tensor) -> Tensor:
    if getattr(module, "approximate", "none") == "none":
        density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return 0.5 * torch.erfc(-z / math.sqrt(2)) + torch.where(z.isinf(), 0.0, z) * density
    k = math.sqrt(2 / math.pi)
    inner = k * (z + 0.044715 * z**3)
    tanh = torch.tanh(inner)
    sech2 = 1 - tanh * tanh
    return 0.5 * (1 + tanh) + torch.where(sech2 > 0, 0.5 * z * sech2 * k * (1 + 3 * 0.044715 * z * z), 0.0)


def _gelu_slope_error(module: nn.Module, z: Tensor) -> Tensor:
    size = z.abs().clamp(max=1e6)
    if getattr(module, "approximate", "none") == "none":
        density = torch.exp(-z * z / 2)
        return 16 + density * size * (16 + 4 * size * size)
    return 16 + 16 * size * (1 + 0.134145 * size * size)


def _softplus_slope(module: nn.Module, z: Tensor) -> Tensor:
    return torch.sigmoid(float(module.beta) * z)  # type: ignore[arg-type]  # a float, typed as a module attribute


SIGMOID = Curve(
    "sigmoid",
    _sigmoid_slope,
    lipschitz=0.25,
    curvature=0.0963,
    value_error=lambda _, z, y: 8 * y.abs() + 2,
    # q = a (1 - a) with a off by (8 a + 2) u
    derivative_error=lambda m, z: (8 * torch.sigmoid(z) + 2) * torch.tanh(z / 2).abs() + 14 * _sigmoid_slope(m, z),
    from_output=lambda _, a: a * (1 - a),
)
TANH = Curve(
    "tanh",
    lambda _, z: 1 - torch.tanh(z) ** 2,
    lipschitz=1.0,
    curvature=0.77,
    value_error=lambda _, z, y: 8 * y.abs() + 3,
    derivative_error=lambda _, z: 2 * torch.tanh(z).abs() * (8 * torch.tanh(z).abs() + 3) + 5,
    from_output=lambda _, a: 1 - a * a,
)
GELU = Curve(
    "gelu",
    _gelu_slope,
    lipschitz=1.13,
    curvature=0.8,
    value_error=lambda _, z, y: 16 * z.abs() + 4 * y.abs(),
    derivative_error=_gelu_slope_error,
)
SILU = Curve(
    "silu",
    lambda _, z: torch.sigmoid(z) + z.clamp(-1e4, 1e4) * _sigmoid_slope(nn.Identity(), z),
    lipschitz=1.1,
    curvature=0.5,
    value_error=lambda _, z, y: 2 * z.abs() + 10 * y.abs(),
    derivative_error=lambda _, z: 16 + 16 * torch.where(z.abs() < 1e4, z.abs() * torch.sigmoid(-z.abs()) * 4, 0.0)
    + 4 * z.abs().clamp(max=1e4),
)
SOFTPLUS = Curve(
    "softplus",
    _softplus_slope,
    lipschitz=1.0,
    curvature=float("inf"),  # beta / 4, set by the rule below
    value_error=lambda m, z, y: 8 * y.abs() + 4 / abs(float(m.beta)),  # type: ignore[arg-type]  # a float
    derivative_error=lambda m, z: 10 * _softplus_slope(m, z) + 4 * (float(m.beta) * z).abs().clamp(max=1)  # type: ignore[arg-type]  # a float
    + 2,
)


class Softplus(Elementwise):
    """Softplus: above its threshold torch is linear, and the tail it drops counts as error on either side."""

    def __init__(self) -> None:
        super().__init__(SOFTPLUS)

    def _tail(self, s: Operands) -> Tensor:
        beta, limit = float(s.module.beta), float(s.module.threshold)  # type: ignore[arg-type]  # floats
        near = (beta * s.inputs[0] > limit - 4 * s.precision.u * limit) | (s.errors[0] > 0)
        return torch.where(near, torch.exp(-torch.clamp(beta * (s.inputs[0] - 2 * s.errors[0]), min=0.0)), 0.0)

    def forward(self, s: Operands) -> Bound:
        slope = _softplus_slope(s.module, s.inputs[0] + 2 * s.errors[0])
        beta = abs(float(s.module.beta))  # type: ignore[arg-type]  # a float
        y = s.module(s.inputs[0])
        e = slope * s.errors[0] + s.precision.u * (8 * y.abs() + 4 / beta + 16 * s.errors[0])
        return Bound(e + self._tail(s) / beta * (s.errors[0] > 0) + s.precision.eta, "certified: softplus")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        beta = abs(float(s.module.beta))  # type: ignore[arg-type]  # a float
        slope = _softplus_slope(s.module, s.inputs[0])
        e_slope = beta / 4 * s.errors[0] + 12 * s.precision.u * (slope + 1) + self._tail(s) * (s.errors[0] > 0)
        top = g.abs() + 2 * e_g
        e = e_g * (slope + 2 * e_slope) + top * e_slope + s.precision.eta
        return Backward((Bound(e, "certified: softplus dx", top * (slope + 2 * e_slope)),))


class Rectifier(Rule):
    """ReLU (negative slope 0) and LeakyReLU: exact but for one product; at 0 any slope between the two is a derivative."""

    @staticmethod
    def _slope(module: nn.Module) -> float:
        return float(getattr(module, "negative_slope", 0.0))

    def forward(self, s: Operands) -> Bound:
        slope, name = self._slope(s.module), type(s.module).__name__.lower()
        factor = max(1.0, abs(slope))
        e = factor * s.errors[0]
        if slope:
            e = e + 2 * s.precision.u * factor * s.tops()[0] + s.precision.eta
        return Bound(e, f"certified: {name}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        slope, name = self._slope(s.module), type(s.module).__name__.lower()
        (z,), (e_z,) = s.inputs, s.errors
        top = g.abs() + 2 * e_g
        # end to end either side may see z on the other side of 0
        unsure = (e_z > 0) & (z.abs() <= 2 * e_z)
        rounding = 2 * s.precision.u * abs(slope) * top + (s.precision.eta if slope else 0.0)
        e = torch.where(unsure, top * abs(1 - slope) + e_g, torch.where(z > 0, e_g, abs(slope) * e_g + rounding))
        kinks = None
        at_zero = z == 0
        if bool(at_zero.any()):
            ends = torch.stack([g, slope * g])
            kinks = Kinks(
                at_zero, ends.amin(0), ends.amax(0), f"torch's derivative of {type(s.module).__name__} at 0 is {slope:g}"
            )
        own = torch.where(s.output > 0, g, slope * g)
        alternative = Alternative(own, e_g + rounding, "the mask taken from the reported output")
        return Backward((Bound(e, f"certified: {name} dx", top, kinks, (alternative,)),))


class SoftmaxRule(Rule):
    """Softmax and LogSoftmax over one dimension of n terms.

    exp(x - m) carries the rounding of its argument, |x - m| u, as a relative error, and the quotient that of the sum.
    """

    def __init__(self, *, log: bool) -> None:
        self.log = log

    def _parts(self, s: Operands) -> tuple[int, int, Tensor, Tensor]:
        """The dimension, its length, the softmax, and its relative error (per element)."""
        x, e_x = s.inputs[0], s.errors[0]
        dim = int(s.module.dim) % max(1, x.dim())  # type: ignore[arg-type]  # an int on both modules
        n = x.shape[dim] if x.dim() else 1
        y = torch.softmax(x, dim)
        distance = x.abs() + x.amax(dim, keepdim=True).abs()
        relative = e_x + s.precision.u * (2 * distance + 8)
        relative = relative + (y * relative).sum(dim, keepdim=True) + s.precision.gamma(n)
        return dim, n, y, torch.expm1(torch.clamp(relative, max=700.0))

    def forward(self, s: Operands) -> Bound:
        _, n, y, relative = self._parts(s)
        if not self.log:
            return Bound(torch.clamp(y * relative, max=1.0) + s.precision.eta, f"certified: softmax, n = {n}")
        # log of a rounded softmax, or x - log sum exp(x): either way the size of the terms enters
        value = s.module(s.inputs[0])
        size = value.abs() + s.inputs[0].abs() + 1
        return Bound(relative + 4 * s.precision.u * size, f"certified: log-softmax, n = {n}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        dim, n, y, relative = self._parts(s)
        top = g.abs() + 2 * e_g
        gamma = s.precision.gamma(n + 4)
        y_top = torch.clamp(y * (1 + 2 * relative), max=1.0)
        e_y = torch.minimum(y * relative, torch.ones_like(y))
        if self.log:
            total = top.sum(dim, keepdim=True)
            e = e_g + y_top * (e_g.sum(dim, keepdim=True) + gamma * total) + e_y * total + gamma * (top + y_top * total)
            own = g - torch.exp(s.output) * g.sum(dim, keepdim=True)
            rounding = torch.exp(s.output) * (8 + 4 * s.output.abs()) * total * s.precision.u
            e_own = e_g + gamma * (top + torch.exp(s.output) * total) + rounding
            magnitude = top + y_top * total
        else:
            inner = (top * y_top).sum(dim, keepdim=True)
            e_inner = (e_g * y_top + top * e_y + gamma * top * y_top).sum(dim, keepdim=True)
            e = y_top * (e_g + e_inner + gamma * (top + inner)) + e_y * (top + inner) + 2 * s.precision.eta
            out = s.output
            own = out * (g - (g * out).sum(dim, keepdim=True))
            size = (top * out.abs()).sum(dim, keepdim=True)
            e_own = out.abs() * (e_g + (e_g * out.abs()).sum(dim, keepdim=True) + 2 * gamma * (top + size))
            magnitude = y_top * (top + inner)
        name = "log-softmax" if self.log else "softmax"
        alternative = Alternative(own, e_own + 2 * s.precision.eta, f"{name}' written in terms of the reported output")
        return Backward((Bound(e, f"certified: {name} dx, n = {n}", magnitude, None, (alternative,)),))
