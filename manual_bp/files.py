"""Reading and writing of whole files: a reader never sees half of one, and a failure is one clear sentence."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from manual_bp.errors import ManualBPError


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Put ``data`` at ``path`` in one go (a temporary file beside it, then ``os.replace``), and return the path.

    Missing folders are made. Where the file existed, its permissions are kept; a link is followed, not replaced.

    Raises
    ------
    ManualBPError
        When the path is a folder, or cannot be written.
    """
    try:
        target = Path(path).resolve()
        if target.is_dir():
            raise ManualBPError(f"cannot write {path}: it is a folder", hint="give the name of a file")
        if target.exists() and not target.is_file():  # /dev/stdout, a pipe: nothing to replace
            target.write_bytes(data)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, data)
    except (OSError, ValueError, RuntimeError) as error:  # a null character in the name; a link to itself
        raise ManualBPError(
            f"cannot write {path}: {reason(error)}", hint="choose a path that can be written"
        ) from error
    return target


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    r"""Put ``text`` at ``path`` as UTF-8 with ``\n`` line ends; see :func:`write_bytes`.

    A lone surrogate, which UTF-8 cannot carry, is written as its escape (``\ud800``).
    """
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def read_text(path: str | os.PathLike[str], *, what: str = "file") -> str:
    """The whole text of a UTF-8 file (a byte order mark is dropped); ``what`` names it in the error."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManualBPError(
            f"{path} is not a {what}: byte {error.start} is not UTF-8 text", hint=f"give a {what} written by manual-bp"
        ) from error
    except (OSError, ValueError) as error:
        raise ManualBPError(f"cannot read {path}: {reason(error)}", hint=f"give the path of a {what}") from error


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is anything at a path that a user named; False, and no error, where it cannot even be looked at.

    Those of `pathlib` raise for a name that is too long, or a folder that is closed to the user. Here the sentence
    comes from whoever opens the file then.
    """
    return os.path.exists(path)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file; see `exists`."""
    return os.path.isfile(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder; see `exists`."""
    return os.path.isdir(path)


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two names lead to one file, there already or not: what is written to one can be read from the other."""
    try:
        if exists(one) and exists(other):
            # whatever is written to a device, a pipe or a terminal takes nothing away
            return os.path.isfile(one) and os.path.samefile(one, other)
        return os.path.realpath(one) == os.path.realpath(other)
    except (OSError, ValueError):
        return False


def reason(error: BaseException) -> str:
    """The system's own words ("No space left on device") without number and path."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _replace(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    # There is no way to read the mask without setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
