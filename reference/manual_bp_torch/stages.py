"""Both sides of a judgement through all stages: one after the other, or side by side in two threads.

Torch shares single operations between threads, and most of a judgement are operations that are short, or wait for
memory, or are not torch's. Where the network is large, each side has a thread instead: the replay, with the bounds that
are nearly all the work, runs a stage ahead, while torch's own pass and the comparison of the stage before keep the
other thread busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch

from manual_bp_torch.side import Side, Stage

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Stages that a side may be ahead, and one: what it found there has to be kept.
AHEAD = 3


@contextmanager
def stages_of(replay: Side, own: Side, stages: Sequence[Stage], *, alone: bool) -> Iterator[Iterator[Stage]]:
    """Goes through the stages as they are asked for, and gives each when both sides have it.

    ``alone`` keeps to the caller's thread, as does a torch that may use one only.
    """
    if alone or torch.get_num_threads() < 2:
        yield _in_turn(replay, own, stages)
        return
    from concurrent.futures import ThreadPoolExecutor  # brings logging along

    # torch's number of threads is a thread's own
    with one_thread(), ThreadPoolExecutor(1, initializer=partial(torch.set_num_threads, 1)) as pool:
        yield _side_by_side(own, stages, lambda stage: pool.submit(_both, replay, stage))


def _both(side: Side, stage: Stage) -> None:
    with torch.no_grad():
        side.compute(stage)
        side.certify(stage)


def _in_turn(replay: Side, own: Side, stages: Sequence[Stage]) -> Iterator[Stage]:
    for stage in stages:
        _both(replay, stage)  # in this order less is held at the most
        _both(own, stage)
        yield stage


def _side_by_side(own: Side, stages: Sequence[Stage], start: Callable[[Stage], Future[None]]) -> Iterator[Stage]:
    """``start`` lets the replay go through a stage after all that were started before."""
    started, computed = 0, 0
    ahead: deque[Future[None]] = deque()
    for now, stage in enumerate(stages):
        far = min(now + AHEAD, len(stages))
        ahead.extend(map(start, stages[started:far]))
        started = far
        replayed = ahead.popleft()
        with torch.no_grad():
            # rather than wait for bounds of the replay, what needs none
            while computed <= now or (own.leans(stage) and computed < far and not replayed.done()):
                own.compute(stages[computed])
                computed += 1
            if own.leans(stage):
                replayed.result()
            own.certify(stage)
        replayed.result()
        yield stage


class one_thread:  # noqa: N801  # a context manager, and named as such
    """Torch in one thread, where that is wanted: in a little network waking the others takes longer than the work."""

    def __init__(self, wanted: bool = True) -> None:
        self._threads = torch.get_num_threads() if wanted else 1

    def __enter__(self) -> None:
        if self._threads > 1:
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        if self._threads > 1:
            torch.set_num_threads(self._threads)
