"""The lesson: a network's derivation step by step, each equation followed by the same equation in numbers.

The numbers are those of one run of the hand-written pass on one probe. A lesson is plain data of the record
(`manual_bp.report_lesson`); `manual_bp.render.lesson` writes it for a terminal, and a report takes it as a chapter.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from manual_bp.equations import describe
from manual_bp.errors import ManualBPError
from manual_bp.network import INPUT, Network
from manual_bp.nn import Array
from manual_bp.probes import Probe
from manual_bp.report_lesson import Grid, LessonStep, Worked
from manual_bp.trace import GRAD, NEW, Equation, Quantity, Trace

from . import _prose, _seeds, _work
from ._number import at, factor, largest, num, sum_of_products
from ._view import view

__all__ = ["Grid", "LessonStep", "Worked", "chapter", "explain"]


def explain(network: Network, quantity: str | None = None, *, probe: Probe) -> tuple[LessonStep, ...]:
    """The derivation of a network with the numbers of one probe.

    Parameters
    ----------
    quantity
        Its name, to have this one step alone; by default everything, in the order in which it is computed.
    probe
        Weights, inputs and targets.

    Raises
    ------
    ManualBPError
        The network has no such quantity; the closest ones are named.
    """
    network = describe(network)
    quantities = {q.name: q for q in network.quantities()}
    if quantity is not None and quantity not in quantities:
        close = get_close_matches(quantity, quantities, n=3)
        raise ManualBPError(
            f"network {network.name!r} has no quantity {quantity!r}",
            hint=f"did you mean {' or '.join(close)}" if close else f"choose one of {', '.join(quantities)}",
        )
    trace = network.run(probe.params, probe.x, probe.y).trace
    if quantity is not None:
        return (_step(network, quantities[quantity], trace, probe.y),)
    steps = [_step(network, q, trace, probe.y) for q in quantities.values() if q.kind != "parameter"]
    return *_seeds.question(network.name), *steps, *_seeds.answer(network.name, trace, probe.y)


def chapter(network: Network, probe: Probe) -> tuple[LessonStep, ...]:
    """The whole derivation as a report takes it along: without the terms in full precision, for a small record."""
    return tuple(
        replace(step, worked=tuple(replace(one, terms=()) for one in step.worked))
        for step in explain(network, probe=probe)
    )


def _step(network: Network, quantity: Quantity, trace: Trace, y: Array) -> LessonStep:
    name = quantity.name
    if quantity.kind in ("value", "parameter"):
        title, prose, worked = _forward(network, quantity, trace, y)
    elif quantity.kind == "update":
        title, prose, worked = _update(network, name, trace)
    elif quantity.kind == "parameter_gradient":
        title, prose, worked = _parameter(network, quantity, trace)
    else:
        title, prose, worked = _gradient(network, quantity, trace, y)
    equation = quantity.equation or Equation(text="")
    phase = {"value": "forward", "parameter": "forward", "update": "update"}.get(quantity.kind, "backward")
    return LessonStep(
        title=title,
        phase=phase,  # type: ignore[arg-type]  # one of Phase
        name=name,
        symbol=quantity.symbol,
        shape=trace[name].shape,
        equation=equation.text,
        equation_latex=equation.latex,
        source=equation.source,
        prose=prose,
        worked=worked + _seeds.extra(network.name, name, trace, y),
    )


_Parts = tuple[str, tuple[str, ...], tuple[Worked, ...]]


def _forward(network: Network, quantity: Quantity, trace: Trace, y: Array) -> _Parts:
    name, symbol = quantity.name, quantity.symbol
    if name == network.loss_name:
        kind = type(network.loss).__name__
        prose = "One number says how wrong the predictions are; everything that follows is its derivative."
        return f"{symbol}, the loss ({kind})", (prose,), _work.loss_value(network, trace, y)
    if name == INPUT or quantity.kind == "parameter":
        return f"{symbol}, given", (), _work.given(symbol, trace[name])
    node = network.node(name)
    return (
        f"{symbol}: {type(node.layer).__name__}",
        _prose.of_value(node.layer),
        _work.value(view(network, node, trace)),
    )


def _gradient(network: Network, quantity: Quantity, trace: Trace, y: Array) -> _Parts:
    name, symbol = quantity.name.removesuffix(GRAD), quantity.symbol
    readers = [reader for reader in network.consumers(name) if reader != network.loss_name]
    if not readers:
        begin = "How much the loss changes if a prediction changes a little: here the way back begins."
        return f"{symbol}: back from the loss", (begin,), _work.loss_gradient(network, trace, y)
    index = largest(trace[name + GRAD])
    prose: list[str] = []
    worked: list[Worked] = []
    shares: list[float] = []
    for reader in readers:
        node = network.node(reader)
        seen = view(network, node, trace)
        prose += [text for text in _prose.of_input(node.layer) if text not in prose]
        for k, read in enumerate(node.inputs):
            if read == name:
                worked += _work.input_gradient(seen, k, index)
                shares.append(float(seen.dx[k][index]))
    if len(shares) > 1:
        note = f"back from {', '.join(readers)}"
        terms = [(share,) for share in shares]
        total = sum_of_products(at(symbol, index), terms, trace[name + GRAD][index], note=note, zeros=True)
        prose.insert(0, f"{len(shares)} places read this step, and each sends an error back. First each share alone.")
        worked = [*(replace(one, label=f"share of {one.label}") for one in worked), total]
    kinds = dict.fromkeys(type(network.node(reader).layer).__name__ for reader in readers)
    return f"{symbol}: back through {', '.join(readers)} ({', '.join(kinds)})", tuple(prose), tuple(worked)


def _parameter(network: Network, quantity: Quantity, trace: Trace) -> _Parts:
    step, _, parameter = quantity.name.removesuffix(GRAD).rpartition(".")
    node = network.node(step)
    worked = _work.parameter_gradient(view(network, node, trace), parameter)
    return f"{quantity.symbol}: the {parameter} of {step}", _prose.of_parameter(node.layer, parameter), worked


def _update(network: Network, name: str, trace: Trace) -> _Parts:
    parameter = name.removesuffix(NEW)
    old, new, slope = trace[parameter], trace[name], trace[parameter + GRAD]
    index = largest(slope)
    change = float(old[index]) - float(new[index])
    symbol = network.symbols[name]
    worked = Worked(
        label=at(symbol, index),
        expression=f"{num(old[index])} - {factor(change)}",
        result=float(new[index]),
        note=f"the gradient there is {num(slope[index])}",
    )
    prose = f"One step of {type(network.optimizer).__name__}: every parameter moves against its gradient."
    return f"{symbol}: after one step", (prose,), (worked,)
