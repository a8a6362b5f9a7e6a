"""Identical weights on both sides: strict loading, in both directions, checked bit by bit afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manual_bp.errors import ManualBPError
from manual_bp.trace import Array, bit_identical


def to_torch(array: Array) -> Tensor:
    """A tensor of its own memory with the bits of an array of any strides (0-d and empty arrays included)."""
    return torch.from_numpy(np.array(array, order="C", copy=True))


def to_numpy(tensor: Tensor) -> Array:
    """A contiguous array of its own memory with the bits of a tensor, wherever the tensor is."""
    out: Array = np.array(tensor.detach().cpu().resolve_conj().resolve_neg().numpy(), order="C", copy=True)
    return out


def shared(array: Array) -> Tensor:
    """A tensor with the bits of an array, in the array's own memory if that can be; not to be written into."""
    return torch.from_numpy(array) if array.flags.c_contiguous and array.flags.writeable else to_torch(array)


def load(module: nn.Module, params: Mapping[str, Array]) -> None:
    """Load NumPy parameters and buffers into a module.

    Raises
    ------
    ManualBPError
        If a name is missing or unknown, a shape or dtype differs, or the bits differ after loading.
    """
    own = module.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in params and name not in optional]
    unknown = [name for name in params if name not in own]
    if missing or unknown:
        what = f"has no {missing[0]!r}" if missing else f"has {unknown[0]!r}, which the reference does not know"
        raise ManualBPError(f"the set of weights {what}", hint=f"give exactly: {', '.join(own) or 'nothing'}")
    for name, array in params.items():
        expected = own[name]
        if tuple(array.shape) != tuple(expected.shape):
            raise ManualBPError(
                f"weight {name!r} has shape {tuple(array.shape)}, the reference's has {tuple(expected.shape)}",
                hint="give it in torch's layout",
            )
        if str(array.dtype) != str(expected.dtype).removeprefix("torch."):
            raise ManualBPError(
                f"weight {name!r} is {array.dtype}, the reference's is {str(expected.dtype).removeprefix('torch.')}",
                hint="convert it, or choose the other --dtype",
            )
    module.load_state_dict({name: shared(a) for name, a in params.items()}, strict=not optional)
    check_identical(module, params)


def check_identical(module: nn.Module, params: Mapping[str, Array]) -> None:
    """Both sides hold the same bits, or it is an error."""
    own: Mapping[str, Any] = module.state_dict()
    for name, array in params.items():
        tensor = own[name].detach()
        if not bit_identical(tensor.numpy() if tensor.device.type == "cpu" else to_numpy(tensor), array):
            raise ManualBPError(f"weight {name!r} differs between both sides after loading")


def from_torch(module: nn.Module) -> dict[str, Array]:
    """A module's parameters and buffers as NumPy arrays, by torch's names; checked to be bit-identical."""
    params = {name: to_numpy(tensor) for name, tensor in module.state_dict().items()}
    check_identical(module, params)
    return params
