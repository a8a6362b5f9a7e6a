"""Training in lockstep with torch: both sides take the same steps, and every one of them is judged."""

from __future__ import annotations

from manual_bp.training._case import train_case
from manual_bp.training._record import Step, Training
from manual_bp.training._train import train

__all__ = ["Step", "Training", "train", "train_case"]
