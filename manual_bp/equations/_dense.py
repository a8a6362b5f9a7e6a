"""Formulas of the dense layer, of normalisations and softmax, and of what only rearranges."""

from __future__ import annotations

from manual_bp.nn import Layer

from ._form import Form, Rule, joined, partial

_DELTA = partial("y", "n,o")

_LINEAR = Rule(
    output=Form("${y}[n,o] = Σ_i ${x}[n,i] ${weight}[o,i]", r"${y}_{n,o} = \sum_i ${x}_{n,i}\, ${weight}_{o,i}"),
    inputs=(
        Form(
            f"{partial('x', 'n,i').text} = Σ_o {_DELTA.text} ${{weight}}[o,i]",
            rf"{partial('x', 'n,i').latex} = \sum_o {_DELTA.latex}\, ${{weight}}_{{o,i}}",
        ),
    ),
    params={
        "weight": Form(
            f"{partial('weight', 'o,i').text} = Σ_n {_DELTA.text} ${{x}}[n,i]",
            rf"{partial('weight', 'o,i').latex} = \sum_n {_DELTA.latex}\, ${{x}}_{{n,i}}",
        ),
        "bias": Form(
            f"{partial('bias', 'o').text} = Σ_n {_DELTA.text}", rf"{partial('bias', 'o').latex} = \sum_n {_DELTA.latex}"
        ),
    },
    source="chain rule; Rumelhart, Hinton and Williams, Nature 323 (1986)",
)


def linear(layer: Layer) -> Rule | None:
    """The rule of Linear."""
    if type(layer).__name__ != "Linear":
        return None
    if not getattr(layer, "bias", True):
        return Rule(
            output=_LINEAR.output,
            inputs=_LINEAR.inputs,
            params={"weight": _LINEAR.params["weight"]},
            source=_LINEAR.source,
        )
    return Rule(
        output=Form(_LINEAR.output.text + " + ${bias}[o]", _LINEAR.output.latex + " + ${bias}_o"),
        inputs=_LINEAR.inputs,
        params=_LINEAR.params,
        source=_LINEAR.source,
    )


_MOVED = "every element only moves"
_SIMPLE: dict[str, Rule] = {
    "Flatten": Rule(
        output=Form("${y} = ${x}, its elements in one row", r"${y} = \operatorname{vec} ${x}"),
        inputs=(
            Form(
                f"{partial('x').text} = {partial('y').text}, put back into the shape of ${{x}}",
                rf"{partial('x').latex} = \operatorname{{vec}}^{{-1}} {partial('y').latex}",
            ),
        ),
        source=_MOVED,
    ),
    "Add": Rule(
        output=Form("${y} = ${x0} + ${x1}", "${y} = ${x0} + ${x1}"),
        inputs=(joined(partial("x0"), "=", partial("y")), joined(partial("x1"), "=", partial("y"))),
        source="sum rule",
    ),
    "Concat": Rule(
        output=Form("${y} = (${x0}, ${x1})", "${y} = (${x0}, ${x1})"),
        inputs=tuple(
            Form(
                f"{partial(x).text} = the part of {partial('y').text} that came from ${{{x}}}",
                rf"{partial(x).latex} = {partial('y').latex}\big|_{{${{{x}}}}}",
            )
            for x in ("x0", "x1")
        ),
        source=_MOVED,
    ),
    "Softmax": Rule(
        output=Form("${y}[i] = exp(${x}[i]) / Σ_k exp(${x}[k])", r"${y}_i = \frac{e^{${x}_i}}{\sum_k e^{${x}_k}}"),
        inputs=(
            Form(
                f"{partial('x', 'k').text} = ${{y}}[k]"
                f" ({partial('y', 'k').text} − Σ_i {partial('y', 'i').text} ${{y}}[i])",
                rf"{partial('x', 'k').latex} = ${{y}}_k \left( {partial('y', 'k').latex}"
                rf" - \sum_i {partial('y', 'i').latex}\, ${{y}}_i \right)",
            ),
        ),
        source="quotient rule; Bridle (1990)",
    ),
    "LogSoftmax": Rule(
        output=Form("${y}[i] = ${x}[i] − log Σ_k exp(${x}[k])", r"${y}_i = ${x}_i - \log \sum_k e^{${x}_k}"),
        inputs=(
            Form(
                f"{partial('x', 'k').text} = {partial('y', 'k').text} − exp(${{y}}[k]) Σ_i {partial('y', 'i').text}",
                rf"{partial('x', 'k').latex} = {partial('y', 'k').latex}"
                rf" - e^{{${{y}}_k}} \sum_i {partial('y', 'i').latex}",
            ),
        ),
        source="chain rule",
    ),
}


def simple(layer: Layer) -> Rule | None:
    """The rule of steps without parameters that mix elements or only move them."""
    return _SIMPLE.get(type(layer).__name__)


def normalisation(layer: Layer) -> Rule | None:
    """The rule of BatchNorm and LayerNorm."""
    kind = type(layer).__name__
    if not kind.startswith(("BatchNorm", "LayerNorm")):
        return None
    shapes = layer.parameter_shapes()
    batch = kind.startswith("BatchNorm")
    frozen = batch and not getattr(layer, "training", True) and getattr(layer, "track_running_stats", True)
    group = "over the batch, by channel" if batch else "over the last axes, by sample"
    group = "μ and v are the running statistics" if frozen else f"μ and v are mean and variance {group}"
    w, b = ("weight" in shapes), ("bias" in shapes)
    scale = Form("${weight} ", r"${weight}\, ") if w else Form("", "")
    y = Form(
        "${y} = " + scale.text + "h" + (" + ${bias}" if b else "") + ", h = (${x} − μ) / √(v + ε)",
        "${y} = "
        + scale.latex
        + "h"
        + (" + ${bias}" if b else "")
        + r", \quad h = \frac{${x} - \mu}{\sqrt{v + \varepsilon}}",
    )
    dy, dx = partial("y"), partial("x")
    g = Form(scale.text + dy.text, scale.latex + dy.latex)
    if frozen:
        inner = Form("g", "g")
    else:
        inner = Form("(g − mean(g) − h mean(g h))", r"(g - \overline{g} - h\, \overline{g h})")
    gradient = Form(
        f"{dx.text} = {inner.text} / √(v + ε), g = {g.text}",
        rf"{dx.latex} = \frac{{1}}{{\sqrt{{v + \varepsilon}}}}\, {inner.latex}, \quad g = {g.latex}",
    )
    params = {}
    if w:
        params["weight"] = joined(partial("weight"), "=", Form(f"Σ {dy.text} h", rf"\sum {dy.latex}\, h"))
    if b:
        params["bias"] = joined(partial("bias"), "=", Form(f"Σ {dy.text}", rf"\sum {dy.latex}"))
    origin = "Ioffe and Szegedy, ICML 2015" if batch else "Ba, Kiros and Hinton, arXiv:1607.06450"
    return Rule(output=y, inputs=(gradient,), params=params, source=f"{origin}; {group}")
