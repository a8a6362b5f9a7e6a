"""Where a program has no derivative, and every choice that may be made there, one by one.

While `Ties` is active, a function of torch that chooses (relu, abs, maximum, where, a maximum over a dimension, a
pooling) and is given a tie gets a number of its own for each: how far the derivative there differs from torch's choice.
A term ``c (z - z.detach())`` is added to its result, which is 0, and has the gradient c. So the gradients of a program
are functions of these numbers, linear in each, torch's own where they are 0; and each reader of a value chooses for
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from manual_bp_torch.masks import Masks
from manual_bp_torch.numbering import MANY, Block, Found, Sum, apart, floating, ones, with_gradient
from manual_bp_torch.selections import SELECTIONS, Seen, Selection

#: Functions of one number that are not differentiable everywhere.
UNARY = frozenset(
    [
        "relu",
        "abs",
        "absolute",
        "leaky_relu",
        "hardtanh",
        "relu6",
        "clamp",
        "clip",
        "clamp_min",
        "clamp_max",
        "threshold",
        "softshrink",
        "hardshrink",
        "elu",
        "celu",
        "selu",
        "hardsigmoid",
        "hardswish",
        "prelu",
    ]
)
BINARY = frozenset(["maximum", "minimum", "fmax", "fmin"])

#: Slopes to either side are those of a kink if they differ by so many roundings, relative to their size.
_BENT = 2.0**10

#: Beside zero.
_LEAST = 1e-290


class Ties(Masks):
    """While active, the functions that choose are found, numbered, and chosen for; see `Numbering`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.finding and not self.known:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        handler = self._handler(func, name, args, kwargs) if args else None
        return self.watched(handler(func, args, kwargs) if handler is not None else func(*args, **kwargs), args)

    def _handler(self, func: Any, name: str, args: Any, kwargs: Any) -> Callable[..., Any] | None:
        first, second = args[0], args[1] if len(args) > 1 else kwargs.get("other")
        if name in BINARY or (name in ("max", "min") and isinstance(second, Tensor)):
            return self._binary
        if name in SELECTIONS:
            return partial(self._select, SELECTIONS[name])
        if name in UNARY and with_gradient(first):
            bounds = [*args[1:], *kwargs.values()]
            return self._unary if name == "prelu" or not any(map(with_gradient, bounds)) else None
        return self.mask_handler(name, args, changes=_in_place(func))

    # ------------------------------------------------------------------ functions of one and of two numbers

    def _unary(self, func: Any, args: Any, kwargs: Any) -> Any:
        z, rest, named = args[0], args[1:], dict(kwargs)
        changes = _in_place(func) or named.pop("inplace", False)
        own = z.clone() if changes else z  # what changes in place has no value before
        fixed = [a.detach() if isinstance(a, Tensor) else a for a in rest]
        bound = {n: a.detach() if isinstance(a, Tensor) else a for n, a in named.items()}
        out = func(own.clone() if changes else own, *rest, **named)
        own = own.expand(out.shape)
        before = own.detach().clone()
        block = self.block(lambda: self._bends(lambda v: func(v, *fixed, **bound), before), lambda: (before, out))
        out = self.added(out, block, partial(apart, own))

        def tangent(b: Block) -> Tensor:
            assert b.held is not None
            at, made = b.held
            moved: Tensor = made + b.found.own * (own.reshape(-1)[b.places] - at)
            return moved

        out = self.held(out, block, tangent)
        return z.copy_(out) if changes else out

    def _bends(self, f: Callable[[Tensor], Tensor], z: Tensor) -> Found:
        """Where the slopes of a function of one number differ to either side."""
        step = torch.where(z == 0, _LEAST, z.abs() * 2 * max(self.u, 2.0**-52))
        own, up, down = (_slope(f, v) for v in (z, z + step, z - step))
        low, high = torch.minimum(torch.minimum(up, down), own), torch.maximum(torch.maximum(up, down), own)
        places = ((high - low) > _BENT * self.u * (high.abs() + low.abs())).reshape(-1).nonzero()[:, 0]
        own, low, high = (a.reshape(-1)[places] for a in (own, low, high))
        return Found(places, own, low, high)

    def _binary(self, func: Any, args: Any, kwargs: Any) -> Any:
        out, both = func(*args, **kwargs), (*args, *kwargs.values())
        if len(both) != 2 or not any(map(with_gradient, both)) or not all(isinstance(b, Tensor) for b in both):
            return out
        a, b = torch.broadcast_tensors(*(v if floating(v) else v.to(out.dtype) for v in both))

        def make() -> Found:
            left, right = a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
            (own,) = torch.autograd.grad(func(left, right).sum(), left)
            places = self.equal(a, b).reshape(-1).nonzero()[:, 0]
            return Found.shares(places, own.reshape(-1)[places])

        block = self.block(make)
        out = self.added(out, block, lambda of: apart(a, of) - apart(b, of))

        def tangent(of: Block) -> Tensor:
            own = of.found.own
            mean: Tensor = own * a.reshape(-1)[of.places] + (1 - own) * b.reshape(-1)[of.places]
            return mean

        return self.held(out, block, tangent)

    # ------------------------------------------------------------------ which of several

    def _select(self, selection: Selection, func: Any, args: Any, kwargs: Any) -> Any:
        out, z = func(*args, **kwargs), args[0]
        if not with_gradient(z) or z.numel() <= 1:
            return out
        look = partial(selection, func, out, z, args[1:], kwargs)
        block = self.block(lambda: _shared(look()))
        seen = look() if block is not None and not self.finding else None
        if seen is None:
            return out
        candidates = seen.candidates
        nothing = torch.zeros_like(candidates)
        if self.choices is not None:
            return seen.returned(self.added(nothing, block, partial(apart, candidates)).sum(-1))
        # the outputs that have a choice are the mean of what they are equal to, weighted as torch weights it
        mean = self.held(nothing, block, lambda b: b.found.own * candidates.reshape(-1)[b.places]).sum(-1)
        tied = self.held(nothing, block, ones).sum(-1) > 0.5
        values = out if isinstance(out, Tensor) else out[0]
        shown = torch.where(tied, mean - seen.outputs(values), 0.0)
        return seen.returned(shown)


