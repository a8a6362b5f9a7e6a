"""Settings of a project: the table ``[tool.manual-bp]`` of the nearest pyproject.toml.

It holds defaults for the options of ``compare`` by their long names::

    [tool.manual-bp]
    dtype = "float32"
    strict-kinks = true

What the command line says beats it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from manual_bp.cli._options import FORMATS
from manual_bp.errors import ManualBPError
from manual_bp.files import is_file, reason


def _one_of(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, str) and value in words, f"give one of {', '.join(words)}"


def _from(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: type(value) is int and value >= least, f"give a whole number from {least} on"


def _names(value: Any) -> bool:
    return all(isinstance(name, str) for name in (value if isinstance(value, list) else [value]))


#: Option -> whether a value will do, and which ones do.
_KNOWN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dtype": _one_of("float32", "float64"),
    "seed": _from(0),
    "batch": _from(1),
    "probe": (_names, "give a name, or a list of names"),
    "strict-kinks": (lambda value: isinstance(value, bool), "give true or false"),
    "format": _one_of(*FORMATS),
    "color": _one_of("auto", "always", "never"),
}


def default_map(folder: Path | None = None) -> dict[str, Any]:
    """The settings as click takes them; empty where there are none.

    Raises
    ------
    ManualBPError
        If the file cannot be parsed, or has an unknown setting or a value of the wrong type.
    """
    path = _nearest(Path(folder or "."))
    if path is None:
        return {}
    import tomllib

    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManualBPError(f"cannot read the settings in {path}: {reason(error)}", hint="mend the file") from None
    tools = read.get("tool", {})
    table = tools.get("manual-bp", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise ManualBPError(
            f"{path}: tool.manual-bp is no table", hint="write it as [tool.manual-bp], then key = value"
        )
    for key, value in table.items():
        if key not in _KNOWN:
            from difflib import get_close_matches

            close = get_close_matches(key, _KNOWN, n=1)
            hint = f"did you mean {close[0]}" if close else f"there are {', '.join(_KNOWN)}"
            raise ManualBPError(f"{path}: [tool.manual-bp] has no setting {key!r}", hint=hint)
        fits, hint = _KNOWN[key]
        if not fits(value):
            raise ManualBPError(f"{path}: [tool.manual-bp] {key} is {value!r}", hint=hint)
    return {"compare": {_parameter(key): _listed(key, value) for key, value in table.items()}}


def _parameter(key: str) -> str:
    """The name that the option's value has in the command."""
    return {"probe": "names", "format": "format_"}.get(key, key.replace("-", "_"))


def _listed(key: str, value: Any) -> Any:
    return [value] if key == "probe" and isinstance(value, str) else value


def _nearest(folder: Path) -> Path | None:
    try:
        folder = folder.absolute()
    except OSError:  # the folder has been removed, or is closed to the user
        return None
    return next((p for parent in (folder, *folder.parents) if is_file(p := parent / "pyproject.toml")), None)
