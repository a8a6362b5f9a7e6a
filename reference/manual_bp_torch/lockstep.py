"""torch's side of a training run: its own weights and optimiser, and what every update of the candidate should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manual_bp import nn
from manual_bp.compare import Expected, Item
from manual_bp.errors import ManualBPError
from manual_bp.network import Network
from manual_bp.nn import Optimizer, Params, State
from manual_bp.trace import GRAD, NEW, Array, Quantity
from manual_bp_torch.answers import alternatives_of, expected_of
from manual_bp_torch.bounds import Precision
from manual_bp_torch.bounds._stateful import from_new_state, in_single, stateful_bounds
from manual_bp_torch.build import TORCH_DTYPES, build, loss_for, optimizer_for
from manual_bp_torch.certify import finite
from manual_bp_torch.program import LOSS, Program
from manual_bp_torch.weights import load, to_numpy, to_torch

_WIDE = torch.float64

#: The state that is made of another one: of Adam with amsgrad.
LARGEST = "max_exp_avg_sq"


class Lockstep:
    """The reference's own training: torch.nn, torch.optim, the same start and the same mini-batches.

    Parameters
    ----------
    network, optimizer
        The descriptions; the module and torch's optimiser are built from them.
    dtype
        "float32" or "float64".
    params
        Parameters and buffers to start from.
    """

    def __init__(self, network: Network, optimizer: Optimizer, dtype: str, params: Mapping[str, Array]) -> None:
        self.module = build(network, TORCH_DTYPES[dtype])
        load(self.module, params)
        self.loss = loss_for(network.loss, TORCH_DTYPES[dtype])
        own = dict(self.module.named_parameters())
        self._trained = {name: own[name] for name in network.parameter_shapes()}
        self._optimizer = optimizer_for(optimizer, list(self._trained.values()))

    def step(self, x: Array, y: Array) -> float:
        """One step of training; the loss before it."""
        self._optimizer.zero_grad()
        loss = self.loss(self.module(to_torch(x)), to_torch(y))
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def predict(self, x: Array) -> Array:
        """What the network makes of inputs."""
        with torch.no_grad():
            return to_numpy(self.module(to_torch(x)))

    def parameters(self) -> dict[str, Array]:
        """The trained parameters as they are now."""
        return {name: to_numpy(tensor) for name, tensor in self._trained.items()}


class ProgramLockstep:
    """The training of any torch program, from given parameters; see `Lockstep`.

    Parameters
    ----------
    program
        The reference; its buffers stay as they are given.
    params
        Parameters and buffers to start from.
    """

    def __init__(self, program: Program, optimizer: Optimizer, params: Mapping[str, Array]) -> None:
        self.program = program
        self._all = {name: to_torch(a) for name, a in params.items()}
        trained = program.trained(self._all)
        self._trained = {name: t for name, t in self._all.items() if name in trained}
        self._optimizer = optimizer_for(optimizer, [t.requires_grad_() for t in self._trained.values()])

    def step(self, x: Any, y: Any) -> float:
        """One step of training; the loss before it."""
        found, _ = self.program.run(self._all, x, y)
        for name, tensor in self._trained.items():
            tensor.grad = found.grads[name + GRAD]
        self._optimizer.step()
        return float(found.values[LOSS])

    def parameters(self) -> dict[str, Array]:
        """The trained parameters as they are now."""
        return {name: to_numpy(tensor) for name, tensor in self._trained.items()}


def described(optimizer: object) -> Optimizer:
    """An optimiser as a description: one of `manual_bp.nn`, or torch's own SGD, Adam or AdamW with its settings.

    Raises
    ------
    ManualBPError
        It is neither, or has settings that have no counterpart, or several for different parameters.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    kind = getattr(nn, type(optimizer).__name__, None)
    if not isinstance(optimizer, torch.optim.Optimizer) or kind not in (nn.SGD, nn.Adam, nn.AdamW):
        what = type(optimizer).__name__
        raise ManualBPError(
            f"there is no training with {what}", hint="give manual_bp.nn.SGD(lr=...), Adam(lr=...) or AdamW(lr=...)"
        )
    own = {key: value for key, value in optimizer.defaults.items() if key in {f.name for f in fields(kind)}}
    groups = [{key: group[key] for key in own} for group in optimizer.param_groups]
    if any(group != own for group in groups) or optimizer.defaults.get("maximize"):
        raise ManualBPError(
            f"the settings of {type(optimizer).__name__} differ between parameters, or maximise",
            hint="give all parameters the same ones",
        )
    made = kind(**own)
    assert isinstance(made, Optimizer)
    return made