def found_ties(run: Callable[[], object], u: float) -> Ties:
    """The ties of a program, found by running it; ``u`` is the unit roundoff of the dtype under judgement."""
    ties = Ties(u)
    try:
        with ties:
            run()
    except Exception:  # noqa: BLE001  # it runs without: some call is not written as was thought, and samples must do
        return Ties(u, {})
    return ties


def holding(ties: Callable[[], Ties]) -> Ties:
    """What keeps a program, while it is entered, on torch's side of the ties that were found."""
    found = ties()
    return Ties(found.u, found.known)


def _shared(seen: Seen | None) -> Found:
    """The shares of a selection's ties, and which of them add up."""
    if seen is None:
        return Found.shares(torch.zeros(0, dtype=torch.long), torch.zeros(0))
    places = seen.tied.reshape(-1).nonzero()[:, 0]
    own = seen.own.reshape(-1)[places]
    sums = []
    for kind, exact in ((seen.rows(), True), (seen.groups, seen.exact)):
        if kind is None or len(places) > MANY:
            continue
        which = kind.expand(seen.tied.shape).reshape(-1)[places]
        for group in which.unique():
            mine = (which == group).nonzero()[:, 0]
            held = float(own[mine].sum())
            sums.append(Sum(mine, 0.0 if exact else -held, 0.0 if exact else 1.0 - held))
    return Found.shares(places, own, tuple(sums))


def _in_place(func: Any) -> bool:
    """Whether a function writes to what it is given: relu_, and not __and__."""
    name: str = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _slope(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    leaf = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(f(leaf.clone()).sum(), leaf)
    return found
