"""Bounds of max pooling, and which gradients are valid where a window has several maxima.

Forward, a maximum is off by at most the largest error in its window, and exact when nothing is carried. Backward,
the whole upstream gradient goes to the maximum: exact, up to the order in which overlapping windows add up. Where a
window has several maxima, any split of its gradient among them that adds up is a subgradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manual_bp_torch.bounds._linear import _vjp, as_tuple
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
    places,
)

_WIDE = torch.float64

#: Elements of tiled windows that are worked on at a time.
TILES = 1 << 17

CONVENTION = "torch gives the whole gradient to the first of equal maxima"


class MaxPool(Rule):
    """Max pooling in one, two or three dimensions, any stride, padding, dilation and ceil_mode."""

    narrow = True

    def forward(self, s: Operands) -> Bound:
        label = type(s.module).__name__.lower()
        if s.isolated:
            return Bound(nothing(s.output), f"certified: {label}, exact")
        return Bound(_Windows(s.module, s.inputs[0], s.output).largest(s.errors[0]), f"certified: {label}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        x, e_x = s.inputs[0], s.errors[0]
        label = type(s.module).__name__.lower()
        if not x.numel():  # an empty batch has no windows
            return Backward((Bound(nothing(x), f"certified: {label} dx, n = 0", nothing(x)),))
        kinks = LaterKinks(lambda: _kinks(s, g.to(_WIDE)), CONVENTION) if s.isolated else None
        windows = _Windows(s.module, x[:1], s.output[:1])
        rule = f"certified: {label} dx, n = {windows.overlap}"
        exact = s.isolated and windows.overlap == 1 and not carries(e_g)
        alternatives = Later(lambda: itertools.chain(_multiplied(s, g, e_g), _nowhere(s, g, e_g, windows.overlap)))
        if exact and s.narrow:
            return Backward((Bound(nothing(x), rule, None, kinks, alternatives),))
        bound = self._bound_of_tiles if windows.tiles else self._bound
        several = max(1, (TILES if windows.tiles else PIECE) * x.shape[0] // max(1, x.numel()))
        e, size = torch.empty(x.shape, dtype=x.dtype), None if s.narrow else torch.empty(x.shape, dtype=x.dtype)
        for start in range(0, x.shape[0], several):
            p = slice(start, start + several)
            bound(s, x[p], e_x[p], s.output[p], g[p], e_g[p], e[p], None if size is None else size[p])
        return Backward((Bound(nothing(x) if exact else e, rule, size, kinks, alternatives),))

    @staticmethod
    def _bound_of_tiles(
        s: Operands, x: Tensor, e_x: Tensor, output: Tensor, g: Tensor, e_g: Tensor, e: Tensor, size: Tensor | None
    ) -> None:
        """The same where windows tile the input, tap by tap: nothing adds up, nothing is copied into windows."""
        taps = _Windows(s.module, x, output).slices
        # every other element, or fewer: copied once, and worked on side by side
        values, errors = ([torch.from_numpy(a.numpy()[tap].copy()) for tap in taps] for a in (x, e_x))
        slack, low = errors[0], torch.sub(values[0], errors[0], alpha=2)
        for value, error in zip(values[1:], errors[1:], strict=True):
            torch.maximum(low, torch.sub(value, error, alpha=2), out=low)
            slack = slack.maximum(error)
        several = [at_most(low, value.add_(error, alpha=2)) for value, error in zip(values, errors, strict=True)]
        contested = torch.stack(several).view(torch.uint8).sum(0, dtype=torch.uint8)
        at = places(at_most(torch.full_like(contested, 2), contested))
        at = at[slack.view(-1)[at] > 0]  # few, as a rule
        carried = e_g.clone(memory_format=torch.contiguous_format)
        carried.view(-1)[at] = g.reshape(-1)[at].abs() + 2 * e_g.reshape(-1)[at]
        if s.narrow:
            carried *= s.guard(1)
        parts = [(carried, e)] if size is None else [(carried, e), (g.abs() + 2 * e_g, size)]
        with np.errstate(invalid="ignore"):
            for (whole, out), (tap, own) in itertools.product(parts, zip(taps, several, strict=True)):
                np.copyto(out.numpy()[tap], np.multiply(whole.numpy(), own.numpy()))  # in this order twice as fast

    @staticmethod
    def _bound(
        s: Operands, x: Tensor, e_x: Tensor, output: Tensor, g: Tensor, e_g: Tensor, e: Tensor, size: Tensor | None
    ) -> None:
        """Write ``e``, error, and ``size`` of the gradient of some examples (or, without a batch, channels)."""
        windows = _Windows(s.module, x, output)
        own = windows.of(x, -math.inf)  # (kernel, planes, windows)
        top = (g.abs() + 2 * e_g).reshape(own.shape[1:])
        e_top = e_g.reshape(own.shape[1:])
        slack = windows.of(e_x, 0.0)
        several = (own + 2 * slack >= (own - 2 * slack).amax(0)) & windows.valid
        contested = several.view(torch.uint8).sum(0) > 1
        carried = torch.where(contested & (slack.amax(0) > 0), top, e_top) * several
        overlap = windows.overlap
        e[...] = windows.add_up(carried)
        # where windows do not overlap nothing is added up, and nobody asks for the size in float32
        if overlap > 1 or size is not None:
            sums = windows.add_up(several * top)
            if overlap > 1:
                e.add_(sums, alpha=s.precision.gamma(overlap - 1))
            if size is not None:
                size[...] = sums
        if s.narrow:
            e *= s.guard(overlap)


class _Windows:
    """What the windows of a pooling step read: arrays (kernel, planes, windows) from arrays like the input, and back.

    Windows that tile the input are its elements in another order; for others there is a list of indices.
    """

    def __init__(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        self.module = module
        dims = int(type(module).__name__[-2])
        names = ("kernel_size", "stride", "padding", "dilation")
        kernel, stride, padding, dilation = (as_tuple(getattr(module, name), dims) for name in names)
        self.shape, size, count = x.shape, x.shape[-dims:], output.shape[-dims:]
        self.tiles = kernel == stride and not any(padding) and set(dilation) == {1} and x.numel() > 0
        self.tiles &= all(n == k * c for n, k, c in zip(size, kernel, count, strict=True))
        offsets = itertools.product(*map(range, kernel))
        self.slices: list[tuple[Any, ...]] = [
            (..., *(slice(i, None, k) for i, k in zip(at, kernel, strict=True))) for at in offsets
        ]
        self.overlap, self.output = 1, output
        if not self.tiles:
            self.index, valid = window_indices(module, x.shape, output.shape)
            self.valid = valid.T[:, None]  # (kernel, 1, windows)
            planes = output.numel() // max(1, math.prod(count))
            read = _scatter(valid.expand(planes, *valid.shape).to(x.dtype), self.index, valid, x.shape)
            self.overlap = int(read.amax()) if x.numel() else 1

    def of(self, a: Tensor, outside: float) -> Tensor:
        """The windows of every plane, with ``outside`` where the padding is."""
        return gather(a, self.index, self.valid[:, 0].T, self.output, outside).movedim(-1, 0)

    def largest(self, a: Tensor) -> Tensor:
        """The largest element of each window, of numbers that are not negative."""
        if not self.tiles:
            found: Tensor = self.module(a)
            return found
        out = a[self.slices[0]].clone(memory_format=torch.contiguous_format)
        for part in self.slices[1:]:
            torch.maximum(out, a[part], out=out)
        return out

    def add_up(self, a: Tensor) -> Tensor:
        """For every element of the input, the sum of what the windows that read it hold for it."""
        return _scatter(a.movedim(0, -1), self.index, self.valid[:, 0].T, self.shape)


def _multiplied(s: Operands, g: Tensor, e_g: Tensor) -> Iterator[Alternative]:
    """A mask of the winners times the upstream gradient: 0 · inf is NaN, for all elements of the window."""
    if finite(g):
        return
    x = s.inputs[0]
    index, valid = window_indices(s.module, x.shape, s.output.shape)
    nothing_or_nan = _scatter((0 * g).reshape(-1, len(index), 1).expand(-1, *index.shape), index, valid, x.shape)
    dx = _vjp(s, {}, x, g)[0]
    e = torch.full_like(dx, float(torch.nan_to_num(e_g, posinf=0.0).max()))
    yield Alternative(dx + nothing_or_nan, e, "the mask multiplied, and 0 · inf is NaN", each=True)


def _nowhere(s: Operands, g: Tensor, e_g: Tensor, overlap: int) -> Iterator[Alternative]:
    """A window of nothing but padding (dilation and ceil_mode make some): torch's gradient of it is another element's.

    Its maximum is -inf, whatever the input is.
    """
    _, valid = window_indices(s.module, s.inputs[0].shape, s.output.shape)
    read = valid.any(-1).reshape(s.output.shape[-int(type(s.module).__name__[-2]) :])
    if bool(read.all()):
        return
    x, kept = s.inputs[0], torch.where(read, g, 0.0)
    rounding = (
        s.precision.gamma(overlap) * _vjp(s, {}, x, kept.abs())[0] + _vjp(s, {}, x, torch.where(read, e_g, 0.0))[0]
    )
    yield Alternative(_vjp(s, {}, x, kept)[0], rounding, "a window of padding alone hands its gradient to no element")


def _kinks(s: Operands, g: Tensor) -> Kinks:
    """Which elements share a window's gradient, between which values, and the test that every split adds up.

    Shares are rounded in the working precision, each by u of what it may at most be, and where they underflow by half
    of the smallest subnormal number, u eta, in every window.
    """
    x, u = s.inputs[0].to(_WIDE), s.precision.u
    index, valid = window_indices(s.module, x.shape, s.output.shape)
    windows = gather(x, index, valid, s.output, -math.inf)  # (planes, windows, kernel)
    planes = windows.shape[0]
    winners = (windows == windows.amax(-1, keepdim=True)) & valid
    tie = winners.sum(-1, keepdim=True) > 1
    share = g.reshape(planes, -1, 1) * winners
    sole = torch.where(tie, 0.0, share)
    low = _scatter(sole + torch.where(tie, share.clamp(max=0.0), 0.0), index, valid, x.shape)
    high = _scatter(sole + torch.where(tie, share.clamp(min=0.0), 0.0), index, valid, x.shape)
    windows_of = _scatter((winners & tie).to(x.dtype), index, valid, x.shape)
    mask = windows_of > 0
    groups = _components(winners & tie, index, x)
    certain = _scatter(sole, index, valid, x.shape)
    budget = torch.zeros(int(groups.max()) + 1, dtype=x.dtype)
    tied_windows = tie.squeeze(-1)
    first = (winners & tie).to(torch.uint8).argmax(-1, keepdim=True)
    flat = groups.reshape(planes, -1)
    owner = torch.gather(flat, 1, index[None].expand(planes, -1, -1).gather(-1, first).squeeze(-1))
    budget.index_add_(0, owner[tied_windows], g.reshape(planes, -1)[tied_windows])

    def adds_up(candidate: Tensor, e: Tensor) -> Tensor:
        inside = (candidate >= low - 2 * e) & (candidate <= high + 2 * e) & mask
        given = torch.zeros_like(budget).index_add_(0, groups[mask], (candidate - certain)[mask])
        slack = 2 * e + 4 * u * (high.abs().maximum(low.abs()) + windows_of * s.precision.eta)
        room = torch.zeros_like(budget).index_add_(0, groups[mask], slack[mask])
        balanced = (given - budget).abs() <= room
        return inside & balanced[groups]

    return Kinks(mask, low, high, CONVENTION, adds_up)


def _components(tied: Tensor, index: Tensor, x: Tensor) -> Tensor:
    """Number of the group each element of ``x`` belongs to; elements that share a tied window share a group."""
    planes, area = tied.shape[0], math.prod(x.shape) // max(1, tied.shape[0])
    label = torch.arange(planes * area).reshape(planes, area)
    at = index[None].expand(planes, -1, -1).clamp(min=0)
    flat = at.reshape(planes, -1)
    while True:
        seen = torch.gather(label, 1, flat).reshape(at.shape)
        lowest = torch.where(tied, seen, planes * area).amin(-1, keepdim=True).expand_as(seen)
        proposal = torch.where(tied, lowest, seen).reshape(planes, -1)
        new = label.clone().scatter_reduce_(1, flat, proposal, "amin")
        if torch.equal(new, label):
            return label.reshape(x.shape)
        label = new


def window_indices(module: nn.Module, shape: torch.Size, out: torch.Size) -> tuple[Tensor, Tensor]:
    """Positions (flattened, per plane) that each window reads, (windows, kernel), and which of them are inside."""
    dims = int(type(module).__name__[-2])
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel, stride, padding, dilation = (as_tuple(getattr(module, name), dims) for name in names)
    size, count = shape[-dims:], out[-dims:]
    axes = [
        torch.arange(count[d])[:, None] * stride[d] - padding[d] + torch.arange(kernel[d])[None] * dilation[d]
        for d in range(dims)
    ]  # each (count, kernel)
    flat = torch.zeros((1, 1), dtype=torch.long)
    inside = torch.ones((1, 1), dtype=torch.bool)
    for d, axis in enumerate(axes):
        ok = (axis >= 0) & (axis < size[d])
        near = axis.clamp(0, max(0, size[d] - 1))
        flat = (flat[:, None, :, None] * size[d] + near[None, :, None, :]).flatten(2).flatten(0, 1)
        inside = (inside[:, None, :, None] & ok[None, :, None, :]).flatten(2).flatten(0, 1)
    assert flat.shape == (math.prod(count), math.prod(kernel)), list(itertools.chain(flat.shape))
    return flat, inside


def gather(a: Tensor, index: Tensor, valid: Tensor, out: Tensor, outside: float) -> Tensor:
    """The windows of every plane, (planes, windows, kernel), with ``outside`` where the padding is."""
    planes = out.numel() // max(1, index.shape[0])
    flat = a.reshape(planes, -1)
    return torch.where(valid, flat[:, index.reshape(-1)].reshape(planes, *index.shape), outside)


def _scatter(a: Tensor, index: Tensor, valid: Tensor, shape: torch.Size) -> Tensor:
    """Add up, for every element, what the windows that read it hold for it."""
    planes = a.shape[0]
    area = math.prod(shape) // max(1, planes)
    total = torch.zeros((planes, area), dtype=a.dtype)
    source = torch.where(valid, a, 0.0).reshape(planes, -1)
    return total.index_add_(1, index.reshape(-1), source).reshape(shape)
