"""Who computes what from what: a network (or a torch program) as the diagnosis sees it, and each quantity's formula."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from manual_bp.network import INPUT, TARGET, Network
from manual_bp.trace import GRAD, NEW

from ._case import SHARE, shown
from ._forms_loss import Form, loss_forms, loss_value_forms, loss_variants
from ._formulas import Operands, forms_of, formulas_of, value_forms_of
from ._formulas_elementwise import forward_of
from ._formulas_loss import loss_formulas, update_formula, update_variants
from ._formulas_variants import layer_variants
from ._node import Node, add, const, operand, walk

Shapes = Mapping[str, tuple[int, ...]]

_TIES = "; and every one of several equal maxima gets it"

#: How many unreported quantities in a row are written out in a formula.
DEPTH = 6


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: its layer (None if it is none that is known here), what it reads, its parameters by local name."""

    name: str
    layer: Any
    inputs: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The steps in execution order, the loss, the optimiser.

    ``reported`` names what the candidate gave by itself; what it kept to itself is written out inside the formulas of
    what follows. None means everything. ``output`` is what the loss reads if that is one quantity, ``loss_reads`` all
    of them.
    """

    steps: tuple[Step, ...]
    loss_name: str
    loss: Any
    output: str
    optimizer: Any = None
    reported: Collection[str] | None = None
    loss_reads: tuple[str, ...] = ()

    @classmethod
    def of(cls, network: Network) -> Graph:
        """The graph of a described network."""
        steps = tuple(
            Step(
                name=n.name,
                layer=n.layer,
                inputs=n.inputs,
                params={p: f"{n.name}.{p}" for p in (*n.layer.parameter_shapes(), *n.layer.buffer_shapes())},
            )
            for n in network.nodes
        )
        return cls(
            steps=steps,
            loss_name=network.loss_name,
            loss=network.loss,
            output=network.output,
            optimizer=network.optimizer,
        )

    def step(self, name: str) -> Step | None:
        """The step of that name."""
        return next((s for s in self.steps if s.name == name), None)

    def parameters(self) -> frozenset[str]:
        """Global names of all parameters and buffers."""
        return frozenset(name for s in self.steps for name in s.params.values())

    def makers(self, quantity: str) -> tuple[str, ...]:
        """Names of the steps (the loss, "update") whose formula gives the quantity."""
        if quantity == self.loss_name:
            return (self.loss_name,)
        if quantity.endswith(NEW):
            return ("update",)
        base = quantity.removesuffix(GRAD)
        if base == quantity or base in self.parameters():
            return tuple(s.name for s in self.steps if base in (s.name, *s.params.values()))
        readers = tuple(s.name for s in self.steps if base in s.inputs)
        return (*readers, self.loss_name) if base == self.output and self.loss is not None else readers

    def with_part(self, name: str, part: Any) -> Graph:
        """The same graph with one layer, the loss or the optimiser exchanged."""
        if name == self.loss_name:
            return replace(self, loss=part)
        if name == "update":
            return replace(self, optimizer=part)
        return replace(self, steps=tuple(replace(s, layer=part) if s.name == name else s for s in self.steps))

    def part(self, name: str) -> Any:
        """The layer, loss or optimiser of that name."""
        if name == self.loss_name:
            return self.loss
        if name == "update":
            return self.optimizer
        found = self.step(name)
        return found.layer if found else None

    # ------------------------------------------------------------------ formulas

    def formula(self, quantity: str, shapes: Shapes) -> Node | None:
        """What the quantity is by definition, None if one of the steps that make it is not known here."""
        try:
            return _Writer(self, shapes).formula(quantity)
        except (KeyError, ValueError, TypeError, AttributeError, ArithmeticError):
            return None  # a layer that is not what it seems; there is no formula then, only the generic edits

    def shared(self, quantity: str, shapes: Shapes) -> Node | None:
        """The sum of what torch says that each reader gives to a gradient, None where that is not known."""
        shares = [name for name in shapes if name.startswith(SHARE)]
        parts: list[tuple[str, Node | None]] = [(n.removeprefix(SHARE), operand(n, shown(n))) for n in shares]
        return _sum(parts) if len(parts) > 1 else None

    def context(self, quantity: str, shapes: Shapes) -> Context:
        """Other forms of the same formula, what belongs to its neighbours, and decisions that are no single place."""
        try:
            return _Writer(self, shapes).context(quantity)
        except (KeyError, ValueError, TypeError, AttributeError, ArithmeticError):
            return Context()  # as in `formula`


@dataclass(frozen=True, kw_only=True)
class Context:
    """What surrounds a formula.

    ``forms`` are the same formula as others write it, each with what is to be said of that; ``siblings`` the named
    parts of the step's other formulas;
    ``slope`` upstream gradient, input and output of an activation; ``variants`` identifier, name, cost and formula of
    mistakes that are a decision and not a place.
    """

    forms: tuple[Form, ...] = ()
    siblings: tuple[Node, ...] = ()
    slope: tuple[Node, Node, Node] | None = None
    variants: tuple[tuple[str, str, float, Node], ...] = ()


class _Writer:
    """Writes one formula; an operand that stands in it twice is one node."""

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self.graph, self.shapes = graph, shapes
        self.known: dict[str, Node] = {}

    def formula(self, quantity: str, depth: int = 0) -> Node | None:
        graph = self.graph
        if quantity == graph.loss_name:
            return self._loss(depth, 0)
        if quantity.endswith(NEW):
            base = quantity.removesuffix(NEW)
            theta, g = self.leaf(base, depth, "the parameter"), self.leaf(base + GRAD, depth, "the gradient")
            return update_formula(graph.optimizer, theta, g)
        base = quantity.removesuffix(GRAD)
        owners = [s for s in graph.steps if base in s.params.values()]
        if base != quantity and owners:
            parts: list[tuple[str, Node | None]] = []
            for s in owners:
                local = next(k for k, v in s.params.items() if v == base)
                found = formulas_of(s.layer, self._operands(s, depth))
                parts.append((s.name, found.params.get(local) if found else None))
            return _sum(self._completed(parts, depth))
        step = graph.step(base)
        if base == quantity:
            if step is None:
                return None
            found = formulas_of(step.layer, self._operands(step, depth))
            return found.y if found else None
        return _sum(self._completed(self._contributions(base, depth), depth))

    def _completed(self, parts: list[tuple[str, Node | None]], depth: int) -> list[tuple[str, Node | None]]:
        """Torch's own share in place of a formula that is not known here."""
        shares = [name for name in self.shapes if name.startswith(SHARE)] if not depth else []
        if not shares:
            return parts
        found: list[tuple[str, Node | None]] = []
        for share in shares:
            step = share.removeprefix(SHARE)
            own = [(name, part) for name, part in parts if name == step and part is not None]
            found += (
                own
                if own and len(own) == [name for name, _ in parts].count(step)
                else [(step, operand(share, shown(share)))]
            )
        return found

    def _contributions(self, base: str, depth: int) -> list[tuple[str, Node | None]]:
        graph = self.graph
        parts: list[tuple[str, Node | None]] = []
        for s in graph.steps:
            if base in s.inputs:
                found = formulas_of(s.layer, self._operands(s, depth))
                own = [found.inputs[i] if found else None for i, read in enumerate(s.inputs) if read == base]
                parts += [(s.name, part) for part in own]
        if base == graph.output:
            parts.append((graph.loss_name, self._loss(depth, 1)))
        return parts

    def _loss(self, depth: int, which: int) -> Node | None:
        graph = self.graph
        p, t = self.leaf(graph.output, depth, "the prediction"), operand(TARGET, "the target")
        self.known.setdefault(TARGET, t)
        target = self.shapes.get(TARGET, ())
        found = loss_formulas(graph.loss, p, self.known[TARGET], len(self.shapes[graph.output]), len(target))
        return found[which] if found else None

    def _operands(self, s: Step, depth: int) -> Operands:
        inputs = tuple(self.leaf(name, depth, "the input") for name in s.inputs)
        words = {"weight": _weight_word(s.layer), "bias": "the bias", "mask": "the mask"}
        params = {local: self.leaf(name, depth, words.get(local, local)) for local, name in s.params.items()}
        g = self.leaf(s.name + GRAD, depth, "the upstream gradient")
        return Operands(inputs, params, g, len(self.shapes[s.inputs[0]]))

    def context(self, quantity: str) -> Context:
        graph, makers = self.graph, self.graph.makers(quantity)
        if len(makers) != 1:
            return Context()
        if makers[0] == "update":
            base = quantity.removesuffix(NEW)
            theta, g = self.leaf(base, 0, "the parameter"), self.leaf(base + GRAD, 0, "the gradient")
            return Context(variants=tuple(update_variants(graph.optimizer, theta, g)))
        if makers[0] == graph.loss_name:
            p = self.leaf(graph.output, 0, "the prediction")
            t = self.known.setdefault(TARGET, operand(TARGET, "the target"))
            sizes = len(self.shapes[graph.output]), len(self.shapes.get(TARGET, ()))
            write, which = (loss_forms, 1) if quantity.endswith(GRAD) else (loss_value_forms, 0)
            value, slope = self._loss(0, 0), self._loss(0, 1)
            return Context(
                forms=tuple(write(graph.loss, p, t, *sizes)),
                siblings=_named(*(n for n in (value, slope) if n is not None)),
                variants=tuple((i, n, c, f[which]) for i, n, c, f in loss_variants(graph.loss, p, t, *sizes)),
            )
        step = graph.step(makers[0])
        assert step is not None, "a maker is a step"
        s = self._operands(step, 0)
        parts = formulas_of(step.layer, s)
        if parts is None:
            return Context()
        own = quantity.endswith(GRAD) and quantity.removesuffix(GRAD) in step.inputs
        written = forms_of(step.layer, s) if own else value_forms_of(step.layer, s) if quantity == step.name else []
        smooth = own and forward_of(step.layer, s.x) is not None
        return Context(
            forms=tuple((_TIES if form.options.get("winner") == "all" else "", form) for form in written),
            siblings=_named(parts.y, *parts.inputs, *parts.params.values()),
            slope=(s.g, s.x, parts.y) if smooth else None,
            variants=tuple(layer_variants(step.layer, s)) if own else (),
        )

    def leaf(self, name: str, depth: int, says: str = "") -> Node:
        """The operand, or the formula of what was not reported."""
        if name not in self.known:
            given = self.graph.reported is None or name in self.graph.reported or name in (INPUT, TARGET)
            written = None
            if not given and name not in self.graph.parameters() and depth < DEPTH:
                written = self.formula(name, depth + 1)
            self.known[name] = written if written is not None else operand(name, _called(says, name))
        return self.known[name]


