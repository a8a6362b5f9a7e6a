"""torch's own sample inputs, made to test torch, run through the engine: its ModuleInfo and OpInfo databases.

They are internal to torch and need the package ``expecttest``; without it these tests are skipped.
"""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch

from manual_bp import nn
from tests.engine.parity import check_layer, check_loss

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
modules = pytest.importorskip("torch.testing._internal.common_modules", reason="internal to torch")
methods = pytest.importorskip("torch.testing._internal.common_methods_invocations", reason="internal to torch")

MODULES = {
    info.module_cls.__name__: info
    for info in modules.module_db
    if issubclass(getattr(nn, info.module_cls.__name__, object), nn.Layer | nn.Loss)
}
DTYPES = (torch.float64, torch.float32)


@pytest.fixture(autouse=True)
def same_samples_every_time():
    torch.manual_seed(0)
    random.seed(0)


def ours(module):
    """The engine's description of a torch module: every field by the module's attribute of that name."""
    cls = getattr(nn, type(module).__name__)
    return cls(**{field.name: value_of(module, field.name) for field in dataclasses.fields(cls)})


def value_of(module, name):
    value = getattr(module, name)
    if name == "bias":
        return value is not None
    return value.numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_samples(name, training, dtype):
    info = MODULES[name]
    compared = 0
    for sample in info.module_inputs_func(info, "cpu", dtype, False, training):
        module = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs)
        if getattr(module, "return_indices", False):
            continue  # two outputs: the engine refuses it
        module = module.to(dtype).train(training)
        inputs = (*sample.forward_input.args, *sample.forward_input.kwargs.values())
        params = {key: value.detach().numpy().copy() for key, value in module.state_dict().items()}
        compare(ours(module), module, *inputs, params=params)
        compared += 1
    assert compared


def compare(description, module, *inputs, params=None):
    """Tolerances relative to the largest input or upstream number: many samples saturate, so that results cancel."""
    arrays = [np.array(x.detach().numpy()) for x in inputs]
    scale = max(abs(array).max(initial=3) for array in arrays if array.dtype.kind == "f")
    if isinstance(description, nn.Loss):
        check_loss(description, module, *arrays, scale=scale)
    else:
        check_layer(description, module, *arrays, params=params, scale=scale)


def elementwise(cls, *fields):
    """An operation of one input; the sample's other arguments are the layer's fields."""

    def build(op, x, *args, **kwargs):
        kwargs.pop("inplace", None)
        return cls(*args, **kwargs), lambda leaf: op(leaf, *args, **kwargs), x

    return build


def along(cls):
    """Softmax and its logarithm."""
    return lambda op, x, dim: (cls(dim), lambda leaf: op(leaf, dim), x)


def loss(cls):
    """A loss: input, target, and hyperparameters by name."""

    def build(op, x, target, *args, **kwargs):
        fields = {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in kwargs.items()}
        classes = issubclass(cls, nn.NLLLoss | nn.CrossEntropyLoss)
        if x.shape != target.shape and not classes:
            return None  # torch broadcasts the target, and warns; the engine refuses it
        return cls(**fields), lambda leaf, t: op(leaf, t, *args, **kwargs), x, target

    return build


OPERATIONS = {
    "nn.functional.relu": elementwise(nn.ReLU),
    "nn.functional.leaky_relu": elementwise(nn.LeakyReLU),
    "nn.functional.silu": elementwise(nn.SiLU),
    "nn.functional.softplus": elementwise(nn.Softplus),
    "nn.functional.gelu": elementwise(nn.GELU),
    "sigmoid": elementwise(nn.Sigmoid),
    "tanh": elementwise(nn.Tanh),
    "softmax": along(nn.Softmax),
    "log_softmax": along(nn.LogSoftmax),
    "nn.functional.mse_loss": loss(nn.MSELoss),
    "nn.functional.l1_loss": loss(nn.L1Loss),
    "nn.functional.huber_loss": loss(nn.HuberLoss),
    "nn.functional.smooth_l1_loss": loss(nn.SmoothL1Loss),
    "nn.functional.binary_cross_entropy": loss(nn.BCELoss),
    "nn.functional.binary_cross_entropy_with_logits": loss(nn.BCEWithLogitsLoss),
    "nn.functional.nll_loss": loss(nn.NLLLoss),
    "nn.functional.cross_entropy": loss(nn.CrossEntropyLoss),
}
OPS = {
    info.name: info
    for info in methods.op_db
    if info.name in OPERATIONS and info.variant_test_name != "with_dtype"  # a cast on the way: another operation
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operation_samples(name, dtype):
    info = OPS[name]
    compared = 0
    for sample in info.sample_inputs("cpu", dtype, requires_grad=False):
        built = OPERATIONS[name](info.op, sample.input, *sample.args, **sample.kwargs)
        if built is None:
            continue
        description, op, *inputs = built
        compare(description, op, *inputs)
        compared += 1
    assert compared
