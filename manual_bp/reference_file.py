"""Torch's numbers in a file: where they still fit, a comparison is made without importing torch.

What a reference answers depends on the network, the probe, the dtype, the torch release, the code that asks torch and
computes the allowed errors, and, as each step is judged on the candidate's own operands, on every bit the candidate
reports. All of it goes into a seal. Where a seal differs, the answer is not used: torch is asked, and the file written
anew. Where it agrees, the comparison itself is made again, from the numbers in the file.

Only right passes are kept, and those that need nothing but numbers: no kink, no other right answer. So a difference is
never read from a file; torch finds it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from manual_bp import __version__
from manual_bp.compare import Expected, Item, compare
from manual_bp.errors import ManualBPError
from manual_bp.files import exists, reason, write_bytes
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.report import Check
from manual_bp.trace import Array, Run, Trace

FORMAT = "manual-bp reference 1"

#: Modules of this package that the answers depend on, beside all of manual_bp_torch.
_OWN = ("compare.py", "layouts.py", "network.py", "trace.py")

#: What NumPy, zipfile and JSON raise for a file of another kind (RuntimeError: an encrypted one).
_DAMAGE = (
    AttributeError, EOFError, KeyError, RuntimeError, SyntaxError, TypeError, ValueError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip  # a list


class ReferenceFile:
    """The answers of one comparison.

    Parameters
    ----------
    path
        A file of this kind, or one that is not there yet.

    Raises
    ------
    ManualBPError
        When there is a file of another kind, or one that cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.torch_version = ""
        self._known: dict[str, list[Any]] = {}
        self._blob = b""
        self._new: dict[str, list[Any]] = {}
        self._parts: dict[bytes, int] = {}
        self._size = 0
        self._setting = ""
        if exists(path):
            self._read()

    # ------------------------------------------------------------------ reading

    def _read(self) -> None:
        what = f"{self.path} holds no reference of manual-bp"
        hint = "give the name of a new file, or of one that --reference has written"
        try:
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                self._blob = file["numbers"].tobytes()
            if about["format"] != FORMAT or about["digest"] != _digest([self._blob]):
                raise ValueError("another format, or another release's")
            self._known, self.torch_version = dict(about["answers"]), str(about["torch"])
        except OSError as error:
            raise ManualBPError(f"{what}: {reason(error)}", hint=hint) from error
        except _DAMAGE as error:  # NumPy's own words would be an advice to trust the file
            raise ManualBPError(f"{what}: it is of another kind, or damaged", hint=hint) from error

    def setting(self, network: Network, dtype: str) -> None:
        """Say what is about to be compared."""
        described = (network.name, network.nodes, network.loss, network.loss_name, network.optimizer)
        versions = [__version__, _torch_release(), np.__version__, platform.machine(), _sources()]
        self._setting = json.dumps([FORMAT, repr(described), dtype, *versions])

    def items(self, network: Network, probe: Probe, trace: Trace) -> tuple[Item, ...] | None:
        """What every quantity should be; None where the file does not answer exactly this."""
        answer = self._known.get(self._seal(probe, trace))
        if answer is None:
            return None
        quantities = {quantity.name: quantity for quantity in network.quantities()}
        return tuple(
            Item(quantity=quantities[name], isolated=self._expected(isolated), end_to_end=self._expected(end))
            for name, isolated, end in answer
        )

    def _expected(self, entry: Any) -> Expected | None:
        return (
            None
            if entry is None
            else Expected(value=self._array(entry[0]), allowed=self._array(entry[1]), rule=entry[2])
        )

    def _array(self, entry: Any) -> Array:
        offset, dtype, stored, shape = entry
        part: Array = np.ndarray(stored, dtype, self._blob, offset)  # cannot be written to, as bytes cannot
        return part if stored == shape else np.broadcast_to(part, shape)

    # ------------------------------------------------------------------ writing

    def keep(self, probe: Probe, trace: Trace, items: Sequence[Item], checks: Sequence[Check]) -> None:
        """Remember the answers on one probe, if the pass is right and they are nothing but numbers."""
        plain = tuple(
            Item(quantity=item.quantity, isolated=item.isolated, end_to_end=item.end_to_end) for item in items
        )
        if all(check.status == "pass" for check in checks) and compare(plain, trace, probe=probe.name) == tuple(checks):
            answer = [[item.quantity.name, self._put(item.isolated), self._put(item.end_to_end)] for item in plain]
            self._new[self._seal(probe, trace)] = answer

    def _put(self, expected: Expected | None) -> Any:
        return None if expected is None else [self._part(expected.value), self._part(expected.allowed), expected.rule]

    def _part(self, array: Array) -> list[Any]:
        one = array.size > 1 and not any(array.strides)  # one number, seen everywhere
        stored = array[(0,) * array.ndim].reshape((1,) * array.ndim) if one else array
        data = stored.tobytes()
        if data not in self._parts:
            self._parts[data] = self._size
            self._size += len(data) + -len(data) % 8
        return [self._parts[data], str(array.dtype), list(stored.shape), list(array.shape)]

    def write(self, torch_version: str) -> Path:
        """Write what was kept, in one go.

        Raises
        ------
        ManualBPError
            When the file cannot be written.
        """
        blob = b"".join(data + bytes(-len(data) % 8) for data in self._parts)
        about = {"format": FORMAT, "torch": torch_version, "digest": _digest([blob]), "answers": self._new}
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(buffer, about=text, numbers=np.frombuffer(blob, np.uint8))
        return write_bytes(self.path, buffer.getvalue())

    # ------------------------------------------------------------------ seals

    def _seal(self, probe: Probe, trace: Trace) -> str:
        """A digest of everything that the answers on a probe depend on."""
        given = [*probe.params.items(), ("x", probe.x), ("y", probe.y)]
        return _digest([self._setting.encode(), probe.name.encode(), *_bits(given), b"reported", *_bits(trace.items())])


def _bits(arrays: Iterable[tuple[str, Array]]) -> Iterable[bytes]:
    for name, array in arrays:
        yield f"{name} {array.dtype} {array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    """Of the parts and of where each ends."""
    found = hashlib.blake2b(digest_size=32)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def _torch_release() -> str:
    """What torch says of its own version and build, without importing it; empty where it is not installed."""
    found = util.find_spec("torch")
    homes = (found.submodule_search_locations or ()) if found else ()
    files = [Path(home, "version.py") for home in homes]
    return _digest([path.read_bytes() for path in files if path.is_file()]) if files else ""


def _sources() -> str:
    """A digest of the code that asks torch and computes the allowed errors."""
    found = util.find_spec("manual_bp_torch")
    homes = [Path(home) for home in (found.submodule_search_locations or ())] if found else []
    own = [Path(__file__).parent / name for name in _OWN]
    files = sorted(path for home in homes for path in home.rglob("*.py"))
    return _digest([path.read_bytes() for path in (*own, *files)])


def answers(
    file: ReferenceFile, network: Network, probes: Sequence[Probe]
) -> list[tuple[Probe, Run, tuple[Check, ...]]] | None:
    """The run and the checks of every probe by the file alone; None as soon as it cannot tell, or one is not right."""
    found = []
    for probe in probes:
        run = network.run(probe.params, probe.x, probe.y)
        items = None if run.mutations or run.failure else file.items(network, probe, run.trace)
        if items is None:
            return None
        checks = compare(items, run.trace, probe=probe.name)
        if any(check.status != "pass" for check in checks):
            return None
        found.append((probe, run, checks))
    return found
