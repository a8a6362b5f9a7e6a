"""A report as strict JSON, and back.

The layout is that of the dataclasses in :mod:`manual_bp.report`, which also say the type of every field; NaN and
infinities are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. Reading ignores fields it does not know (a
later version may add some) and refuses everything else that is not a report, in one sentence.
"""

from __future__ import annotations

import json
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from manual_bp.errors import ManualBPError
from manual_bp.files import read_text, write_text
from manual_bp.report import SCHEMA_VERSION, Report
from manual_bp.report_lesson import LessonStep

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SURROGATE = re.compile("[\ud800-\udfff]")
_AGAIN = "run the comparison again to get a fresh report"


# ---------------------------------------------------------------------------------------------------- writing


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain dicts, lists, strings, numbers, booleans and None: what the JSON text holds."""
    plain = _plain(report)
    return {"schema_version": plain.pop("schema_version"), **plain}


def dumps(report: Report) -> str:
    """The JSON text: ASCII, one check, step, probe or finding a line, so that two reports can be compared with diff."""
    lines = []
    for key, value in to_dict(report).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join("  " + _line(item) for item in value) + "\n ]"
        else:
            text = _line(value)
        lines.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def records(several: Sequence[Any]) -> str:
    """The JSON text of some of a report's parts alone (the steps of a lesson), one a line."""
    return "[\n" + ",\n".join(" " + _line(_plain(one)) for one in several) + "\n]\n"


