"""How a quantity is written: in text from its name, and in LaTeX from its text."""

from __future__ import annotations

import re

from manual_bp.network import Network
from manual_bp.trace import GRAD, NEW

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁺⁻ᶜʰˢᵒ", "0123456789()+-chso")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₍₎₊₋", "0123456789()+-")
_UP, _DOWN = "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁺⁻ᶜʰˢᵒ", "₀₁₂₃₄₅₆₇₈₉₍₎₊₋"
_DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GREEK = {"γ": r"\gamma", "β": r"\beta", "μ": r"\mu", "δ": r"\delta", "σ": r"\sigma", "θ": r"\theta"}

#: Letters for parameters: matrices of weights, scale and shift of a normalisation, what is stored with them.
_LETTERS = {
    "weight": "w",
    "bias": "b",
    "running_mean": "μ",
    "running_var": "σ²",
    "mask": "mask",
    "num_batches_tracked": "n",
}


def text_symbol(network: Network, name: str) -> str:
    """The written form of a quantity: what the network says, or one made of the name."""
    if name in network.symbols:
        return network.symbols[name]
    if name.endswith(NEW):
        return f"{text_symbol(network, name.removesuffix(NEW))} (new)"
    if name.endswith(GRAD):
        return f"∂{text_symbol(network, network.loss_name)}/∂{grouped(text_symbol(network, name.removesuffix(GRAD)))}"
    if name == network.loss_name:
        return "L"
    step, dot, parameter = name.rpartition(".")
    if dot and any(step == node.name for node in network.nodes):
        return f"{_letter(network, step, parameter)}_{step}"
    numbered = re.fullmatch(r"([a-z])([0-9]+)", name)
    return f"{numbered[1]}⁽{numbered[2].translate(_DIGITS)}⁾" if numbered else name


def _letter(network: Network, step: str, parameter: str) -> str:
    if "Norm" in type(network.node(step).layer).__name__ and parameter in ("weight", "bias"):
        return {"weight": "γ", "bias": "β"}[parameter]
    return _LETTERS.get(parameter, parameter)


def grouped(symbol: str) -> str:
    """The symbol in parentheses if it consists of more than one word."""
    return f"({symbol})" if " " in symbol else symbol


def latex(symbol: str) -> str:
    r"""A symbol in LaTeX: ``z⁽¹⁾`` becomes ``z^{(1)}``, ``w_conv1`` ``w^{\mathrm{conv1}}``, ``∂L/∂x`` a fraction."""
    fraction = re.fullmatch(r"∂(.+?)/∂(.+)", symbol)
    if fraction:
        return rf"\frac{{\partial {latex(fraction[1])}}}{{\partial {latex(fraction[2])}}}"
    if symbol.endswith(" (new)"):
        return raised(latex(symbol.removesuffix(" (new)")), r"\mathrm{new}")
    if symbol.startswith("(") and symbol.endswith(")"):
        return f"({latex(symbol[1:-1])})"
    if symbol.startswith("vec "):
        return rf"\operatorname{{vec}} {latex(symbol[4:])}"
    letter, underscore, step = symbol.partition("_")
    if underscore and len(letter) <= 4:
        return raised(latex(letter), _upright(step))
    shape = re.fullmatch(rf"([^{_UP}{_DOWN}]+)([{_DOWN}]*)([{_UP}]*)", symbol)
    if not shape:
        return _upright(symbol)
    base, down, up = shape.groups()
    written = _GREEK.get(base) or (base if len(base) == 1 and base.isalpha() else _upright(base))
    written += f"_{{{down.translate(_LOWERED)}}}" if down else ""
    return written + (f"^{{{up.translate(_RAISED)}}}" if up else "")


def raised(base: str, exponent: str) -> str:
    """base^exponent in LaTeX, which takes no second superscript without braces."""
    return f"{{{base}}}^{{{exponent}}}" if "^" in base else f"{base}^{{{exponent}}}"


def _upright(name: str) -> str:
    """A name of several letters; what LaTeX would read as a command is escaped, other special characters dropped."""
    safe = re.sub(r"([_&%#$])", r"\\\1", re.sub(r"[\\{}^~]", "", name))
    return rf"\mathrm{{{safe}}}"
