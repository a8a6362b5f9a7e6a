"""What a training run leaves behind, and its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from manual_bp.report import Report, Verdict
from manual_bp.report_json import to_dict

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of training on both sides.

    Attributes
    ----------
    step
        Counted from 1; 0 is the state before the first one.
    loss, reference_loss
        Of the mini-batch before the update; NaN at step 0.
    drift
        How far both sides' parameters are apart after it: the largest |candidate - reference| of any parameter over
        the largest |reference| of that parameter; NaN where the candidate made no such update.
    judged, used
        How many quantities were judged in this step, and the largest share that one used of what it is allowed.
    accuracy, reference_accuracy
        Share of the held-back digits named right after the step; None where it was not taken, or there is none.
    """

    step: int
    loss: float = math.nan
    reference_loss: float = math.nan
    drift: float = 0.0
    judged: int = 0
    used: float = 0.0
    accuracy: float | None = None
    reference_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training run in lockstep.

    Attributes
    ----------
    history
        One record a step that was done, the state before the first one included.
    wrong_step, report
        The step at which a quantity was wrong first, and the full report of that step; None when all was right.
    diverged
        The step at which the loss stopped being a number on both sides alike: no mistake, but no learning either.
    interrupted
        Whether Ctrl-C ended it early.
    unit
        What an example is: a digit, or an example of a case's own.
    """

    network: str
    title: str
    optimizer: str
    dtype: str
    seed: int
    batch: int
    steps: int
    examples: int
    held_back: int
    history: tuple[Step, ...]
    environment: Mapping[str, str | None] = field(default_factory=dict)
    wrong_step: int | None = None
    report: Report | None = None
    diverged: int | None = None
    interrupted: bool = False
    unit: str = "digit"
    schema_version: int = SCHEMA_VERSION

    @property
    def ok(self) -> bool:
        """Whether every quantity of every step that was judged is right."""
        return self.wrong_step is None

    @property
    def verdict(self) -> Verdict:
        """``pass`` or ``fail``."""
        return "pass" if self.ok else "fail"

    @property
    def first_wrong(self) -> str | None:
        """The first wrong quantity of the first wrong step."""
        return self.report.first_wrong if self.report else None

    @property
    def judged(self) -> int:
        """How many quantities were judged in all."""
        return sum(step.judged for step in self.history)

    @property
    def accuracy(self) -> float | None:
        """The last accuracy that was taken."""
        return next((s.accuracy for s in reversed(self.history) if s.accuracy is not None), None)

    def to_json(self) -> str:
        """Strict JSON, one step a line; NaN and infinities are strings, the report is that of ``manual-bp compare``."""
        plain = asdict(self) | {"verdict": self.verdict, "first_wrong": self.first_wrong}
        history, report = plain.pop("history"), self.report and to_dict(self.report)
        del plain["report"]
        lines = [f" {_text(key)}: {_text(value)}" for key, value in plain.items()]
        steps = ",\n".join(f"  {_text({k: v for k, v in step.items() if v is not None})}" for step in history)
        return "{\n" + ",\n".join([*lines, f' "history": [\n{steps}\n ]', f' "report": {_text(report)}']) + "\n}\n"


def _text(value: Any) -> str:
    return json.dumps(_strict(value), allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, (list, tuple)) else value