def write(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the JSON text to ``path`` in one go; ManualBPError when that cannot be done."""
    return write_text(path, dumps(report))


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(", ", ": "))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float):  # NumPy's float64 is one too
        number = float(value)
        return number if math.isfinite(number) else _word(number)
    if isinstance(value, int):
        return int(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        return _plain(value.item())
    raise TypeError(f"a report holds no {type(value).__name__}: {value!r}")


def _word(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


# ---------------------------------------------------------------------------------------------------- reading


def read(path: str | os.PathLike[str]) -> Report:
    """The report in a JSON file.

    Raises
    ------
    ManualBPError
        When the file cannot be read, is truncated, is no report of ours, is of a newer schema, or was changed by
        hand so that it no longer says what a report says. The message names the place.
    """
    return loads(read_text(path, what="JSON report"), origin=str(path))


def loads(text: str, *, origin: str = "report") -> Report:
    """The report in a JSON text; ``origin`` names the text in the error. Raises as :func:`read` does."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise ManualBPError(f"{origin} is empty", hint=_AGAIN) from error
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string")
        what = "ends in the middle" if cut else "is not JSON"
        raise ManualBPError(
            f"{origin} {what} (line {error.lineno}, column {error.colno}: {error.msg})", hint=_AGAIN
        ) from error
    except RecursionError as error:
        raise ManualBPError(f"{origin} is no report of manual-bp: it is nested too deeply", hint=_AGAIN) from error
    except ValueError as error:  # a bare NaN, or a whole number of thousands of digits
        raise ManualBPError(f"{origin} is not strict JSON: {error}", hint=_AGAIN) from error
    return from_dict(data, origin=origin)


def from_dict(data: object, *, origin: str = "report") -> Report:
    """The report in what :func:`to_dict` returns. Raises as :func:`read` does."""
    if not isinstance(data, dict) or "schema_version" not in data:
        raise ManualBPError(
            f"{origin} is not a report of manual-bp: it has no schema_version",
            hint="give a file written with --format json, or by Report.save",
        )
    version = data["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ManualBPError(
            f"{origin} has schema_version {version}; this manual-bp reads up to {SCHEMA_VERSION}",
            hint="update manual-bp, or write the report again with this version",
        )
    try:
        report: Report = _reader(Report)(data, "")
        _check_consistent(report)
    except _InvalidError as wrong:
        raise ManualBPError(f"{origin} is not a valid report: {wrong}", hint=_AGAIN) from wrong
    return report


class _InvalidError(Exception):
    """Where a report is wrong, and what is wrong there."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where.removeprefix('.')} {what}" if where else what)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds a bare {name} where the string {json.dumps(name)} is meant")


def _expected(where: str, what: str, value: object) -> _InvalidError:
    shown = json.dumps(value, default=str)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return _InvalidError(where, f"must be {what}, not {shown}")


#: Takes a JSON value and the place it stands at; returns what the dataclass holds there, or raises _InvalidError.
_Reader = Callable[[Any, str], Any]


@cache
def _reader(kind: Any) -> _Reader:
    """The reader of one annotated type; the few shapes that :mod:`manual_bp.report` uses, no more."""
    simple: dict[Any, _Reader] = {str: _text, bool: _truth, int: _whole, float: _number}
    if kind in simple:
        return simple[kind]
    if is_dataclass(kind):
        return _record_reader(typing.cast(type[Any], kind))
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _choice_reader(args)
    if origin in (Union, types.UnionType):
        (some,) = (_reader(arg) for arg in args if arg is not types.NoneType)
        return lambda value, where: None if value is None else some(value, where)
    if origin is tuple:
        return _list_reader(_reader(args[0]), None if args[-1] is Ellipsis else len(args))
    if origin is Mapping:
        return _mapping_reader(_reader(args[1]))
    raise TypeError(f"no reader for {kind!r}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _expected(where, "a string", value)
    return _SURROGATE.sub("\ufffd", value)


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _expected(where, "true or false", value)
    return value


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _expected(where, "a whole number", value)
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _expected(where, 'a number, "NaN", "Infinity" or "-Infinity"', value)
    try:
        return float(value)
    except OverflowError as error:
        raise _InvalidError(where, "is too large a number") from error


def _choice_reader(choices: tuple[str, ...]) -> _Reader:
    def choice(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _expected(where, "one of " + ", ".join(choices), value)
        return value

    return choice


def _list_reader(item: _Reader, length: int | None) -> _Reader:
    def several(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or (length is not None and len(value) != length):
            raise _expected(where, "a list" if length is None else f"a list of {length}", value)
        return tuple([item(entry, f"{where}[{i}]") for i, entry in enumerate(value)])

    return several


def _mapping_reader(item: _Reader) -> _Reader:
    def mapping(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _expected(where, "an object", value)
        return {_text(key, where): item(entry, f"{where}.{key}") for key, entry in value.items()}

    return mapping


def _record_reader(record: type[Any]) -> _Reader:
    hints = typing.get_type_hints(record, localns={"LessonStep": LessonStep})  # which most reports do without
    # name, reader, whether it may be left out (a report of an earlier version of the same schema)
    plan = [
        (field.name, _reader(hints[field.name]), field.default is not MISSING or field.default_factory is not MISSING)
        for field in fields(record)
    ]

    def read_record(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise _expected(where or "the report", "an object", value)
        known = {}
        for name, reader, optional in plan:
            if name in value:
                known[name] = reader(value[name], f"{where}.{name}")
            elif not optional:
                raise _InvalidError(where, f"lacks {name}" if where else f"it lacks {name}")
        return record(**known)

    return read_record


def _check_consistent(report: Report) -> None:
    """What types cannot say; a report that breaks it was changed by hand, and its views would contradict themselves."""
    if report.schema_version < 1:
        raise _InvalidError("schema_version", "must be at least 1")
    accused = {check.name for check in report.checks if check.status in ("wrong", "mismatch", "nonfinite")}
    blameless = {check.name for check in report.checks if check.referee and check.referee.fault == "reference"}
    if report.ok and (guilty := sorted(accused - blameless)):
        raise _InvalidError("", f"its verdict is pass, but {guilty[0]} is not right")
    if report.first_wrong is not None and report.ok:
        raise _InvalidError("", f"its verdict is pass, but first_wrong is {report.first_wrong}")
    names = {check.name for check in report.checks} | {finding.name for finding in report.findings}
    if report.first_wrong is not None and report.first_wrong not in names:
        raise _InvalidError("first_wrong", f"names {report.first_wrong}, which no check judges")
    for i, check in enumerate(report.checks):
        for j, plane in enumerate(check.picture.planes if check.picture else ()):
            cells = {plane.rows * plane.cols, len(plane.candidate), len(plane.reference), len(plane.used)}
            if len(cells) != 1 or plane.rows < 1 or plane.cols < 1:
                raise _InvalidError(
                    f"checks[{i}].picture.planes[{j}]", f"must hold {plane.rows} x {plane.cols} numbers of each kind"
                )
