"""Bounds of batch and layer normalisation.

With d = x - mu, v = mean d^2, r = 1 / sqrt(v + eps), xhat = d r over groups of m elements, y = gamma xhat + beta and

    dL/dx = gamma r (g - mean g - xhat mean(g xhat))

errors are followed through these intermediate results. A group of a layer's or a batch's normalisation is a run of
whole axes; so is one of GroupNorm, and of InstanceNorm, whose groups are single channels, once the channels have two
axes: one over the groups, one within. The variance may be computed in two passes, in one pass
(mean x^2 - mu^2, not below 0) or by Welford's update; the one-pass formula cancels, so its terms enter as they are.

The gradient may be computed as it stands, by way of dL/dv and dL/dmu (whose sum of d is rounding, not 0), or without
centring, as torch's own LayerNorm does: with b = r^3 (mu sum g - sum g x) / m, dL/dx = r g + b x - (b mu + r mean g).
There |x| + |mu| rounds instead of |d|; ``offset`` is (|x| + |mu|) r.

What underflows may still have a large factor before it: x after gamma r or b, gamma after r g or g x. It is a few of
the smallest subnormal numbers that are lost there, not eta, of which such a factor would make everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from manual_bp_torch.bounds._model import Backward, Bound, Operands, Precision, Rule, with_overflow_undone


@dataclass(frozen=True)
class _Parts:
    label: str
    axes: tuple[int, ...]  # over which x is normalised
    summed: tuple[int, ...]  # over which a parameter's gradient is summed
    m: int
    weight: Tensor  # broadcast against x
    bias: Tensor
    xhat: Tensor
    e_xhat: Tensor
    r: Tensor
    e_r: Tensor
    far: Tensor  # |x| + |mu|
    offset: Tensor  # (|x| + |mu|) r
    fixed: bool  # statistics are given, not computed from x


def _parts(s: Operands) -> _Parts:
    x, e_x, p = s.inputs[0], s.errors[0], s.precision
    module = s.module
    eps = float(module.eps)  # type: ignore[arg-type]  # a float on every normalisation layer
    if isinstance(module, nn.LayerNorm):
        k = len(module.normalized_shape)
        axes = tuple(range(x.dim() - k, x.dim()))
        summed = tuple(range(x.dim() - k))
        shape = (1,) * (x.dim() - k) + tuple(module.normalized_shape)
        label, fixed = "layernorm", False
    elif isinstance(module, _GROUPED):
        axes, summed = tuple(range(2, x.dim())), (0, *range(3, x.dim()))
        shape = (1, *x.shape[1:3], *(1,) * (x.dim() - 3))
        label, fixed = type(module).__name__.lower(), False
    else:
        axes = summed = tuple(d for d in range(x.dim()) if d != 1)
        shape = tuple(-1 if d == 1 else 1 for d in range(x.dim()))
        label = type(module).__name__.lower()
        fixed = not module.training and "running_mean" in s.params
    m = max(1, math.prod(x.shape[d] for d in axes))
    one = torch.ones((1,) * x.dim(), dtype=x.dtype)
    weight = s.params["weight"].reshape(shape) if "weight" in s.params else one
    bias = s.params["bias"].reshape(shape) if "bias" in s.params else 0 * one
    top = x.abs() + 2 * e_x
    if fixed:
        mu, v = s.params["running_mean"].reshape(shape), s.params["running_var"].reshape(shape)
        e_mu, e_v = torch.zeros_like(mu), torch.zeros_like(v)
        d = x - mu
        e_d = e_x + 2 * p.u * (top + mu.abs())
    else:
        gamma = p.gamma(m + 4)
        mean_top = top.mean(axes, keepdim=True)
        mu = x.mean(axes, keepdim=True)
        e_mu = e_x.mean(axes, keepdim=True) + gamma * mean_top
        d = x - mu
        e_d = e_x + e_mu + 2 * p.u * (top + mu.abs())
        v = (d * d).mean(axes, keepdim=True)
        two_pass = (2 * d.abs() * e_d + 3 * e_d * e_d).mean(axes, keepdim=True)
        one_pass = (top * top).mean(axes, keepdim=True) + 2 * mean_top * mean_top
        e_v = two_pass + gamma * one_pass + p.eta
    r = torch.rsqrt(v + eps)
    # steeper downwards; but below 0 no variance goes, so that upwards may be the longer way
    r_top = torch.rsqrt(torch.clamp(v + eps - 2 * e_v, min=eps * (1 - 8 * p.u)))
    r_low = torch.rsqrt(v + eps + 2 * e_v)
    e_r = torch.maximum(r_top - r, r - r_low).clamp(min=0.0) + 6 * p.u * r_top
    xhat = d * r
    e_xhat = e_d * (r + 3 * e_r) + d.abs() * e_r + 3 * p.u * xhat.abs() + p.eta
    far = top + mu.abs() + 2 * e_mu
    return _Parts(label, axes, summed, m, weight, bias, xhat, e_xhat, r, e_r, far, far * (r + 2 * e_r), fixed)


def _least(p: Precision) -> float:
    """What some products lose that underflow gradually: each half of the smallest subnormal number, 2 u eta."""
    return 4 * p.u * p.eta


#: Their channels are given two axes.
_GROUPED = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class Normalisation(Rule):
    """BatchNorm (training, evaluation) and LayerNorm."""

    def forward(self, s: Operands) -> Bound:
        q, p = _parts(s), s.precision
        scaled = (q.weight * q.xhat).abs() + q.weight.abs() * 2 * q.e_xhat
        # x (gamma r) + (beta - mu gamma r), the folded form, adds the size of its two halves
        folded = q.offset * q.weight.abs()
        e = q.weight.abs() * q.e_xhat + p.u * (4 * scaled + 2 * q.bias.abs() + 4 * folded) + p.eta + _least(p) * q.far
        return Bound(e, f"certified: {q.label}, m = {q.m}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        return with_overflow_undone(self._bounds(s, g, e_g), s, g)

    def _bounds(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        q, p = _parts(s), s.precision
        top = g.abs() + 2 * e_g
        xhat_top = q.xhat.abs() + 2 * q.e_xhat
        n = max(1, math.prod(g.shape[d] for d in q.summed))
        params: dict[str, Bound] = {}
        if "weight" in s.params:
            e_product = e_g * xhat_top + top * q.e_xhat + p.gamma(n + 2) * top * xhat_top
            params["weight"] = self._parameter(s, q, e_product, "weight", n)
            if "bias" in s.params:
                params["bias"] = self._parameter(s, q, e_g + p.gamma(n) * top, "bias", n)
        w, e_w = q.weight.abs(), q.weight.abs() * e_g + 2 * p.u * q.weight.abs() * top
        if q.fixed:
            magnitude = w * top * (q.r + 2 * q.e_r)
            e = e_w * (q.r + 2 * q.e_r) + w * top * (q.e_r + 2 * p.u * q.r) + p.eta + _least(p) * (top + w)
            return Backward((Bound(e, f"certified: {q.label} dx, statistics given", magnitude),), params)
        gw = w * top
        mean = gw.mean(q.axes, keepdim=True)
        dot = (gw * xhat_top).mean(q.axes, keepdim=True)
        bracket = gw + mean + xhat_top * dot
        gamma = p.gamma(q.m + 8)
        e_mean = e_w.mean(q.axes, keepdim=True) + gamma * mean
        # without centring, sum g x - mu sum g rounds by the offset; so does b x + c, and mean d is only nearly 0
        e_dot = (e_w * xhat_top + gw * q.e_xhat + gamma * gw * (xhat_top + q.offset)).mean(q.axes, keepdim=True)
        residue = (q.e_xhat + gamma * xhat_top).mean(q.axes, keepdim=True)
        e_product = (q.e_xhat + residue + 8 * p.u * (xhat_top + q.offset)) * dot + (xhat_top + residue) * e_dot
        lost = 2 * p.eta + _least(p) * w + (p.eta + _least(p) * w.mean(q.axes, keepdim=True)) * xhat_top
        e_bracket = e_w + e_mean + e_product + 8 * p.u * bracket + lost
        e = e_bracket * (q.r + 2 * q.e_r) + bracket * (q.e_r + 4 * p.u * q.r) + p.eta + _least(p) * (q.far + w)
        return Backward((Bound(e, f"certified: {q.label} dx, m = {q.m}", bracket * (q.r + 2 * q.e_r)),), params)

    @staticmethod
    def _parameter(s: Operands, q: _Parts, e: Tensor, name: str, n: int) -> Bound:
        e = e.sum(q.summed) if q.summed else e
        return Bound(e.reshape(s.params[name].shape) + n * s.precision.eta, f"certified: {q.label} d{name}, n = {n}")


class GroupedNormalisation(Normalisation):
    """GroupNorm, and InstanceNorm without running statistics."""

    def forward(self, s: Operands) -> Bound:
        found = super().forward(_grouped(s))
        return Bound(found.e.reshape(s.output.shape), found.rule)

    def _bounds(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        shape = s.inputs[0].shape
        own = _grouped(s)
        found = super()._bounds(own, *(a.reshape(own.output.shape) for a in (g, e_g)))
        (dx,) = found.inputs
        assert dx.magnitude is not None
        return Backward((Bound(dx.e.reshape(shape), dx.rule, dx.magnitude.reshape(shape)),), found.params)


def _grouped(s: Operands) -> Operands:
    """The same with x (N, C, *L) as (N, groups, C / groups, *L); without a batch, N = 1."""
    x, module = s.inputs[0], s.module
    if isinstance(module, nn.GroupNorm):
        batch, channels, groups = x.shape[0], module.num_channels, module.num_groups
        lengths = x.shape[2:]
    else:
        axes = 1 + _GROUPED.index(type(module))  # C and L
        channels = groups = x.shape[-axes]
        lengths = x.shape[x.dim() - axes + 1 :]
        batch = x.shape[0] if x.dim() > axes else 1
    shape = (batch, groups, channels // groups, *lengths)
    inputs, errors = (tuple(a.reshape(shape) for a in of) for of in (s.inputs, s.errors))
    return replace(s, inputs=inputs, errors=errors, output=s.output.reshape(shape))
