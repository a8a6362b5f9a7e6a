"""The loss with a run's numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from manual_bp.network import Network
from manual_bp.nn import Array, Loss
from manual_bp.report_lesson import Worked
from manual_bp.trace import GRAD, Trace

from ._number import Index, at, factor, largest, num, sum_of_products


def _logits(p: Array, index: Index) -> Array:
    """The row of classes that an element of the prediction stands in."""
    row: tuple[int | slice, ...] = (index[0], slice(None), *index[2:])
    return p[row]


def _single(loss: Loss, p: Array, y: Array, index: Index) -> str | None:
    """ℓ of one element in numbers; None where weights or smoothing enter it, or the loss is not known."""
    kind = type(loss).__name__
    if _altered(loss):
        return None
    if kind in ("CrossEntropyLoss", "NLLLoss"):
        here = p[(index[0], int(y[index]), *index[1:])]
        if kind == "NLLLoss":
            return f"-{factor(here)}"
        row = _logits(p, (index[0], 0, *index[1:]))
        shift = float(row.max())
        return f"-log(exp({num(here - shift)}) / ({' + '.join(f'exp({num(v - shift)})' for v in row)}))"
    a, t = float(p[index]), float(y[index])
    if kind == "BCELoss" and 0 < a < 1:
        return f"-({num(t)} · log({num(a)}) + (1 - {num(t)}) · log(1 - {num(a)}))"
    return {
        "MSELoss": f"({num(a)} - {factor(t)})**2",
        "HalfSquaredError": f"0.5 · ({num(t)} - {factor(a)})**2",
        "L1Loss": f"abs({num(a)} - {factor(t)})",
    }.get(kind)


def _slope(loss: Loss, p: Array, y: Array, index: Index) -> str | None:
    """∂ℓ/∂p of one element in numbers, None as above."""
    kind = type(loss).__name__
    if _altered(loss):
        return None
    if kind == "CrossEntropyLoss":
        row = _logits(p, index)
        probability = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        right = int(y[(index[0], *index[2:])]) == index[1]
        return f"({num(probability[index[1]])} - {int(right)})"
    if kind == "NLLLoss":
        return f"(-{int(int(y[(index[0], *index[2:])]) == index[1])})"
    a, t = float(p[index]), float(y[index])
    if kind == "BCELoss" and 0 < a < 1:
        return f"(-{num(t)} / {num(a)} + (1 - {num(t)}) / (1 - {num(a)}))"
    return {
        "BCEWithLogitsLoss": f"(1 / (1 + exp(-{factor(a)})) - {num(t)})" if a > -700 else None,
        "MSELoss": f"2 · ({num(a)} - {factor(t)})",
        "HalfSquaredError": f"({num(a)} - {factor(t)})",
        "L1Loss": f"{num(np.sign(a - t))}",
    }.get(kind)


def _altered(loss: Loss) -> bool:
    weighted = any(getattr(loss, name, None) is not None for name in ("weight", "pos_weight"))
    return weighted or bool(getattr(loss, "label_smoothing", 0))


def value(network: Network, trace: Trace, y: Array) -> tuple[Worked, ...]:
    """The largest of the losses that are averaged or summed, and the average or sum."""
    p, total = trace[network.output], float(trace[network.loss_name])
    symbol = _symbol(network, network.loss_name)
    losses, _ = replace(network.loss, reduction="none").forward(p, y)
    index = largest(losses)
    single = _single(network.loss, p, y, index)
    shown = []
    if losses.size > 1 and single:
        shown.append(Worked(label=at("ℓ", index), expression=single, result=float(losses[index])))
    share = total / float(losses.sum()) if losses.sum() else 1.0
    if losses.size == 1 and single and abs(share - 1) < 1e-6:
        return (Worked(label=symbol, expression=single, result=total),)
    terms = [(share, float(v)) if abs(share - 1) > 1e-6 else (float(v),) for v in losses.ravel()]
    return (*shown, sum_of_products(symbol, terms, total))


def gradient(network: Network, trace: Trace, y: Array) -> tuple[Worked, ...]:
    """The element with the largest error."""
    name = network.output + GRAD
    index, p = largest(trace[name]), trace[network.output]
    result = float(trace[name][index])
    slope = _slope(network.loss, p, y, index)
    count = y.size if network.loss.reduction == "mean" else 1
    expression = num(result) if slope is None else slope + (f" / {count}" if count > 1 else "")
    note = f"prediction {num(p[index])}" + (f", target {num(y[index])}" if y.shape == p.shape else "")
    if y.shape != p.shape:
        note += f", right class {int(y[(index[0], *index[2:])])}"
    return (Worked(label=at(_symbol(network, name), index), expression=expression, result=result, note=note),)


def _symbol(network: Network, name: str) -> str:
    return network.symbols.get(name, name)
