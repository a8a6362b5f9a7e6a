"""safetensors files, where that package is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.files import reason
from manual_bp.trace import Array


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Every array of a safetensors file and its metadata.

    Raises
    ------
    ManualBPError
        safetensors is not installed, or the file is not one, damaged, or holds a dtype that NumPy lacks.
    """
    package = _package("safetensors")
    try:
        with open(path, "rb"):  # the package's own message for a missing file is a bare one
            pass
        with package.safe_open(os.fspath(path), framework="numpy") as file:
            arrays = {name: np.array(file.get_tensor(name), order="C") for name in file.keys()}  # noqa: SIM118  # no mapping
            return arrays, dict(file.metadata() or {})
    except OSError as error:
        raise ManualBPError(
            f"cannot read {path}: {reason(error)}", hint="give the path of a safetensors file"
        ) from error
    except (package.SafetensorError, AttributeError, TypeError, ValueError, MemoryError) as error:
        # AttributeError: bfloat16, which NumPy has no name for
        raise ManualBPError(
            f"{path} is no safetensors file that can be read: {reason(error)}", hint="write it with safetensors.numpy"
        ) from error


def safetensors_bytes(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of these arrays; ManualBPError if the package is not installed."""
    # version 0.8.0 writes a transposed array in the wrong order without a word, so each one is made contiguous first
    contiguous = {name: np.array(array, order="C") for name, array in arrays.items()}
    out: bytes = _package("safetensors.numpy").save(contiguous, metadata=dict(metadata))
    return out


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ManualBPError(
            "safetensors files need the safetensors package, which is not installed",
            hint="install it with: pip install 'manual-bp[safetensors]', or use .npz",
        ) from error
