"""npz files that come from elsewhere: read without trust in any number that they claim, written without pickle."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import IO

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.files import reason
from manual_bp.trace import Array

#: Bytes that a file may unpack to: so many whatever its size, and so many times its size.
UNPACKED, RATIO = 1 << 28, 100
#: Arrays in one file.
MOST = 20_000

KINDS = "biuf"

#: What NumPy and zipfile raise: a damaged header is one of four kinds, an encrypted member a RuntimeError.
_DAMAGE = (
    ValueError, SyntaxError, tokenize.TokenError, TypeError, EOFError, zlib.error, NotImplementedError, RuntimeError,
    MemoryError, OverflowError,
)  # fmt: skip  # a list

_HINT = "write it with numpy.savez from arrays of numbers"


def read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Every array of an npz file, contiguous and in native byte order (text arrays of no axes as they are).

    Raises
    ------
    ManualBPError
        The file cannot be read, is no npz or only the beginning of one, holds pickled objects or anything but numbers,
        names an array twice, or claims more than it can hold.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_members(path, members, os.fstat(file.fileno()).st_size)
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in members}
    except OSError as error:
        raise ManualBPError(f"cannot read {path}: {reason(error)}", hint="give the path of an npz file") from error
    except zipfile.BadZipFile as error:
        raise ManualBPError(f"{path} is not an npz file, or only the beginning of one", hint=_HINT) from error
    except _DAMAGE as error:
        first = (reason(error).splitlines() or [""])[0].rstrip(".")
        if isinstance(error, (SyntaxError, tokenize.TokenError)):
            first = "a header that is none"
        raise ManualBPError(
            f"{path} is damaged, or holds something else than plain arrays: {first}", hint=_HINT
        ) from error


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """An npz file of these arrays, uncompressed; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _check_members(path: str | os.PathLike[str], members: list[zipfile.ZipInfo], size: int) -> None:
    names = [info.filename for info in members]
    if len(names) > MOST:
        raise ManualBPError(f"{path} claims to hold {len(names)} arrays", hint=f"at most {MOST} are read")
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ManualBPError(f"{path} holds {twice.removesuffix('.npy')} twice", hint="write every array once")
    if foreign := next((name for name in names if not name.endswith(".npy")), None):
        raise ManualBPError(f"{path} holds {foreign!r}, which is no array", hint=_HINT)
    unpacked, packed = sum(info.file_size for info in members), sum(info.compress_size for info in members)
    if unpacked > UNPACKED + RATIO * size or packed > size:
        raise ManualBPError(f"{path} has {size} bytes and claims to unpack to {unpacked}", hint="write it uncompressed")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        shape, dtype = _header(file, name)
        held, claimed = info.file_size - file.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects")
    if dtype.kind not in KINDS and not (dtype.kind in "US" and shape == ()):
        raise ValueError(f"{name} holds {dtype}, which is no number")
    # looked at before the memory is taken: the header may claim anything
    if held != claimed:
        raise ValueError(f"{name} claims shape {shape} of {dtype}, {claimed} bytes, and has {held}")
    with archive.open(info) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and dtype; NumPy refuses a header of more than 10,000 characters."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"{name} has version {version[0]}.{version[1]} of the npy format")
    if not all(n >= 0 for n in shape):
        raise ValueError(f"{name} claims shape {shape}")
    return shape, dtype
