"""Stochastic arithmetic: the mode in which every operation of torch rounds at random; see `stochastic`."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from manual_bp_torch.operations import POSITIVE, Kind, kind_of, own_error, own_gap, reduction_length, resampled

#: What the spread of a few samples is multiplied by.
FACTOR = 17

#: Far below anything that a program adds to it, far above what underflows.
_LEAST = 1e-290

#: Nothing but pushes, and what was computed from them.
_PUSHES = 1e-280

#: Roundings are drawn between one half and one and a half of u, either way.
_HALF = torch.tensor(0.5, dtype=torch.float64)

_ONE = torch.tensor(1.0, dtype=torch.float64)

#: How many of them are drawn at once, at least.
DRAWN = 1 << 12

#: What is reported for a product of matrices is taken for it if it is as close, relative to the sum of the sizes.
_ALIKE = 2.0**-12

#: No number is moved by more, relative to its size.
_MOST = 2.0**-6


class Perturbed(TorchDispatchMode):
    """While active, every floating result is perturbed: by one rounding, that of a reduction by more.

    ``flip`` turns all signs of the same seed round, ``times`` makes all that is moved as much larger. With ``steady``
    all signs are the same, and nothing is rounded: only exact zeros are pushed off, all to one side.

    Attributes
    ----------
    smooth
        Whether every operation so far is known to choose nothing.
    """

    def __init__(self, u: float, seed: int, *, flip: bool = False, times: float = 1.0, steady: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.steady, self.times = steady, 0.0 if steady else times
        self.u = u * self.times
        self.side = -1.0 if flip else 1.0
        self.smooth = True
        self.generator = torch.Generator().manual_seed(seed)
        # the last few products of matrices: what they are made of shows how far rounding may have put them
        self._products: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=4)
        self._drawn, self._used = torch.empty(0, dtype=torch.float64), 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler, which takes as long as torch itself, to keep it out of here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kind = kind_of(func)
        self.smooth &= kind.smooth or kind.parts is not None
        if kind.exact:
            return func(*args, **(kwargs or {}))
        if kind.parts is not None:
            if kind.name == "binary_cross_entropy":  # of probabilities, which were moved before
                args = (args[0].clamp(0.0, 1.0), *args[1:])
            known = self.smooth
            with self:
                out = kind.parts(*args, **(kwargs or {}))
            self.smooth = known if kind.smooth else self.smooth  # a maximum that is taken away again is no choice
            if kind.name == "_softmax_backward_data" and not self.steady:
                with torch._C.DisableTorchFunction():  # a comparison in there is none of the program's
                    out = self._weighted_otherwise(out, *args[:3])
            return self._cancelled(kind, out, args)
        terms = 1 if kind.alone else reduction_length(kind.name, args)
        by = max((FACTOR - 1 + terms) / FACTOR * self.u, own_error(kind.name, args) * self.times)
        out = func(*(args if kind.alone else self._moved(args, by)), **(kwargs or {}))
        if kind.writes:  # an operation in place: the tensor that it wrote to is the result
            for which in kind.writes:
                if which < len(args) and isinstance(args[which], Tensor):
                    args[which].copy_(self._moved(args[which], by))
            return out
        out = self._moved(out, by)
        if kind.name in ("mm", "bmm"):
            self._products.append((out, *args[:2]))
        if weight := resampled(kind.name, args):
            given = next(a for a in args if isinstance(a, Tensor))
            out = out + self._signs(out) * (weight * self.u * given.abs().max())
        return self._cancelled(kind, out, args)

    def _moved(self, value: Any, by: float) -> Any:
        """Each floating tensor among operands or results, in lists or not, off by as much."""
        if isinstance(value, (tuple, list)):
            return type(value)([self._moved(part, by) for part in value])
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.device.type != "cpu":
            return value
        sign = self._signs(value)
        if self.steady:  # whatever earlier pushes add up to: of kinks in a row all fall to one side
            value = torch.where(value.abs() < _PUSHES, 0.0, value)
        # the smallest of pushes at an exact zero: what stands on a kink falls to either side
        return torch.add(_ONE, sign, alpha=min(by, _MOST)).mul_(value).add_(sign, alpha=_LEAST)

    def _cancelled(self, kind: Kind, out: Any, args: tuple[Any, ...]) -> Any:
        """A function's value, or its derivative times a gradient, off by what usual formulas lose in absolute terms."""
        if not (kind.growing or kind.bounded) or not isinstance(out, Tensor):
            return out
        tensors = [a for a in args if isinstance(a, Tensor)]
        if tensors[-1].shape != out.shape:
            return out
        size = 1 + tensors[-1].abs() if kind.growing else torch.ones_like(out)
        if len(tensors) > 1:
            size = size * tensors[0].abs()
        amount = size * max(self.u, own_error(kind.name, args) * self.times)
        if (gap := own_gap(kind.name, args)) is not None:
            amount = amount + gap * (self.times / FACTOR)
        moved = torch.addcmul(out, amount, self._signs(out))
        # what follows may refuse a probability above 1, or a variance below 0
        if kind.name in POSITIVE:
            moved = torch.maximum(moved, 2.0**-10 * out)
        return moved.clamp(-1.0, 1.0) if kind.name in ("sigmoid", "tanh") else moved

    def _weighted_otherwise(self, out: Tensor, grad: Tensor, shares: Tensor, dim: int) -> Tensor:
        """The softmax's dx = p (g - Σ p g), where the sum may be made of other roundings than those of g.

        In attention g = do·v, and Σ p g = do·o as well, which is what is at hand where p is computed again.
        """
        for product, a, b in self._products:
            if product.numel() != grad.numel():
                continue
            size = torch.matmul(a.abs(), b.abs())
            if product.untyped_storage().data_ptr() == grad.untyped_storage().data_ptr():
                size = size.contiguous().as_strided(grad.size(), grad.stride(), grad.storage_offset())
            else:  # it may have been reported, and be that product but for its rounding
                size, product = size.reshape(grad.shape), product.reshape(grad.shape)
                if not bool(((product - grad).abs() <= _ALIKE * size).all()):
                    continue
            total = (shares * size).sum(dim, keepdim=True)
            by = (FACTOR - 1 + a.shape[-1]) / FACTOR * self.u
            return torch.addcmul(out, shares, total * self._signs(total), value=min(by, _MOST))
        return out

    def _signs(self, value: Tensor) -> Tensor:
        """A random amount for each element: as many as are used up in the order in which they were drawn."""
        if self.steady:
            return torch.full_like(value, self.side)
        count = value.numel()
        if self._used + count > self._drawn.numel():
            # many at once: an operation of torch takes as long for one as for hundreds
            self._drawn, self._used = self._draw(max(count, DRAWN)), 0
        now = self._drawn[self._used : self._used + count].view(value.shape)
        self._used += count
        return now if value.dtype == now.dtype else now.to(value.dtype)

    def _draw(self, count: int) -> Tensor:
        # of different size, or two that meet in one number would take each other away every second time
        amount = torch.empty(count, dtype=torch.float64).uniform_(-1.0, 1.0, generator=self.generator)
        return amount.add_(torch.copysign(_HALF, amount)).mul_(self.side)

    def nudge(self, value: Any) -> Any:
        """An exact operand, moved by next to nothing, every element by a little more or less than the others."""
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() < 2:
            return value
        with _disable_current_modes():  # these operands are exact, not results
            amount = torch.linspace(0.5, 1.0, value.numel(), dtype=value.dtype).reshape(value.shape)
            if not self.steady:
                amount = torch.empty_like(value).uniform_(0.5, 1.0, generator=self.generator)
            amount = amount * self._signs(value)
            return torch.where(value == 0, _LEAST * amount, value * (1 + 2.0**-46 * amount))

    def stored(self, value: Any, error: Tensor | None = None) -> Any:
        """An operand as it may have been before it was rounded, zeros were zero; or computed with that error."""
        if self.steady or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        with _disable_current_modes():  # as in `nudge`; nothing here chooses, or it would be taken for the program's
            sign = self._signs(value)
            return value * (1 + min(self.u, _MOST) * sign) if error is None else value + self.times * error * sign
