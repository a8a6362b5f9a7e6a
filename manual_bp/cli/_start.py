"""What the command line sets before anything large is imported; imported first, for that alone.

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
