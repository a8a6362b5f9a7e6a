"""``tap("name", tensor)``: make an intermediate result of a PyTorch program a quantity of its own.

Inside a comparison the tensor is recorded (and, when a candidate is being isolated, replaced by what the candidate
claims); anywhere else ``tap`` hands it back and does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_current: ContextVar[Callable[[str, Any], Any] | None] = ContextVar("manual_bp_tap", default=None)


def tap(name: str, tensor: T) -> T:
    """Name an intermediate tensor, so that it and its gradient are compared.

    Parameters
    ----------
    name
        The quantity's name; its gradient is ``name + ".grad"``.
    tensor
        A floating-point tensor of the program.

    Returns
    -------
    The tensor that the program must go on with.
    """
    active = _current.get()
    return tensor if active is None else active(name, tensor)


@contextmanager
def tapping(active: Callable[[str, Any], Any]) -> Iterator[None]:
    """While the block runs, ``tap`` goes to ``active``."""
    token = _current.set(active)
    try:
        yield
    finally:
        _current.reset(token)
