"""What `manual_bp.verify_layer` asks of the module that a layer should equal."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from manual_bp.errors import ManualBPError
from manual_bp.trace import Array
from manual_bp_torch.modules import HalfSquaredError


def checked(reference: Any) -> nn.Module:
    """The module itself, a copy.

    Raises
    ------
    ManualBPError
        If it is none.
    """
    if not isinstance(reference, nn.Module):
        what = "a class" if isinstance(reference, type) else f"a {type(reference).__name__}"
        raise ManualBPError(
            f"the reference of a layer is {what}", hint="give a torch.nn module, such as nn.Conv2d(3, 8, 3)"
        )
    return copy.deepcopy(reference)


def of_one(function: Any) -> nn.Module | None:
    """A function of an input alone as a module; None if it needs more, or is none.

    Of torch's own functions written in C nobody can tell what they need.
    """
    try:
        wanted = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return None
    return _Function(function) if len(wanted) == 1 else None


class _Function(nn.Module):
    """A function of one tensor."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Any:
        return self._function(x)

    def extra_repr(self) -> str:
        return getattr(self._function, "__name__", "")


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the parameters, by name; and of the running statistics, where the module normalises by them."""
    found = {name: tuple(p.shape) for name, p in module.named_parameters()}
    return found | {
        f"{prefix}.{name}".lstrip("."): tuple(b.shape)
        for prefix, child in module.named_modules()
        if not child.training
        for name, b in child.named_buffers(recurse=False)
        if name in ("running_mean", "running_var")
    }


def parameters(module: nn.Module) -> dict[str, Array]:
    """Parameters and running statistics in float64, by name."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: state[name].detach().double().numpy().copy() for name in shapes(module)}


def frozen(module: nn.Module) -> frozenset[str]:
    """Names of what is not to be redrawn: frozen parameters, running statistics."""
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    return frozenset(shapes(module)) - trained


def without(module: nn.Module, absent: Collection[str]) -> nn.Module:
    """The module with these parameters zero and frozen: the layer has none such."""
    if not absent:
        return module
    changed = copy.deepcopy(module)
    for name, parameter in changed.named_parameters():
        if name in absent:
            parameter.requires_grad_(False)
            parameter.zero_()
    return changed


def selections(module: nn.Module) -> Iterator[nn.Module]:
    """The module; and of a recurrent one, which returns a tuple, what a layer may return: all outputs, or the last."""
    if not isinstance(module, nn.RNNBase):
        yield module
        return
    axis = 1 if module.batch_first else 0
    yield _hooked(module, lambda out: out[0])
    yield _hooked(module, lambda out: out[0].select(axis if out[0].dim() == 3 else 0, -1))


def _hooked(module: nn.Module, select: Any) -> nn.Module:
    changed = copy.deepcopy(module)
    changed.register_forward_hook(lambda _module, _inputs, output: select(output))
    return changed


def forward(module: nn.Module, params: Mapping[str, Array], x: Array | tuple[Array, ...]) -> Array:
    """The module's output in float64, of one input or of several.

    Raises
    ------
    ManualBPError
        If the module cannot work with that input; in torch's words.
    """
    wide = copy.deepcopy(module).double()
    state = {name: torch.from_numpy(np.array(a, np.float64)) for name, a in params.items()}
    parts = x if isinstance(x, tuple) else (x,)
    data = tuple(torch.from_numpy(np.array(p, dtype=np.float64 if p.dtype.kind == "f" else np.int64)) for p in parts)
    try:
        with torch.no_grad():
            out = functional_call(wide, state, data)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise ManualBPError(
            f"the reference cannot work with {'inputs' if len(parts) > 1 else 'an input'} of shape "
            f"{', '.join(str(p.shape) for p in parts)}: {said[0] if said else type(error).__name__}",
            hint="give x as the layer takes it, and a reference of the same sizes",
        ) from error
    if isinstance(out, (tuple, list)):
        out = next(part for part in out if isinstance(part, Tensor))
    found: Array = out.numpy()
    return found


def is_module(value: object) -> bool:
    """Whether it is a torch.nn module, or the class of one."""
    return isinstance(value, nn.Module) or (isinstance(value, type) and issubclass(value, nn.Module))


def is_loss(module: object) -> bool:
    """Whether it takes a target besides its input."""
    return isinstance(module, nn.modules.loss._Loss | HalfSquaredError)


def loss_value(module: Any, x: Array, y: Array) -> Array:
    """The loss in float64.

    Raises
    ------
    ManualBPError
        If it cannot work with these shapes; in torch's words.
    """
    target = torch.from_numpy(np.array(y, dtype=np.float64 if y.dtype.kind == "f" else np.int64))
    try:
        with torch.no_grad():
            wide = copy.deepcopy(module).double() if isinstance(module, nn.Module) else module
            out = wide(torch.from_numpy(np.array(x, dtype=np.float64)), target)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        name = getattr(module, "__name__", type(module).__name__)
        raise ManualBPError(
            f"the reference {name} cannot work with x {x.shape} and y {y.shape}: {str(error).splitlines()[0]}",
            hint="give the target as torch's loss wants it; the layer's own form is found from it",
        ) from error
    found: Array = out.numpy()
    return found


