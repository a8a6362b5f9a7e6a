"""torch's own sample inputs of operations that take parameters, a mask or several inputs, run through the engine.

From the OpInfo database, which is internal to torch and needs the package ``expecttest``; without it these tests are
skipped. The other operations' samples run in ``test_torch_samples`` and ``test_torch_samples_windows``.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from manual_bp import nn
from tests.engine.parity import check_layer

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
methods = pytest.importorskip("torch.testing._internal.common_methods_invocations", reason="internal to torch")

OPS = {info.name: info for info in methods.op_db if not info.variant_test_name}
F = torch.nn.functional


class Operation(torch.nn.Module):
    """A function with the sample's parameters, so that their gradients are compared as well."""

    def __init__(self, function, **parameters):
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, None if value is None else torch.nn.Parameter(value))

    def forward(self, *leaves):
        return self.function(*leaves, **dict(self.named_parameters()))


def arrays(parameters):
    return {name: value.numpy() for name, value in parameters.items() if value is not None}


def linear(op, x, weight, bias=None):
    layer = nn.Linear(weight.shape[-1], weight.shape[0], bias=bias is not None) if weight.ndim == 2 else None
    return layer, Operation(op, weight=weight, bias=bias), [x], arrays({"weight": weight, "bias": bias})


def layer_norm(op, x, shape, weight=None, bias=None, eps=1e-5):
    affine = weight is not None
    layer = nn.LayerNorm(shape, eps, affine, bias=bias is not None) if affine or bias is None else None
    module = Operation(lambda leaf, **own: op(leaf, shape, eps=eps, **own), weight=weight, bias=bias)
    return layer, module, [x], arrays({"weight": weight, "bias": bias})


def batch_norm(op, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(x.ndim)
    if kind is None or (weight is None) != (bias is None):
        return None, None, [], {}  # the modules have no such input: torch.nn.BatchNorm1d and 2d refuse it
    layer = kind(x.shape[1], eps, momentum, weight is not None, mean is not None, training=training)

    def function(leaf, **own):
        return op(leaf, module.running_mean, module.running_var, training=training, momentum=momentum, eps=eps, **own)

    module = Operation(function, weight=weight, bias=bias)
    buffers = {
        "running_mean": mean,
        "running_var": var,
        "num_batches_tracked": None if mean is None else torch.tensor(0),
    }
    for name, value in buffers.items():
        module.register_buffer(name, None if value is None else value.clone())  # torch writes into it
    return layer, module, [x], arrays({"weight": weight, "bias": bias} | buffers)


def flatten(op, x, **kwargs):
    layer = nn.Flatten(**{"start_dim": 0, "end_dim": -1, **kwargs})
    return layer, Operation(lambda leaf: op(leaf, **kwargs)), [x], {}


def add(op, x, other, alpha=1):
    same = isinstance(other, torch.Tensor) and x.shape == other.shape and alpha == 1
    return (nn.Add() if same else None), Operation(op), [x, other], {}  # torch also broadcasts


def dropout(op, x, p=0.5, training=True):
    """Evaluation, and the rates 0 and 1: nothing of them is left to chance."""
    layer = nn.Dropout(p, training=training) if p in (0, 1) or not training else None
    params = {} if layer is None else layer.draw(np.random.default_rng(0), tuple(x.shape), x.numpy().dtype)
    return layer, lambda leaf: op(leaf, p=p, training=training), [x], params


BUILD = {
    "nn.functional.linear": linear,
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.batch_norm": batch_norm,
    "nn.functional.dropout": dropout,
    "flatten": flatten,
    "add": add,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", BUILD)
def test_operation_samples(name, dtype):
    torch.manual_seed(0)
    random.seed(0)
    compared = 0
    for sample in OPS[name].sample_inputs("cpu", dtype, requires_grad=False):
        layer, module, inputs, params = BUILD[name](OPS[name].op, sample.input, *sample.args, **sample.kwargs)
        if layer is None:
            continue
        numbers = [x.numpy().copy() for x in inputs]
        largest = max(abs(array).max(initial=1) for array in (*numbers, *params.values()))
        check_layer(layer, module, *numbers, params=params, scale=max(3, largest**2))
        compared += 1
    assert compared
