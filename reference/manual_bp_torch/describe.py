"""From torch back to descriptions: the layer that a module is, and the graph of a program as a diagnosis needs it.

The inverse of `manual_bp_torch.build`. A guess does no harm: a diagnosis uses a formula only where it gives torch's own
numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from manual_bp import nn as ours
from manual_bp.diagnose import Graph, Step
from manual_bp_torch.program import LOSS, Program, Segment, Structure

Shapes = Mapping[str, tuple[int, ...]]


def layer_for(module: nn.Module) -> ours.Layer | ours.Loss | None:
    """The layer or loss of the module's name with its hyperparameters; None if there is none of that name."""
    kind = getattr(ours, type(module).__name__, None)
    if not isinstance(kind, type) or not issubclass(kind, ours.Layer | ours.Loss):
        return None
    options = {f.name: _plain(f.name, getattr(module, f.name)) for f in fields(kind) if hasattr(module, f.name)}
    try:
        return kind(**options)
    except (TypeError, ValueError):
        return None  # an option that the layer here does not have


def _plain(name: str, value: Any) -> Any:
    if name == "bias":
        return value is not None and value is not False
    if isinstance(value, Tensor):
        return value.detach().cpu().double().tolist()
    return value


def graph_of(program: Program, structure: Structure, shapes: Shapes, reported: Collection[str]) -> Graph:
    """Steps, loss and what was reported, of one recorded pass.

    Parameters
    ----------
    shapes
        Of every quantity and parameter, by name.
    reported
        Names of what the candidate gave by itself.
    """
    steps = tuple(_step(program, structure, s, shapes) for name, s in structure.segments.items() if name != LOSS)
    loss = layer_for(program.loss) if isinstance(program.loss, nn.Module) else None
    if loss is None and LOSS in structure.segments:
        loss = _LOSSES.get(structure.segments[LOSS].ops)
    return Graph(
        steps=steps,
        loss_name=LOSS,
        loss=loss,
        output=structure.output or "",
        reported=frozenset(reported),
        loss_reads=tuple(dict.fromkeys(structure.segments[LOSS].reads)) if LOSS in structure.segments else (),
    )


def _step(program: Program, structure: Structure, segment: Segment, shapes: Shapes) -> Step:
    call = structure.calls.get(segment.name)
    # an input of whole numbers has no gradient, and so is not seen to be read
    read = [name for name in call[1] if name in segment.reads or name not in structure.inputs] if call else []
    if call is not None and program.module is not None and sorted(read) == sorted(segment.reads):
        module = program.module.get_submodule(call[0])
        local = (*(n for n, _ in module.named_parameters()), *(n for n, _ in module.named_buffers()))
        layer = layer_for(module)
        return Step(
            name=segment.name,
            layer=layer,
            inputs=call[1],
            params={n: f"{call[0]}.{n}".removeprefix(".") for n in local},
        )
    layer, params = _guess(segment, shapes)
    inputs = tuple(dict.fromkeys(segment.reads)) or structure.inputs[:1]
    return Step(name=segment.name, layer=layer, inputs=inputs, params=params)


_ACTIVATIONS: Mapping[tuple[str, ...], ours.Layer] = {
    ("Relu",): ours.ReLU(),
    ("Sigmoid",): ours.Sigmoid(),
    ("Tanh",): ours.Tanh(),
    ("Silu",): ours.SiLU(),
    ("Gelu",): ours.GELU(),
    ("Softplus",): ours.Softplus(),
    ("LeakyRelu",): ours.LeakyReLU(),
    ("Softmax",): ours.Softmax(-1),
    ("LogSoftmax",): ours.LogSoftmax(-1),
    ("View",): ours.Flatten(),
    ("ReshapeAlias",): ours.Flatten(),
    ("UnsafeView",): ours.Flatten(),
    ("MaxPool2DWithIndices",): ours.MaxPool2d(2),
    ("AvgPool2D",): ours.AvgPool2d(2),
}

_LOSSES: Mapping[tuple[str, ...], ours.Loss] = {
    ("MseLoss",): ours.MSELoss(),
    ("BinaryCrossEntropy",): ours.BCELoss(),
    ("BinaryCrossEntropyWithLogits",): ours.BCEWithLogitsLoss(),
    ("LogSoftmax", "NllLoss"): ours.CrossEntropyLoss(),
    ("NllLoss",): ours.NLLLoss(),
    ("L1Loss",): ours.L1Loss(),
    ("HuberLoss",): ours.HuberLoss(),
    ("SmoothL1Loss",): ours.SmoothL1Loss(),
}

_PRODUCTS = frozenset({"T", "Addmm", "Mm", "Add", "Transpose", "Permute", "Linear"})


def _guess(segment: Segment, shapes: Shapes) -> tuple[ours.Layer | None, dict[str, str]]:
    """The layer that a few operations of torch make up, and the local names of its parameters."""
    local = {("bias" if len(shapes.get(p, ())) == 1 else "weight"): p for p in segment.params}
    plain = {p.rpartition(".")[2]: p for p in segment.params}
    if len(local) != len(segment.params) or len(segment.reads) != 1:
        return (ours.Add() if segment.ops == ("Add",) and len(segment.reads) == 2 else None), plain
    if segment.ops in _ACTIVATIONS and not local:
        return _ACTIVATIONS[segment.ops], plain
    weight = shapes.get(local.get("weight", ""), ())
    if len(weight) == 2 and {"Addmm", "Mm", "Linear"} & set(segment.ops) and set(segment.ops) <= _PRODUCTS:
        return ours.Linear(weight[1], weight[0], bias="bias" in local), local
    if len(weight) in (3, 4, 5) and segment.ops == ("Convolution",):
        return _convolution(weight, shapes[segment.reads[0]], shapes[segment.name], "bias" in local), local
    return None, plain


def _convolution(weight: tuple[int, ...], x: tuple[int, ...], y: tuple[int, ...], bias: bool) -> ours.Layer | None:
    """A convolution of those shapes with the smallest stride that fits."""
    axes = len(weight) - 2
    kind = (ours.Conv1d, ours.Conv2d, ours.Conv3d)[axes - 1]
    if len(x) != axes + 2 or x[1] % weight[1]:
        return None
    for stride in (1, 2, 3, 4):
        total = [(p - 1) * stride + k - n for p, k, n in zip(y[2:], weight[2:], x[2:], strict=True)]
        padding = [max(-(-t // 2), 0) for t in total]
        groups = x[1] // weight[1]
        try:
            layer = kind(x[1], weight[0], weight[2:], stride=stride, padding=tuple(padding), groups=groups, bias=bias)
            if layer.window.outputs(x[2:]) == y[2:]:
                return layer
        except ValueError:
            continue
    return None
