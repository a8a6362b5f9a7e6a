"""Settings of a project: the table ``[tool.manual-bp]`` of the nearest pyproject.toml.

It holds defaults for the options of ``compare`` by their long names::

    [tool.manual-bp]
    dtype = "float32"
    strict-kinks = true

What the command line says beats it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manual_bp.errors import ManualBPError
from manual_bp.files import is_file, reason

#: Option -> the types its value may have.
_KNOWN: dict[str, tuple[type, ...]] = {
    "dtype": (str,),
    "seed": (int,),
    "batch": (int,),
    "probe": (str, list),
    "strict-kinks": (bool,),
    "format": (str,),
    "color": (str,),
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
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("manual-bp", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManualBPError(f"cannot read the settings in {path}: {reason(error)}", hint="mend the file") from None
    for key, value in table.items():
        if key not in _KNOWN:
            from difflib import get_close_matches

            close = get_close_matches(key, _KNOWN, n=1)
            hint = f"did you mean {close[0]}" if close else f"there are {', '.join(_KNOWN)}"
            raise ManualBPError(f"{path}: [tool.manual-bp] has no setting {key!r}", hint=hint)
        if not isinstance(value, _KNOWN[key]) or (isinstance(value, bool) and bool not in _KNOWN[key]):
            wanted = " or ".join(t.__name__ for t in _KNOWN[key])
            raise ManualBPError(f"{path}: [tool.manual-bp] {key} is {value!r}", hint=f"give a {wanted}")
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