def fitting_target(reference: object, x: Array, y: Array) -> Array:
    """The target as torch wants it: as many numbers as the prediction has in the prediction's shape, and as numbers.

    Raises
    ------
    ManualBPError
        If it does not fit; torch would broadcast it.
    """
    others = nn.CrossEntropyLoss | nn.NLLLoss | nn.CosineEmbeddingLoss | nn.MultiMarginLoss | nn.MultiLabelMarginLoss
    elementwise = is_loss(reference) and not isinstance(reference, others)
    if not elementwise:
        return y
    if y.size != x.size:
        raise ManualBPError(
            f"the target has shape {y.shape}, the prediction {x.shape}", hint="give one target a prediction"
        )
    return y.reshape(x.shape) if y.dtype.kind == "f" else y.reshape(x.shape).astype(x.dtype)


def log_loss(loss: object) -> tuple[str, str] | None:
    """Kind and reduction of a loss made of logarithms, see `manual_bp.guards`; None for any other or a weighted one."""
    kinds = ((nn.CrossEntropyLoss, "softmax"), (nn.BCEWithLogitsLoss, "sigmoid"), (nn.BCELoss, "probability"))
    kind = next((word for known, word in kinds if type(loss) is known), None)
    own: Any = loss
    if kind is None or own.weight is not None or own.reduction == "none":
        return None
    changed = getattr(own, "pos_weight", None) is not None or getattr(own, "label_smoothing", 0.0) > 0
    return None if changed else (kind, str(own.reduction))


def log_losses_of(operations: tuple[str, ...]) -> tuple[str, ...]:
    """Kinds that a loss of logarithms that is no module may be of, by torch's operations in it.

    Whether it is one shows in its numbers; see `manual_bp.guards`.
    """
    known = {
        ("LogSoftmax", "NllLoss"): "softmax",
        ("BinaryCrossEntropyWithLogits",): "sigmoid",
        ("Sigmoid", "BinaryCrossEntropy"): "sigmoid",
        ("BinaryCrossEntropy",): "probability",
    }
    if operations in known:
        return (known[operations],)
    used = {name.partition("Backward")[0] for name in operations}  # Sum is also known as SumBackward1
    if "Log" not in used or used - _IN_WRITTEN_LOSSES:
        return ()
    return ("softmax",) if "Softmax" in used else ("sigmoid",) if "Sigmoid" in used else ("probability", "classes")


#: Of torch's operations, what losses of logarithms are written with.
_IN_WRITTEN_LOSSES = frozenset(
    ["Log", "Softmax", "Sigmoid", "Neg", "Mul", "Div", "Add", "Sub", "Rsub", "Sum", "Mean", "Index", "Gather"]
)


def takes_classes(module: object) -> bool:
    """Whether its target may be class indices."""
    return isinstance(module, nn.CrossEntropyLoss | nn.NLLLoss)


def channels(module: nn.Module) -> int | None:
    """Number of input channels, of modules that have them."""
    found = getattr(module, "in_channels", None) or getattr(module, "num_features", None)
    return found if isinstance(found, int) else None


def settings(module: nn.Module) -> dict[str, Any]:
    """Stride, padding, epsilon and the like under the names that from-scratch functions have for them.

    Those of the only child that has any, if the module is made of others.
    """
    leaf = next((m for m in module.modules() if hasattr(m, "stride") or hasattr(m, "eps") or hasattr(m, "p")), module)
    found: dict[str, Any] = {"mode": "train" if module.training else "test", "training": module.training}
    for name, others in _SETTINGS.items():
        value = getattr(leaf, name, None)
        if isinstance(value, tuple) and value and all(v == value[0] for v in value):
            value = value[0]
        if value is not None:
            found |= dict.fromkeys((name, *others), value)
    size = getattr(leaf, "kernel_size", None)
    if size is not None:
        height, width = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
        found |= {"pool_height": height, "pool_width": width, "kernel_height": height, "kernel_width": width}
    return found


_SETTINGS = {
    "stride": ("s", "strides"),
    "padding": ("pad", "pads"),
    "kernel_size": ("f", "filter_size", "pool_size"),
    "eps": ("epsilon",),
    "momentum": (),
    "p": ("drop_prob",),
    "negative_slope": ("alpha",),
}


def split_sequence(module: nn.Module) -> tuple[list[tuple[str, nn.Module]], nn.Module | None]:
    """The named children of an nn.Sequential, a loss at its end apart.

    A module that stands twice is there twice.

    Raises
    ------
    ManualBPError
        If it is no nn.Sequential.
    """
    if not isinstance(module, nn.Sequential):
        raise ManualBPError(
            f"the reference of a list of layers is a {type(module).__name__}",
            hint="give an nn.Sequential with one module a layer",
        )
    children = [(name, module.get_submodule(name)) for name in module._modules]  # named_children() gives each once
    last = children[-1][1] if children else None
    if last is not None and is_loss(last):
        return children[:-1], last
    return children, None


def twin(module: nn.Module) -> nn.Module:
    """Another module with the very same parameters, so that each place where a module stands has a name of its own."""
    return copy.deepcopy(module, {id(p): p for p in module.parameters()})


def sequence(children: list[tuple[str, nn.Module]]) -> nn.Module:
    """Named modules one after another."""
    chain = nn.Sequential()
    for name, child in children:
        chain.add_module(name, child)
    return chain
