"""Symbols and formulas for networks that have none of their own, by the type of their layers.

`describe` fills in what a network does not say itself: for every value, parameter, gradient and update how it is
written and which formula it satisfies, with the layer's own stride, padding and the like. A gradient that reaches a
step from several readers is their sum, the multivariate chain rule.
"""

from __future__ import annotations

from dataclasses import replace

from manual_bp.network import INPUT, Network, Node
from manual_bp.nn import Layer
from manual_bp.trace import GRAD, NEW, Equation

from ._dense import linear, normalisation, simple
from ._elementwise import elementwise
from ._form import CHAIN, Form, Rule, partial
from ._loss import loss_rule
from ._symbol import grouped, latex, text_symbol
from ._update import update_form
from ._window import convolution, pooling

__all__ = ["describe", "latex", "rule"]

_FAMILIES = (elementwise, linear, simple, convolution, pooling, normalisation)


def rule(layer: Layer) -> Rule:
    """The formulas of a layer; for a type that is not known, the chain rule in general terms."""
    for family in _FAMILIES:
        found = family(layer)
        if found is not None:
            return found
    kind = type(layer).__name__
    many = layer.n_inputs > 1
    names = [f"x{i}" for i in range(layer.n_inputs)] if many else ["x"]
    arguments = ", ".join(f"${{{name}}}" for name in names)
    return Rule(
        output=Form(f"${{y}} = {kind}({arguments})", rf"${{y}} = \mathrm{{{kind}}}({arguments})"),
        inputs=tuple(_general(name) for name in names),
        params={name: _general(name) for name in layer.parameter_shapes()},
    )


def _general(name: str) -> Form:
    """∂L/∂a = (∂y/∂a)ᵀ ∂L/∂y."""
    left, right = partial(name), partial("y")
    return Form(
        f"{left.text} = (∂${{y}}/∂${{{name}}})ᵀ {right.text}",
        rf"{left.latex} = \left( \frac{{\partial ${{y}}}}{{\partial ${{{name}}}}} \right)^T {right.latex}",
    )


def describe(network: Network) -> Network:
    """The network with a symbol and an equation for each of its quantities; those it has stay as they are."""
    symbols = {quantity.name: text_symbol(network, quantity.name) for quantity in network.quantities()}
    written = replace(network, symbols=symbols)
    equations = _forward(written) | _backward(written) | _updates(written)
    return replace(written, equations=equations | dict(network.equations))


def _forward(network: Network) -> dict[str, Equation]:
    found = {INPUT: _given(network, INPUT, network.input_shape, "one example")}
    for node in network.nodes:
        for kind, shapes in (("trained", node.layer.parameter_shapes()), ("kept", node.layer.buffer_shapes())):
            for parameter, shape in shapes.items():
                name = f"{node.name}.{parameter}"
                found[name] = _given(network, name, shape, f"{kind} with {node.name}")
        its = rule(node.layer)
        found[node.name] = _equation(network, node, its.output, its.source)
    its = loss_rule(network.loss)
    found[network.loss_name] = _filled(its.output, its.source, *_gaps(network, p=network.output))
    return found


def _backward(network: Network) -> dict[str, Equation]:
    its = loss_rule(network.loss)
    found = {network.output + GRAD: _filled(its.inputs[0], its.source, *_gaps(network, p=network.output))}
    for node in network.nodes:
        its = rule(node.layer)
        for parameter in node.layer.parameter_shapes():
            form = its.params.get(parameter, _general(parameter))
            found[f"{node.name}.{parameter}{GRAD}"] = _equation(network, node, form, its.source)
    for name in (INPUT, *(node.name for node in network.nodes[:-1])):
        terms = [
            _equation(network, node, rule(node.layer).inputs[i], rule(node.layer).source)
            for node in network.nodes
            for i, read in enumerate(node.inputs)
            if read == name
        ]
        if terms:
            found[name + GRAD] = terms[0] if len(terms) == 1 else _sum(terms)
    return found


def _sum(terms: list[Equation]) -> Equation:
    """What several readers send back adds up."""
    return Equation(
        text="the sum of: " + ";  ".join(term.text for term in terms),
        latex=r" \;\text{ plus }\; ".join(term.latex for term in terms),
        source=f"several steps read it: multivariate chain rule; {'; '.join(dict.fromkeys(t.source for t in terms))}",
    )


def _updates(network: Network) -> dict[str, Equation]:
    if network.optimizer is None:
        return {}
    form, source = update_form(network.optimizer)
    return {name + NEW: _filled(form, source, *_gaps(network, p=name)) for name in network.parameter_shapes()}


def _given(network: Network, name: str, shape: tuple[int, ...], what: str) -> Equation:
    size = "×".join(map(str, shape)) or "one number"
    symbol = network.symbols[name]
    return Equation(
        text=f"{symbol}: {what}, {size}", latex=rf"{latex(symbol)}\;\text{{({what}, {size})}}", source="given"
    )


def _equation(network: Network, node: Node, form: Form, source: str) -> Equation:
    inputs = {f"x{i}": name for i, name in enumerate(node.inputs)} | {"x": node.inputs[0]}
    params = {p: f"{node.name}.{p}" for p in (*node.layer.parameter_shapes(), *node.layer.buffer_shapes())}
    return _filled(form, source, *_gaps(network, y=node.name, **inputs, **params))


def _gaps(network: Network, **names: str) -> tuple[dict[str, str], dict[str, str]]:
    symbols = {gap: grouped(network.symbols[name]) for gap, name in names.items()}
    symbols["L"] = network.symbols[network.loss_name]
    return symbols, {gap: latex(symbol) for gap, symbol in symbols.items()}


def _filled(form: Form, source: str, text: dict[str, str], in_latex: dict[str, str]) -> Equation:
    done = form.fill(text, in_latex)
    return Equation(text=done.text, latex=done.latex, source=source or CHAIN)
