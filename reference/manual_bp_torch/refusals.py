"""What cannot be a reference, or its loss; and whose fault it is when one of them raises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from manual_bp.errors import ManualBPError
from manual_bp_torch.failures import TheirError, _own_traceback
from manual_bp_torch.modules import HalfSquaredError


def prepared(module: nn.Module, dtype: torch.dtype, notes: list[str]) -> nn.Module:
    """A copy of a module that can be run again and again, in ``dtype``; what was changed for it is added to ``notes``.

    Raises
    ------
    ManualBPError
        It has no numbers yet, draws random ones, or cannot be copied.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            hint = "run the module once, or build it with its sizes"
            raise ManualBPError(f"{name!r} of the reference has no size yet, its module is lazy", hint=hint)
        if tensor.is_meta:
            raise ManualBPError(
                f"{name!r} of the reference is on device meta, where there are no numbers", hint="build it on the CPU"
            )
    for name, child in module.named_modules():
        if child.training and _drops(child):
            raise ManualBPError(
                f"module {name or 'reference'!r} is a {type(child).__name__} in training mode, whose random mask "
                "the candidate cannot share",
                hint="call .eval() on it, or build it without dropout",
            )
    try:
        own = copy.deepcopy(module)
    except Exception as error:
        raise ManualBPError(
            f"the reference cannot be copied: {_first_line(error)}",
            hint="keep no tensors with a graph in it (torch.nn.utils.parametrizations.weight_norm keeps none)",
        ) from error
    for name, child in own.named_modules():
        if getattr(child, "inplace", False):
            child.inplace = False
            notes.append(f"{name} works in place; it was run out of place, so that its input stays visible")
        if isinstance(child, nn.Embedding | nn.EmbeddingBag):
            child.sparse = False  # the same gradient, with its zeros
    return own.to(dtype)


def _drops(module: nn.Module) -> bool:
    """Whether it draws a mask when it trains."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, nn.MultiheadAttention | nn.RNNBase) and float(module.dropout) > 0


def usable_loss(loss: Any, dtype: torch.dtype) -> Any:
    """The loss, a module as a copy in ``dtype``.

    Raises
    ------
    ManualBPError
        It is a class, or cannot be called.
    """
    if isinstance(loss, type):
        raise ManualBPError(f"the loss is the class {loss.__name__}", hint=f"call it: {loss.__name__}()")
    if loss is not None and not callable(loss):
        raise ManualBPError(
            f"the loss is {loss!r}", hint="give a module such as nn.MSELoss(), or a function of (output, y)"
        )
    return copy.deepcopy(loss).to(dtype) if isinstance(loss, nn.Module) else loss


def takes_one(loss: Any) -> bool:
    """Whether it is a loss of one prediction: torch's own. A loss of the user's gets whatever the reference returns."""
    return isinstance(loss, nn.modules.loss._Loss | HalfSquaredError)


@contextmanager
def loss_fault(loss: Callable[..., Any], output: Any, y: Any) -> Iterator[None]:
    """What the loss raises is due to it, or to the target."""
    try:
        yield
    except ManualBPError:
        raise
    except Exception as error:
        if y is None:
            hint = "give y=..., its target"
        elif not isinstance(output, Tensor):
            hint = "it is given all that the reference returns"
        else:
            hint = "give y as the loss takes it"
        name = type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", "given")
        raise TheirError(
            f"the loss {name} raised {type(error).__name__} for the output {_told(output)} and y {_told(y)}: "
            f"{_first_line(error)}",
            hint=hint,
            traceback_text="" if takes_one(loss) else _own_traceback(error),
        ) from error


@contextmanager
def backward_fault() -> Iterator[None]:
    """What torch raises on the way back through the reference."""
    try:
        yield
    except ManualBPError:
        raise
    except Exception as error:
        raise TheirError(
            f"the backward pass of the reference raised {type(error).__name__}: {_first_line(error)}",
            hint="give a reference that torch can differentiate (a checkpoint with use_reentrant=False)",
            traceback_text="",
        ) from error


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_told, value))})"
    return "None" if value is None else f"of type {type(value).__name__}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
