"""Comparisons and signs, which hold or not by choice where their operands are equal, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from manual_bp_torch.numbering import Block, Found, Numbering, apart, floating, ones, with_gradient

COMPARISONS = frozenset(
    ["gt", "ge", "lt", "le", "eq", "ne", "greater", "greater_equal", "less", "less_equal", "not_equal"]
)
NEGATIONS = frozenset(["invert", "logical_not", "bitwise_not"])
JUNCTIONS = frozenset(
    ["and", "or", "xor", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"]
)
CASTS = frozenset(["to", "float", "double", "type", "type_as"])
PRODUCTS = frozenset(["mul", "multiply", "rmul"])


@dataclass(frozen=True)
class _Mask:
    """A comparison that holds or not by choice: ``sign`` times the numbers of its block are added to it.

    Until it is written to: ``version`` is the value's when it was made.
    """

    value: Tensor
    operands: tuple[Any, ...]
    block: Block
    sign: float
    version: int


class Masks(Numbering):
    """The part of `ties.Ties` that has to do with masks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._masks: dict[int, _Mask] = {}
        self._moving: dict[int, Tensor] = {}

    def _moves(self, value: Any) -> bool:
        """Whether it depends on what gradients are taken of, be it cut off from them."""
        return id(value) in self._moving or with_gradient(value)

    def watched(self, out: Any, args: Any) -> Any:
        """What a call returned; remembered if it moves with the arguments, which its gradient would not tell."""
        if floating(out) and not out.requires_grad:
            parts = (part for a in args for part in (a if isinstance(a, list | tuple) else (a,)))
            if any(map(self._moves, parts)):
                self._moving[id(out)] = out
        return out

    def _mask(self, value: Any) -> _Mask | None:
        mask = self._masks.get(id(value))
        return mask if mask is not None and mask.version == mask.value._version else None

    def mask_handler(self, name: str, args: Any, *, changes: bool) -> Callable[..., Any] | None:
        """What to do with a call that compares, or is given a comparison."""
        first, second = (self._mask(args[i]) is not None if len(args) > i else False for i in (0, 1))
        if name in COMPARISONS:
            return self._compare
        if name in ("sign", "sgn"):
            return self._sign
        if name == "where" and len(args) == 3:
            return self._where
        if name in NEGATIONS and first and not changes:
            return self._negate
        if name in JUNCTIONS and (first or second) and not changes:
            return self._join
        if name in CASTS and first:
            return self._cast
        if name in PRODUCTS and first != second:
            return self._times
        return self._fill if name == "masked_fill" and second else None

    def _known(self, out: Tensor, block: Block | None, sign: float = 1.0, operands: tuple[Any, ...] = ()) -> Tensor:
        if block is not None and not block.found.fixed:
            self._masks[id(out)] = _Mask(out, operands, block, sign, out._version)
        return out

    def _chosen(
        self, out: Tensor, make: Callable[[], Tensor], operands: tuple[Any, ...] = (), *, fixed: bool = False
    ) -> Tensor:
        """A mask, where ``make`` says whether it may also be another."""

        def found() -> Found:
            places = make().reshape(-1).nonzero()[:, 0]
            return replace(Found.shares(places, out.reshape(-1)[places].to(torch.float64)), fixed=fixed)

        block = self.block(found)
        out = self.held(out, block, lambda b: b.found.own)
        return self._known(out, block, operands=operands)

    def _compare(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        if len(args) != 2 or kwargs or not isinstance(out, Tensor) or not any(map(floating, args)):
            return out
        for known in self._masks.values():  # a comparison and its opposite: of the two sides each has one
            same = len(known.operands) == 2 and all(_same(v, w) for v, w in zip(args, known.operands, strict=True))
            same = same and self._mask(known.value) is known and known.value.shape == out.shape
            if same and bool((known.value != out).all()):
                self._known(known.value, known.block, known.sign)
                return self._known(out, known.block, -known.sign)
        a, b = torch.broadcast_tensors(*(torch.as_tensor(v).to(torch.float64) for v in args))
        return self._chosen(out, lambda: self.equal(a, b), tuple(args), fixed=not any(map(self._moves, args)))

    def _negate(self, func: Any, args: Any, kwargs: Any) -> Any:
        mask = self._masks[id(args[0])]
        return self._known(func(*args, **kwargs), mask.block, -mask.sign)

    def _join(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)

        def make() -> Tensor:
            a, b = [*args, *kwargs.values()][:2]
            other_a, other_b = (self._flipped(v) for v in (a, b))
            others = [func(*pair) for pair in ((other_a, b), (a, other_b), (other_a, other_b))]
            return torch.stack([other != out for other in others]).any(0)

        return self._chosen(out, make)

    def _flipped(self, value: Any) -> Any:
        mask = self._mask(value)
        if mask is None:
            return value
        flat = value.clone().reshape(-1)
        flat[mask.block.places] = ~flat[mask.block.places]
        return flat.reshape(value.shape)

    def _cast(self, func: Any, args: Any, kwargs: Any) -> Any:
        out, mask = func(*args, **kwargs), self._masks[id(args[0])]
        if not floating(out):
            return self._known(out, mask.block, mask.sign)
        return self.added(out, mask.block, ones, mask.sign)

    def _times(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        mask, other = args[:2] if self._mask(args[0]) is not None else args[1::-1]
        own = self._masks[id(mask)]
        if not floating(other) or out.shape != mask.shape:
            return out
        other = other.expand(out.shape)
        return self.added(out, own.block, partial(apart, other), own.sign)

    def _fill(self, func: Any, args: Any, kwargs: Any) -> Any:
        out, own = func(*args, **kwargs), self._masks[id(args[1])]
        if not floating(out) or out.shape != args[1].shape:
            return out
        value = args[0].expand(out.shape)
        return self.added(out, own.block, lambda b: -apart(value, b), own.sign)

    def _where(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        condition, yes, no = args if getattr(args[0], "dtype", None) == torch.bool else (args[1], args[0], args[2])
        own = self._mask(condition)
        if own is None or not floating(out) or out.shape != condition.shape:
            return out
        yes, no = (torch.as_tensor(v, dtype=out.dtype).expand(out.shape) for v in (yes, no))
        if with_gradient(out):
            return self.added(out, own.block, lambda b: apart(yes, b) - apart(no, b), own.sign)
        # a slope, to be multiplied by
        return self.added(out, own.block, lambda b: (yes - no).reshape(-1)[b.places], own.sign)

    def _sign(self, func: Any, args: Any, kwargs: Any) -> Any:
        out, z = func(*args, **kwargs), args[0].detach()
        if not floating(z):
            return out

        def make() -> Found:
            places = (z == 0).reshape(-1).nonzero()[:, 0]
            one = torch.ones(len(places), dtype=torch.float64)
            return Found(places, 0 * one, -one, one, fixed=not self._moves(args[0]))

        block = self.block(make)
        if block is None:
            return out
        return self.held(self.added(out.detach(), block, ones), block, lambda b: b.found.own)


def _same(v: Any, w: Any) -> bool:
    return v is w or (not isinstance(v, Tensor) and not isinstance(w, Tensor) and bool(v == w))
