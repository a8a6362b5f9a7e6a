"""The JSON Schema of a report, made from the dataclasses, so that it cannot say anything else.

It is published as ``manual_bp/render/report.schema.json``; ``python -m manual_bp.report_schema`` prints it. Objects may
have fields that the schema does not name: later versions add some.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from manual_bp.report import SCHEMA_VERSION, Report
from manual_bp.report_lesson import LessonStep

_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"$ref": "#/$defs/number"},
}
_NUMBER = {
    "description": "A number; NaN and infinities are strings, as JSON has none.",
    "anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}],
}


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12) as plain dicts and lists."""
    records: dict[str, Any] = {}
    root = _record(Report, records)
    root["properties"]["schema_version"] = {"type": "integer", "minimum": 1, "maximum": SCHEMA_VERSION}
    root["required"].append("schema_version")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"manual-bp report, schema_version {SCHEMA_VERSION}",
        **root,
        "$defs": {"number": _NUMBER, **records},
    }


def dumps() -> str:
    """The text of the published file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _record(record: type[Any], records: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(record, localns={"LessonStep": LessonStep})  # which most reports do without
    return {
        "description": (record.__doc__ or "").split("\n")[0],
        "type": "object",
        "properties": {field.name: _type(hints[field.name], records) for field in fields(record)},
        "required": [f.name for f in fields(record) if f.default is MISSING and f.default_factory is MISSING],
    }


def _type(kind: Any, records: dict[str, Any]) -> dict[str, Any]:
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if is_dataclass(kind):
        record = typing.cast(type[Any], kind)
        if record.__name__ not in records:
            records[record.__name__] = {}  # keeps the place, should a record hold itself
            records[record.__name__] = _record(record, records)
        return {"$ref": f"#/$defs/{record.__name__}"}
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if arg is types.NoneType else _type(arg, records) for arg in args]}
    if origin is tuple:
        length = {} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": _type(args[0], records), **length}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _type(args[1], records)}
    raise TypeError(f"no schema for {kind!r}")


if __name__ == "__main__":
    sys.stdout.write(dumps())
