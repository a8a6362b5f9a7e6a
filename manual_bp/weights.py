"""Weights from a file: an npz of arrays named ``step.parameter``."""

from __future__ import annotations

import os
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.nn import Array
from manual_bp.probes import check_finite


def load_weights(path: str | os.PathLike[str], network: Network, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
    """Parameters and buffers of a network from an npz file, in the network's order.

    Names and shapes must be exactly the network's, the dtype exactly ``dtype`` (an integer buffer keeps its own), and
    every number finite. Nothing is cast, reshaped or left out; pickled objects are refused.

    Raises
    ------
    ManualBPError
        The file cannot be read, is no npz, is truncated or pickled, or its arrays are not the network's.
    """
    expected = network.parameter_shapes() | network.buffer_shapes()
    from manual_bp.dumps._npz import read_npz  # its package is of no use without --weights

    found = read_npz(path)
    _check_names(path, network, list(expected), list(found))
    integers = {name: array.dtype for name, array in network.initial(np.random.default_rng(0)).items()}
    for name, shape in expected.items():
        array = found[name]
        if array.shape != shape:
            raise ManualBPError(
                f"{path}: {name} has shape {array.shape}, network {network.name!r} takes {shape}",
                hint="save it in torch's layout",
            )
        wanted = np.dtype(dtype) if integers[name].kind == "f" else integers[name]
        if array.dtype != wanted:
            raise ManualBPError(
                f"{path}: {name} is {array.dtype}, expected {wanted}", hint="convert it or choose its dtype"
            )
        check_finite(f"{path}: {name}", array)
    return {name: np.ascontiguousarray(found[name]) for name in expected}


def _check_names(path: str | os.PathLike[str], network: Network, expected: list[str], found: list[str]) -> None:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing:
        close = get_close_matches(missing[0], extra, n=1)
        raise ManualBPError(
            f"{path} has no {missing[0]} for network {network.name!r}",
            hint=f"rename {close[0]}" if close else f"it takes {', '.join(expected)}",
        )
    if extra:
        raise ManualBPError(
            f"{path} has {extra[0]}, which network {network.name!r} does not have",
            hint=f"it takes {', '.join(expected)}",
        )
