"""The difference of two dumps, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from manual_bp.dumps._diff import ArrayDiff, DumpDiff, State
from manual_bp.render import Look, _table, _text
from manual_bp.render._colors import QUIET, STYLE, TITLE
from manual_bp.render.terminal import printed

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKS: dict[State, tuple[str, str]] = {
    "same": ("✓ same", STYLE["pass"]),
    "close": ("≈ close", STYLE["kink"]),
    "different": ("✗ different", STYLE["wrong"]),
    "shape": ("✗ shape", STYLE["mismatch"]),
    "dtype": ("✗ dtype", STYLE["mismatch"]),
    "missing": ("✗ only in old", STYLE["missing"]),
    "extra": ("✗ only in new", STYLE["extra"]),
}


def render(found: DumpDiff, look: Look) -> str:
    """One row an array, the verdict first and last."""
    return printed(_parts(_text.tidy(found, unicode=look.unicode), look.width), look)


def _parts(found: DumpDiff, width: int) -> Iterator[RenderableType]:
    yield _headline(found)
    yield Padding(Text(f"old {found.old} · new {found.new} · {_rule(found)}", QUIET), (0, 0, 1, 2))
    yield from _table.lines(_table.fit(_columns(found.arrays), width - 2), indent=2)
    yield ""
    yield _headline(found)


def _rule(found: DumpDiff) -> str:
    if not found.atol and not found.rtol:
        return "equal bit by bit (0 and -0 are one number, NaN equals NaN)"
    return f"equal within {found.atol:g} + {found.rtol:g} × |old|"


def _headline(found: DumpDiff) -> Text:
    wrong = [array for array in found.arrays if not array.ok]
    total = _text.count(len(found.arrays), "array")
    if not wrong:
        close = sum(array.state == "close" for array in found.arrays)
        near = f", {close} of them only within the tolerance" if close else ""
        return Text.assemble(("✓ SAME", f"bold {STYLE['pass']}"), f"  {total}{near}")
    first = f"; the first is {wrong[0].name}"
    return Text.assemble(("✗ DIFFERENT", f"bold {STYLE['wrong']}"), f"  {len(wrong)} of {total}{first}")


def _columns(arrays: tuple[ArrayDiff, ...]) -> list[_table.Column]:
    values = [_text.pair(a.old, a.new) if a.mismatched or a.state == "close" else ("", "") for a in arrays]
    column, quiet, marks = _table.Column, [QUIET] * len(arrays), [_MARKS[a.state] for a in arrays]
    many = [f"{a.mismatched}/{a.elements}" if a.mismatched else "" for a in arrays]
    worst = [_text.index(a.worst_index) if any(pair) else "" for a, pair in zip(arrays, values, strict=True)]
    return [
        column(head="array", cells=[a.name for a in arrays], styles=[TITLE] * len(arrays), keep=14, least=20),
        column(head="verdict", cells=[mark for mark, _ in marks], styles=[style for _, style in marks], keep=13),
        column(head="shape", cells=[_change(a, "shape") for a in arrays], styles=quiet, keep=7),
        column(head="dtype", cells=[_change(a, "dtype") for a in arrays], styles=quiet, keep=4),
        column(head="differ", cells=many, right=True, keep=8),
        column(head="max error", cells=[_error(a, a.max_abs_error) for a in arrays], right=True, keep=12),
        column(head="relative", cells=[_error(a, a.max_rel_error) for a in arrays], right=True, keep=5),
        column(head="ulp", cells=[_ulp(a) for a in arrays], right=True, keep=10),
        column(head="worst at", cells=worst, keep=6),
        column(head="old", cells=[pair[0] for pair in values], right=True, keep=9),
        column(head="new", cells=[pair[1] for pair in values], right=True, keep=9),
    ]


def _change(array: ArrayDiff, what: str) -> str:
    if what == "dtype":
        sides = [array.old_dtype, array.new_dtype]
    else:
        sides = [_text.shape(s) if s is not None else "" for s in (array.old_shape, array.new_shape)]
    found = list(dict.fromkeys(filter(None, sides)))
    return " → ".join(found)


def _error(array: ArrayDiff, number: float) -> str:
    return _text.error(number) if number == number and array.state != "same" else ""


def _ulp(array: ArrayDiff) -> str:
    if array.ulp is None or array.state in ("same", "missing", "extra", "shape"):
        return ""
    return str(array.ulp) if array.ulp < 10**6 else f"{array.ulp:.0e}".replace("e+", "e")
