"""The from-scratch engine: layers, losses and optimisers in NumPy alone, forward and backward side by side.

Class names, hyperparameters and their defaults are those of torch.nn and torch.optim. See `Layer`, `Loss` and
`Optimizer` for what each of them is.

A result has the dtype of its input, and every step is computed in it. Infinities and NaN pass as IEEE 754 has it and as
torch does, without warnings. A cache refers to the arrays it was made from, and Flatten, Identity, Add and Dropout in
evaluation hand arrays on as views or as they are: whoever changes an array in place copies it first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._layer import Array, Cache, Gradients, Layer, Loss, NNError, Optimizer, Params, State
from ._memory import keep_freed_memory

if TYPE_CHECKING:  # what type checkers and editors see; _HOME below is what runs, and a test holds the two together
    from ._activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
    from ._conv import Conv1d, Conv2d, Conv3d
    from ._dropout import Dropout
    from ._formulation_threads import set_threads
    from ._linear import Linear
    from ._loss import HalfSquaredError, HuberLoss, L1Loss, MSELoss, SmoothL1Loss
    from ._loss_binary import BCELoss, BCEWithLogitsLoss
    from ._loss_class import CrossEntropyLoss, NLLLoss
    from ._norm import BatchNorm1d, BatchNorm2d, LayerNorm
    from ._optim import SGD, Adam, AdamW
    from ._pool import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
    from ._shape import Add, Flatten, Identity
    from ._softmax import LogSoftmax, Softmax

keep_freed_memory()

#: What is imported when it is first used -> the module that it comes from. Few networks have layers of every kind.
_HOME = {
    "GELU": "_activation",
    "SGD": "_optim",
    "Adam": "_optim",
    "AdamW": "_optim",
    "Add": "_shape",
    "AvgPool1d": "_pool",
    "AvgPool2d": "_pool",
    "AvgPool3d": "_pool",
    "BCELoss": "_loss_binary",
    "BCEWithLogitsLoss": "_loss_binary",
    "BatchNorm1d": "_norm",
    "BatchNorm2d": "_norm",
    "Conv1d": "_conv",
    "Conv2d": "_conv",
    "Conv3d": "_conv",
    "CrossEntropyLoss": "_loss_class",
    "Dropout": "_dropout",
    "Flatten": "_shape",
    "HalfSquaredError": "_loss",
    "HuberLoss": "_loss",
    "Identity": "_shape",
    "L1Loss": "_loss",
    "LayerNorm": "_norm",
    "LeakyReLU": "_activation",
    "Linear": "_linear",
    "LogSoftmax": "_softmax",
    "MSELoss": "_loss",
    "MaxPool1d": "_pool",
    "MaxPool2d": "_pool",
    "MaxPool3d": "_pool",
    "NLLLoss": "_loss_class",
    "ReLU": "_activation",
    "SiLU": "_activation",
    "Sigmoid": "_activation",
    "SmoothL1Loss": "_loss",
    "Softmax": "_softmax",
    "Softplus": "_activation",
    "Tanh": "_activation",
    "set_threads": "_formulation_threads",
}

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "Add",
    "Array",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Cache",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Gradients",
    "HalfSquaredError",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "NLLLoss",
    "NNError",
    "Optimizer",
    "Params",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "State",
    "Tanh",
    "set_threads",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
