"""The handwritten digits as a network's training and held-back examples, in mini-batches that both sides get."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from manual_bp.data import FULL, Part, digits
from manual_bp.errors import ManualBPError
from manual_bp.network import Network, Node
from manual_bp.nn import Array, BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, Loss, NLLLoss, Sigmoid
from manual_bp.probes._real import as_input
from manual_bp.probes._step import values
from manual_bp.probes._target import labelled
from manual_bp.trace import GRAD

#: How often the weights are drawn until every parameter has a gradient.
DRAWS = 50
#: Tells these weights from the probes of the same seed.
STREAM = 3
#: Examples that are looked at in one go when the accuracy is taken.
CHUNK = 120


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The digits that a network can tell apart: 0 and 1 for a single output, those below C for C classes.

    ``shape`` is what the network's output looks like without the batch.
    """

    network: Network
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    seed: int
    images: Array
    labels: Array
    held_images: Array
    held_labels: Array

    def batch(self, step: int, size: int) -> tuple[Array, Array]:
        """Inputs and targets of one step; every epoch has an order of its own."""
        each = len(self.images) // size
        epoch, part = divmod(step - 1, each)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
        return self._pair(order[part * size : (part + 1) * size], step)

    def _pair(self, chosen: Array, step: int) -> tuple[Array, Array]:
        x = as_input(self.images[chosen] / FULL, self.network.input_shape)
        like = np.empty((len(chosen), *self.shape))
        rng = np.random.default_rng([self.seed, step, 1])
        y = labelled(self.network.loss, like, self.labels[chosen].astype(np.int64), x, rng)
        return _frozen(x, self.dtype), _frozen(np.asarray(y), self.dtype)

    def accuracy(self, predict: Callable[[Array], Array]) -> float | None:
        """The share of held-back digits that ``predict`` names right; None where the output names none."""
        told = _classes_told(self.network.loss, self.shape)
        if told is None or not len(self.held_images):
            return None
        right = 0
        for start in range(0, len(self.held_images), CHUNK):
            part = slice(start, start + CHUNK)
            x = _frozen(as_input(self.held_images[part] / FULL, self.network.input_shape), self.dtype)
            right += int(np.count_nonzero(told(predict(x)) == self.held_labels[part]))
        return right / len(self.held_images)


def examples(network: Network, *, dtype: str, seed: int, batch: int) -> Examples:
    """The examples of a network.

    Raises
    ------
    ManualBPError
        A batch that is larger than the training part.
    """
    blank = np.zeros((1, *network.input_shape))
    shape = values(network, network.initial(np.random.default_rng(0)), blank)[network.output].shape[1:]
    known = _known(network.loss, shape)
    (images, labels), (held_images, held_labels) = (_below(known, part) for part in ("train", "held-back"))
    if batch > len(images):
        raise ManualBPError(
            f"a batch of {batch} is larger than the data: there are {len(images)} digits to train on",
            hint=f"choose a batch of at most {len(images)}",
        )
    return Examples(
        network=network,
        shape=shape,
        dtype=np.dtype(dtype),
        seed=seed,
        images=images,
        labels=labels,
        held_images=held_images,
        held_labels=held_labels,
    )


def start(network: Network, data: Examples, *, batch: int, seed: int, dtype: str) -> dict[str, Array]:
    """Weights to start from, drawn in float64 and rounded, so that both dtypes start from the same ones.

    torch's distributions, but in front of a hidden sigmoid that of Glorot and Bengio ("Understanding the difficulty of
    training deep feedforward neural networks", 2010) with their factor 4: from torch's, several sigmoids in a row stay
    at chance for hundreds of steps. Drawn anew while a parameter has no gradient at all: a filter whose every output is
    negative in front of a ReLU stays so, and learns nothing, whoever computes it.
    """
    rng = np.random.default_rng([seed, zlib.crc32(network.name.encode()), STREAM])
    x, y = data.batch(1, batch)
    params: dict[str, Array] = {}
    for _ in range(DRAWS):
        drawn = network.initial(rng)
        for node in network.nodes:
            name = f"{node.name}.weight"
            if _squashed(network, node) and drawn.get(name, np.empty(0)).ndim >= 2:
                drawn[name] = _glorot(drawn[name].shape, rng)
        params = {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in drawn.items()}
        trace = network.run(params, x, y).trace
        if all(np.any(trace[name + GRAD]) for name in network.parameter_shapes() if name + GRAD in trace):
            break
    return params


def _squashed(network: Network, node: Node) -> bool:
    """Whether a sigmoid reads the step, other than the one that makes the output."""
    readers = [other for other in network.nodes if node.name in other.inputs and other.name != network.output]
    return any(isinstance(other.layer, Sigmoid) for other in readers)


def _glorot(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Uniform in ±4 √(6 / (fan in + fan out))."""
    fans = (shape[0] + shape[1]) * math.prod(shape[2:])
    limit = 4 * math.sqrt(6 / fans)
    return rng.uniform(-limit, limit, shape)


def _below(classes: int, part: Part) -> tuple[Array, Array]:
    images, labels = digits(part=part)
    return images[labels < classes], labels[labels < classes]


def _known(loss: Loss, shape: tuple[int, ...]) -> int:
    """How many digits the output can name."""
    if shape == (1,) and isinstance(loss, (BCELoss, BCEWithLogitsLoss)):
        return 2
    return min(shape[0], 10) if _named(loss, shape) else 10


def _named(loss: Loss, shape: tuple[int, ...]) -> bool:
    """Whether the output has one number for each class."""
    return len(shape) == 1 and shape[0] > 1 and isinstance(loss, (CrossEntropyLoss, NLLLoss))


def _classes_told(loss: Loss, shape: tuple[int, ...]) -> Callable[[Array], Array] | None:
    """From outputs to the digits that they name."""
    if _named(loss, shape):
        return lambda output: np.asarray(output.argmax(axis=1))
    if shape == (1,) and isinstance(loss, (BCELoss, BCEWithLogitsLoss)):
        edge = 0.5 if isinstance(loss, BCELoss) else 0.0
        return lambda output: np.asarray(output[:, 0] > edge, np.int64)
    return None


def _frozen(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """A contiguous copy, rounded to ``dtype`` where it is floating, that nobody can change."""
    copy = np.array(array, dtype if array.dtype.kind == "f" else None, order="C")
    copy.setflags(write=False)
    return copy
