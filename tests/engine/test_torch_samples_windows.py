"""torch's own sample inputs for convolution and pooling as functions (its OpInfo database), run through the engine.

They are internal to torch and need the package ``expecttest``; without it these tests are skipped. The
modules' samples run in ``test_torch_samples``.
"""

from __future__ import annotations

import random

import pytest
import torch

from manual_bp import nn
from tests.engine.parity import check_layer

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
methods = pytest.importorskip("torch.testing._internal.common_methods_invocations", reason="internal to torch")

OPS = {info.name: info for info in methods.op_db}
#: of the many samples of max pooling (all combinations of all hyperparameters) one in so many is taken
EVERY = {"max_pool": 7}


def convolution(op, axes, x, weight, *args, **kwargs):
    """The layer, and torch's operation as a module with the sample's parameters."""
    bias = args[0] if args else kwargs.pop("bias", None)
    fields = {**dict(zip(("stride", "padding", "dilation", "groups"), args[1:], strict=False)), **kwargs}
    channels = weight.shape[1] * fields.get("groups", 1)
    layer = getattr(nn, f"Conv{axes}d")(channels, len(weight), tuple(weight.shape[2:]), bias=bias is not None, **fields)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight)
            self.bias = None if bias is None else torch.nn.Parameter(bias)

        def forward(self, leaf):
            return op(leaf, self.weight, self.bias, **fields)

    params = {"weight": weight.numpy()} | ({} if bias is None else {"bias": bias.numpy()})
    return layer, Module(), params


def pooling(kind):
    def build(op, axes, x, *args, **kwargs):
        if kwargs.pop("return_indices", False):
            return None  # two outputs: the engine refuses it
        return getattr(nn, f"{kind}Pool{axes}d")(*args, **kwargs), lambda leaf: op(leaf, *args, **kwargs), {}

    return build


BUILD = {"conv": convolution, "max_pool": pooling("Max"), "avg_pool": pooling("Avg")}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_operation_samples(kind, axes, dtype):
    torch.manual_seed(0)
    random.seed(0)
    info = OPS[f"nn.functional.{kind}{axes}d"]
    compared = 0
    for i, sample in enumerate(info.sample_inputs("cpu", dtype, requires_grad=False)):
        if i % EVERY.get(kind, 1):
            continue
        built = BUILD[kind](info.op, axes, sample.input, *sample.args, **sample.kwargs)
        if built is None:
            continue
        layer, module, params = built
        numbers = [abs(array).max(initial=1) for array in (sample.input.numpy(), *params.values())]
        check_layer(
            layer,
            module,
            sample.input.numpy().copy(),
            params=params,
            scale=max(3, max(numbers) ** (2 if params else 1)),
        )
        compared += 1
    assert compared
