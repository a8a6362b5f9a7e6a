"""What the reference raises is the reference's own fault, and is said so."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from manual_bp.errors import ManualBPError
from manual_bp.inputs import named


class TheirError(ManualBPError):
    """The reference itself raised; ``traceback_text`` is its own traceback."""

    def __init__(self, what: str, *, hint: str, traceback_text: str) -> None:
        super().__init__(what, hint=hint)
        self.traceback_text = traceback_text


@contextmanager
def own_fault(x: Any, function: Any) -> Iterator[None]:
    """What the reference raises is the reference's."""
    try:
        yield
    except ManualBPError:
        raise
    except Exception as error:
        parts = [f"{name} {str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for name, t in named(x).items()
                 if isinstance(t, Tensor)]  # fmt: skip  # one list
        message = (str(error).strip().splitlines() or [""])[0]
        hint = "give it an input that it can work with"
        whole = [name for name, t in named(x).items() if isinstance(t, Tensor) and not t.dtype.is_floating_point]
        if whole and "dtype" in message:
            hint += f", such as {whole[0]}.astype(float)"
        # a module's own frames are torch's; a function's lines are what its author wants to see
        text = "" if isinstance(function, nn.Module) else _own_traceback(error)
        raise TheirError(
            f"the reference raised {type(error).__name__} for {', '.join(parts)}: {message}",
            hint=hint,
            traceback_text=text,
        ) from error


def _own_traceback(error: Exception) -> str:
    here = os.path.dirname(__file__) + os.sep
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(here)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join([*lines, *traceback.format_exception_only(error)])
