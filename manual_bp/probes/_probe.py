"""What a probe is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from manual_bp.errors import ManualBPError
from manual_bp.nn import Array

DTYPES = ("float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One set of weights, inputs and targets, chosen to make a class of mistakes visible.

    Attributes
    ----------
    name, description
        What it is called, and one line on the mistakes that it shows.
    params
        Parameters and buffers by ``step.parameter``, read-only.
    x, y
        Inputs (N, ...) and targets as the network's loss takes them, read-only.
    seed
        What it was drawn from, together with the names of network and probe.
    """

    name: str
    description: str
    params: Mapping[str, Array]
    x: Array
    y: Array
    seed: int

    @property
    def batch(self) -> int:
        """N, the number of examples."""
        return len(self.x)

    def astype(self, dtype: npt.DTypeLike) -> Probe:
        """The same probe in another precision: every floating number rounded once, class indices left alone."""
        return replace(
            self,
            params=MappingProxyType({name: cast(array, dtype) for name, array in self.params.items()}),
            x=cast(self.x, dtype),
            y=cast(self.y, dtype),
        )


def cast(array: Array, dtype: npt.DTypeLike) -> Array:
    """A read-only contiguous copy, rounded to ``dtype`` where it is floating."""
    copy = np.array(array, dtype if array.dtype.kind == "f" else None, order="C")
    copy.setflags(write=False)
    return copy


def check_finite(what: str, array: Array) -> None:
    """Refuse NaN and infinities in what the user supplies.

    Raises
    ------
    ManualBPError
        Says how many there are and where the first one is.
    """
    if array.dtype.kind != "f":
        return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = ", ".join(str(i) for i in bad[0])
        raise ManualBPError(
            f"{what} has {len(bad)} of {array.size} elements that are NaN or infinite, the first at [{index}]",
            hint="give finite numbers",
        )
