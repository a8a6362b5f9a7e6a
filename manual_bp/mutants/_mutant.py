"""A mutant: one realistic mistake that can be planted in one step of a network.

The shipped engine stays as it is. A mistake is planted from outside, by a layer (loss, optimiser) that wraps the right
one, lets it compute, and exchanges one result for the mistaken one. All other results stay right, so it is known
exactly which quantities are wrong: those that the mistake changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from manual_bp.network import Network
from manual_bp.nn import Array, Cache, Gradients, Layer, Loss, Optimizer, Params, State
from manual_bp.trace import GRAD, NEW

from ._seen import Seen, SeenLoss, SeenUpdate

#: What a mistake changes: the output, the gradient of the first or second input, of a parameter, or an update.
Role = Literal["y", "dx", "dx1", "dw", "db", "new"]
Kind = Literal["wrong", "kink"]

#: The name under which the update step goes.
UPDATE = "update"

_PARAMETERS = {"dw": "weight", "db": "bias"}
DTYPES = ("float32", "float64")


def always(_: Any) -> bool:
    """No condition."""
    return True


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mistake.

    Attributes
    ----------
    id, title
        A stable name, and the mistake in plain words.
    hypothesis
        What a diagnosis should say; mutants that are the same mistake in different places share it. See `HYPOTHESES`.
    kind
        "wrong"; or "kink": another valid subgradient where there is no derivative, which is no mistake at all.
    dtypes
        The precisions in which it is one: float32 inside changes nothing in float32.
    """

    id: str
    title: str
    hypothesis: str
    kind: Kind = "wrong"
    dtypes: tuple[str, ...] = DTYPES

    def applies(self, network: Network, step: str) -> bool:
        """Whether it can be made in this step and then changes some number, for some input."""
        return bool(self.faulty(network, step))

    def faulty(self, network: Network, step: str) -> frozenset[str]:
        """Names of the quantities that are wrong by it: of the others, the step's own formula still holds."""
        raise NotImplementedError

    def plant(self, network: Network, step: str) -> Network:
        """The network as somebody writes it who makes this mistake in this step."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class StepMutant(Mutant):
    """A mistake in a formula of one layer, loss or optimiser.

    Attributes
    ----------
    on
        The classes it can happen to, and no subclasses of them.
    roles
        Which results it changes.
    change
        From what the step sees to the mistaken results: an array, or one for each role.
    when
        What must hold of the layer for ``change`` to make sense; whether it makes a difference is found by trial.
    """

    on: tuple[type, ...]
    roles: tuple[Role, ...]
    change: Callable[[Any], Any]
    when: Callable[[Any], bool] = always

    def faulty(self, network: Network, step: str) -> frozenset[str]:
        from ._trial import changed_roles  # the trial plants mutants itself

        part = part_of(network, step)
        if type(part) not in self.on or not self.when(part):
            return frozenset()
        return names_of(network, step, changed_roles(self, network, step))

    def plant(self, network: Network, step: str) -> Network:
        part = part_of(network, step)
        if isinstance(part, Layer):
            return network.with_layer(step, PlantedLayer.around(part, self))
        if isinstance(part, Loss):
            return network.with_layer(step, PlantedLoss.around(part, self))
        return replace(network, optimizer=PlantedOptimizer.around(part, self))

    def results(self, seen: Any) -> dict[str, Array]:
        """The mistaken results by role."""
        found = self.change(seen)
        return dict(zip(self.roles, found if isinstance(found, tuple) else (found,), strict=True))


def part_of(network: Network, step: str) -> Layer | Loss | Optimizer:
    """The layer, the loss or the optimiser of that name."""
    if step == network.loss_name:
        return network.loss
    if step == UPDATE and network.optimizer is not None:
        return network.optimizer
    return network.node(step).layer


def steps_of(network: Network) -> tuple[str, ...]:
    """Every step in which a mistake can be planted, the loss and the update included."""
    update = (UPDATE,) if network.optimizer is not None else ()
    return *(node.name for node in network.nodes), network.loss_name, *update


def names_of(network: Network, step: str, roles: Iterable[str]) -> frozenset[str]:
    """The names that these results of the step bear in a trace."""
    if step == UPDATE:
        return frozenset(name + NEW for name in network.parameter_shapes() if list(roles))
    read = (network.output,) if step == network.loss_name else network.node(step).inputs
    names = {"y": step, "dx": read[0] + GRAD, "dx1": read[-1] + GRAD}
    names |= {role: f"{step}.{parameter}{GRAD}" for role, parameter in _PARAMETERS.items()}
    return frozenset(names[role] for role in roles)


# ------------------------------------------------------------------ what is planted


@dataclass(frozen=True)
class PlantedLayer(Layer):
    """The right layer with some of its results exchanged for mistaken ones."""

    layer: Layer
    mistakes: tuple[StepMutant, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_inputs", self.layer.n_inputs)

    @classmethod
    def around(cls, layer: Layer, mutant: StepMutant) -> PlantedLayer:
        """One more mistake in a layer that may have some already."""
        if isinstance(layer, PlantedLayer):
            return cls(layer.layer, (*layer.mistakes, mutant))
        return cls(layer, (mutant,))

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.parameter_shapes()

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.layer.buffer_shapes()

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        y, cache = self.layer.forward(params, *inputs)
        seen = Seen(layer=self.layer, params=params, inputs=inputs, y=y)
        for mistake in self.mistakes:
            if "y" in mistake.roles:
                y = mistake.results(seen)["y"]
        return y, (seen, cache)

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        seen, cache = cache
        right = self.layer.backward(cache, upstream)
        seen = replace(seen, upstream=upstream, right=right)
        inputs, params = list(right.inputs), dict(right.params)
        for mistake in self.mistakes:
            if "y" in mistake.roles:
                continue
            for role, array in mistake.results(seen).items():
                if role in _PARAMETERS:
                    params[_PARAMETERS[role]] = array
                else:
                    inputs[role == "dx1"] = array
        return Gradients(tuple(inputs), params)


@dataclass(frozen=True)
class PlantedLoss(Loss):
    """The right loss with its value or its gradient exchanged."""

    loss: Loss = Loss()  # noqa: RUF009  # frozen, and never used: `around` always gives one
    mistakes: tuple[StepMutant, ...] = ()

    @classmethod
    def around(cls, loss: Loss, mutant: StepMutant) -> PlantedLoss:
        """One more mistake in a loss that may have some already."""
        if isinstance(loss, PlantedLoss):
            return cls(loss.reduction, loss.loss, (*loss.mistakes, mutant))
        return cls(loss.reduction, loss, (mutant,))

    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        seen = SeenLoss.of(self.loss, prediction, target)
        results = {"y": seen.y, "dx": seen.dp}
        for mistake in self.mistakes:
            results |= mistake.results(seen)
        return results["y"], results["dx"]

    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        gradient: Array = cache
        return gradient


@dataclass(frozen=True)
class PlantedOptimizer(Optimizer):
    """The right optimiser with another first step."""

    optimizer: Optimizer
    mistakes: tuple[StepMutant, ...]

    @classmethod
    def around(cls, optimizer: Optimizer, mutant: StepMutant) -> PlantedOptimizer:
        """One more mistake: of several in one update, the last one shows."""
        if isinstance(optimizer, PlantedOptimizer):
            return cls(optimizer.optimizer, (*optimizer.mistakes, mutant))
        return cls(optimizer, (mutant,))

    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        new, state = self.optimizer.step(params, grads, state)
        for mistake in self.mistakes:
            for name, theta in params.items():
                seen = SeenUpdate(optimizer=self.optimizer, theta=theta, g=grads[name], new=new[name])
                new[name] = mistake.results(seen)["new"]
        return new, state


def mistake(
    on: type | tuple[type, ...],
    roles: Role | tuple[Role, ...],
    id: str,  # noqa: A002  # the field's own name
    hypothesis: str,
    title: str,
    change: Callable[[Any], Any],
    *,
    when: Callable[[Any], bool] = always,
    kind: Kind = "wrong",
    dtypes: tuple[str, ...] = DTYPES,
) -> StepMutant:
    """One line of a catalogue."""
    return StepMutant(
        id=id,
        title=title,
        hypothesis=hypothesis,
        kind=kind,
        dtypes=dtypes,
        on=on if isinstance(on, tuple) else (on,),
        roles=(roles,) if isinstance(roles, str) else roles,
        change=change,
        when=when,
    )