def update_items(optimizer: Optimizer, params: Params, grads: Params, state: State) -> tuple[Item, ...]:
    """What one step of torch's optimiser makes of the candidate's own parameters, gradients and state.

    Parameters
    ----------
    params, grads
        Before the step, by name, all of one dtype.
    state
        The candidate's own, by parameter and by torch's names; what torch would not have there is not taken over.

    Returns
    -------
    The items ``NAME.KEY.new`` of the state, each before the parameter's ``NAME.new`` that is made of it.
    """
    tensors = {name: to_torch(theta).requires_grad_() for name, theta in params.items()}
    for name, tensor in tensors.items():
        tensor.grad = to_torch(grads[name])
    stepper = optimizer_for(optimizer, list(tensors.values()))
    bounds, others = {}, {}
    for name, tensor in tensors.items():
        own = _seed(stepper, state.get(name, {}), params[name])
        if own:
            stepper.state[tensor] = {key: value.clone() for key, value in own.items()}
        wide = {key: value.to(_WIDE) for key, value in own.items()}
        old, g = tensor.detach().to(_WIDE), to_torch(grads[name]).to(_WIDE)
        bounds[name] = stateful_bounds(stepper, old, g, wide, Precision.of(tensor.dtype))
        others[name] = in_single(stepper, old, g, wide, Precision.of(tensor.dtype))
    stepper.step()
    items = []
    for name, tensor in tensors.items():
        # SGD without momentum keeps a buffer that is None
        found = {key: value for key, value in stepper.state[tensor].items() if value is not None}
        for key, value in (*found.items(), ("", tensor.detach())):
            quantity = Quantity(name=f"{name}.{key}{NEW}" if key else name + NEW, kind="update", step="update")
            bound = replace(bounds[name][key], alternatives=others[name][key])
            expected, other = expected_of(value, bound), alternatives_of(bound)
            items.append(Item(quantity=quantity, isolated=expected, end_to_end=None, alternatives=other))
    return tuple(items)


def told_apart(
    items: Iterable[Item], optimizer: Optimizer, params: Params, grads: Params, state: State, claimed: Params
) -> Iterator[Item]:
    """The same, with each parameter held against what the candidate's own new state makes of it.

    A parameter that was moved as a wrong state says is right in itself; end to end it is what it was. So is the largest
    of the squares so far, which the new average of squares is made into.

    Parameters
    ----------
    items
        Of `update_items`, whose further arguments these are.
    claimed
        The candidate's new parameters and state, by the names of the items. Where a state is not all there, or nothing
        can be made of it, the parameter's item stays as it is.
    """
    tensors = {name: to_torch(theta).requires_grad_() for name, theta in params.items()}
    stepper = optimizer_for(optimizer, list(tensors.values()))
    for item in items:
        name, _, key = item.quantity.name.removesuffix(NEW).rpartition(".")
        whole = item.quantity.name.removesuffix(NEW)
        found = None
        if whole in params:
            found = _from_new_state(stepper, tensors[whole], grads[whole], _state_of(whole, claimed))
        elif key == LARGEST and name in params:
            found = _largest(item, state.get(name, {}).get(key), claimed.get(f"{name}.exp_avg_sq{NEW}"))
        yield item if found is None else replace(item, isolated=found, end_to_end=item.isolated)


def _from_new_state(
    stepper: torch.optim.Optimizer, old: Tensor, grad: Array, claimed: Mapping[str, Array]
) -> Expected | None:
    """What a new state makes of a parameter."""
    new = _seed(stepper, claimed, to_numpy(old.detach()))
    if not new:
        return None
    wide = {key: value.to(_WIDE) for key, value in new.items()}
    value, bound = from_new_state(
        stepper, old.detach().to(_WIDE), to_torch(grad).to(_WIDE), wide, Precision.of(old.dtype)
    )
    return expected_of(value.to(old.dtype), bound) if finite(value) and finite(bound.e) else None


def _largest(item: Item, before: Array | None, square: Array | None) -> Expected | None:
    """The larger one of the largest square so far and a new average of squares."""
    whole = item.isolated
    if whole is None or square is None or square.shape != whole.value.shape or square.dtype != whole.value.dtype:
        return None
    before = np.zeros_like(square) if before is None else before
    return Expected(value=np.maximum(before, square), allowed=whole.allowed, rule=f"{whole.rule}, from its new square")


def _state_of(name: str, claimed: Mapping[str, Array]) -> dict[str, Array]:
    """The new state of a parameter among what is claimed."""
    prefix = f"{name}."
    return {
        key.removesuffix(NEW).removeprefix(prefix): array for key, array in claimed.items() if key.startswith(prefix)
    }


def _seed(stepper: torch.optim.Optimizer, state: Mapping[str, Array], theta: Array) -> dict[str, Tensor]:
    """The candidate's state as torch's optimiser keeps it; none of it unless all that torch needs is there."""
    options = stepper.param_groups[0]
    if isinstance(stepper, torch.optim.SGD):
        wanted = ["momentum_buffer"] if options["momentum"] else []
    else:
        wanted = ["step", "exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if options["amsgrad"] else [])]
    shapes = {key: () if key == "step" else theta.shape for key in wanted}
    if any(key not in state or state[key].shape != shape for key, shape in shapes.items()):
        return {}
    # torch counts its steps in float32
    return {key: to_torch(np.asarray(state[key], np.float32 if key == "step" else theta.dtype)) for key in wanted}
