r"""LaTeX to MathML that is safe to put into a page.

The converter copies some of its input unescaped (``\text{<b>}``, ``\href``, ``\style``), so its output is parsed and
rebuilt from the elements and attributes that a formula needs. What does not survive that is shown as plain text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from xml.etree import ElementTree as ET

#: Elements of MathML Core that draw something, and attributes that only change how it is drawn.
_ELEMENTS = frozenset({
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mstyle", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup",
    "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "mtable", "mtr", "mtd", "mpadded", "mphantom",
})  # fmt: skip  # a list of words
_ATTRIBUTES = frozenset({
    "display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "symmetric", "fence", "form", "separator",
    "largeop", "movablelimits", "accent", "accentunder", "width", "height", "depth", "lspace", "rspace", "minsize",
    "maxsize", "linethickness", "columnalign", "rowspacing", "columnspacing",
})  # fmt: skip  # a list of words
_VALUE = re.compile(r"[\w.%+\- ]*")
_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"

#: Longer formulas are shown as text: nobody reads them, and the converter takes its time.
_LONGEST = 2000

# Browsers draw only what MathML Core keeps of mathvariant ("normal"); the other letters have code points of their own.
_DOUBLE_STRUCK = str.maketrans("01CHNPQRZ", "𝟘𝟙ℂℍℕℙℚℝℤ")


@lru_cache(maxsize=2048)
def formula(latex: str, plain: str = "") -> str:
    """HTML of one formula: MathML where ``latex`` can be converted, else ``plain`` (or the LaTeX itself), escaped."""
    converted = _mathml(latex) if latex and len(latex) <= _LONGEST else ""
    return converted or f'<span class="formula">{escape(plain or latex)}</span>'


def _mathml(latex: str) -> str:
    try:
        from latex2mathml.converter import convert
    except ImportError:
        return ""
    try:
        root = ET.fromstring(convert(latex, display="block"))
    except Exception:  # noqa: BLE001  # the converter raises whatever its input provokes, RecursionError too; text remains
        return ""
    if not all(_is_known(element) for element in root.iter()):
        return ""
    return _rebuilt(root)


def _is_known(element: ET.Element) -> bool:
    name = element.tag.removeprefix(_NAMESPACE)
    unread = name == "mi" and (element.text or "").startswith("\\")  # a command that the converter does not know
    return name in _ELEMENTS and not unread


def _rebuilt(element: ET.Element) -> str:
    name = element.tag.removeprefix(_NAMESPACE)
    kept = {key: value for key, value in element.attrib.items() if key in _ATTRIBUTES and _VALUE.fullmatch(value)}
    text = element.text or ""
    if kept.get("mathvariant") == "double-struck":
        del kept["mathvariant"]
        text = text.translate(_DOUBLE_STRUCK)
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in kept.items())
    inside = escape(text) + "".join(_rebuilt(child) + escape(child.tail or "") for child in element)
    return f"<{name}{attributes}>{inside}</{name}>"
