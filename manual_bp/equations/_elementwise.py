"""Formulas of steps that act on each element alone: y = f(x), ∂L/∂x = ∂L/∂y · f'(x)."""

from __future__ import annotations

from manual_bp.nn import Layer

from ._form import Form, Rule, joined, partial

#: f and f', by the layer's class. a is negative_slope, P and p the normal distribution function and its density.
_FUNCTIONS: dict[str, tuple[Form, Form, str]] = {
    "ReLU": (
        Form("max(${x}, 0)", r"\max(${x}, 0)"),
        Form("[${x} > 0]", r"[${x} > 0]"),
        "Nair and Hinton, ICML 2010; at 0 the subgradient 0, as torch",
    ),
    "LeakyReLU": (
        Form("max(${x}, 0) + a min(${x}, 0)", r"\max(${x}, 0) + a \min(${x}, 0)"),
        Form("([${x} > 0] + a [${x} ≤ 0])", r"([${x} > 0] + a\,[${x} \le 0])"),
        "Maas, Hannun and Ng, ICML 2013; at 0 the subgradient a, as torch",
    ),
    "Sigmoid": (
        Form("σ(${x}) = 1/(1 + exp(−${x}))", r"\sigma(${x}) = \frac{1}{1 + e^{-${x}}}"),
        Form("${y} (1 − ${y})", r"${y} (1 - ${y})"),
        "quotient rule",
    ),
    "Tanh": (Form("tanh(${x})", r"\tanh(${x})"), Form("(1 − ${y}²)", r"(1 - ${y} \cdot ${y})"), "quotient rule"),
    "SiLU": (
        Form("${x} σ(${x})", r"${x}\,\sigma(${x})"),
        Form("σ(${x}) (1 + ${x} (1 − σ(${x})))", r"\sigma(${x}) (1 + ${x} (1 - \sigma(${x})))"),
        "product rule; Elfwing, Uchibe and Doya, Neural Networks 107 (2018)",
    ),
    "GELU": (
        Form("${x} P(${x})", r"${x}\,\Phi(${x})"),
        Form("(P(${x}) + ${x} p(${x}))", r"(\Phi(${x}) + ${x}\,\varphi(${x}))"),
        "product rule; Hendrycks and Gimpel, arXiv:1606.08415",
    ),
    "Softplus": (
        Form("log(1 + exp(β ${x}))/β", r"\frac{1}{\beta} \log(1 + e^{\beta ${x}})"),
        Form("σ(β ${x})", r"\sigma(\beta ${x})"),
        "chain rule",
    ),
    "Dropout": (
        Form("mask · ${x}", r"\mathrm{mask} \cdot ${x}"),
        Form("mask", r"\mathrm{mask}"),
        "Srivastava et al., JMLR 2014",
    ),
    "Identity": (Form("${x}", "${x}"), Form("1", "1"), "chain rule"),
}


def elementwise(layer: Layer) -> Rule | None:
    """The rule of an elementwise step, None if it is none."""
    known = _FUNCTIONS.get(type(layer).__name__)
    if known is None:
        return None
    function, derivative, source = known
    if type(layer).__name__ == "GELU" and getattr(layer, "approximate", "none") == "tanh":
        source += "; P approximated by ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))"
    gradient = joined(partial("y"), "·", derivative)
    return Rule(
        output=joined(Form("${y}", "${y}"), "=", function),
        inputs=(joined(partial("x"), "=", Form(gradient.text, gradient.latex.replace("·", r"\cdot"))),),
        source=source,
    )
