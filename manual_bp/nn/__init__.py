"""The from-scratch engine: layers, losses and optimisers in NumPy alone, forward and backward side by side.

Class names, hyperparameters and their defaults are those of torch.nn and torch.optim. See `Layer`, `Loss` and
`Optimizer` for what each of them is.

A result has the dtype of its input, and every step is computed in it. Infinities and NaN pass as IEEE 754 has it and as
torch does, without warnings. A cache refers to the arrays it was made from, and Flatten, Identity, Add and Dropout in
evaluation hand arrays on as views or as they are: whoever changes an array in place copies it first.
"""

from __future__ import annotations

from ._activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from ._conv import Conv1d, Conv2d, Conv3d
from ._dropout import Dropout
from ._formulation_threads import set_threads
from ._layer import Array, Cache, Gradients, Layer, Loss, NNError, Optimizer, Params, State
from ._linear import Linear
from ._loss import HalfSquaredError, HuberLoss, L1Loss, MSELoss, SmoothL1Loss
from ._loss_binary import BCELoss, BCEWithLogitsLoss
from ._loss_class import CrossEntropyLoss, NLLLoss
from ._memory import keep_freed_memory
from ._norm import BatchNorm1d, BatchNorm2d, LayerNorm
from ._optim import SGD, Adam, AdamW
from ._pool import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from ._shape import Add, Flatten, Identity
from ._softmax import LogSoftmax, Softmax

keep_freed_memory()

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
