"""A network and its numbers in one file, ``NAME.case.npz``, which ``manual-bp compare`` runs again.

The file holds ``params.NAME``, ``x`` and ``y`` as arrays, and a manifest: JSON, as bytes, that names every layer with
its hyperparameters. Nothing is pickled, and only classes of the engine are ever made from a name.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from manual_bp import files, nn
from manual_bp.errors import ManualBPError
from manual_bp.network import Network, Node
from manual_bp.probes import Probe

T = TypeVar("T")

SUFFIX = ".case.npz"
VERSION = 1
_MANIFEST, _PARAMS = "manifest", "params."


def save(path: str | os.PathLike[str], network: Network, probe: Probe) -> Path:
    """Write a case; the file appears whole or not at all.

    Raises
    ------
    ManualBPError
        When the path cannot be written.
    """
    manifest = {
        "case_version": VERSION,
        "name": network.name,
        "title": network.title,
        "input_shape": list(network.input_shape),
        "nodes": [{"name": n.name, "layer": _described(n.layer), "inputs": list(n.inputs)} for n in network.nodes],
        "loss": _described(network.loss),
        "loss_name": network.loss_name,
        "optimizer": None if network.optimizer is None else _described(network.optimizer),
        "probe": {"name": probe.name, "description": probe.description, "seed": probe.seed},
    }
    text = json.dumps(manifest, indent=1).encode()
    arrays = {_PARAMS + name: np.asarray(a, order="C") for name, a in probe.params.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **{_MANIFEST: np.frombuffer(text, np.uint8), "x": probe.x, "y": probe.y, **arrays})  # type: ignore[arg-type]  # arrays by name
    return files.write_bytes(path, buffer.getvalue())


def load(path: str | os.PathLike[str]) -> tuple[Network, Probe]:
    """Read a case.

    Raises
    ------
    ManualBPError
        When the file cannot be read, or is not a case of this version.
    """
    arrays = _arrays(path)
    try:
        manifest = json.loads(arrays[_MANIFEST].tobytes())
        if manifest["case_version"] != VERSION:
            raise ValueError(f"its version is {manifest['case_version']}, not {VERSION}")
        nodes = [Node(n["name"], _made(n["layer"], nn.Layer), tuple(n["inputs"])) for n in manifest["nodes"]]
        network = Network(
            name=manifest["name"],
            title=manifest["title"],
            nodes=tuple(nodes),
            loss=_made(manifest["loss"], nn.Loss),
            loss_name=manifest["loss_name"],
            input_shape=tuple(manifest["input_shape"]),
            optimizer=_made(manifest["optimizer"], nn.Optimizer) if manifest["optimizer"] else None,
        )
        probe = Probe(
            **manifest["probe"],
            params={k.removeprefix(_PARAMS): a for k, a in arrays.items() if k.startswith(_PARAMS)},
            x=arrays["x"],
            y=arrays["y"],
        )
        missing = {**network.parameter_shapes(), **network.buffer_shapes()}.keys() - probe.params.keys()
        if missing:
            raise ValueError(f"it has no numbers for {sorted(missing)[0]}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ManualBPError(
            f"{path} is not a saved case: {said}", hint="give a file that manual-bp fuzz wrote"
        ) from None
    return network, probe


def _arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        hint = "give a file that manual-bp fuzz wrote"
        raise ManualBPError(f"cannot read {path}: {files.reason(error)}", hint=hint) from None
    except (ValueError, AttributeError, zipfile.BadZipFile, EOFError):
        raise ManualBPError(f"{path} is not a saved case", hint="give a file that manual-bp fuzz wrote") from None


def _described(described: nn.Layer | nn.Loss | nn.Optimizer) -> dict[str, Any]:
    """Class name and hyperparameters of the engine's class (an alternative implementation is saved as the original)."""
    kind = next(c for c in type(described).__mro__ if getattr(nn, c.__name__, None) is c)
    return {"type": kind.__name__, "options": {f.name: _plain(getattr(described, f.name)) for f in fields(kind)}}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | tuple | list):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _made(description: Mapping[str, Any], base: type[T]) -> T:
    kind = getattr(nn, str(description["type"]), None)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ValueError(f"the engine has no {base.__name__.lower()} {description['type']}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in description["options"].items()}
    return kind(**options)
