"""Functions of torch that choose among their numbers: which they choose from, and where several are equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from manual_bp_torch.bounds._linear import as_tuple
from manual_bp_torch.bounds._pooling import gather, window_indices


@dataclass(frozen=True)
class Seen:
    """What a call chose from.

    Attributes
    ----------
    candidates
        ``(*outputs, k)``: for each output the numbers that it is one of, with their gradients.
    own
        Of the same shape, the share that torch gives to each.
    tied
        Whether it is equal to the output, and another one is, too.
    returned
        What the call returns when that much is added to its outputs.
    outputs
        Its outputs in ``candidates``' order, from its values.
    groups
        Of ``candidates``' shape where the numbers are shared out among the outputs (a sort): which number it is. At
        most one output has it, exactly one where ``exact``.
    """

    candidates: Tensor
    own: Tensor
    tied: Tensor
    returned: Callable[[Tensor], Any]
    outputs: Callable[[Tensor], Tensor]
    groups: Tensor | None = None
    exact: bool = False

    def rows(self) -> Tensor:
        """Which output each share is one of."""
        return torch.arange(math.prod(self.tied.shape[:-1])).reshape(*self.tied.shape[:-1], 1)


#: A sort chooses each output from all numbers of its row, a pooling from its window: of more pairs than that, samples
#: must do.
_PAIRS = 1 << 22

#: From the function, what it returned, its tensor, its further arguments: what it chose from, None if not known.
Selection = Callable[[Any, Any, Tensor, Sequence[Any], Mapping[str, Any]], Seen | None]


def _ties(candidates: Tensor, values: Tensor) -> Tensor:
    tied = candidates.detach() == values.detach().unsqueeze(-1)
    return tied & (tied.sum(-1, keepdim=True) > 1)


def _of_dims(func: Any, out: Any, z: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Seen | None:
    """The maximum, minimum or median over some dimensions, or over all."""
    named = {**dict(zip(("dim",), args, strict=False)), **kwargs}
    dim = named.get("dim")
    dims = [dim] if isinstance(dim, int) else list(dim or range(z.dim()))
    return _reduced(func, out, z, args, kwargs, dims)


def _kth(func: Any, out: Any, z: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Seen | None:
    named = {**dict(zip(("k", "dim"), args, strict=False)), **kwargs}
    return _reduced(func, out, z, args, kwargs, [named.get("dim", -1)])


def _reduced(
    func: Any, out: Any, z: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], dims: list[int]
) -> Seen | None:
    dims = sorted(d % z.dim() for d in dims) if z.dim() else []
    rest = [d for d in range(z.dim()) if d not in dims]
    values = out if isinstance(out, Tensor) else out[0]

    def rows(a: Tensor) -> Tensor:
        return a.permute(*rest, *dims).reshape(*(a.shape[d] for d in rest), -1)

    leaf = z.detach().clone().requires_grad_()
    again = func(leaf, *args, **kwargs)
    (own,) = torch.autograd.grad((again if isinstance(again, Tensor) else again[0]).sum(), leaf)
    flat = values.reshape([z.shape[d] for d in rest])

    def returned(added: Tensor) -> Any:
        new = values + added.reshape(values.shape)
        return new if isinstance(out, Tensor) else type(out)((new, *out[1:]))

    return Seen(rows(z), rows(own), _ties(rows(z), flat), returned, lambda a: a.reshape(flat.shape))


def _ordered(func: Any, out: Any, z: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Seen | None:
    """sort and topk: each output is one of the row, and no two the same."""
    order = ("k", "dim") if func.__name__ == "topk" else ("dim",)
    dim = {**dict(zip(order, args, strict=False)), **kwargs}.get("dim", -1)
    if not isinstance(dim, int):
        return None
    values, indices = (part.movedim(dim, -1) for part in out)
    if values.numel() * z.shape[dim] > _PAIRS:
        return None
    row = z.movedim(dim, -1).unsqueeze(-2)  # (..., 1, n)
    candidates = row.expand(*values.shape, row.shape[-1])  # (..., k, n)
    own = functional.one_hot(indices, row.shape[-1]).to(z.dtype)
    place = torch.arange(row.numel()).reshape(row.shape).expand(candidates.shape)

    def returned(added: Tensor) -> Any:
        return type(out)((out[0] + added.movedim(-1, dim), *out[1:]))

    exact = values.shape[-1] == row.shape[-1]
    return Seen(candidates, own, _ties(candidates, values), returned, lambda a: a.movedim(dim, -1), place, exact)


def _pooled(func: Any, out: Any, z: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Seen | None:
    """Maximum pooling, the windows laid out."""
    order = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    named = {name: value for name, value in {**dict(zip(order, args, strict=False)), **kwargs}.items() if name in order}
    named["stride"] = named.get("stride") or None
    n = int(func.__name__.strip("_")[8])
    pool = getattr(nn, f"MaxPool{n}d")(**named, return_indices=True)
    values = out if isinstance(out, Tensor) else out[0]
    if values.numel() * math.prod(as_tuple(pool.kernel_size, n)) > _PAIRS:
        return None
    index, inside = window_indices(pool, z.shape, values.shape)
    _, winner = pool(z.detach())
    candidates = gather(z, index, inside, values, -math.inf).reshape(*values.shape, -1)
    own = ((winner.reshape(-1, len(index), 1) == index) & inside).to(z.dtype).reshape(candidates.shape)
    tied = _ties(candidates, values) & torch.isfinite(candidates.detach())

    def returned(added: Tensor) -> Any:
        new = values + added
        return new if isinstance(out, Tensor) else (new, *out[1:])

    return Seen(candidates, own, tied, returned, lambda a: a)


#: By the function's name.
SELECTIONS: dict[str, Selection] = {
    **dict.fromkeys(("max", "min", "amax", "amin", "median"), _of_dims),
    "kthvalue": _kth,
    **dict.fromkeys(("sort", "topk"), _ordered),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _pooled),
}
