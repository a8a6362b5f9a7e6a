"""The model of rounding that every certified bound rests on, and the shapes of what a rule returns.

Two correct implementations of an operation differ by rounding only. A rule computes, per element, a bound ``e`` on
how far any reasonable implementation in the working precision can be from the exact result; two implementations may
then differ by ``2 e``. Bounds are computed in float64 from the actual operands.

A rule that is `Rule.narrow` may be given float32 operands instead, where those are under judgement. It adds, multiplies
and compares what is not negative, and nothing cancels: so with at most n roundings in a row its result ê is at least
(1 - gamma_n) e, up to what underflows, which is less than gamma_n of the eta terms in e. `Operands.guard` is
1 + 2 gamma_{n+16} >= 1 / (1 - gamma_n), with 16 roundings to spare for the products around the sum; ê times that is a
bound. What overflows is computed again in float64 (`certify`).

u is the unit roundoff, gamma_n = n u / (1 - n u) bounds the relative error of n roundings in a row (Higham 2002,
Accuracy and Stability of Numerical Algorithms, lemma 3.1), eta is the smallest normal number (what a flush to zero
loses).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from manual_bp_torch.vjp import vjp

_T = TypeVar("_T")

#: The bounds themselves are computed with rounding; this makes up for it (float64 sums of up to 1e7 terms).
INFLATION = 1.0 + 1e-9


@dataclass(frozen=True)
class Precision:
    """Rounding of the working dtype."""

    u: float
    eta: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Precision:
        info = torch.finfo(dtype)
        return cls(u=info.eps / 2, eta=info.tiny)

    def gamma(self, n: int) -> float:
        """Bound on the relative error of n roundings; infinite where that says nothing any more."""
        nu = n * self.u
        return nu / (1 - nu) if nu < 1 else float("inf")


def nothing(like: Tensor) -> Tensor:
    """Zeros of the shape and dtype of ``like`` that take no memory; not to be written into."""
    return torch.zeros((), dtype=like.dtype).expand(like.shape)


def constant(a: Tensor) -> bool:
    """Whether all elements are one and the same number in memory."""
    return a.numel() > 0 and all(stride == 0 or size == 1 for stride, size in zip(a.stride(), a.shape, strict=True))


def carries(e: Tensor) -> bool:
    """Whether there is an error at all."""
    if constant(e):
        return bool(e[(0,) * e.dim()] != 0)
    # of what is not negative the sum tells, ten times as fast as any(); where it is long, mostly its beginning does
    return bool((e.numel() > PIECE and e[(0,) * (e.dim() - 1)].sum() != 0) or e.sum() != 0)


def finite(a: Tensor) -> bool:
    """Whether all elements are finite."""
    # a finite sum tells, several times as fast; one that is not may have overflowed
    return math.isfinite(float(a.sum())) or bool(torch.isfinite(a).all())


def some(mask: Tensor) -> bool:
    """Whether a mask holds anywhere, by NumPy, which looks at several elements at once."""
    return bool(mask.numpy().any())


def at_most(a: Tensor, b: Tensor) -> Tensor:
    """The mask of a <= b, by NumPy as well."""
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.less_equal(a.numpy(), b.numpy()))


def places(mask: Tensor) -> Tensor:
    """Where a mask holds, as indices of the flattened array; by NumPy as well."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def called(module: nn.Module, state: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """What a module without children makes of its inputs with these parameters and buffers, by their local names.

    torch's functional_call puts them into the module itself for the time of the call. But both sides of a judgement
    have the same modules, and may be at work on them at the same time.
    """
    own = copy.copy(module)
    for kind in ("_parameters", "_buffers"):
        own.__dict__[kind] = {name: state.get(name, held) for name, held in getattr(module, kind).items()}
    assert state.keys() <= own._parameters.keys() | own._buffers.keys(), (module, [*state])
    result: Tensor = own(*inputs)
    return result


#: Elements that are worked on at a time: what is made of them stays in a second-level cache.
PIECE = 1 << 17


def piecewise(make: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """``make(*operands)``, which works element by element, without arrays of their size in between."""
    first = operands[0]
    if first.numel() <= 2 * PIECE or not all(constant(a) or a.is_contiguous() for a in operands):
        return make(*operands)
    out = torch.empty_like(first, memory_format=torch.contiguous_format)
    whole = out.reshape(-1)
    flat = [a[(0,) * a.dim()].expand(whole.shape) if constant(a) else a.reshape(-1) for a in operands]
    for start in range(0, whole.numel(), PIECE):
        part = slice(start, start + PIECE)
        whole[part] = make(*(a[part] for a in flat))
    return out


@dataclass(frozen=True)
class Kinks:
    """Elements of an input gradient where the operation has no derivative.

    ``low`` and ``high`` span what a valid subgradient may give at the elements of ``mask``. ``valid``, if given, holds
    a whole candidate gradient against what single elements cannot show (shares of a pooling window that must add up)
    and returns the mask of the elements it accepts.
    """

    mask: Tensor
    low: Tensor
    high: Tensor
    convention: str
    valid: Callable[[Tensor, Tensor], Tensor] | None = None

    def holds(self, candidate: Tensor, e: Tensor) -> Tensor:
        """The mask of the elements of a candidate's gradient, of bound ``e``, that a valid subgradient may hold."""
        ok = (candidate >= self.low.to(candidate.dtype) - 2 * e) & (candidate <= self.high.to(candidate.dtype) + 2 * e)
        return ok if self.valid is None else ok & self.valid(candidate, e)

    def made(self) -> Kinks:
        """These kinks with all their tensors."""
        return self


