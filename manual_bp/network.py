"""A network is a graph of named steps; running it gives the trace of one forward and backward pass.

The description holds no weights and no state, so that the same description builds the hand-written pass here and
the torch.nn one in ``manual_bp_torch.build``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from manual_bp.errors import ManualBPError
from manual_bp.nn._layer import Array, Gradients, Layer, Loss, Optimizer
from manual_bp.trace import GRAD, NEW, Equation, Failure, Mutation, Quantity, Run, Trace, bit_identical

INPUT = "x"
TARGET = "y"


@dataclass(frozen=True)
class Node:
    """One step: its name (the symbol of its output), its layer, and the names of the steps it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A graph of steps that ends in a loss.

    Attributes
    ----------
    name, title
        What it is called on the command line, and one line that says what it is.
    nodes
        The steps in execution order; each may read ``x`` and any earlier step.
    loss, loss_name
        The loss, applied to the last step's output and the target ``y``.
    input_shape
        Shape of one example, channels first.
    optimizer
        If given, one update step is part of the trace (``NAME.new``).
    symbols, equations
        By quantity: how it is written, and the formula it satisfies.
    """

    name: str
    nodes: tuple[Node, ...]
    loss: Loss
    input_shape: tuple[int, ...]
    loss_name: str = "loss"
    title: str = ""
    optimizer: Optimizer | None = None
    symbols: Mapping[str, str] = field(default_factory=dict)
    equations: Mapping[str, Equation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {INPUT}
        for node in self.nodes:
            if node.name in known or node.name == self.loss_name:
                raise ManualBPError(
                    f"network {self.name!r} has two steps named {node.name!r}", hint="rename one of them"
                )
            unknown = [name for name in node.inputs if name not in known]
            if unknown:
                raise ManualBPError(
                    f"step {node.name!r} of network {self.name!r} reads {unknown[0]!r}, which no earlier step produces",
                    hint="list the steps in execution order",
                )
            if len(node.inputs) != node.layer.n_inputs:
                raise ManualBPError(
                    f"step {node.name!r} of network {self.name!r} has {len(node.inputs)} inputs, "
                    f"its {type(node.layer).__name__} takes {node.layer.n_inputs}"
                )
            known.add(node.name)
        if not self.nodes:
            raise ManualBPError(f"network {self.name!r} has no steps")

    # ------------------------------------------------------------------ structure

    @property
    def output(self) -> str:
        """Name of the step whose output the loss reads."""
        return self.nodes[-1].name

    def node(self, name: str) -> Node:
        """The step of that name (KeyError if there is none)."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def consumers(self, name: str) -> tuple[str, ...]:
        """Names of the steps that read the output of ``name`` (the loss included), in forward order."""
        found = tuple(node.name for node in self.nodes if name in node.inputs)
        return (*found, self.loss_name) if name == self.output else found

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all trained parameters, by ``step.parameter``."""
        return {f"{n.name}.{p}": s for n in self.nodes for p, s in n.layer.parameter_shapes().items()}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all buffers, by ``step.buffer``."""
        return {f"{n.name}.{p}": s for n in self.nodes for p, s in n.layer.buffer_shapes().items()}

    def initial(self, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
        """Parameters and buffers from torch's default distributions."""
        return {f"{n.name}.{p}": a for n in self.nodes for p, a in n.layer.initial(rng, dtype).items()}

    def with_layer(self, step: str, layer: Layer | Loss) -> Network:
        """The same network with one step's layer (or the loss) exchanged, a faulty one for instance."""
        if step == self.loss_name:
            if not isinstance(layer, Loss):
                raise TypeError(f"step {step!r} is the loss; {type(layer).__name__} is not one")
            return replace(self, loss=layer)
        if not isinstance(layer, Layer):
            raise TypeError(f"step {step!r} is a layer; {type(layer).__name__} is not one")
        nodes = tuple(replace(n, layer=layer) if n.name == step else n for n in self.nodes)
        return replace(self, nodes=nodes)

    def quantities(self) -> tuple[Quantity, ...]:
        """Every quantity of one pass in execution order: forward, backward, update."""
        return tuple(self._quantities())

    def _quantities(self) -> Iterator[Quantity]:
        make = self._quantity
        yield make(INPUT, "value", INPUT)
        for node in self.nodes:
            for parameter in (*node.layer.parameter_shapes(), *node.layer.buffer_shapes()):
                yield make(f"{node.name}.{parameter}", "parameter", node.name)
            yield make(node.name, "value", node.name)
        yield make(self.loss_name, "value", self.loss_name)
        yield make(self.output + GRAD, "gradient", self.loss_name)
        for node in reversed(self.nodes):
            for parameter in node.layer.parameter_shapes():
                yield make(f"{node.name}.{parameter}{GRAD}", "parameter_gradient", node.name)
            for name in self._completes(node):
                yield make(name + GRAD, "gradient", node.name)
        if self.optimizer is not None:
            for parameter in self.parameter_shapes():
                yield make(parameter + NEW, "update", "update")

    def _quantity(self, name: str, kind: Any, step: str) -> Quantity:
        return Quantity(
            name=name, kind=kind, step=step, symbol=self.symbols.get(name, ""), equation=self.equations.get(name)
        )

    # ------------------------------------------------------------------ the hand-written pass

    def run(self, params: Mapping[str, Array], x: Array, y: Array) -> Run:
        """One forward and backward pass by hand.

        Parameters
        ----------
        params
            By ``step.parameter``, of the same floating dtype as ``x``.
        x, y
            Inputs ``(N, *input_shape)`` and targets as the loss takes them.

        Every array is read-only while the layers run. A layer that writes into one nevertheless fails here, and the
        pass is repeated on copies, so that the trace is complete and says which step changed what. A layer that
        raises ends the pass there: the trace holds what was computed before it.
        """
        trace: Trace = {}
        try:
            self._pass(trace, params, x, y, _Frozen())
            return Run(trace)
        except _StepError as error:
            if "read-only" not in error.failure.error:
                return Run(trace, failure=error.failure)
        trace, watch = {}, _Watched()
        try:
            self._pass(trace, params, x, y, watch)
        except _StepError as error:
            return Run(trace, self._placed(watch.mutations), error.failure)
        return Run(trace, self._placed(watch.mutations))

    def _placed(self, mutations: Iterable[Mutation]) -> tuple[Mutation, ...]:
        """Mutations with what their steps read."""
        reads = {node.name: node.inputs for node in self.nodes}
        return tuple(replace(m, inputs=reads.get(m.step, (self.output,))) for m in mutations)

    def _pass(self, trace: Trace, params: Mapping[str, Array], x: Array, y: Array, guard: _Guard) -> None:
        """Fill ``trace`` in execution order; whatever goes wrong, wrong results included, is the step's failure."""
        step, phase, caches = INPUT, "forward", []
        trace[INPUT] = x
        try:
            with np.errstate(all="ignore"):  # what overflows shows in the numbers
                for act in self._acts:
                    step, given = act.name, self._given(act, params)
                    trace.update(zip(act.parameters.values(), given.values(), strict=True))
                    if act.mask in params:  # a dropout step's: of its input's shape, so no buffer of the description
                        given["mask"] = params[act.mask]
                    inputs = [trace[name] for name in act.inputs]
                    trace[step], cache = guard.call(step, phase, act.layer.forward, given, *inputs)
                    caches.append(cache)
                step, output = self.loss_name, self.output
                trace[step], cache = guard.call(step, phase, self.loss.forward, None, trace[output], y)

                phase = "backward"
                upstream = guard.call(step, phase, partial(self.loss.backward, cache), None)
                grads: Trace = {output: np.asarray(upstream)}
                trace[output + GRAD] = grads[output]
                for act in reversed(self._acts):
                    step, cache = act.name, caches.pop()
                    result = guard.call(step, phase, partial(act.layer.backward, cache), None, grads[step])
                    self._collect(act, result, trace, grads)

                step, phase = "update", "forward"
                if self.optimizer is not None:
                    self._update(self.optimizer, trace, params)
        except ManualBPError:
            raise
        except Exception as error:
            raise _StepError(Failure(step, phase, f"{type(error).__name__}: {error}")) from error

    @staticmethod
    def _collect(act: _Act, result: Gradients, trace: Trace, grads: Trace) -> None:
        """What one step's backward pass adds to the trace, and to the gradients of what the step read."""
        for parameter, gradient in result.params.items():
            trace[f"{act.name}.{parameter}{GRAD}"] = np.asarray(gradient)
        for name, gradient in zip(act.inputs, result.inputs, strict=True):
            # multivariate chain rule: the gradients of all consumers add up
            grads[name] = np.asarray(grads[name] + gradient if name in grads else gradient)
        for name in act.completes:
            trace[name + GRAD] = grads[name]

    def _update(self, optimizer: Optimizer, trace: Trace, params: Mapping[str, Array]) -> None:
        trained = {name: params[name] for name in self.parameter_shapes()}
        found = {name: trace[name + GRAD] for name in trained}
        updated, _ = optimizer.step(trained, found, optimizer.initial_state(trained))
        trace.update({name + NEW: array for name, array in updated.items()})

    def _given(self, act: _Act, params: Mapping[str, Array]) -> dict[str, Array]:
        """The parameters and buffers of one step, by the layer's own names."""
        try:
            return {name: params[full] for name, full in act.parameters.items()}
        except KeyError as error:
            raise ManualBPError(
                f"network {self.name!r} has no value for parameter {error.args[0]!r}",
                hint=f"give all of: {', '.join({**self.parameter_shapes(), **self.buffer_shapes()})}",
            ) from None

    @cached_property
    def _acts(self) -> tuple[_Act, ...]:
        """What follows from the description for each step of a pass."""
        return tuple(
            _Act(
                node.name,
                node.layer,
                node.inputs,
                {p: f"{node.name}.{p}" for p in (*node.layer.parameter_shapes(), *node.layer.buffer_shapes())},
                f"{node.name}.mask",
                self._completes(node),
            )
            for node in self.nodes
        )

    def _completes(self, node: Node) -> tuple[str, ...]:
        """Whose gradient is complete once the step has run backward: it is their first consumer in forward order."""
        return tuple(name for name in dict.fromkeys(node.inputs) if self.consumers(name)[0] == node.name)


class _Act(NamedTuple):
    """One step of a pass, with all names spelled out."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    parameters: dict[str, str]  # the layer's own name: ``step.name``
    mask: str
    completes: tuple[str, ...]


class _StepError(Exception):
    """A layer raised."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


Own = dict[str, Array]


class _Guard:
    """How a layer is called: what becomes of the arrays that it is given."""

    def call(self, step: str, phase: str, function: Callable[..., Any], params: Own | None, *args: Array) -> Any:
        """The result of the function, which takes the parameters first if there may be any."""
        raise NotImplementedError


class _Frozen(_Guard):
    """Everything that a layer gets is read-only: writing into it fails at once, and costs nothing to watch."""

    def call(self, step: str, phase: str, function: Callable[..., Any], params: Own | None, *args: Array) -> Any:
        if params is None:
            return function(*map(_read_only, args))
        return function({name: _read_only(a) for name, a in params.items()}, *map(_read_only, args))


class _Watched(_Guard):
    """Every layer works on copies, which are compared with the originals after its forward and its backward pass."""

    def __init__(self) -> None:
        self.mutations: list[Mutation] = []
        self._held: dict[str, list[tuple[str, Array, Array]]] = {}

    def call(self, step: str, phase: str, function: Callable[..., Any], params: Own | None, *args: Array) -> Any:
        given = params or {}
        own = {name: a.copy() for name, a in given.items()}
        copies = [a.copy() for a in args]
        result = function(*copies) if params is None else function(own, *copies)
        names = ["upstream gradient"] * len(args) if phase == "backward" else [f"input {i}" for i in range(len(args))]
        watched = [*zip(names, args, copies, strict=True), *((name, given[name], own[name]) for name in own)]
        # the cache may hold what the forward call was given: the backward call can still change it
        watched += self._held.pop(step, [])
        changed = [name for name, old, new in watched if not bit_identical(old, new)]
        self.mutations += [Mutation(step, phase, name) for name in changed]
        if phase == "forward" and not changed:
            self._held[step] = watched
        return result


def _read_only(array: Array) -> Array:
    view = array.view()
    view.setflags(write=False)
    return view


def chain(name: str, layers: Mapping[str, Layer], loss: Loss, input_shape: tuple[int, ...], **options: Any) -> Network:
    """A network without branches: each step reads the one before it.

    >>> from manual_bp import nn
    >>> chain("tiny", {"z1": nn.Linear(2, 1), "a1": nn.Sigmoid()}, nn.BCELoss(), (2,)).output
    'a1'
    """
    names = [INPUT, *layers]
    nodes = tuple(Node(step, layer, (names[i],)) for i, (step, layer) in enumerate(layers.items()))
    return Network(name=name, nodes=nodes, loss=loss, input_shape=input_shape, **options)
