"""Memory that stays: how the C library is told to keep what is freed.

A pass frees megabytes and asks for as many a moment later. glibc gives freed memory back to the system from a
threshold on, and the system clears each page again before it is used: in a pass through LeNet that takes a third of the
time. The threshold adapts: once a large block has been freed, blocks up to its size stay with the process (mallopt(3),
"dynamic mmap threshold"). So one such block is asked for and freed. It is never written to and takes no memory. Other C
libraries are not affected.
"""

from __future__ import annotations

import numpy as np

#: the largest block that glibc adapts to is 32 MiB, with what it adds for itself
LARGEST = 31 << 20


def keep_freed_memory() -> None:
    """Let freed blocks of up to `LARGEST` bytes stay with the process."""
    np.empty(LARGEST, np.uint8)
