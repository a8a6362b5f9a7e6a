"""Weights from a file: an npz of arrays named ``step.parameter``."""

from __future__ import annotations

import os
import zipfile
import zlib
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manual_bp.errors import ManualBPError
from manual_bp.files import reason
from manual_bp.network import Network
from manual_bp.nn import Array
from manual_bp.probes import check_finite

#: No array of a network comes near this many bytes; a damaged or hostile header may claim more.
LARGEST = 2**32


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
    found = _read(Path(path), expected)
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


def _read(path: Path, expected: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in archive.infolist()}
    except OSError as error:
        raise ManualBPError(f"cannot read {path}: {reason(error)}", hint="give the path of an npz file") from error
    except zipfile.BadZipFile as error:
        raise ManualBPError(
            f"{path} is not an npz file, or only the beginning of one",
            hint=f"write it with numpy.savez and the names {', '.join(expected)}",
        ) from error
    except (ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        # pickled objects and bad headers are ValueErrors; an encrypted member is a RuntimeError
        raise ManualBPError(
            f"{path} holds something else than plain arrays: {reason(error).splitlines()[0]}",
            hint="write it with numpy.savez from arrays of numbers, without pickle",
        ) from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    if info.file_size > LARGEST:
        raise ValueError(f"{info.filename} claims {info.file_size} bytes")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{info.filename} has version {version} of the npy format")
        shape, _, dtype = read(file)
        # the header is read before the memory is taken: it may claim anything
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} claims shape {shape}, which is more than the file holds")
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


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
