"""Formulas of convolution and pooling: written for the layer's own stride, dilation and padding, indices from 0."""

from __future__ import annotations

from typing import Protocol

from manual_bp.nn import Layer

from ._form import Form, Rule, joined, partial

_CONVOLUTION = "derived here; cf. Goodfellow, Bengio and Courville, Deep Learning (2016), section 9.5"
_POOLING = "derived here; windows as in Dumoulin and Visin, arXiv:1603.07285; at ties the first wins, as in torch"
_MEAN = "derived here; windows as in Dumoulin and Visin, arXiv:1603.07285"


class _Windowed(Protocol):
    """What the rules read from a layer's windows."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]


def convolution(layer: Layer) -> Rule | None:
    """The rule of Conv1d, Conv2d and Conv3d."""
    if not type(layer).__name__.startswith("Conv"):
        return None
    window: _Windowed = layer.window  # type: ignore[attr-defined]  # every convolution has it; Layer does not say so
    axes = len(window.stride)
    out, tap = "ijk"[:axes], "pqr"[:axes]
    o, t = ",".join(out), ",".join(tap)
    at = ",".join(_covered(i, p, n, window) for n, (i, p) in enumerate(zip(out, tap, strict=True)))
    groups = getattr(layer, "groups", 1)
    channel = "c in the group of o" if groups > 1 else "c"
    bias = bool(getattr(layer, "bias", False))
    x = Form(f"${{x}}[n,c,{at}]", f"${{x}}_{{n,c,{at.replace('·', ' ')}}}")
    w = Form(f"${{weight}}[o,c,{t}]", f"${{weight}}_{{o,c,{t}}}")
    dy = partial("y", f"n,o,{o}")
    output = Form(
        f"${{y}}[n,o,{o}] = Σ_({channel}) Σ_({t}) {w.text} {x.text}" + (" + ${bias}[o]" if bias else ""),
        rf"${{y}}_{{n,o,{o}}} = \sum_{{{_words(channel)}}} \sum_{{{t}}} {w.latex}\, {x.latex}"
        + (r" + ${bias}_{o}" if bias else ""),
    )
    # solved for the output position, which must exist: the kernel appears rotated by 180 degrees
    back = [_covered(i, p, n, window) for n, (i, p) in enumerate(zip(out, tap, strict=True))]
    where = ", ".join(f"{b} = {u}" for b, u in zip(back, "uvw", strict=False))
    u = ",".join("uvw"[:axes])
    dx = Form(
        f"{partial('x', f'n,c,{u}').text} = Σ_o Σ_({t}) {dy.text} {w.text} where {where}: the kernel rotated by 180°",
        rf"{partial('x', f'n,c,{u}').latex} = \sum_{{o}} \sum_{{{t}:\; {where.replace('·', ' ')}}}"
        rf" {dy.latex}\, {w.latex}",
    )
    dw = joined(
        partial("weight", f"o,c,{t}"), "=", _sum(f"n,{o}", Form(f"{dy.text} {x.text}", rf"{dy.latex}\, {x.latex}"))
    )
    params = {"weight": dw}
    if bias:
        params["bias"] = joined(partial("bias", "o"), "=", _sum(f"n,{o}", dy))
    mode = getattr(layer, "padding_mode", "zeros")
    source = _CONVOLUTION if mode == "zeros" else f"{_CONVOLUTION}; x is padded by mode {mode!r} first"
    return Rule(output=output, inputs=(dx,), params=params, source=source)


def pooling(layer: Layer) -> Rule | None:
    """The rule of MaxPool and AvgPool, 1d to 3d."""
    kind = type(layer).__name__
    if not kind.startswith(("MaxPool", "AvgPool")):
        return None
    window: _Windowed = layer.window  # type: ignore[attr-defined]  # every pooling has it; Layer does not say so
    axes = len(window.stride)
    out, tap = "ijk"[:axes], "pqr"[:axes]
    o, t, u = ",".join(out), ",".join(tap), ",".join("uvw"[:axes])
    at = ",".join(_covered(i, p, n, window) for n, (i, p) in enumerate(zip(out, tap, strict=True)))
    x = Form(f"${{x}}[n,c,{at}]", f"${{x}}_{{n,c,{at.replace('·', ' ')}}}")
    dy = partial("y", f"n,c,{o}")
    left, dx = Form(f"${{y}}[n,c,{o}]", f"${{y}}_{{n,c,{o}}}"), partial("x", f"n,c,{u}")
    if kind.startswith("Max"):
        return Rule(
            output=joined(left, "=", Form(f"max_({t}) {x.text}", rf"\max_{{{t}}} {x.latex}")),
            inputs=(
                Form(
                    f"{dx.text} = Σ {dy.text} over the windows ({o}) that ({u}) wins, 0 if it wins none",
                    rf"{dx.latex} = \sum_{{({o}):\; ({u}) \text{{ wins window }} ({o})}} {dy.latex}",
                ),
            ),
            source=_POOLING,
        )
    return Rule(
        output=joined(left, "=", Form(f"(1/D({o})) Σ_({t}) {x.text}", rf"\frac{{1}}{{D({o})}} \sum_{{{t}}} {x.latex}")),
        inputs=(
            Form(
                f"{dx.text} = Σ {dy.text} / D({o}) over the windows ({o}) that cover ({u})",
                rf"{dx.latex} = \sum_{{({o}) \text{{ covers }} ({u})}} \frac{{1}}{{D({o})}} {dy.latex}",
            ),
        ),
        source=f"{_MEAN}; D is the divisor, {_divisor(layer)}",
    )


def _divisor(layer: Layer) -> str:
    override = getattr(layer, "divisor_override", None)
    if override:
        return str(override)
    window = layer.window  # type: ignore[attr-defined]  # every pooling has it; Layer does not say so
    size = 1
    for k in window.kernel:
        size *= k
    inside = window.padded and not getattr(layer, "count_include_pad", True)
    return "the number of elements inside of the image" if inside else str(size)


def _covered(i: str, p: str, axis: int, window: _Windowed) -> str:
    """The input position that output i sees through tap p on one axis, such as ``2·i+p−1``."""
    stride, dilation, pad = window.stride[axis], window.dilation[axis], window.before[axis]
    text = (f"{stride}·{i}" if stride > 1 else i) + "+" + (f"{dilation}·{p}" if dilation > 1 else p)
    return text + (f"-{pad}" if pad else "")


def _sum(over: str, term: Form) -> Form:
    return Form(f"Σ_({over}) {term.text}", rf"\sum_{{{over}}} {term.latex}")


def _words(text: str) -> str:
    return rf"\text{{{text}}}" if " " in text else text
