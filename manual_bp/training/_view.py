"""A training run as lines of text: a row every so often, and one line that sums it up."""

from __future__ import annotations

import math

from manual_bp.render._text import count, error
from manual_bp.training._record import Step, Training

HEAD = f"  {'step':>6}  {'loss':>9}  {'torch':>9}  {'accuracy':>8}  {'torch':>8}  {'drift':>8}  {'of allowed':>10}"


def row(step: Step) -> str:
    """One record; ``of allowed`` is the largest share that a judged quantity used."""
    loss, torch = (_number(n) for n in (step.loss, step.reference_loss))
    own, theirs = (_percent(n) for n in (step.accuracy, step.reference_accuracy))
    used = f"{100 * step.used:.0f} %" if step.judged else ""
    drift = error(step.drift) if step.step and not math.isnan(step.drift) else ""
    return f"  {step.step:>6}  {loss:>9}  {torch:>9}  {own:>8}  {theirs:>8}  {drift:>8}  {used:>10}".rstrip()


def opening(training: Training) -> str:
    """What is trained, and how."""
    examples = count(training.examples, training.unit)
    taken = f"{training.batch} of {examples} a step" if training.batch < training.examples else f"{examples} a step"
    held = f", accuracy on {training.held_back} held back" if training.accuracy is not None else ""
    return f"{training.network} · {training.optimizer} · {training.dtype} · seed {training.seed} · {taken}{held}"


def closing(training: Training) -> str:
    """The verdict in one line."""
    last = training.history[-1]
    done = count(last.step, "step")
    if training.wrong_step is not None:
        return f"✗ WRONG  at step {training.wrong_step}: {training.first_wrong}; the steps before it are right"
    if training.diverged is not None:
        return f"✗ DIVERGED  at step {last.step}, on both sides alike: no mistake, but no training either"
    reached = f"; accuracy {_percent(training.accuracy)} on held-back digits" if training.accuracy is not None else ""
    left = f" of {training.steps}, interrupted" if training.interrupted else ""
    judged = count(training.judged, "quantity", "quantities")
    return f"✓ ALL RIGHT  {done}{left}, {judged} judged{reached}; both sides are {error(last.drift)} apart"


def _number(loss: float) -> str:
    return f"{loss:.4f}" if abs(loss) < 1e4 else f"{loss:.3e}" if math.isfinite(loss) else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
