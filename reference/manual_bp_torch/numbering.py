"""Numbers for what may be chosen where a program has no derivative; see `ties`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: So many choices are looked at one by one; beyond, samples must do.
MANY = 1024


@dataclass(frozen=True)
class Sum:
    """Choices whose sum lies between two numbers."""

    places: Tensor
    low: float
    high: float


@dataclass(frozen=True)
class Found:
    """The ties of one call, by their places in its flattened result: torch's derivative, the least and the most.

    Those that are ``fixed`` are no choices: of numbers that nothing moves, held all the same while others are.
    """

    places: Tensor
    own: Tensor
    least: Tensor
    most: Tensor
    sums: tuple[Sum, ...] = ()
    fixed: bool = False

    @classmethod
    def shares(cls, places: Tensor, own: Tensor, sums: tuple[Sum, ...] = ()) -> Found:
        """Of shares, each is between none and all."""
        return cls(places, own, torch.zeros_like(own), torch.ones_like(own), sums)


@dataclass(frozen=True)
class Block:
    """The choices of one call: from ``start`` on among all; ``held``, if given, is what it was given and made there."""

    start: int
    found: Found
    held: tuple[Tensor, Tensor] | None = None

    @property
    def places(self) -> Tensor:
        """Where they are."""
        return self.found.places

    @property
    def count(self) -> int:
        """How many choices there are."""
        return 0 if self.found.fixed else len(self.found.places)

    def sums(self) -> tuple[Sum, ...]:
        """Which of all choices add up."""
        return tuple(Sum(s.places + self.start, s.low, s.high) for s in self.found.sums)


class Numbering(TorchFunctionMode):
    """Ties are found and numbered, call by call; once known, each is chosen, or held where torch has it.

    Parameters
    ----------
    u
        Unit roundoff of the dtype under judgement: a constant of the program may be rounded to it.
    known
        The ties that were found before, by call; without them they are looked for.
    choices
        By how much each derivative is to differ from torch's, in order; without them, and with ``known``, each call is
        replaced by its tangent at its ties: whatever its operands are moved by, they stay on the side that torch chose.
    """

    def __init__(self, u: float, known: dict[int, Block] | None = None, choices: Tensor | None = None) -> None:
        super().__init__()
        self.near = u if u > 2.0**-40 else 0.0
        self.u = u
        self.known: dict[int, Block] = {} if known is None else known
        self.choices = choices
        self.finding = known is None
        self._calls = 0

    @property
    def count(self) -> int:
        """How many choices there are."""
        return sum(b.count for b in self.known.values())

    @property
    def holding(self) -> bool:
        """Whether each call stays on torch's side."""
        return self.choices is None and not self.finding

    def block(self, make: Callable[[], Found], held: Callable[[], tuple[Tensor, Tensor]] | None = None) -> Block | None:
        """The choices of this call: found the first time, known later on."""
        self._calls += 1
        if self.finding:
            with torch.enable_grad():
                found = make()
            if found.places.numel():
                pair = tuple(a.detach().reshape(-1)[found.places] for a in held()) if held else None
                self.known[self._calls] = Block(self.count, found, pair)  # type: ignore[arg-type]  # a pair is two
        return self.known.get(self._calls)

    def added(self, out: Tensor, block: Block | None, value: Callable[[Block], Tensor], sign: float = 1.0) -> Tensor:
        """``out`` plus, at the ties, what was chosen times ``value``, which has an element for each."""
        if block is None or block.found.fixed:
            return out
        out = out.to(torch.float64)  # a mask is of float32: half a choice may be no number of its
        if self.choices is None:
            return out
        c = self.choices[block.start : block.start + len(block.places)]
        flat = torch.zeros(out.numel(), dtype=out.dtype).index_put(
            (block.places,), (sign * c * value(block)).to(out.dtype)
        )
        return out + flat.reshape(out.shape)

    def held(self, out: Tensor, block: Block | None, tangent: Callable[[Block], Tensor]) -> Tensor:
        """``out`` with the elements of ``tangent`` at the ties, while each call stays on torch's side."""
        if block is None or not self.holding:
            return out
        return out.reshape(-1).index_put((block.places,), tangent(block).to(out.dtype)).reshape(out.shape)

    def equal(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether two numbers are one, but for the rounding of a constant."""
        return (a.detach() - b.detach()).abs() <= self.near * a.detach().abs()


def floating(value: Any) -> bool:
    """Whether it is a tensor of numbers that may have gradients."""
    return isinstance(value, Tensor) and value.is_floating_point()


def with_gradient(value: Any) -> bool:
    """Whether it is one that has."""
    return floating(value) and bool(value.requires_grad)


def apart(z: Tensor, block: Block) -> Tensor:
    """Zero at the ties of a block, with the gradient of ``z`` there."""
    own = z.reshape(-1)[block.places]
    return own - own.detach() if own.requires_grad else torch.zeros_like(own)


def ones(block: Block) -> Tensor:
    """One at each tie of a block."""
    return torch.ones(len(block.places))
