"""The built-in networks, each written a second time in torch.nn, with nothing of ours in between but the weights.

The module on the right is typed out by hand, so it checks the builder as well; the numbers on the left are the
engine's. Both sides run the same real digits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import networks, probes
from manual_bp.trace import GRAD


def three_layer() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        OrderedDict(
            z1=nn.Conv2d(1, 1, 3),
            a1=nn.ReLU(),
            a2=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            z3=nn.Linear(9, 1),
            a3=nn.Sigmoid(),
        )
    ), nn.BCELoss()


class HalfSquares(nn.Module):
    """E = 1/2 sum (t - y)^2."""

    def forward(self, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ((t - y) ** 2).sum() / 2


def steps(name: str, *layers: nn.Module) -> nn.Sequential:
    """A chain with the step names of the built-in network."""
    return nn.Sequential(OrderedDict(zip((n.name for n in networks.get(name).nodes), layers, strict=True)))


def two_conv_two_hidden() -> tuple[nn.Module, nn.Module]:
    shapes = networks.get("two-conv-two-hidden").parameter_shapes()
    c1, c2, h1, h2, out = [s for n, s in shapes.items() if n.endswith("weight")]
    return steps(
        "two-conv-two-hidden",
        nn.Conv2d(c1[1], c1[0], c1[2:]),
        nn.Sigmoid(),
        nn.Conv2d(c2[1], c2[0], c2[2:]),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(h1[1], h1[0]),
        nn.Sigmoid(),
        nn.Linear(h2[1], h2[0]),
        nn.Sigmoid(),
        nn.Linear(out[1], out[0]),
    ), nn.CrossEntropyLoss()


TWICE: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "three-layer": three_layer,
    "two-conv-two-hidden": two_conv_two_hidden,
}


def both(name: str, dtype: str, probe: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every value and gradient of the engine's pass and of torch's, by name."""
    network = networks.get(name)
    given = probes.probe(network, probe, dtype=dtype, batch=3)
    ours = network.run(given.params, given.x, given.y).trace

    module, loss = TWICE[name]()
    module = module.to(getattr(torch, dtype))
    module.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in given.params.items()}, strict=True)
    theirs: dict[str, Any] = {}
    x = torch.from_numpy(given.x.copy()).requires_grad_()
    kept = {"x": x}
    value = x
    for step, layer in module.named_children():
        value = layer(value)
        value.retain_grad()
        kept[step] = value
    total = loss(value, torch.from_numpy(given.y.copy()))
    total.backward()
    theirs["loss"] = total.detach().numpy()
    for step, tensor in kept.items():
        theirs[step] = tensor.detach().numpy()
        assert tensor.grad is not None
        theirs[step + GRAD] = tensor.grad.numpy()
    for parameter, tensor in module.named_parameters():
        assert tensor.grad is not None
        theirs[parameter] = tensor.detach().numpy()
        theirs[parameter + GRAD] = tensor.grad.numpy()
    return ours, theirs


@pytest.mark.parametrize("probe", ["digits", "ties", "asymmetric"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TWICE)
def test_every_quantity_of_the_network_written_twice_agrees(name: str, dtype: str, probe: str) -> None:
    ours, theirs = both(name, dtype, probe)
    assert ours.keys() == theirs.keys() == {q.name for q in networks.get(name).quantities()}
    # the sums here have at most a few hundred terms: that many roundings of the largest number, and no more
    roundings = 500 * np.finfo(dtype).eps
    for quantity, expected in theirs.items():
        got = ours[quantity]
        assert got.shape == expected.shape, quantity
        assert got.dtype == expected.dtype == np.dtype(dtype), quantity
        size = max(float(np.abs(expected).max()), float(np.finfo(dtype).tiny))
        assert np.abs(got - expected).max() <= roundings * size, quantity


def test_torch_starts_the_three_layer_network_with_twenty_parameters() -> None:
    module, _ = three_layer()
    assert sum(p.numel() for p in module.parameters()) == 20
    own = networks.get("three-layer").parameter_shapes()
    assert own == {n: tuple(p.shape) for n, p in module.named_parameters()}


def test_half_squares_are_the_error_of_the_printed_example() -> None:
    given = probes.probe(networks.get("kernel-gradient"), "printed")
    network = networks.get("kernel-gradient")
    ours = network.run(given.params, given.x, given.y).trace
    prediction = torch.from_numpy(ours[network.output].copy()).requires_grad_()
    HalfSquares()(prediction, torch.from_numpy(given.y.copy())).backward()
    assert prediction.grad is not None
    np.testing.assert_allclose(ours[network.output + GRAD], prediction.grad.numpy(), rtol=1e-14)
