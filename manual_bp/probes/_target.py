"""Targets that a loss takes."""

from __future__ import annotations

import numpy as np

from manual_bp import nn
from manual_bp.nn import Array, Loss


def binary(loss: Loss) -> bool:
    """Whether the loss takes probabilities of yes and no."""
    return isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss))


def categorical(loss: Loss) -> bool:
    """Whether the loss takes class indices."""
    return isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss))


def drawn(loss: Loss, output: Array, rng: np.random.Generator) -> Array:
    """Random targets for predictions of this shape: 0 and 1, class indices, or standard normal numbers."""
    if binary(loss):
        return rng.integers(0, 2, output.shape).astype(np.float64)
    if categorical(loss):
        classes, positions = output.shape[1], (output.shape[0], *output.shape[2:])
        return rng.integers(0, classes, positions)
    return rng.standard_normal(output.shape)


def labelled(loss: Loss, output: Array, labels: Array, x: Array, rng: np.random.Generator) -> Array:
    """Targets made of the examples' labels, one a row of ``output``.

    Where the output is no list of classes but an array like the input, the target is the middle of the input.
    """
    outputs = output.shape[1] if output.ndim == 2 else 0
    if categorical(loss) and outputs:
        return labels % outputs
    if not categorical(loss) and outputs == 1:
        return labels[:, None] % 2.0 if binary(loss) else labels[:, None] / 9
    if not categorical(loss) and outputs > 1:
        return np.asarray(np.eye(outputs)[labels % outputs])
    if not binary(loss) and not categorical(loss) and output.ndim == x.ndim:
        return _middle(x, output.shape) if _fits(x, output) else drawn(loss, output, rng)
    return drawn(loss, output, rng)


def _fits(x: Array, output: Array) -> bool:
    return all(n <= m for n, m in zip(output.shape, x.shape, strict=True))


def _middle(x: Array, shape: tuple[int, ...]) -> Array:
    starts = [(have - want) // 2 for have, want in zip(x.shape, shape, strict=True)]
    return x[tuple(slice(start, start + want) for start, want in zip(starts, shape, strict=True))]
