"""Formulas of the losses, for predictions p and targets t, with the reduction written out."""

from __future__ import annotations

from manual_bp.nn import Loss

from ._form import Form, Rule, partial

#: The loss of one element and its derivative, by class; p is the prediction. Constants are named as torch's arguments.
_LOSSES: dict[str, tuple[Form, Form, str]] = {
    "MSELoss": (Form("(${p} − t)²", "(${p} - t)^2"), Form("2 (${p} − t)", "2 (${p} - t)"), "power rule"),
    "HalfSquaredError": (
        Form("½ (t − ${p})²", r"\tfrac{1}{2} (t - ${p})^2"),
        Form("(${p} − t)", "(${p} - t)"),
        "power rule",
    ),
    "L1Loss": (
        Form("|${p} − t|", r"\left| ${p} - t \right|"),
        Form("sign(${p} − t)", r"\operatorname{sign}(${p} - t)"),
        "at p = t the subgradient 0, as torch",
    ),
    "HuberLoss": (
        Form("h(${p} − t), h(d) = ½ d² if |d| < δ else δ (|d| − ½ δ)", r"h_\delta(${p} - t)"),
        Form("clip(${p} − t, −δ, δ)", r"\operatorname{clip}(${p} - t, -\delta, \delta)"),
        "Huber, Ann. Math. Statist. 35 (1964); δ = delta",
    ),
    "SmoothL1Loss": (
        Form("h(${p} − t), h(d) = ½ d²/β if |d| < β else |d| − ½ β", r"\tfrac{1}{\beta} h_\beta(${p} - t)"),
        Form("clip((${p} − t)/β, −1, 1)", r"\operatorname{clip}((${p} - t)/\beta, -1, 1)"),
        "Girshick, ICCV 2015, eq. (3); β = beta",
    ),
    "BCELoss": (
        Form("−[t log ${p} + (1−t) log(1−${p})]", r"-\left[ t \log ${p} + (1-t) \log(1-${p}) \right]"),
        Form("[−t/${p} + (1−t)/(1−${p})]", r"\left[ -\frac{t}{${p}} + \frac{1-t}{1-${p}} \right]"),
        "derivative of the logarithm; cf. Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.2",
    ),
    "BCEWithLogitsLoss": (
        Form(
            "−[t log σ(${p}) + (1−t) log(1−σ(${p}))]",
            r"-\left[ t \log \sigma(${p}) + (1-t) \log(1-\sigma(${p})) \right]",
        ),
        Form("(σ(${p}) − t)", r"(\sigma(${p}) - t)"),
        "derived here, the sigmoid's slope cancels; cf. Bishop (2006), section 4.3.2",
    ),
    "NLLLoss": (Form("−${p}[t]", "-${p}_t"), Form("(−[k = t])", "(-[k = t])"), "the entry of the right class k = t"),
    "CrossEntropyLoss": (
        Form("−log softmax(${p})[t]", r"-\log \operatorname{softmax}(${p})_t"),
        Form("(softmax(${p})[k] − [k = t])", r"(\operatorname{softmax}(${p})_k - [k = t])"),
        "derived here; cf. Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.4",
    ),
}


def loss_rule(loss: Loss) -> Rule:
    """Value and gradient of a loss; ``${p}`` is the prediction's gap."""
    kind = type(loss).__name__
    if kind not in _LOSSES:
        return Rule(
            output=Form(f"${{L}} = {kind}(${{p}}, t)", rf"${{L}} = \mathrm{{{kind}}}(${{p}}, t)"),
            inputs=(Form(partial("p").text, partial("p").latex),),
        )
    value, slope, source = _LOSSES[kind]
    single, mean = loss.reduction == "none", loss.reduction == "mean"
    what = "examples not ignored" if kind in ("NLLLoss", "CrossEntropyLoss") else "elements"
    lead = Form("", "") if single else Form("(1/N) Σ " if mean else "Σ ", r"\frac{1}{N} \sum " if mean else r"\sum ")
    share = Form("(1/N) ", r"\frac{1}{N}\, ") if mean else Form("", "")
    extras = [name for name in ("weight", "pos_weight") if getattr(loss, name, None) is not None]
    extras += ["label_smoothing"] if getattr(loss, "label_smoothing", 0) else []
    source += f"; N is the number of {what}" if mean else ""
    source += f"; shown without the factors of {' and '.join(extras)}" if extras else ""
    index = "k" if kind in ("NLLLoss", "CrossEntropyLoss") else ""
    left = partial("p", index)
    return Rule(
        output=Form(f"${{L}} = {lead.text}{value.text}", rf"${{L}} = {lead.latex}{value.latex}"),
        inputs=(Form(f"{left.text} = {share.text}{slope.text}", f"{left.latex} = {share.latex}{slope.latex}"),),
        source=source,
    )
