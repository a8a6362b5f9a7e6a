"""Formulas with gaps for the symbols of one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template

#: The multivariate chain rule, where a step has no formula of its own.
CHAIN = "chain rule"


@dataclass(frozen=True)
class Form:
    """One formula in text and in LaTeX; ``${x}``, ``${y}``, ``${L}`` and the parameters' names are gaps."""

    text: str
    latex: str

    def fill(self, text: Mapping[str, str], latex: Mapping[str, str]) -> Form:
        """The formula with every gap filled."""
        return Form(Template(self.text).substitute(text), Template(self.latex).substitute(latex))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Formulas of one step.

    Attributes
    ----------
    output
        The step's value, both sides of the equation.
    inputs, params
        Gradients of the inputs in order and of the parameters by name: both sides; on the left stands ``${x}``
        (``${x0}``, ``${x1}`` for a step with several inputs) or the parameter's name.
    source
        Where they stand.
    """

    output: Form
    inputs: tuple[Form, ...]
    params: Mapping[str, Form] = field(default_factory=dict)
    source: str = CHAIN


def partial(of: str, index: str = "") -> Form:
    """∂L/∂of[index] with ``of`` a gap's name."""
    text = f"∂${{L}}/∂${{{of}}}" + (f"[{index}]" if index else "")
    below = f"${{{of}}}" + (f"_{{{index}}}" if index else "")
    return Form(text, rf"\frac{{\partial ${{L}}}}{{\partial {below}}}")


def joined(left: Form, sign: str, right: Form) -> Form:
    """left sign right."""
    return Form(f"{left.text} {sign} {right.text}", f"{left.latex} {sign} {right.latex}")
