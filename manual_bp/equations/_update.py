"""Formulas of the optimiser's first step, the one that a trace holds."""

from __future__ import annotations

from typing import Any

from manual_bp.nn import Optimizer

from ._form import Form


def update_form(optimizer: Optimizer) -> tuple[Form, str]:
    """The formula for one parameter, gap ``${p}``, and its source."""
    kind, o = type(optimizer).__name__, _Options(optimizer)
    decay, adam = o.weight_decay, kind.startswith("Adam")
    gradient = Form("∂${L}/∂${p}", r"\frac{\partial ${L}}{\partial ${p}}")
    if decay and kind != "AdamW":
        gradient = Form(f"({gradient.text} + {decay:g} ${{p}})", rf"({gradient.latex} + {decay:g}\, ${{p}})")
    left = Form("${p} (new)", r"{${p}}^{\mathrm{new}}")
    if kind == "SGD":
        # in the first step the momentum buffer is the gradient itself; Nesterov's form adds it once more
        rate = o.lr * (1 + o.momentum) if o.nesterov else o.lr
        return (
            Form(
                f"{left.text} = ${{p}} − {rate:g} {gradient.text}",
                rf"{left.latex} = ${{p}} - {rate:g}\, {gradient.latex}",
            ),
            "gradient descent, w(t+1) = w(t) − η ∂E/∂w"
            + ("; momentum acts from the second step on" if o.momentum and not o.nesterov else ""),
        )
    if adam:
        # bias correction undoes the first step's averages: m/(1-β1) = g and v/(1-β2) = g²
        shrunk = f"(1 − {o.lr * decay:g}) ${{p}}" if decay and kind == "AdamW" else "${p}"
        return (
            Form(
                f"{left.text} = {shrunk} − {o.lr:g} g / (|g| + {o.eps:g}), g = {gradient.text}",
                rf"{left.latex} = {shrunk.replace('−', '-')} - {o.lr:g}\, \frac{{g}}{{|g| + {_power(o.eps)}}},"
                rf" \quad g = {gradient.latex}",
            ),
            "Kingma and Ba, ICLR 2015, at the first step"
            + ("; Loshchilov and Hutter, ICLR 2019" if kind == "AdamW" else ""),
        )
    return Form(
        f"{left.text} = {kind}(${{p}}, {gradient.text})", rf"{left.latex} = \mathrm{{{kind}}}(${{p}}, {gradient.latex})"
    ), ""


class _Options:
    """An optimiser's arguments; those it does not have are 0."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name, 0)


def _power(number: float) -> str:
    mantissa, _, exponent = f"{number:e}".partition("e")
    return rf"10^{{{int(exponent)}}}" if float(mantissa) == 1 else f"{number:g}"
