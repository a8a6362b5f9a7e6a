"""From the description of a network to the equivalent torch.nn modules."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from manual_bp.errors import ManualBPError
from manual_bp.network import INPUT, Network
from manual_bp.nn import Layer, Loss, Optimizer
from manual_bp_torch import modules

TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64}

#: Fields of ours that torch.nn's constructors do not take; they are set on the built module instead.
_OURS = frozenset({"training"})

#: Hyperparameters that torch takes as tensors.
_WEIGHTS = frozenset({"weight", "pos_weight"})


class GraphModule(nn.Module):
    """Named steps, each reading earlier ones: torch's side of a network with branches."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.reads = {node.name: node.inputs for node in network.nodes}
        for node in network.nodes:
            self.add_module(node.name, module_for(node.layer))

    def forward(self, x: Tensor) -> Tensor:
        found = {INPUT: x}
        out = x
        for name, inputs in self.reads.items():
            out = found[name] = self.get_submodule(name)(*(found[i] for i in inputs))
        return out


def build(network: Network, dtype: torch.dtype) -> nn.Module:
    """The torch.nn module of a network: an ``nn.Sequential`` for a chain, a `GraphModule` where it branches."""
    reads = [node.inputs for node in network.nodes]
    chain = [(INPUT,), *((node.name,) for node in network.nodes[:-1])]
    module: nn.Module
    if reads == chain:
        module = nn.Sequential(OrderedDict((node.name, module_for(node.layer)) for node in network.nodes))
    else:
        module = GraphModule(network)
    return module.to(dtype)


def module_for(layer: Layer) -> nn.Module:
    """torch.nn's module of the same name with the same hyperparameters."""
    name, options = type(layer).__name__, _options(layer)
    if name == "Add":
        return modules.Add()
    if name == "Dropout":
        return modules.GivenDropout(options["p"], ())
    module = _construct(nn, name, options)
    module.train(bool(getattr(layer, "training", True)))
    assert isinstance(module, nn.Module)
    return module


def loss_for(loss: Loss, dtype: torch.dtype) -> nn.Module:
    """torch.nn's loss of the same name with the same hyperparameters."""
    if type(loss).__name__ == "HalfSquaredError":
        return modules.HalfSquaredError()
    module = _construct(nn, type(loss).__name__, _options(loss))
    assert isinstance(module, nn.Module)
    return module.to(dtype)


def optimizer_for(optimizer: Optimizer, params: list[Tensor]) -> torch.optim.Optimizer:
    """torch.optim's optimiser of the same name with the same hyperparameters."""
    made = _construct(torch.optim, type(optimizer).__name__, _options(optimizer), params)
    assert isinstance(made, torch.optim.Optimizer)
    return made


def _options(described: Layer | Loss | Optimizer) -> dict[str, Any]:
    """The hyperparameters of a description, as torch's constructor takes them."""
    values = {f.name: getattr(described, f.name) for f in fields(described) if f.name not in _OURS}
    # weights of classes and elements are tensors in torch, here with all their digits until the loss has its dtype;
    # sizes stay tuples
    return {
        k: torch.tensor(v, dtype=torch.float64) if k in _WEIGHTS and v is not None else v for k, v in values.items()
    }


def _construct(namespace: Any, name: str, options: dict[str, Any], *args: Any) -> Any:
    try:
        return getattr(namespace, name)(*args, **options)
    except (AttributeError, TypeError, ValueError) as error:
        raise ManualBPError(
            f"PyTorch has no equivalent of {name} with {options}: {error}", hint="use a step that torch.nn has as well"
        ) from None
