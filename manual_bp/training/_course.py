"""The course of a training, whatever it is that is trained: step after step until one is wrong, or Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.report import Report
from manual_bp.trace import Array
from manual_bp.training._record import Step

Observer = Callable[[Step], None]


class Pair(Protocol):
    """Both sides of a training."""

    def step(self, number: int, *, whole: bool) -> tuple[Step, Report | None]:
        """Take one step on both sides, judging the whole pass or the update alone; the report if it is wrong."""

    def evaluated(self, step: Step) -> Step:
        """The record with the accuracy of both sides, where there is one."""


def run_course(pair: Pair, *, steps: int, judge_every: int, often: int, observe: Observer | None) -> dict[str, Any]:
    """The fields of a `Training` that its course decides; ``often`` is after how many steps the accuracy is taken."""
    history: list[Step] = []
    wrong: Report | None = None
    diverged, interrupted = None, False

    def told(step: Step) -> None:
        history.append(step)
        if observe:
            observe(step)

    try:
        told(pair.evaluated(Step(step=0)))
        for number in range(1, steps + 1):
            whole = number == 1 or number % judge_every == 0
            step, wrong = pair.step(number, whole=whole)
            last = wrong is not None or number == steps
            told(pair.evaluated(step) if last or number % often == 0 else step)
            if wrong is not None:
                break
            if not np.isfinite(step.reference_loss):
                diverged = number
                break
    except KeyboardInterrupt:
        if not history:
            raise
        interrupted = True
    return {
        "history": tuple(history),
        "wrong_step": history[-1].step if wrong else None,
        "report": wrong,
        "diverged": diverged,
        "interrupted": interrupted,
    }


def drift(own: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    """The largest difference of a parameter in units of its own size; 0 when all are equal, NaN if one is missing."""
    if any(name not in own or np.shape(own[name]) != array.shape for name, array in reference.items()):
        return float("nan")
    worst = 0.0
    for name, array in reference.items():
        with np.errstate(all="ignore"):
            apart = float(np.max(np.abs(np.asarray(own[name], np.float64) - array), initial=0.0))
            size = float(np.max(np.abs(array), initial=0.0))
        if apart:
            worst = max(worst, apart / size if size else np.inf)
    return worst


def check_numbers(**numbers: object) -> None:
    """Refuse what is no integer of at least 1."""
    for name, number in numbers.items():
        if not isinstance(number, (int, np.integer)) or number < 1:
            raise ManualBPError(f"{name.replace('_', ' ')} is {number!r}", hint="give an integer of at least 1")
