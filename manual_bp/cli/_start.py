"""What the command line sets before anything large is imported, and before it does anything; imported first.

Imports make hundreds of thousands of objects that stay: to search them for garbage again and again takes a sixth of
the time. And NumPy's BLAS starts its threads when it is imported: those of torch, and the engine's own, are enough,
and those that wait for work by spinning slow the others down.
"""

from __future__ import annotations

import gc
import os
import sys

if "numpy" not in sys.modules:  # else somebody else has begun, and has decided
    gc.set_threshold(100_000, 20, 20)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def open_closed_streams() -> None:
    """Lead each standard stream that the caller closed (``2>&-``) to nowhere; Python has None in its place.

    Its number is free, and the next file to be opened would get it: a report, say, and what a library of C's has to
    say on stderr would stand in the middle of it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: the stream's own
            os.set_inheritable(nowhere, True)  # as the three are: a worker must not find it closed again
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))