class LaterKinks(Kinks):
    """Kinks whose tensors are made when somebody asks for them: only a gradient that differs does."""

    def __init__(self, make: Callable[[], Kinks], convention: str) -> None:
        self.__dict__.update(_make=cache(make), convention=convention)

    def made(self) -> Kinks:
        found: Kinks = self.__dict__["_make"]()
        return found


@dataclass(frozen=True)
class Bound:
    """A per-element bound ``e`` with the rule it comes from.

    ``magnitude`` bounds the absolute value of what is computed; sums of several contributions need it.
    ``kinks`` is given for input gradients of operations that are not differentiable everywhere.
    ``alternatives`` are other right answers with bounds of their own: the derivative written in terms of the step's
    reported output, for instance. ``wider`` makes the bound that decides, where this one is only a part of it that is
    at hand: what is right within it is right, and the rest is to be held against the other.
    """

    e: Tensor
    rule: str
    magnitude: Tensor | None = None
    kinks: Kinks | None = None
    alternatives: Sequence[Alternative] = ()
    wider: Callable[[], Bound] | None = None


def heard(bound: Bound, tell: Callable[[Bound], None]) -> Bound:
    """The bound; and once somebody asks for its wider one, ``tell`` is told of that."""
    make = bound.wider
    if make is None:
        return bound

    def wider() -> Bound:
        found = make()
        tell(found)
        return found

    return replace(bound, wider=wider)


@dataclass(frozen=True)
class Alternative:
    """Another right answer: its value, its own bound, why it is right, and whether it is one at a kink only.

    With ``each`` it is one element by element, whatever the others are; else all that differs must be explained by it.
    """

    value: Tensor
    e: Tensor
    reason: str
    kink: bool = False
    each: bool = False


class Later(Sequence[_T]):
    """What is made when somebody looks at it: other right answers, which only a gradient that differs asks for."""

    def __init__(self, make: Callable[[], Iterable[_T]]) -> None:
        self._made = cache(lambda: tuple(make()))

    def __len__(self) -> int:
        return len(self._made())

    def __getitem__(self, i: Any) -> Any:
        return self._made()[i]


@dataclass(frozen=True)
class Backward:
    """Bounds of one backward step: one for each input, and one for each parameter by its name."""

    inputs: tuple[Bound, ...]
    params: dict[str, Bound] = field(default_factory=dict)


