"""Whether a mistake makes a difference at all: it is tried on random operands of the step's own shapes.

A mistake that changes nothing in this layer, for any input that can reach it, is no mistake there (a kernel of one
element need not be rotated). Operands are normal numbers, small integers with zeros and ties, and large numbers, in
the range that the step before can produce (behind a ReLU nothing is negative), and no error comes back from an element
that no later window covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from manual_bp.network import INPUT, Network
from manual_bp.nn import Array, Layer
from manual_bp.probes._target import binary, categorical, drawn

from ._reach import reached, shapes_of
from ._seen import Seen, SeenLoss, SeenUpdate

if TYPE_CHECKING:
    from ._mutant import StepMutant

DRAWS = 9
#: Relative to the largest number of the array; a precision lost inside makes 1e-8.
VISIBLE = 1e-10

_KEEPS_RANGE = {"MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "Flatten", "Identity"}
_RANGES = {"ReLU": "positive", "Softplus": "positive", "Sigmoid": "unit", "Softmax": "unit", "LogSoftmax": "logs"}

_known: dict[object, frozenset[str]] = {}


def changed_roles(mutant: StepMutant, network: Network, step: str) -> frozenset[str]:
    """The results that the mistake changes in this step, for some operands."""
    from ._mutant import UPDATE, part_of

    part = part_of(network, step)
    if step == UPDATE:
        key: object = (mutant.id, part)
    else:
        read = (network.output,) if step == network.loss_name else network.node(step).inputs
        shapes = tuple(shapes_of(network)[name] for name in read)
        ranges = tuple(range_of(network, name) for name in read)
        reach = b"" if step == network.loss_name else np.packbits(reached(network, step)).tobytes()
        key = (mutant.id, part, shapes, ranges, reach, type(network.loss), step == network.output)
    if key not in _known:
        with np.errstate(all="ignore"):
            _known[key] = _try(mutant, network, step)
    return _known[key]


def range_of(network: Network, name: str) -> str:
    """One of "any", "positive" (0 included), "unit" for [0, 1], or "logs" for logarithms of probabilities."""
    if name == INPUT:
        return "any"
    node = network.node(name)
    kind = type(node.layer).__name__
    return range_of(network, node.inputs[0]) if kind in _KEEPS_RANGE else _RANGES.get(kind, "any")


def _try(mutant: StepMutant, network: Network, step: str) -> frozenset[str]:
    from ._mutant import UPDATE

    found: set[str] = set()
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        pairs: Iterable[tuple[str, Array, Array]]
        if step == UPDATE:
            pairs = _update(mutant, network, draw, rng)
        elif step == network.loss_name:
            pairs = _loss(mutant, network, draw, rng)
        else:
            pairs = _layer(mutant, network, step, draw, rng)
        pairs = list(pairs)
        if _refused(network, step, pairs):
            return frozenset()
        found |= {role for role, wrong, right in pairs if differs(wrong, right)}
        if len(found) == len(mutant.roles):
            break
    return frozenset(found)


def _refused(network: Network, step: str, pairs: list[tuple[str, Array, Array]]) -> bool:
    """Whether the loss would raise on what the mistake makes of the output: then there is nothing to compare."""
    if type(network.loss).__name__ != "BCELoss" or step == network.loss_name:
        return False
    values_ = [wrong for role, wrong, _ in pairs if role == "y"]
    if step == network.output:
        return any(not np.all((y >= 0) & (y <= 1)) for y in values_)
    return any(not np.all(np.isfinite(y)) for y in values_)


def differs(wrong: Array, right: Array) -> bool:
    """Whether two arrays differ by more than rounding, or in shape."""
    if wrong.shape != right.shape:
        return True
    if not right.size:
        return False
    return not float(np.max(np.abs(wrong - right))) <= VISIBLE * float(np.max(np.abs(right)))


def _layer(
    mutant: StepMutant, network: Network, step: str, draw: int, rng: np.random.Generator
) -> Iterator[tuple[str, Array, Array]]:
    node = network.node(step)
    shapes = shapes_of(network)
    drawn_ = {name: _numbers(shapes[name], draw, rng, range_of(network, name)) for name in dict.fromkeys(node.inputs)}
    inputs = tuple(drawn_[name] for name in node.inputs)  # a step may read another one twice
    params = _params(node.layer, draw, rng)
    y, _ = node.layer.forward(params, *inputs)
    g = np.where(reached(network, step), _numbers(y.shape, draw, rng), 0.0)
    seen = Seen.of(node.layer, params, inputs, g)
    for role, wrong in mutant.results(seen).items():
        yield role, wrong, seen.result(role)


def _loss(
    mutant: StepMutant, network: Network, draw: int, rng: np.random.Generator
) -> Iterator[tuple[str, Array, Array]]:
    p = _numbers(shapes_of(network)[network.output], draw, rng, range_of(network, network.output))
    if type(network.loss).__name__ == "BCELoss":
        p = np.clip(p, 0, 1)
    t = drawn(network.loss, p, rng)
    if draw % 3 == 1 and not binary(network.loss) and not categorical(network.loss):
        t = np.where(rng.random(p.shape) < 0.5, p, t)  # exactly right predictions
    seen = SeenLoss.of(network.loss, p, t)
    for role, wrong in mutant.results(seen).items():
        yield role, wrong, seen.result(role)


def _update(
    mutant: StepMutant, network: Network, draw: int, rng: np.random.Generator
) -> Iterator[tuple[str, Array, Array]]:
    assert network.optimizer is not None, "the network has an update step"
    seen = SeenUpdate.of(network.optimizer, _numbers((5, 4), draw, rng), _numbers((5, 4), 0, rng))
    yield "new", mutant.results(seen)["new"], seen.new


def _numbers(shape: tuple[int, ...], draw: int, rng: np.random.Generator, kind: str = "any") -> Array:
    """Normal numbers, small integers, large numbers, in turn."""
    draw %= 3
    if draw == 1:
        numbers = rng.integers(-1, 2, shape).astype(np.float64)
    else:
        numbers = rng.standard_normal(shape) * (30 if draw == 2 else 1)
    if kind == "positive":
        return np.maximum(numbers, 0)
    if kind == "unit":
        return np.asarray(1 / (1 + np.exp(-numbers)))
    if kind == "logs" and len(shape) > 1:
        return np.asarray(numbers - np.log(np.exp(numbers).sum(axis=1, keepdims=True)))
    return numbers


def _params(layer: Layer, draw: int, rng: np.random.Generator) -> Mapping[str, Array]:
    params = layer.initial(rng)
    for name, shape in {**layer.parameter_shapes(), **layer.buffer_shapes()}.items():
        if name == "running_var":
            params[name] = rng.uniform(0.5, 2, shape)
        elif params[name].dtype.kind == "f":
            params[name] = _numbers(shape, draw, rng)
    return params
