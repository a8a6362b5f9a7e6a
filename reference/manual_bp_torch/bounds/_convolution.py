"""Bounds of a convolution, and its other right answers where an operand is not finite.

0 · inf and 0 · NaN are NaN. Beyond the edge a window sees zeros, and whether their products are formed is nobody's
business as long as all numbers are finite: a loop that is clipped to the input leaves them out, im2col of a padded
input forms them. In the gradients there are zeros around the upstream gradient, too, and with a stride in between,
if the input's gradient is written as a "full" convolution with the turned kernel (Dumoulin and Visin 2016,
arXiv:1603.07285, relationships 8 to 14). So these products may be formed or left out::

    y[n,o,p]        w[o,c,k] · 0         tap k of window p sees padding
    dx[n,c,i]       w[o,c,k] · 0         no window sees i through its tap k
    dw[o,c,k]       dy[n,o,p] · 0        tap k of window p sees padding
                    0 · x[n,c,i]         no window sees i through its tap k

Torch itself does either, by dtype, shape and backend. db has none of them, nor has a dense layer; and a mean adds its
zeros, it does not multiply them.

Such a product is zero or NaN: an element is the sum of its proper products, or NaN if one of the others is. Which ones
are formed may change from one block of the result to the next, so each element may be either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from manual_bp_torch.bounds._linear import Affine, Near, convolution_counts
from manual_bp_torch.bounds._model import Alternative, Backward, Bound, Later, Operands, finite
from manual_bp_torch.vjp import vjp

_LEFT_OUT = "products with the zeros beyond the edge left out"
_FORMED = "products with the zeros beyond the edge formed, and 0 · {} is NaN"


class Convolution(Affine):
    """An affine step whose operands may meet zeros that are no operands.

    A product with such a zero has no rounding: the bound is that of the proper ones, also where torch formed others.
    """

    def __init__(self) -> None:
        super().__init__(convolution_counts)

    def forward(self, s: Operands) -> Bound:
        # what is narrow and not finite is asked for again in float64
        plain = s.narrow or finite(s.params["weight"])
        bound = super().forward(s if plain else _finite_part(s))
        return replace(bound, alternatives=Later(partial(_outputs, s, bound.e)))

    def backward(self, s: Operands, g: Tensor, e_g: Tensor, near: Near | None = None) -> Backward:
        found = super().backward(s, g, e_g, near)
        if not s.narrow and not (finite(s.params["weight"]) and finite(found.params["weight"].e)):
            found = super().backward(_finite_part(s), _only_finite(g), e_g)
        (dx,), dw = found.inputs, found.params["weight"]
        of_x, of_w = (partial(make, s, g, own.e) for make, own in ((_input_gradients, dx), (_weight_gradients, dw)))
        dx, dw = replace(dx, alternatives=Later(of_x)), replace(dw, alternatives=Later(of_w))
        return Backward((dx,), {**found.params, "weight": dw})


def _only_finite(a: Tensor) -> Tensor:
    return torch.where(torch.isfinite(a), a, 0.0)


def _finite_part(s: Operands) -> Operands:
    """The same step on what is finite of its operands."""
    params = {name: _only_finite(a) for name, a in s.params.items()}
    return replace(s, inputs=tuple(map(_only_finite, s.inputs)), params=params)


# ---------------------------------------------------------------------- other right answers


def _outputs(s: Operands, e: Tensor) -> Iterator[Alternative]:
    """Of y, whose products with zeros hold a weight."""
    weight, bias = s.params["weight"].double(), s.params.get("bias")
    if finite(weight):
        return
    sums = _Sums.of(s.module)
    x = sums.by_mode(s.inputs[0].double())
    for own, reason in ((sums, _LEFT_OUT), (sums.unpadded, _FORMED.format(_example(weight)))):
        y = own(x if own is sums else sums.padded(x), weight)
        if bias is not None:
            y = y + bias.double().reshape(-1, *(1,) * sums.dims)
        yield Alternative(y.reshape(s.output.shape), e, reason, each=True)


def _input_gradients(s: Operands, g: Tensor, e: Tensor) -> Iterator[Alternative]:
    """Of dx, whose products with zeros hold a weight."""
    if not finite(s.params["weight"]):
        for found, reason in _gradients(s, g, _example(s.params["weight"])):
            yield Alternative(found[0], e, reason, each=True)


def _weight_gradients(s: Operands, g: Tensor, e: Tensor) -> Iterator[Alternative]:
    """Of dw, whose products with zeros hold an element of the upstream gradient or of the input."""
    if not (finite(g) and finite(s.inputs[0])):
        for found, reason in _gradients(s, g, _example(g if not finite(g) else s.inputs[0])):
            yield Alternative(found[1], e, reason, each=True)


def _gradients(s: Operands, g: Tensor, example: str) -> Iterator[tuple[tuple[Tensor, ...], str]]:
    """(dx, dw) without and with the products with zeros: both ways to write y, with torch's derivatives."""
    sums = _Sums.of(s.module)
    with torch.enable_grad():
        leaves = [a.detach().double().requires_grad_() for a in (s.inputs[0], s.params["weight"])]
        y = sums(sums.by_mode(leaves[0]), leaves[1])
        yield vjp(y, leaves, g.double().reshape(y.shape)), _LEFT_OUT
        wide = sums.everywhere(sums.padded(sums.by_mode(leaves[0])), leaves[1])
        yield vjp(wide, leaves, sums.spread(g.double().reshape(y.shape), wide)), _FORMED.format(example)


