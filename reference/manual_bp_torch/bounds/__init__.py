"""Certified per-element error bounds, one rule for each kind of step."""

from __future__ import annotations

from torch import nn

from manual_bp_torch.bounds._activation import Elementwise, Rectifier, SoftmaxRule, Softplus
from manual_bp_torch.bounds._convolution import Convolution
from manual_bp_torch.bounds._cross_entropy import Classes, CrossEntropyOfLogit, CrossEntropyOfProbability
from manual_bp_torch.bounds._curves import GELU, SIGMOID, SILU, TANH
from manual_bp_torch.bounds._linear import Affine, Exact, Masked, MeanPool, Sum, linear_counts
from manual_bp_torch.bounds._loss import Absolute, HuberRule, LossOperands, LossRule, Squared
from manual_bp_torch.bounds._model import (
    INFLATION,
    Alternative,
    Backward,
    Bound,
    Kinks,
    Operands,
    Precision,
    Rule,
)
from manual_bp_torch.bounds._norm import GroupedNormalisation, Normalisation
from manual_bp_torch.bounds._pooling import MaxPool
from manual_bp_torch.bounds._update import update_bound
from manual_bp_torch.modules import Add, GivenDropout, HalfSquaredError

__all__ = [
    "INFLATION",
    "Alternative",
    "Backward",
    "Bound",
    "Kinks",
    "LossOperands",
    "LossRule",
    "Operands",
    "Precision",
    "Rule",
    "loss_rule",
    "rule_for",
    "update_bound",
]

_CONVOLUTION, _LINEAR, _MAX, _MEAN = Convolution(), Affine(linear_counts), MaxPool(), MeanPool()

_RULES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    nn.Conv3d: _CONVOLUTION,
    nn.Linear: _LINEAR,
    nn.MaxPool1d: _MAX,
    nn.MaxPool2d: _MAX,
    nn.MaxPool3d: _MAX,
    nn.AvgPool1d: _MEAN,
    nn.AvgPool2d: _MEAN,
    nn.AvgPool3d: _MEAN,
    nn.Flatten: Exact(),
    nn.Identity: Exact(),
    Add: Sum(),
    GivenDropout: Masked(),
    nn.ReLU: Rectifier(),
    nn.LeakyReLU: Rectifier(),
    nn.Sigmoid: Elementwise(SIGMOID),
    nn.Tanh: Elementwise(TANH),
    nn.GELU: Elementwise(GELU),
    nn.SiLU: Elementwise(SILU),
    nn.Softplus: Softplus(),
    nn.Softmax: SoftmaxRule(log=False),
    nn.LogSoftmax: SoftmaxRule(log=True),
    nn.BatchNorm1d: Normalisation(),
    nn.BatchNorm2d: Normalisation(),
    nn.BatchNorm3d: Normalisation(),
    nn.LayerNorm: Normalisation(),
    nn.GroupNorm: GroupedNormalisation(),
    nn.InstanceNorm1d: GroupedNormalisation(),
    nn.InstanceNorm2d: GroupedNormalisation(),
    nn.InstanceNorm3d: GroupedNormalisation(),
}

_LOSSES: dict[type[nn.Module], LossRule] = {
    nn.MSELoss: Squared(),
    HalfSquaredError: Squared(0.5),
    nn.L1Loss: Absolute(),
    nn.HuberLoss: HuberRule(),
    nn.SmoothL1Loss: HuberRule(),
    nn.BCELoss: CrossEntropyOfProbability(),
    nn.BCEWithLogitsLoss: CrossEntropyOfLogit(),
    nn.CrossEntropyLoss: Classes(),
    nn.NLLLoss: Classes(),
}


def rule_for(module: nn.Module) -> Rule | None:
    """The certified rule of a module's type, exactly that type; None where there is none."""
    if getattr(module, "track_running_stats", False) and not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return None  # an InstanceNorm that keeps statistics
    return _RULES.get(type(module))


def loss_rule(module: nn.Module) -> LossRule | None:
    """The certified rule of a loss module; None where there is none."""
    return _LOSSES.get(type(module))
