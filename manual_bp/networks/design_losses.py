"""Designed networks: each loss behind a small network, and the options that change its gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from manual_bp import nn
from manual_bp.network import Network, chain
from manual_bp.nn import Layer, Loss


def _ending_in(name: str, outputs: int, loss: Loss, **last: Layer) -> Network:
    """A hidden layer, ``outputs`` predictions, what is in ``last``, and the loss."""
    layers: dict[str, Layer] = {
        "flat": nn.Flatten(),  # (N, 64)
        "fc1": nn.Linear(64, 6),
        "relu": nn.ReLU(),  # exact on small integers, so that a prediction can be exactly right
        "fc2": nn.Linear(6, outputs),
    }
    return chain(f"design-loss-{name}", layers | last, loss, (1, 8, 8))


def pixels() -> Network:
    """A class for every pixel: the prediction has more axes than classes and batch."""
    return chain(
        "design-loss-pixels",
        {"conv1": nn.Conv2d(1, 4, 3), "tanh": nn.Tanh(), "conv2": nn.Conv2d(4, 3, 2)},  # (N, 3, 6, 4)
        nn.CrossEntropyLoss(),
        (1, 9, 7),
    )


_HALF = (0.5, 1.0, 2.0, 1.0, 0.25, 1.0, 4.0, 1.0, 1.0, 0.5)
_CASES: tuple[tuple[str, int, Loss, dict[str, Layer]], ...] = (
    ("bce", 3, nn.BCELoss(reduction="sum"), {"sigmoid": nn.Sigmoid()}),
    ("logits", 3, nn.BCEWithLogitsLoss(pos_weight=(0.5, 1.0, 3.0)), {}),
    ("mse", 10, nn.MSELoss(), {}),
    ("half", 10, nn.HalfSquaredError(), {}),
    ("l1", 10, nn.L1Loss(), {}),
    ("huber", 10, nn.HuberLoss(delta=0.5), {}),
    ("smooth-l1", 10, nn.SmoothL1Loss(beta=0.5, reduction="sum"), {}),
    ("nll", 10, nn.NLLLoss(weight=_HALF), {"log": nn.LogSoftmax(dim=1)}),
    ("cross-entropy", 10, nn.CrossEntropyLoss(reduction="sum"), {}),
    ("smoothing", 10, nn.CrossEntropyLoss(weight=_HALF, label_smoothing=0.1), {}),
)

BUILDERS: tuple[Callable[[], Network], ...] = (
    *(partial(_ending_in, name, outputs, loss, **last) for name, outputs, loss, last in _CASES),
    pixels,
)
