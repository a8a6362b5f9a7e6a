"""Numbers and names as a reader sees them; no view prints a user's text that did not pass :func:`tidy`."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from operator import is_
from typing import Any, TypeVar

T = TypeVar("T")

_NO_TEXT = frozenset({bool, int, float, type(None)})

_SIZE = re.compile(r"([(,] ?)(?:in|out)_(?:features|channels)=")
_DEFAULT = re.compile(
    r", (?:bias=True|padding=\(?0(?:, 0)*\)?|dilation=\(?1(?:, 1)*\)?|ceil_mode=False|eps=1e-05|momentum=0\.1"
    r"|affine=True|elementwise_affine=True|track_running_stats=True|count_include_pad=True)(?=[,)])"
)
_UNIT_STRIDE = re.compile(r", stride=\(?1(?:, ?1)*,?\)?(?=[,)])")

# What ASCII says instead; everything else goes through the compatibility form (⁽¹⁾ -> (1)), then to an escape.
_ASCII = str.maketrans(
    {
        "∂": "d", "Σ": "sum ", "∑": "sum ", "·": "*", "⋆": "*", "∗": "*", "⊙": "*", "−": "-", "–": "-", "—": "-",
        "×": "x", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "√": "sqrt", "°": " deg",
        "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "eps", "η": "eta", "λ": "lambda", "μ": "mu",
        "σ": "sigma", "θ": "theta", "∇": "grad ", "ŷ": "y^", "′": "'", "“": '"', "”": '"', "’": "'", "∈": "in",
        "⌊": "floor(", "⌋": ")",
    }
)  # fmt: skip  # a table

# What the views draw themselves, one character each so that columns stay aligned.
_DRAWN = str.maketrans("✓✗↳∧≠·█▓▒─│╮╯┤┼┬┴●→←▲◀…×–⋮", "oX>^#.@#+-|.'++++o><^<.x-:")


def tidy(value: T, *, unicode: bool = True) -> T:
    """The same record with every string made fit to print: control and invisible characters escaped.

    Line ends and tabs become spaces; with ``unicode=False`` the text is ASCII (``∂L/∂a⁽¹⁾``: ``dL/da(1)``).
    """
    result: T = _tidy(value, unicode)
    return result


def _tidy(value: Any, unicode: bool) -> Any:
    """As `tidy`; what is fit to print already is given back itself, and most of a report is."""
    if isinstance(value, str):
        text = "".join(map(_printable, value)) if not value.isprintable() else value
        return text if unicode or text.isascii() else to_ascii(text)
    if isinstance(value, tuple):
        if not value or isinstance(value[0], float | int):
            return value
        items = tuple(_tidy(item, unicode) for item in value)
        return value if all(map(is_, items, value)) else items
    if isinstance(value, Mapping):
        return {_tidy(key, unicode): _tidy(item, unicode) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        # vars(), as a picture that is drawn when it is looked at holds nothing yet but words of ours
        known = [(name, old) for name, old in vars(value).items() if type(old) not in _NO_TEXT]
        if unicode:  # nearly all text is fit to print, and a large report has thousands of it
            known = [(name, old) for name, old in known if type(old) is not str or not old.isprintable()]
        changed = {name: new for name, old in known if (new := _tidy(old, unicode)) is not old}
        return replace(value, **changed) if changed else value
    return value


def _printable(character: str) -> str:
    if character in "\n\r\t\u2028\u2029":
        return " "
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def to_ascii(text: str) -> str:
    """The text in ASCII: the symbols of calculus by name, the rest as an escape."""
    plain = unicodedata.normalize("NFKC", text.translate(_ASCII)).translate(_ASCII)
    return plain.encode("ascii", "backslashreplace").decode()


def draw_ascii(text: str) -> str:
    """A finished view in ASCII, character by character."""
    return text.translate(_DRAWN).encode("ascii", "backslashreplace").decode()


def error(number: float) -> str:
    """An error or a bound, three significant digits."""
    return _special(number) or f"{number:.3g}"


def pair(candidate: float, reference: float) -> tuple[str, str]:
    """Two values with as many digits (six at least) as it takes to see that they differ."""
    for digits in range(6, 18):
        texts = value(candidate, digits), value(reference, digits)
        if texts[0] != texts[1]:
            break
    else:
        return value(candidate), value(reference)
    return texts


def value(number: float, digits: int = 6) -> str:
    """A value, six significant digits unless told otherwise."""
    return _special(number) or f"{number + 0.0:.{digits}g}"  # + 0.0: no minus before a zero


def used(share: float) -> str:
    """Error over allowed: a per cent up to the bound, a multiple beyond; never rounded across the bound."""
    if math.isnan(share) or math.isinf(share):
        return _special(share)
    if share > 1:
        text = next(t for d in range(3, 18) if (t := f"{share:.{d}g}") != "1")
        return f"{text}×"
    return "0 %" if share == 0 else "<1 %" if share < 0.01 else f"{math.floor(share * 100)} %"


def shape(sizes: tuple[int, ...]) -> str:
    """``2×1×8×8``, or ``scalar``."""
    return "×".join(map(str, sizes)) or "scalar"


def common_shape(several: Sequence[tuple[int, ...]]) -> str:
    """``N×1×8×8`` where a quantity has another batch on every probe; the first shape where more than that differs."""
    first = several[0]
    if len(set(several)) < 2 or any(other[1:] != first[1:] or not other for other in several):
        return shape(first)
    return "×".join(["N", *map(str, first[1:])])


def operation(op: str) -> str:
    """An operation without what torch's repr adds to it: ``Linear(in_features=4, out_features=5, bias=True)`` is long.

    Sizes lose their names, and hyperparameters at torch's defaults go.
    """
    short = _DEFAULT.sub("", _SIZE.sub(r"\1", op))
    return _UNIT_STRIDE.sub("", short) if short.startswith("Conv") else short


def index(at: tuple[int, ...] | None) -> str:
    """``[0, 0, 3, 4]``; empty where there is no element or only one."""
    return f"[{', '.join(map(str, at))}]" if at else ""


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 element``, ``2 elements``, ``1 234 567 elements``."""
    return f"{number:,}".replace(",", " ") + " " + (noun if number == 1 else plural or noun + "s")


def listed(names: list[str] | tuple[str, ...], most: int = 8) -> str:
    """``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def both(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def shorten(text: str, width: int) -> str:
    """The text in at most ``width`` characters; what is left out is the middle, as names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def _special(number: float) -> str:
    return "NaN" if math.isnan(number) else ("inf" if number > 0 else "-inf") if math.isinf(number) else ""