@dataclass(frozen=True)
class Operands:
    """What one step works on, all in float64.

    Attributes
    ----------
    module
        The torch module in float64 (for its hyperparameters, and to run linear operations on absolute values).
    inputs, errors
        The step's inputs and the bounds of what they already carry (zero in an isolated check).
    params
        Parameters and buffers by their names; they carry no error, both sides have the same bits.
    output
        What the step reported (isolated) or what torch computed (end to end).
    precision
        Of the dtype under judgement, not of these operands.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    errors: tuple[Tensor, ...]
    params: Mapping[str, Tensor]
    output: Tensor
    precision: Precision

    @property
    def isolated(self) -> bool:
        return not any(carries(e) for e in self.errors)

    @property
    def narrow(self) -> bool:
        """Whether the operands are as they are under judgement, not in float64."""
        return self.output.dtype == torch.float32

    def guard(self, n: int) -> float:
        """What makes up for n roundings in a row in float32; infinite, which asks for float64, for more than 2^18."""
        if not self.narrow:
            return 1.0
        return 1.0 + 2.0 * self.precision.gamma(n + 16) if n <= 1 << 18 else float("inf")

    def widened(self) -> Operands:
        """The same in float64."""
        return replace(
            self,
            inputs=tuple(x.double() for x in self.inputs),
            errors=tuple(e.double() for e in self.errors),
            params={name: a.double() for name, a in self.params.items()},
            output=self.output.double(),
        )

    def tops(self) -> tuple[Tensor, ...]:
        """|x| + 2 e: what the absolute value of an input is at most, on either side."""
        return tuple(x.abs() + 2 * e for x, e in zip(self.inputs, self.errors, strict=True))


class Rule:
    """A certified bound: how rounding enters and errors pass through one kind of step, forward and backward."""

    #: Whether float32 operands do as well; see the module's text.
    narrow = False

    def forward(self, s: Operands) -> Bound:
        """Bound of the output."""
        raise NotImplementedError

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        """Bounds of all gradients, given the upstream gradient ``g`` and the error ``e_g`` that it carries."""
        raise NotImplementedError


# ---------------------------------------------------------------------- where torch itself overflows

#: The exponent of the upstream gradient's largest element when `_without_overflow` has made it little.
LITTLE = -256


def with_overflow_undone(found: Backward, s: Operands, g: Tensor) -> Backward:
    """Bounds of a step of one input, with another right answer where torch's own gradient overflows on its way.

    A gradient is linear in the upstream gradient: divided by a power of two that comes out as before, but for what
    underflows, and leaves room. What torch finds then, multiplied by that power, stands in for infinities and NaN
    where the bound, which is finite, says that there is a finite result.
    """
    made = cache(partial(_without_overflow, s, g, tuple(found.params)))

    def beside(bound: Bound, which: int) -> Bound:
        def alternatives() -> Iterator[Alternative]:
            yield from bound.alternatives
            pair = made()
            if pair is not None:
                own, other = (gradients[which] for gradients in pair)
                needed = ~torch.isfinite(own) & torch.isfinite(other) & ~bound.e.isnan()
                reason = "torch's own overflows on its way; with a smaller upstream gradient, scaled back, it does not"
                value, e = torch.where(needed, other, own), torch.where(needed, bound.e, 0.0)
                yield Alternative(value, e, reason, each=True)

        return replace(bound, alternatives=Later(alternatives))

    (dx,) = found.inputs
    params = {name: beside(bound, which) for which, (name, bound) in enumerate(found.params.items(), 1)}
    return Backward((beside(dx, 0),), params)


def _without_overflow(s: Operands, g: Tensor, names: tuple[str, ...]) -> tuple[tuple[Tensor, ...], ...] | None:
    """Torch's gradients of the input and of the parameters ``names``: as they are, and as if ``g`` were little.

    None where they are finite as they are, or ``g`` is little, or not finite itself.
    """
    exponent = math.frexp(float(g.abs().max()))[1] if g.numel() and finite(g) else LITTLE
    up = 2.0 ** min(exponent - LITTLE, 1000)

    def gradients(g: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            params = {name: p.detach().clone() for name, p in s.params.items()}  # statistics are changed in place
            leaves = [a.requires_grad_() for a in (s.inputs[0].detach().clone(), *(params[name] for name in names))]
            return vjp(called(s.module, params, leaves[0]), leaves, g)

    if up <= 1 or all(map(finite, own := gradients(g))):
        return None
    return own, tuple(a * up for a in gradients(g / up))