def _called(says: str, name: str) -> str:
    """``the kernel conv1.weight``; ``the weight`` alone where that is its name."""
    return says if says.endswith(f" {name}") else f"{says} {name}".strip()


def _named(*roots: Node) -> tuple[Node, ...]:
    """The operands and named parts of formulas, each once."""
    found: dict[str, Node] = {}
    for root in roots:
        for _, n in walk(root):
            if n.says and n is not root:
                found.setdefault(n.says, n)
    return tuple(found.values())


def _weight_word(layer: Any) -> str:
    return "the kernel" if type(layer).__name__.startswith("Conv") else "the weight"


def _sum(parts: list[tuple[str, Node | None]]) -> Node | None:
    """The sum of what comes back from several steps, each share by the name of its step."""
    known = [(name, p) for name, p in parts if p is not None]
    if not known or len(known) < len(parts):
        return None
    if len(known) == 1:
        return known[0][1]
    shares = []
    for i, (name, p) in enumerate(known):
        again = [n for n, _ in known[:i]].count(name)
        which = f", its input {again + 1}," if [n for n, _ in known].count(name) > 1 else ""
        shares.append(p.called(f"the share that comes back from {name}{which}"))
    return add(*shares, says="the sum over all readers")


def generic(name: str) -> Node:
    """A quantity without a formula: the reference's own answer, on which generic edits are made."""
    return add(operand(f"right:{name}", "the right result"), const(0.0), says="the result")
