"""The handwritten digits, brought into the shape that a network takes."""

from __future__ import annotations

import math

import numpy as np

from manual_bp.data import FULL, digits
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.nn import Array

from ._step import values
from ._target import binary, categorical, labelled


def real_examples(
    network: Network, params: dict[str, Array], rng: np.random.Generator, batch: int
) -> tuple[Array, Array]:
    """``batch`` different digits and their targets, in float64 with pixels in [0, 1].

    A network with one output tells 0 from 1; one with C outputs takes the digits below C.

    Raises
    ------
    ManualBPError
        More examples asked for than there are such digits.
    """
    images, labels = digits()
    blank = np.zeros((1, *network.input_shape))
    output = values(network, params, blank)[network.output]
    known = _classes(network, output)
    eligible = np.flatnonzero(labels < known)
    if batch > len(eligible):
        what = "digits" if known == 10 else f"digits below {known}"
        raise ManualBPError(
            f"a batch of {batch} is larger than the data: there are {len(eligible)} {what}",
            hint=f"choose a batch of at most {len(eligible)}",
        )
    chosen = rng.permutation(eligible)[:batch]
    x = as_input(images[chosen] / FULL, network.input_shape)
    shape = np.empty((batch, *output.shape[1:]))
    return x, np.asarray(labelled(network.loss, shape, labels[chosen].astype(np.int64), x, rng))


def _classes(network: Network, output: Array) -> int:
    if output.ndim != 2:
        return 10
    if output.shape[1] == 1:
        return 2 if binary(network.loss) else 10
    return min(output.shape[1], 10) if categorical(network.loss) else 10


def as_input(images: Array, shape: tuple[int, ...]) -> Array:
    """Images (n, 8, 8) as (n, ...) of that shape.

    Two spatial axes: enlarged by bilinear interpolation; channel c is shifted c pixels to the right, so that no two
    are alike. One: the ink in each column, resampled (odd channels: in each row). Otherwise: the pixels in reading
    order, or their means where there are fewer inputs than pixels.
    """
    n = len(images)
    if len(shape) == 3:
        channels, *size = shape
        planes = resample(resample(images, 1, size[0]), 2, size[1])
        return np.stack([np.roll(planes, c, axis=2) for c in range(channels)], axis=1)
    if len(shape) == 2:
        channels, length = shape
        profiles = [resample(np.mean(images, axis=1 + c % 2), 1, length) * (1 - c // 2 / 10) for c in range(channels)]
        return np.stack(profiles, axis=1)
    pixels, length = images.reshape(n, -1), math.prod(shape)
    if length >= pixels.shape[1]:
        return resample(pixels, 1, length).reshape(n, *shape)
    means = [np.mean(part, axis=1) for part in np.array_split(pixels, length, axis=1)]
    return np.stack(means, axis=1).reshape(n, *shape)


def resample(array: Array, axis: int, length: int) -> Array:
    """Linear interpolation of one axis to ``length`` samples; the array itself if it has that length."""
    have = array.shape[axis]
    if have == length:
        return array
    position = np.linspace(0, have - 1, length)
    low = np.minimum(position.astype(int), have - 2)
    share = (position - low).reshape(-1, *(1,) * (array.ndim - axis - 1))
    return np.asarray(array.take(low, axis) * (1 - share) + array.take(low + 1, axis) * share)
