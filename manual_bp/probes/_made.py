"""Probes that are made to show what ordinary data hide.

Each function gives parameters, inputs and targets in float64, drawn from the generator it is handed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from manual_bp.network import Network, Node
from manual_bp.nn import Array
from manual_bp.trace import GRAD

from ._step import changed, exact_zeros, is_affine, last_affine, rectified, squashed, tied_windows, values
from ._target import binary, categorical, drawn

Made = tuple[dict[str, Array], Array, Array]
Maker = Callable[[Network, np.random.Generator, int], Made]

#: |logit| of the most saturated example: σ is exactly 1 beyond 37 in float64, beyond 17 in float32.
SATURATED_LOGIT = 45.0
SATURATED_HIDDEN = 20.0
#: The `ties` probe is drawn again, at most this often, until every kink is met at so many places that count.
DRAWS = 60
KINKS = 3


def plain(network: Network, rng: np.random.Generator, batch: int) -> Made:
    """Standard normal inputs, weights as torch initialises them, random targets.

    Normalisations get a scale, a shift and running statistics of their own: 1 and 0 would hide where they enter.
    """
    params = network.initial(rng)
    for node in network.nodes:
        if "Norm" in type(node.layer).__name__:
            for name, shape in (node.layer.parameter_shapes() | node.layer.buffer_shapes()).items():
                params[f"{node.name}.{name}"] = _statistic(name, shape, params[f"{node.name}.{name}"], rng)
    x = rng.standard_normal((batch, *network.input_shape))
    return params, x, drawn(network.loss, _blank(network, params, batch), rng)


def _statistic(name: str, shape: tuple[int, ...], initial: Array, rng: np.random.Generator) -> Array:
    if initial.dtype.kind != "f":  # the number of batches seen
        return initial
    return rng.uniform(0.5, 2, shape) if name in ("weight", "running_var") else rng.standard_normal(shape)


def ties(network: Network, rng: np.random.Generator, batch: int) -> Made:
    """Small integers throughout, so that sums are exact in any order and ties and zeros survive rounding.

    Every ReLU sees exact zeros, every max-pooling step tied windows, and a loss with a kink sees predictions that are
    exactly right. Weights are sparse where many are summed, so that the numbers stay small in a deep network too.
    """
    best: tuple[int, Made] | None = None
    for _ in range(DRAWS):
        made = _integers(network, rng, batch)
        run = network.run(*made)
        trace = run.trace
        if run.failure is not None or any(p + GRAD not in trace for p in network.parameter_shapes()):
            return made  # the pass under judgement is broken: any numbers will show it
        kinks = [*exact_zeros(network, trace).values(), *tied_windows(network, trace).values()]
        lacking = sum(n < KINKS for n in kinks) + sum(not trace[p + GRAD].any() for p in network.parameter_shapes())
        if best is None or lacking < best[0]:
            best = lacking, made
        if lacking == 0:
            break
    assert best is not None, "DRAWS is at least 1"
    return best[1]


def _integers(network: Network, rng: np.random.Generator, batch: int) -> Made:
    params = network.initial(rng)
    for name, shape in network.parameter_shapes().items():
        params[name] = _small_integers(name, shape, rng)
    least, most = rng.integers(-2, 1), rng.integers(1, 3)  # few different numbers in some draws, more in others
    x = rng.integers(least, most, (batch, *network.input_shape), endpoint=True).astype(np.float64)
    below = rng.choice([0.5, 0.7, 0.85, 0.95])

    def change(node: Node, value: Array) -> bool:
        if not is_affine(node):
            return False
        bias = f"{node.name}.bias"
        if squashed(network, node):
            # a saturated unit lets nothing through; a power of two keeps the numbers exact
            _scale(node, params, 0.5 ** max(math.ceil(math.log2(max(float(np.max(np.abs(value))), 1.0))) - 1, 0))
        elif rectified(network, node) and bias in params:
            # the bias of each channel puts one of its own values at 0, the more of them below the larger the quantile
            channels = np.moveaxis(value, 1, 0).reshape(value.shape[1], -1)
            params[bias] = params[bias] - np.sort(channels)[:, math.floor((channels.shape[1] - 1) * below)]
        return True

    output = changed(network, params, x, change)[network.output]
    return params, x, _half_right(network, output, rng)


def _quantile(numbers: Array, share: float) -> float:
    """As np.quantile, to the bit, but that one imports numpy.ma, which takes longer than a whole probe."""
    ordered = np.sort(numbers, axis=None)
    place = (ordered.size - 1) * share
    below = math.floor(place)
    low, high, beyond = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)]), place - below
    return high - (high - low) * (1 - beyond) if beyond >= 0.5 else low + (high - low) * beyond


def _median(numbers: Array) -> float:
    """As np.median; see `_quantile`."""
    ordered = np.sort(numbers, axis=None)
    return float(ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2]) / 2


def _scale(node: Node, params: dict[str, Array], factor: float) -> None:
    for name in node.layer.parameter_shapes():
        params[f"{node.name}.{name}"] = params[f"{node.name}.{name}"] * factor


def _small_integers(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if len(shape) < 2:  # a bias, or the scale of a normalisation, where 0 makes exact zeros of a whole channel
        return rng.choice([-2.0, -1.0, 0.0, 0.0, 1.0] if name.endswith("bias") else [0.0, 1.0, 2.0], shape)
    kept = rng.random(shape) < rng.integers(2, 6) / math.prod(shape[1:])
    # positive or negative by majority, from draw to draw: windows without a positive element are wanted, too
    signs = [-1.0, 1.0, rng.choice([-1.0, 1.0])]
    return rng.choice(signs, shape) * rng.integers(1, 3, shape) * kept


def _half_right(network: Network, output: Array, rng: np.random.Generator) -> Array:
    """Targets; of real-valued ones every second is exactly the prediction."""
    target = drawn(network.loss, output, rng)
    if binary(network.loss) or categorical(network.loss):
        return target
    right = np.arange(target.size).reshape(target.shape) % 2 == 1
    return np.where(right, output, np.round(target))


def saturation(network: Network, rng: np.random.Generator, batch: int) -> Made:
    """Logits up to 45 in size, in the first example; from one example to the next they shrink by half."""
    params, x, y = plain(network, rng, batch)
    x *= (0.5 ** np.arange(batch) * 3).reshape(-1, *(1,) * (x.ndim - 1))

    def change(node: Node, value: Array) -> bool:
        if not (is_affine(node) and squashed(network, node)):
            return False
        goal = SATURATED_LOGIT if node is last_affine(network) else SATURATED_HIDDEN
        _scale(node, params, goal / max(float(np.max(np.abs(value))), 1e-3))
        return True

    changed(network, params, x, change)
    return params, x, y


def dead(network: Network, rng: np.random.Generator, batch: int) -> Made:
    """Every second unit of the hidden layers has no weights and a negative bias; a lone one is mostly below zero."""
    params, x, y = plain(network, rng, batch)
    final = last_affine(network)

    def change(node: Node, value: Array) -> bool:
        if not is_affine(node) or node is final:
            return False
        weight, bias = f"{node.name}.weight", f"{node.name}.bias"
        units = len(params[weight])
        if units > 1:
            params[weight][1::2] = 0
        if bias in params and units > 1:
            params[bias][1::2] = -1
        elif bias in params:
            params[bias] = params[bias] - _quantile(value, 0.6)
        return True

    changed(network, params, x, change)
    return params, x, y


def asymmetric(network: Network, rng: np.random.Generator, batch: int) -> Made:
    """Inputs and weights that differ under every flip, transposition and exchange of channels or examples."""
    params, _, y = plain(network, rng, batch)
    for name, shape in network.parameter_shapes().items():
        if len(shape) >= 2:
            scale = 1 / math.sqrt(math.prod(shape[1:]))
            params[name] = scale * _ramp(shape, rng)
        else:
            params[name] = params[name] + 0.1 * np.arange(shape[0] if shape else 1).reshape(shape)
    return params, _ramp((batch, *network.input_shape), rng), y


def _ramp(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Between -1 and 1 and rising along every axis, each at its own rate, in a random order of signs: all different."""
    total = np.zeros(shape)
    for axis, n in enumerate(shape):
        total += (axis + 1) * (np.arange(n) / max(n - 1, 1)).reshape(-1, *(1,) * (len(shape) - axis - 1))
    total = total / max(float(total.max()), 1.0) + 0.2 * rng.random(shape)
    return np.asarray(total * rng.choice([-1.0, 1.0], shape))


