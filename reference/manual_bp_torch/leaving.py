"""Whether a program leaves torch: what it does with numbers elsewhere, no operation of torch tells."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

#: How numbers of a tensor are had as numbers of NumPy's or Python's.
WAYS = frozenset(
    [
        Tensor.numpy,
        Tensor.item,
        Tensor.tolist,
        Tensor.__array__,
        Tensor.__bool__,
        Tensor.__float__,
        Tensor.__int__,
        Tensor.__index__,
        Tensor.__dlpack__,
    ]
)


class Leaving(TorchFunctionMode):
    """While active, ``left`` becomes true as soon as numbers of a tensor are handed to NumPy or Python."""

    def __init__(self) -> None:
        super().__init__()
        self.left = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left |= func in WAYS
        return func(*args, **(kwargs or {}))
