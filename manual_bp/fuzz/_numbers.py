"""Numbers that a rounding bound must survive: badly scaled, nearly cancelling, tied, constant, almost zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from manual_bp.network import Network
from manual_bp.nn import Array
from manual_bp.probes import Probe

from ._losses import draw_target

Maker = Callable[[np.random.Generator, tuple[int, ...]], Array]


def _spikes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 4, shape))


def _cancelling(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """1000, -1000, ... up to one part in a million: sums are noise but for their last digits."""
    signs = np.where(np.arange(math.prod(shape)) % 2 == 0, 1.0, -1.0).reshape(shape)
    return np.asarray(1000 * signs * (1 + 1e-6 * rng.standard_normal(shape)))


def _constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Planes of one number each."""
    planes = rng.standard_normal((*shape[:2], *(1,) * (len(shape) - 2)))
    return np.broadcast_to(planes, shape).copy()


#: By name: how a regime draws an array. The simplest first.
REGIMES: dict[str, Maker] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "integers": lambda rng, shape: rng.integers(-2, 3, shape).astype(np.float64),
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.2),
    "constant": _constant,
    "offset": lambda rng, shape: 100 + rng.standard_normal(shape),
    "tiny": lambda rng, shape: 1e-6 * rng.standard_normal(shape),
    "huge": lambda rng, shape: 1e4 * rng.standard_normal(shape),
    "spikes": _spikes,
    "cancelling": _cancelling,
    "subnormal": lambda rng, shape: 1e-39 * rng.standard_normal(shape),
}


def draw_probe(network: Network, regime: str, *, seed: int, batch: int, dtype: npt.DTypeLike) -> Probe:
    """Parameters, inputs and targets of one regime; the same seed gives the same bits.

    Weights are torch's default draw; for integers they are small integers, for cancelling inputs nearly equal.
    """
    rng = np.random.default_rng([seed, list(REGIMES).index(regime)])
    x = REGIMES[regime](rng, (batch, *network.input_shape))
    params = {name: _parameter(name, a, regime, rng) for name, a in network.initial(rng).items()}
    wide = Probe(name=regime, description=f"random: {regime}", params=params, x=x, y=x, seed=seed).astype(dtype)
    # the target belongs to the prediction in this precision: only so is it exactly right where it should be
    output = network.run(wide.params, wide.x, wide.y).trace.get(network.output, np.zeros((batch, 1)))
    target = draw_target(network.loss, output, rng)
    return Probe(name=regime, description=f"random: {regime}", params=params, x=x, y=target, seed=seed).astype(dtype)


def _parameter(name: str, array: Array, regime: str, rng: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    if name.endswith("running_var"):
        return rng.uniform(0.1, 3, array.shape)
    if (array.ndim == 1 and not array.any()) or np.all(array == 1):  # the scale or shift of a normalisation
        return rng.standard_normal(array.shape) + float(bool(array.any()))
    if regime == "integers":
        return rng.integers(-2, 3, array.shape).astype(np.float64)
    if regime == "cancelling" and array.ndim > 1:
        return 0.3 * (1 + 1e-3 * rng.standard_normal(array.shape))
    if regime == "spikes":
        return array * 10.0 ** rng.uniform(-2, 2, array.shape)
    return array