def bad_scale(network: Network, rng: np.random.Generator, batch: int) -> Made:
    """Inputs and weights of widely different sizes side by side: 10⁻³ to 10³, 10⁻² to 10."""
    params, x, y = plain(network, rng, batch)
    for name, shape in network.parameter_shapes().items():
        if len(shape) >= 2:
            params[name] = params[name] * 10.0 ** rng.uniform(-2, 1, shape)
    x = x * 10.0 ** rng.uniform(-3, 3, x.shape)

    def change(node: Node, value: Array) -> bool:
        # logits of a hundred thousand would saturate every example, and nothing but zeros would come back
        if not (is_affine(node) and squashed(network, node)):
            return False
        _scale(node, params, 1 / max(_median(np.abs(value)), 1.0))
        return True

    changed(network, params, x, change)
    return params, x, y


def _blank(network: Network, params: dict[str, Array], batch: int) -> Array:
    """An array of the prediction's shape."""
    one = values(network, params, np.zeros((1, *network.input_shape)))[network.output]
    return np.empty((batch, *one.shape[1:]))


#: By probe: how it is made, the smallest batch, and which mistakes it makes visible.
MADE: dict[str, tuple[Maker, int, str]] = {
    "ties": (ties, 4, "exact ties in pooling windows and exact zeros at the ReLU: >= for >, error to all ties"),
    "saturation": (saturation, 4, "logits up to 45: overflow, clipping in the loss, a derivative at the wrong point"),
    "dead": (dead, 3, "dead units beside live ones: a forgotten mask, a mask from the wrong tensor"),
    "batch": (plain, 5, "an odd batch: sum for mean, one example's gradient for all, transposed batch axes"),
    "asymmetric": (asymmetric, 2, "nothing symmetric: kernel not rotated, transposes, flatten order, mixed channels"),
    "bad-scale": (bad_scale, 3, "sizes from 1e-3 to 1e3 side by side: lost small terms, lower precision inside"),
    "seed-1": (plain, 2, "other random weights and normal inputs: what the digits show by luck only"),
    "seed-2": (plain, 3, "again other random weights and inputs, another batch"),
}
