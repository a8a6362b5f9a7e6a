"""Bounds of elementwise functions and of softmax.

An elementwise function in working precision is computed with a few roundings; `_curves` states how many, relative to
the value and, where a common formula cancels, in absolute terms.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import hardshrink

from manual_bp_torch.bounds._curves import Curve, sigmoid_error, sigmoid_slope
from manual_bp_torch.bounds._model import (
    PIECE,
    Alternative,
    Backward,
    Bound,
    Kinks,
    Later,
    LaterKinks,
    Operands,
    Rule,
    at_most,
    carries,
    finite,
    nothing,
    piecewise,
    places,
    some,
)


class Elementwise(Rule):
    """y = f(z), dz = g f'(z)."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve

    def forward(self, s: Operands) -> Bound:
        c, p, (z,), (e_z,) = self.curve, s.precision, s.inputs, s.errors
        slope = torch.clamp(c.derivative(s.module, z).abs() + 2 * c.curvature * e_z, max=c.lipschitz)
        # either side rounds at its own z, up to 2 e_z away: there it may round that much more
        rounding = p.u * (c.value_error(s.module, z) + 64 * c.lipschitz * e_z)
        return Bound(slope * e_z + rounding + p.eta, f"certified: {c.name}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        c, p, (z,), (e_z,) = self.curve, s.precision, s.inputs, s.errors
        top = g.abs() + 2 * e_g
        slope = c.derivative(s.module, z).abs()
        e_slope = torch.clamp(c.curvature * e_z, max=2 * c.lipschitz) + p.u * c.derivative_error(s.module, z)
        e = e_g * (slope + 2 * e_slope) + top * (e_slope + 2 * p.u * slope) + p.eta

        def alternatives() -> Iterator[Alternative]:
            if c.from_output is not None:
                own = c.from_output(s.module, s.output)
                # a - a² and 1 - a² round a² as well
                rounding = 4 * own.abs() + 2 * s.output.clamp(-1e150, 1e150) ** 2
                e_own = e_g * own.abs() + p.u * top * rounding + p.eta
                yield Alternative(g * own, e_own, f"{c.name}' written in terms of the reported output")
            if c.cancelling is not None:
                formula, rounding_of = c.cancelling
                own = c.derivative(s.module, z)
                e_own = e_g * own.abs() + top * (torch.clamp(c.curvature * e_z, max=2 * c.lipschitz))
                e_own = e_own + p.u * top * rounding_of(s.module, z) + p.eta
                yield Alternative(g * own, e_own, f"{c.name}' written as {formula}, whose terms cancel")

        magnitude = top * (slope + 2 * e_slope)
        return Backward((Bound(e, f"certified: {c.name} dx", magnitude, alternatives=Later(alternatives)),))


class Softplus(Rule):
    """y = log(1 + e^w) / β with w = β z; dz = g σ(w).

    Rounding: w itself, exp with weight σ(w), 1 + e^w where log1p is not used, the logarithm, the division.

    Above its threshold torch is linear. At the default of 20 and above that is a device for stability: the formula
    without it is right as well, and the tail e^-w counts as error on either side. A lower threshold is another
    function; there the tail counts only where w may be on either side of it.
    """

    def _parts(self, s: Operands) -> tuple[float, Tensor, Tensor]:
        """β, w, and the tail."""
        beta, limit = float(s.module.beta), float(s.module.threshold)  # type: ignore[arg-type]  # floats
        w, reach = beta * s.inputs[0], abs(beta) * 2 * s.errors[0]
        near = w + reach > limit * (1 - 4 * s.precision.u)
        if limit < 20:
            near &= w - reach < limit * (1 + 4 * s.precision.u)
        return beta, w, torch.where(near, torch.exp(-torch.clamp(w - reach, min=min(limit, 0.0))), 0.0)

    def forward(self, s: Operands) -> Bound:
        beta, w, tail = self._parts(s)
        e_z, u = s.errors[0], s.precision.u
        slope = torch.sigmoid(w + 2 * abs(beta) * e_z)
        rounding = 9 * s.module(s.inputs[0]).abs() + (1 + 6 * torch.sigmoid(w)) / abs(beta) + 64 * e_z
        return Bound(slope * e_z + u * rounding + tail / abs(beta) + s.precision.eta, "certified: softplus")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        beta, w, tail = self._parts(s)
        slope = torch.sigmoid(w)
        rounding = sigmoid_error(w) + 2 * slope + w.abs().clamp(max=1e3) * sigmoid_slope(w)
        e_slope = abs(beta) / 4 * s.errors[0] + s.precision.u * rounding + tail
        top = g.abs() + 2 * e_g
        e = e_g * (slope + 2 * e_slope) + top * e_slope + s.precision.eta
        return Backward((Bound(e, "certified: softplus dx", top * (slope + 2 * e_slope)),))


class Rectifier(Rule):
    """ReLU (negative slope 0) and LeakyReLU: exact but for one product; at 0 any slope in between is a derivative."""

    narrow = True

    @staticmethod
    def _slope(module: nn.Module) -> float:
        return float(getattr(module, "negative_slope", 0.0))

    def forward(self, s: Operands) -> Bound:
        slope, name = self._slope(s.module), type(s.module).__name__.lower()
        factor = max(1.0, abs(slope))
        (z,), (e,) = s.inputs, s.errors
        if factor > 1:
            e = factor * e
        if not all(torch.equal(hardshrink(a, 4 * s.precision.eta), a) for a in z.reshape(-1).split(PIECE)):
            # ½ x + ½ |x| loses the last bit of a subnormal number
            loses = (z != 0) & (z.abs() < 4 * s.precision.eta)
            e = e + s.precision.eta * loses.to(z.dtype)  # a mask and a number alone would be float32
        if slope:
            # s x, or ½ (1 + s) x + ½ (1 - s) |x|: coefficient, product and sum round
            e = e + 4 * s.precision.u * factor * s.tops()[0] + s.precision.eta
        return Bound(e * s.guard(1) if slope else e, f"certified: {name}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        slope, name = self._slope(s.module), type(s.module).__name__.lower()
        (z,), (e_z,) = s.inputs, s.errors
        # end to end either side may see z on the other side of 0
        unsure, carried, guard = carries(e_z), carries(e_g), s.guard(1) if s.narrow else 1.0

        def rounding(top: Tensor) -> Tensor | float:
            return 2 * s.precision.u * abs(slope) * top + s.precision.eta if slope else 0.0

        def bound(z: Tensor, e_z: Tensor, g: Tensor, e_g: Tensor) -> Tensor:
            if slope:
                e = torch.where(z > 0, e_g, abs(slope) * e_g + rounding(g.abs() + 2 * e_g)) * guard
            else:
                e = _where_positive(z, e_g)
            if unsure and some(near := at_most(z.abs(), 2 * e_z)):
                at = places(near)  # few, as a rule
                own_z, own_g, own_e = (a.reshape(-1)[at] for a in (e_z, g, e_g))
                top = own_g.abs() + 2 * own_e
                swing = top * abs(1 - slope) + max(1.0, abs(slope)) * own_e + rounding(top)
                e = e.contiguous()
                e.view(-1)[at[own_z > 0]] = (swing * guard)[own_z > 0]
            return e

        e = piecewise(bound, z, e_z, g, e_g) if slope or unsure or carried else nothing(g)
        convention = f"torch's derivative of {type(s.module).__name__} at 0 is {slope:g}"

        def kinks() -> Kinks:
            ends = torch.stack([g, slope * g])
            return Kinks(z == 0, ends.amin(0), ends.amax(0), convention)

        def alternatives() -> Iterator[Alternative]:
            if not slope and not finite(g):
                yield Alternative(g * (z > 0), e, "the mask multiplied, and 0 · inf is NaN", each=True)
            if slope < 0:  # then the output's sign does not tell the input's
                return
            own = torch.where(s.output > 0, g, slope * g) if slope else _where_positive(s.output, g)
            e_own = (max(1.0, slope) * e_g + rounding(g.abs() + 2 * e_g)) * s.guard(1)
            yield Alternative(own, e_own, "the mask taken from the reported output")

        magnitude = None if s.narrow else max(1.0, abs(slope)) * (g.abs() + 2 * e_g)
        rule = f"certified: {name} dx"
        return Backward((Bound(e, rule, magnitude, LaterKinks(kinks, convention), Later(alternatives)),))


def _where_positive(z: Tensor, a: Tensor) -> Tensor:
    """``a`` where z > 0 (or is no number), else 0: one look at each element."""
    found: Tensor = torch.ops.aten.threshold_backward(a, z, 0.0)
    return found


class SoftmaxRule(Rule):
    """Softmax and LogSoftmax over one dimension of n terms.

    exp(x - m) carries the rounding of its argument, |x - m| u, as a relative error, and the quotient that of the sum.
    An error e_j of the arguments moves log Σ exp by at most Σ w_j e_j, where the weights w are the softmax somewhere
    within 2 e: at most y_j exp(2 e_j) / Σ y_k exp(-2 e_k).
    """

    def __init__(self, *, log: bool) -> None:
        self.log = log

    def _parts(self, s: Operands) -> tuple[int, int, Tensor, Tensor]:
        """The dimension, its length, the softmax, and how far its logarithm is off (per element)."""
        x, e_x = s.inputs[0], s.errors[0]
        dim = int(s.module.dim) % max(1, x.dim())  # type: ignore[arg-type]  # an int on both modules
        n = x.shape[dim] if x.dim() else 1
        y = torch.softmax(x, dim)
        distance = x.abs() + x.amax(dim, keepdim=True).abs()
        # a masked class, x = -inf, is exactly 0
        own = torch.where(x == -torch.inf, 0.0, e_x + s.precision.u * (2 * distance + 8))
        weights = y * torch.exp(torch.clamp(2 * e_x, max=300.0))
        shrunk = (y * torch.exp(-2 * e_x)).sum(dim, keepdim=True)
        moved = torch.minimum((weights * own).sum(dim, keepdim=True) / shrunk, own.amax(dim, keepdim=True))
        return dim, n, y, own + moved + s.precision.gamma(n)

    @staticmethod
    def _spread(y: Tensor, e_log: Tensor) -> Tensor:
        """How far y itself is off: the exact one is up to y exp(e), and a computed one that times exp(e) again."""
        e_log = torch.clamp(e_log, max=300.0)
        return torch.clamp(y * torch.exp(e_log) * torch.expm1(e_log), max=1.0)

    def forward(self, s: Operands) -> Bound:
        _, n, y, e_log = self._parts(s)
        if not self.log:
            return Bound(self._spread(y, e_log) + s.precision.eta, f"certified: softmax, n = {n}")
        # log of a rounded softmax, or x - log sum exp(x): either way the size of the terms enters
        value = s.module(s.inputs[0])
        size = value.abs() + s.inputs[0].abs() + 1
        e = torch.where(value == -torch.inf, 0.0, e_log + 4 * s.precision.u * size)
        return Bound(e, f"certified: log-softmax, n = {n}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        dim, n, y, e_log = self._parts(s)
        u, gamma, eta = s.precision.u, s.precision.gamma(n + 4), s.precision.eta
        top = g.abs() + 2 * e_g
        e_y = self._spread(y, e_log) + eta
        y_top = torch.clamp(y + 2 * e_y, max=1.0)
        if self.log:
            total = top.sum(dim, keepdim=True)
            e = e_g + y_top * e_g.sum(dim, keepdim=True) + e_y * total + 2 * u * top + gamma * y_top * total
            # from the reported output v: e^v
            out = torch.exp(s.output)
            own = g - out * g.sum(dim, keepdim=True)
            e_own = e_g + out * e_g.sum(dim, keepdim=True) + 2 * u * top + (gamma + 8 * u) * out * total
            magnitude = top + y_top * total
        else:
            inner = (top * y_top).sum(dim, keepdim=True)
            e_inner = (e_g * y_top + top * e_y + gamma * top * y_top).sum(dim, keepdim=True)
            # y (g - Σ g y); through the Jacobian, y_i ([i = k] - y_k), the sum's rounding is that of Σ y_i y_k g_k
            e = y_top * (e_g + e_inner + 4 * u * (top + inner)) + e_y * (top + inner) + 2 * eta
            out = s.output
            own = out * (g - (g * out).sum(dim, keepdim=True))
            size = (top * out.abs()).sum(dim, keepdim=True)
            carried = e_g + (e_g * out.abs()).sum(dim, keepdim=True)
            e_own = out.abs() * (carried + 4 * u * top + (gamma + 4 * u) * size)
            magnitude = y_top * (top + inner)
        name = "log-softmax" if self.log else "softmax"
        alternative = Alternative(own, e_own + 2 * eta, f"{name}' written in terms of the reported output")
        return Backward((Bound(e, f"certified: {name} dx, n = {n}", magnitude, None, (alternative,)),))
