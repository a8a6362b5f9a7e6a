"""Probe sets: weights, inputs and targets that make mistakes visible.

One random image shows fewer than half of the mistakes that people make in a backward pass; the others give the same
bits on it. So a comparison runs over a set: the real digits first, then ties and exact zeros, saturation, dead units,
an odd batch, asymmetric data, badly scaled data, and more seeds.

A probe depends on the network's name, the probe's name, the seed and the batch alone. It is drawn in float64; float32
probes are those numbers rounded, so both dtypes see the same problem.
"""

from __future__ import annotations

import zlib
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.networks import NETWORKS, get

from ._made import MADE
from ._printed import PRINTED, has_printed, printed_numbers
from ._probe import DTYPES, Probe, check_finite
from ._real import real_examples

__all__ = ["Probe", "check_finite", "probe", "probe_names", "probe_set"]

_PRINTED = "the numbers that are printed with the derivation: its gradient must come out to all printed digits"
_REAL = "real handwritten digits, weights as torch initialises them: what training really sees"


def probe_names(network: Network) -> tuple[str, ...]:
    """Names of the network's probes: numbers printed with its derivation if there are, the real data, the others."""
    return *((PRINTED,) if has_printed(network) else ()), _real_name(network), *MADE


def probe_set(
    network: Network, *, seed: int = 0, dtype: npt.DTypeLike = np.float64, batch: int = 1
) -> tuple[Probe, ...]:
    """All probes of a network, the real digits first.

    Parameters
    ----------
    seed
        A non-negative integer; the same one gives the same bits.
    dtype
        float32 or float64.
    batch
        How many examples each probe has at least; the first has exactly as many, the others may have a few more.

    Raises
    ------
    ManualBPError
        A batch below 1 or larger than the data, a negative seed, another dtype.
    """
    return tuple(probe(network, name, seed=seed, dtype=dtype, batch=batch) for name in probe_names(network))


def probe(network: Network, name: str, *, seed: int = 0, dtype: npt.DTypeLike = np.float64, batch: int = 1) -> Probe:
    """One probe by name; see `probe_set`.

    Raises
    ------
    ManualBPError
        As `probe_set`, and for a name that the network has no probe of.
    """
    _check(network, name, seed, dtype, batch)
    network = _sound(network)
    rng = np.random.default_rng([seed, zlib.crc32(network.name.encode()), zlib.crc32(name.encode())])
    if name == PRINTED:
        description, (params, x, y) = _PRINTED, printed_numbers()
    elif name in MADE:
        make, least, description = MADE[name]
        params, x, y = make(network, rng, max(batch, least))
    else:
        description, params = _REAL, network.initial(rng)
        x, y = real_examples(network, params, rng, batch)
    return Probe(name=name, description=description, params=params, x=x, y=y, seed=seed).astype(dtype)


def _sound(network: Network) -> Network:
    """The built-in network itself where only layers of one were exchanged.

    A probe is made by running the network; with a faulty layer in it, the same name would give other numbers.
    """
    if network.name not in NETWORKS:
        return network
    own = get(network.name)
    same = (
        [(node.name, node.inputs) for node in own.nodes] == [(node.name, node.inputs) for node in network.nodes]
        and own.parameter_shapes() == network.parameter_shapes()
        and own.buffer_shapes() == network.buffer_shapes()
        and own.input_shape == network.input_shape
        and isinstance(network.loss, type(own.loss))
    )
    return own if same else network


def _real_name(network: Network) -> str:
    return "digits" if len(network.input_shape) == 3 else "data"


def _check(network: Network, name: str, seed: Any, dtype: npt.DTypeLike, batch: Any) -> None:
    names = probe_names(network)
    if name not in names:
        close = get_close_matches(name, names, n=1)
        raise ManualBPError(
            f"network {network.name!r} has no probe {name!r}",
            hint=f"did you mean {close[0]}" if close else f"choose one of {', '.join(names)}",
        )
    if np.dtype(dtype).name not in DTYPES:
        raise ManualBPError(f"probes have no dtype {np.dtype(dtype).name}", hint=f"choose {' or '.join(DTYPES)}")
    if not isinstance(batch, (int, np.integer)) or batch < 1:
        raise ManualBPError(f"a batch of {batch!r} is no number of examples", hint="give an integer of at least 1")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ManualBPError(f"the seed {seed!r} is no non-negative integer", hint="give 0, 1, 2, ...")
