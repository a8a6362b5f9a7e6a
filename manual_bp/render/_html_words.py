"""Words, badges, formulas and diagnoses as the page places them, wherever it does."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from manual_bp.render._graph_svg import TONE
from manual_bp.render._mathml import formula
from manual_bp.render._say import SYMBOL, WORD
from manual_bp.report import Check, Comparison, Status

#: Words up to this length stay in one piece; no number is longer.
UNBROKEN = 24

MEANING: dict[Status, str] = {
    "pass": "agrees, up to rounding",
    "wrong": "this step itself computes it wrongly",
    "inherited": "off only because an earlier quantity is; the step itself is right",
    "kink": "differs where the function has no single derivative, by another valid choice",
    "missing": "the candidate did not report it",
    "extra": "the reference has no quantity of this name",
    "mismatch": "another shape or dtype than the reference's",
    "nonfinite": "NaN or infinite where it should not be",
}


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A status to be seen: symbol and word, and a tone for the colour."""

    status: str
    symbol: str
    word: str
    tone: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class FormulaView:
    """A formula as MathML or escaped text, and where it stands."""

    markup: Markup
    source: str


@dataclass(frozen=True, kw_only=True)
class DiagnosisView:
    """What explains it, how sure that is, and what to do."""

    title: str
    names: tuple[str, ...]
    sure: str
    evidence: str
    hint: str
    location: str


def badge(status: Status) -> Badge:
    """A status as symbol, word, tone and meaning."""
    return Badge(status=status, symbol=SYMBOL[status], word=WORD[status], tone=TONE[status], meaning=MEANING[status])


def formula_of(check: Check) -> FormulaView | None:
    """The formula that a quantity must satisfy, if it is known."""
    if not check.equation and not check.equation_latex:
        return None
    return FormulaView(markup=Markup(formula(check.equation_latex, check.equation)), source=check.source)


def diagnosis_of(check: Check) -> DiagnosisView | None:
    """The diagnosis in words, if there is one."""
    found = check.diagnosis
    if found is None:
        return None
    alternatives = found.alternatives if found.confidence == "ambiguous" else ()
    names = tuple(dict.fromkeys([found.name, *alternatives]))
    title = {"certain": "Why", "ambiguous": "Why: one of these", "unexplained": "Why"}[found.confidence]
    sure = {
        "certain": "Certain: nothing else that was tried explains it",
        "ambiguous": "Each explains it equally well",
        "unexplained": f"No known mistake explains it{': ' + found.residual if found.residual else ''}",
    }[found.confidence]
    return DiagnosisView(
        title=title,
        names=tuple(map(sentence, names)) if any(names) else ("No known mistake explains it",),
        sure=sure if any(names) or found.residual else "",
        evidence=sentence(found.evidence),
        hint=sentence(found.hint),
        location=found.location,
    )


def sentence(text: str) -> str:
    """The text with a capital letter in front, unless it starts with a name or formula."""
    word = text.split(maxsplit=1)[0] if text else ""
    starts = word == "a" or (len(word) > 1 and word.isalpha() and word.islower())
    return text[0].upper() + text[1:] if starts else text


def breakable(text: str) -> Markup:
    """The text, escaped, that may be broken after the dots of a long name, but in no number."""
    words = text.split(" ")
    return Markup(" ").join(
        Markup(".<wbr>").join(map(escape, word.split("."))) if len(word) > UNBROKEN else escape(word) for word in words
    )


def off(found: Comparison | None, *, kink: int = 0) -> str:
    """``2 of 72``: elements outside the bound, or at a kink, of all."""
    return f"{found.mismatched or kink:,} of {found.elements:,}".replace(",", " ") if found else ""
