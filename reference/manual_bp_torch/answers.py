"""What torch computed and a bound says, as the comparison takes it: NumPy arrays, made when somebody looks at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from manual_bp.compare import Alternative, Expected, KinkSet
from manual_bp.trace import Array
from manual_bp_torch import bounds
from manual_bp_torch.bounds import INFLATION, Bound, Kinks
from manual_bp_torch.bounds._model import Later, constant
from manual_bp_torch.certify import finite
from manual_bp_torch.weights import to_torch

_WIDE = torch.float64

#: Elements of a bound up to which twice the bound is made at once.
LITTLE = 1 << 17


def _twice(e: Tensor, *, instead_of_nan: float = float("inf")) -> Array:
    """Two correct sides are each within e of the exact result."""
    one = constant(e)
    allowed: Array = ((2 * INFLATION) * (e[(0,) * e.dim()] if one else e)).numpy()
    with np.errstate(over="ignore"):
        total = allowed.sum()
    if total != total:  # a sum is NaN if one of its elements is, and takes no memory
        allowed = np.nan_to_num(allowed, nan=instead_of_nan, posinf=float("inf"))
    return np.broadcast_to(allowed, e.shape) if one else allowed


class _Later(Expected):
    """An expectation whose allowed error, twice the bound, is made when somebody asks for all of it."""

    def __init__(self, value: Array, e: Array, rule: str, wider: Callable[[], Expected] | None) -> None:
        self.__dict__.update(value=value, rule=rule, wider=wider, _e=e)

    @property
    def limit(self) -> tuple[Array, float]:
        """The bound, and twice."""
        e: Array = self.__dict__["_e"]
        return e, float(e.dtype.type(2 * INFLATION))

    def __getattr__(self, name: str) -> Array:
        if name != "allowed":
            raise AttributeError(name)
        e, twice = self.limit
        allowed: Array = e * e.dtype.type(twice)
        self.__dict__["allowed"] = allowed
        return allowed


def expected_of(value: Tensor, bound: Bound) -> Expected:
    """What the candidate is held against: torch's value, and twice the bound."""
    e, make = bound.e, bound.wider

    def decisive() -> Expected:
        assert make is not None
        with torch.no_grad():
            return expected_of(value, make())

    wider = decisive if make else None
    if e.numel() <= LITTLE or constant(e) or not finite(e):
        return Expected(value=_array(value), allowed=_twice(e), rule=bound.rule, wider=wider)
    return _Later(_array(value), _array(e), bound.rule, wider)


def _array(value: Tensor) -> Array:
    """The tensor's own memory as a contiguous array."""
    out: Array = value.detach().contiguous().numpy()
    return out


def alternatives_of(bound: Bound | None) -> Sequence[Alternative]:
    """The other right answers that a rule names, made when somebody looks at them."""
    if bound is None or isinstance(bound.alternatives, tuple):
        return tuple(map(_alternative, bound.alternatives if bound else ()))
    return Later(lambda: map(_alternative, bound.alternatives))


def _alternative(a: bounds.Alternative) -> Alternative:
    allowed = _twice(a.e, instead_of_nan=0.0)
    return Alternative(value=_array(a.value), allowed=allowed, reason=a.reason, kink=a.kink, each=a.each)


class _LaterKinks(KinkSet):
    """A set of kinks that is made when somebody asks for it."""

    def __init__(self, make: Callable[[], Kinks], convention: str, e: Tensor) -> None:
        self.__dict__.update(_make=make, convention=convention, _e=e)

    def __getattr__(self, name: str) -> Array:
        if name != "mask":
            raise AttributeError(name)
        return np.asarray(self.__dict__["_make"]().mask.numpy())

    def valid(self, candidate: Array) -> Array:  # a field there; here that would be a cycle
        """The mask of the elements that a valid subgradient may hold."""
        kinks, e = self.__dict__["_make"](), self.__dict__["_e"].to(_WIDE)
        return np.asarray(kinks.holds(to_torch(candidate).to(_WIDE), e).numpy())


def kink_set_of(kinks: Kinks, bound: Bound) -> KinkSet:
    """The kinks of a rule, for NumPy."""
    return _LaterKinks(kinks.made, kinks.convention, bound.e)
