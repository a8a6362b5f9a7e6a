"""What torch's own databases of errors say it refuses, the engine refuses, in words of its own.

The databases are internal to torch and need the package ``expecttest``; without it these tests are skipped.
"""

from __future__ import annotations

import random

import pytest
import torch

from manual_bp import nn

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
modules = pytest.importorskip("torch.testing._internal.common_modules", reason="internal to torch")
methods = pytest.importorskip("torch.testing._internal.common_methods_invocations", reason="internal to torch")

CONVOLUTIONS = {f"nn.functional.conv{axes}d": axes for axes in (1, 2, 3)}
CLASSES = {
    **{f"nn.functional.{kind}_pool{n}d": f"{kind.title()}Pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)},
    "nn.functional.gelu": "GELU",
    "nn.functional.l1_loss": "L1Loss",
    "nn.functional.huber_loss": "HuberLoss",
}
OPS = {i.name: i for i in methods.op_db if i.name in {**CONVOLUTIONS, **CLASSES} and i.error_inputs_func}
#: but NLLLoss, whose only entry has class weights of another dtype: here they are numbers and take the prediction's
MODULES = {
    info.module_cls.__name__: info
    for info in modules.module_db
    if hasattr(nn, info.module_cls.__name__)
    and info.module_error_inputs_func
    and info.module_cls is not torch.nn.NLLLoss
}


def convolve(axes, x, weight, bias=None, groups=1, **fields):
    """As torch's function does: the layer's channels and kernel follow from the weight."""
    channels = weight.shape[1] * groups if weight.ndim > 1 else 1
    cls = getattr(nn, f"Conv{axes}d")
    layer = cls(channels, len(weight), tuple(weight.shape[2:]), groups=groups, bias=bias is not None, **fields)
    params = {"weight": weight} | ({} if bias is None else {"bias": bias})
    layer.forward({name: value.detach().numpy() for name, value in params.items()}, x.detach().numpy())


def apply(cls, built, given):
    """Build a description and run it forward: that raises NNError, or the test fails."""
    description = cls(*built.args, **built.kwargs)
    inputs = [x.detach().numpy() for x in given.args]
    description.forward(*(inputs if isinstance(description, nn.Loss) else ({}, *inputs)))


def refuse(name, sample):
    if name in CONVOLUTIONS:
        convolve(CONVOLUTIONS[name], sample.input, *sample.args, **sample.kwargs)
    else:
        hyperparameters, inputs = modules.FunctionInput(**sample.kwargs), (sample.input, *sample.args)
        apply(getattr(nn, CLASSES[name]), hyperparameters, modules.FunctionInput(*inputs))


@pytest.mark.parametrize("name", sorted(OPS))
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_operations_refuse_what_torch_refuses(name):
    torch.manual_seed(0)
    random.seed(0)
    refused = 0
    for error in OPS[name].error_inputs("cpu"):
        sample = error.sample_input
        with pytest.raises(error.error_type):
            OPS[name].op(sample.input, *sample.args, **sample.kwargs)
        sample.kwargs.pop("return_indices", None)  # the engine refuses this alone; the rest of the sample is wrong too
        with pytest.raises(nn.NNError, match=rf"^{'Conv' if name in CONVOLUTIONS else CLASSES[name]}"):
            refuse(name, sample)
        refused += 1
    assert refused


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_refuse_what_torch_refuses(name, training):
    torch.manual_seed(0)
    info = MODULES[name]
    refused = 0
    for error in info.module_error_inputs_func(info, "cpu", torch.float64, False, training):
        built, given = error.module_error_input.constructor_input, error.module_error_input.forward_input
        with pytest.raises(nn.NNError, match=f"^{name}"):
            apply(getattr(nn, name), built, given)
        refused += 1
    assert refused
