"""Where samples of a gradient are further apart than rounding, and between what; see `stochastic`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from manual_bp_torch.bounds import Kinks

CONVENTION = "torch's choice where there is no derivative"


@dataclass(frozen=True)
class _Sum:
    """A sum over some dimensions, where all samples agree in it, and how far a candidate's may be off there."""

    dims: tuple[int, ...]
    whole: Tensor
    binds: Tensor
    slack: Tensor


@dataclass(frozen=True)
class Spots:
    """Where the samples of a result are further apart than rounding, and between what.

    ``sums`` are those over some dimensions, and where all samples agree in them: what is shared out in one way or
    another is shared out.
    """

    mask: Tensor
    low: Tensor
    high: Tensor
    sums: tuple[_Sum, ...]

    @classmethod
    def of(cls, still: Tensor, quiet: Tensor, noisy: Tensor, e: Tensor, loud: float) -> Spots | None:
        """From torch's own result first, samples that are not rounded, and such as are; None where they do not jump.

        The ``still`` ones stand on some of the kinks, the others on none. ``e`` bounds the rounding of a right
        candidate, ``loud`` times as much that of the noisy ones.
        """
        moved, quiet = torch.cat([quiet, noisy]), torch.cat([still, quiet])
        every = torch.cat([quiet, noisy])
        low, high = every.amin(0), every.amax(0)
        width, noise = high - low, e * loud
        mask = (width > noise) | (quiet.amax(0) - quiet.amin(0) > e)
        if not bool(mask.any()):
            return None
        # an element of a single kink is one of two numbers; of several, a few samples need not show the ends
        several = ((moved - low).abs().minimum((moved - high).abs()) > 0.01 * width + noise).any(0)
        beyond = torch.where(several, width, 0.0) + noise
        return cls(mask, low - beyond, high + beyond, tuple(_sums(quiet, noisy, e, loud)))

    def with_equals(self, operand: Tensor) -> Spots:
        """Also at what is equal to such an element, and shares a sum with it: another one of several maxima may win."""
        if operand.shape != self.mask.shape:
            return self
        shared = next((s for s in self.sums if not bool((self.mask & ~s.binds).any())), None)
        if shared is None:
            return self
        place = torch.arange(shared.whole.numel()).reshape(shared.whole.shape).expand(operand.shape)
        values, rank = operand.unique(return_inverse=True)
        groups, group = (place * len(values) + rank).reshape(-1).unique(return_inverse=True)
        empty = torch.full(groups.shape, torch.inf, dtype=self.low.dtype)
        low = empty.scatter_reduce(0, group, torch.where(self.mask, self.low, torch.inf).reshape(-1), "amin")
        high = (-empty).scatter_reduce(0, group, torch.where(self.mask, self.high, -torch.inf).reshape(-1), "amax")
        low, high = (of[group].reshape(operand.shape) for of in (low, high))
        new = (low <= high) & ~self.mask
        return Spots(self.mask | new, torch.where(new, low, self.low), torch.where(new, high, self.high), self.sums)

    def kinks(self) -> Kinks:
        """What a candidate is held against there."""

        def add_up(candidate: Tensor, e: Tensor) -> Tensor:
            del e  # what the samples were held to
            ok = torch.ones_like(self.mask)
            for total in self.sums:
                ok &= ~(((candidate.sum(total.dims, keepdim=True) - total.whole).abs() > total.slack) & total.binds)
            return ok

        return Kinks(self.mask, self.low, self.high, CONVENTION, add_up)


def _sums(quiet: Tensor, noisy: Tensor, e: Tensor, loud: float) -> Iterator[_Sum]:
    """Over each dimension, over planes, over everything."""
    n = e.dim()
    for dims in [(d,) for d in range(n)] + [(n - 2, n - 1)] * (n > 2) + [tuple(range(n))] * (n > 1):
        still, moved = (found.sum([d + 1 for d in dims], keepdim=True) for found in (quiet, noisy))
        both, bound = torch.cat([still, moved]), e.sum(dims, keepdim=True)
        agreed = (still.amax(0) - still.amin(0) <= bound) & (both.amax(0) - both.amin(0) <= loud * bound)
        yield _Sum(dims, still[0], agreed, 2 * loud * bound)
