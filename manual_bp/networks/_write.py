"""How the files beside this one write their formulas down."""

from __future__ import annotations

from manual_bp.trace import Equation

#: Where the formulas that the seeds lack can be looked up.
CHAIN_RULE = "derived here by the chain rule; cf. Rumelhart, Hinton and Williams, Nature 323 (1986)"
CONVOLUTION = "derived here; cf. Goodfellow, Bengio and Courville, Deep Learning (2016), section 9.5"
POOLING = "derived here; cf. Dumoulin and Visin, A guide to convolution arithmetic (2016), chapter 3, for the windows"


def eq(text: str, latex: str, source: str) -> Equation:
    """A formula as text, as LaTeX, and where it stands."""
    return Equation(text=text, latex=latex, source=source)


def given(symbol: str, latex: str, what: str) -> Equation:
    """The 'formula' of a quantity that is not computed: an input or a parameter."""
    return Equation(text=f"{symbol}: {what}", latex=rf"{latex}\;\text{{({what})}}", source="given")
