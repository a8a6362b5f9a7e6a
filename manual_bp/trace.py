"""What crosses from either side to the judge: named arrays in execution order.

Names are PyTorch's own. A step's output bears the step's name; ``.grad`` is dLoss/d that; ``.new`` is a parameter
after the optimiser's step::

    x, z1.weight, z1.bias, z1, a1, ..., loss, ..., a1.grad, z1.grad, z1.weight.grad, z1.bias.grad, x.grad, z1.weight.new
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the report's many classes take a while to make, and the trace needs none of them
    from manual_bp.report import Kind

Array = npt.NDArray[Any]
Trace = dict[str, Array]

GRAD = ".grad"
NEW = ".new"


@dataclass(frozen=True, kw_only=True)
class Equation:
    """A formula as text, as LaTeX, and where it stands."""

    text: str
    latex: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One array that is to be compared, and what is known of it before anything runs.

    ``step`` is the operation that produces it; for a gradient the one whose backward pass does (of several
    consumers the first in the forward order).
    """

    name: str
    kind: Kind
    step: str
    symbol: str = ""
    equation: Equation | None = None


def bit_identical(a: Array, b: Array) -> bool:
    """Whether two arrays have the same shape, dtype and bits (so -0 is not 0, and a NaN equals itself)."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (np.ascontiguousarray(side).reshape(-1) for side in (a, b))
    if a.dtype.hasobject or a.itemsize not in (1, 2, 4, 8):
        return a.tobytes() == b.tobytes()
    whole = f"u{a.itemsize}"  # compared where they lie, an element at a time
    return np.array_equal(a.view(whole), b.view(whole))


@dataclass(frozen=True)
class Mutation:
    """A step that changed an array it was given; ``inputs`` are the quantities that the step reads, as far as known."""

    step: str
    phase: str
    argument: str
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A step that raised; what comes after it in the pass is missing from the trace."""

    step: str
    phase: str
    error: str


@dataclass(frozen=True)
class Run:
    """One forward and backward pass of a network.

    Attributes
    ----------
    trace
        Every quantity that was computed, in execution order.
    mutations
        The steps that changed an array they were given.
    failure
        The step that raised, if one did.
    """

    trace: Trace
    mutations: tuple[Mutation, ...] = field(default=())
    failure: Failure | None = None
