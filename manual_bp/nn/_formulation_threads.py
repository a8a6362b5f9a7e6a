"""Python threads side by side, each with a BLAS of one thread.

NumPy lets go of the interpreter lock inside its copies, element-wise operations and matrix products, so plain
Python threads share the work of a big layer: each takes some of the samples. OpenBLAS must not start
threads of its own meanwhile: both together would fight for the processors.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ._layer import NNError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")


class _OpenBlas:
    """The thread control of the OpenBLAS that NumPy brought along; ``known`` is False for another BLAS."""

    def __init__(self) -> None:
        self.known = False
        self.get: Callable[[], int] = lambda: 1
        self.set: Callable[[int], Any] = lambda number: None
        try:  # NumPy's own module is linked with its BLAS, so its symbols are found through it
            library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]  # not in the stubs
        except (AttributeError, OSError):
            return
        for prefix in ("scipy_openblas", "openblas"):
            for suffix in ("64_", ""):
                try:
                    self.get = library[f"{prefix}_get_num_threads{suffix}"]
                    self.set = library[f"{prefix}_set_num_threads{suffix}"]
                    self.known = True
                    return
                except AttributeError:
                    continue


class _Workers:
    """The threads beside the caller's, started when first needed, and the BLAS's thread number while they work."""

    def __init__(self) -> None:
        self.chosen: int | None = None
        self._lock = Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._size = 0
        self._calls = 0  # calls of `shard` under way
        self._blas_threads = 1  # as it was before the first of them

    @cached_property
    def blas(self) -> _OpenBlas:
        """Looked up when first needed: who loads something large meanwhile would keep us waiting."""
        return _OpenBlas()

    def default(self) -> int:
        """The number of threads that the BLAS takes for one product."""
        return self._blas_threads if self._calls else self.blas.get()

    def enter(self, workers: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._calls == 0:
                self._blas_threads = self.blas.get()
                if self._blas_threads != 1:
                    self.blas.set(1)
            self._calls += 1
            if self._executor is None or self._size < workers:
                from concurrent.futures import ThreadPoolExecutor  # brings logging along; small nets need no thread

                self._executor, self._size = ThreadPoolExecutor(workers, thread_name_prefix="manual_bp"), workers
            return self._executor

    def leave(self) -> None:
        with self._lock:
            self._calls -= 1
            if self._calls == 0 and self._blas_threads != 1:
                self.blas.set(self._blas_threads)

    def forget(self) -> None:
        """In a forked child: the parent's threads do not exist there."""
        self._lock, self._executor, self._size, self._calls = Lock(), None, 0, 0


_workers = _Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.forget)


def set_threads(number: int | None) -> None:
    """Let big layers share their work between ``number`` threads; None goes back to the default.

    Raises NNError for a number below 1.
    """
    if number is not None and number < 1:
        raise NNError(f"set_threads: {number} threads; it takes a number of at least 1, or None for the default")
    _workers.chosen = number


def threads() -> int:
    """How many threads a big layer may use.

    What `set_threads` chose, else the environment's MANUAL_BP_THREADS, else as many as NumPy's BLAS takes for one
    matrix product. Always 1 where that BLAS cannot be told to stay within one thread: then it shares the work itself.
    Raises NNError if the environment's value is no such number.
    """
    if not _workers.blas.known:
        return 1
    if _workers.chosen is not None:
        return _workers.chosen
    given = os.environ.get("MANUAL_BP_THREADS", "")
    if not given:
        return _workers.default()
    if not (given.isascii() and given.isdigit() and int(given) >= 1):
        raise NNError(f"the environment's MANUAL_BP_THREADS is {given!r}; it takes a number of at least 1")
    return int(given)


def shard(work: Callable[[int, int], T], count: int, parts: int) -> list[T]:
    """[work(0, m), work(m, 2 m), ...]: ``range(count)`` in contiguous parts, each in a thread of its own.

    The parts see the caller's context (np.errstate); what one of them raises is raised here, after all have ended.
    """
    parts = min(parts, count)
    if parts <= 1:
        return [work(0, count)]
    mine, *others = pairwise(count * i // parts for i in range(parts + 1))
    executor = _workers.enter(len(others))
    try:
        contexts = [contextvars.copy_context() for _ in others]
        futures = [executor.submit(c.run, work, low, high) for c, (low, high) in zip(contexts, others, strict=True)]
        try:
            first = work(*mine)
        finally:
            for future in futures:
                future.exception()  # waits: nobody writes into the caller's arrays after this function has left
        return [first, *(future.result() for future in futures)]
    finally:
        _workers.leave()


def beside(mine: Callable[[], object], other: Callable[[], T]) -> T:
    """``other()``, computed in a thread of its own while this one is at ``mine()``."""
    return shard(lambda i, _: other() if i else mine(), 2, 2)[1]  # type: ignore[return-value]  # the second is other's


def share(work: Callable[[range, int, int], T], slabs: int, rows: int, parts: int) -> list[T]:
    """``work(slabs, first row, last row)`` for all rows of all slabs, shared by slabs if there are several."""
    if slabs > 1:
        return shard(lambda start, stop: work(range(start, stop), 0, rows), slabs, parts)
    return shard(lambda start, stop: work(range(slabs), start, stop), rows, parts)