def _example(a: Tensor) -> str:
    """What is not finite, in a word."""
    return "NaN" if bool(a.isnan().any()) else "inf"


@dataclass(frozen=True)
class _Sums:
    """A convolution without bias as the sum over its taps, each over the windows in which it sees an element.

    Called with x (N, C, *L) or (C, *L) and weight (O, C/G, *K), it gives (N, O, *P). Each product is one of two
    elements: a slice holds what a tap sees, and zeros are not among it unless they are in x.
    """

    groups: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    span: tuple[int, ...]  # elements that a window extends over, on each axis
    around: tuple[int, ...]  # zeros before and after, as `pad` takes them: last axis first
    mode: str = "zeros"

    @classmethod
    def of(cls, conv: nn.Module) -> _Sums:
        assert isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        span = tuple(d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        around = tuple(conv._reversed_padding_repeated_twice)  # 'same' is resolved there
        return cls(conv.groups, conv.stride, conv.dilation, span, around, conv.padding_mode)

    @property
    def dims(self) -> int:
        return len(self.span)

    @property
    def unpadded(self) -> _Sums:
        """The same over an input that holds its padding."""
        return replace(self, around=(0,) * len(self.around), mode="zeros")

    def by_mode(self, x: Tensor) -> Tensor:
        """x (N, C, *L) with the copies of its elements that stand around it; zeros are left to `padded`."""
        x = x if x.dim() == self.dims + 2 else x[None]
        return x if self.mode == "zeros" else pad(x, self.around, mode=self.mode)

    def padded(self, x: Tensor) -> Tensor:
        """With its zeros."""
        return pad(x, self.around) if self.mode == "zeros" else x

    def everywhere(self, x: Tensor, weight: Tensor) -> Tensor:
        """The windows at every place where they touch the padded x: each tap sees each element in one of them."""
        beyond = tuple(n - 1 for n in reversed(self.span) for _ in range(2))
        return replace(self.unpadded, stride=(1,) * self.dims)(pad(x, beyond), weight)

    def spread(self, g: Tensor, like: Tensor) -> Tensor:
        """g (N, O, *P) at its places among the windows everywhere, zeros at the others."""
        wide = torch.zeros_like(like)
        places = (slice(n - 1, n + (p - 1) * s, s) for n, p, s in zip(self.span, g.shape[2:], self.stride, strict=True))
        at: tuple[Any, ...] = (..., *places)
        wide[at] = g
        return wide

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        before, after = self.around[-2::-2], self.around[::-2]  # along each axis, if they are zeros
        if self.mode != "zeros":
            before = after = (0,) * self.dims
        lengths = x.shape[2:]
        outputs = tuple(
            (b + n + a - span) // s + 1
            for b, n, a, span, s in zip(before, lengths, after, self.span, self.stride, strict=True)
        )
        x = x.reshape(len(x), self.groups, x.shape[1] // self.groups, *lengths)  # (N, G, C/G, *L)
        weight = weight.reshape(self.groups, -1, *weight.shape[1:])  # (G, O/G, C/G, *K)
        y = x.new_zeros((len(x), self.groups, weight.shape[1], *outputs))  # (N, G, O/G, *P)
        for tap in product(*map(range, weight.shape[3:])):
            windows, seen = zip(*map(_meet, tap, self.dilation, self.stride, before, lengths, outputs), strict=True)
            there, elements, own = ((..., *places) for places in (windows, seen, tap))
            y[there] = y[there] + torch.einsum("goc,ngc...->ngo...", weight[own], x[elements])
        return y.reshape(len(x), -1, *outputs)


def _meet(k: int, d: int, s: int, before: int, length: int, outputs: int) -> tuple[Any, Any]:
    """Along one axis, the windows whose tap k sees an element, and these elements."""
    start = k * d - before  # what the first window sees
    first, last = max(0, -(start // s)), min(outputs - 1, (length - 1 - start) // s)
    if first > last:
        return slice(0, 0), slice(0, 0)
    return slice(first, last + 1), slice(start + first * s, start + last * s + 1, s)
