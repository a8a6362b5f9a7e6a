"""Calibrated tolerances for what has no certified rule: stochastic arithmetic.

The program is run again in float64, several times, and the result of every single operation is multiplied, element by
element, by 1 + s u with random signs s, u being the unit roundoff of the dtype under judgement (the CESTAC method,
Vignes 1993). How far the results move is how far rounding moves them, cancellation inside the segment included. Where
terms cancel inside a single operation, its result shows nothing of it: so an operation that is made of others (gelu, a
norm) is taken apart first, and the terms of a sum or a matrix product are perturbed as well. A reduction over n terms
may be off by n roundings rather than by one, so the spread is multiplied by 16 + n, n the longest reduction that the
pass contains.

Where a function has no derivative (ReLU at 0, equal maxima) rounding shows nothing, since the operands are exact, and
yet two right implementations may differ. So exact zeros and equal elements of what goes into a segment are moved by
next to nothing, to one side in one sample and to the other in the next: samples come in pairs of opposite signs.

This estimates; it does not prove. Checks that rest on it say "calibrated".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

#: How many perturbed passes there are, in pairs of opposite signs; the spread is the largest deviation among them.
SAMPLES = 6

#: What moves an operand off a kink.
Nudge = Callable[[Any], Any]

#: Views and copies: they do not round.
_EXACT = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "permute",
        "transpose",
        "t",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "alias",
        "detach",
        "clone",
        "copy_",
        "as_strided",
        "unfold",
        "split",
        "chunk",
        "cat",
        "stack",
        "index",
        "gather",
        "scatter",
        "relu",
        "threshold",
        "threshold_backward",
        "where",
        "max_pool2d_with_indices",
        "max_pool2d_with_indices_backward",
        "neg",
        "ones_like",
        "zeros_like",
        "empty_like",
        "zeros",
        "ones",
        "new_zeros",
        "fill_",
        "eq",
        "gt",
        "lt",
        "ge",
        "le",
        "ne",
        "_to_copy",
        "lift_fresh",
        "embedding",
        "constant_pad_nd",
        "flip",
        "roll",
        "masked_fill",
        "sign",
        "abs",
        "max",
        "min",
        "amax",
        "amin",
        "maximum",
        "minimum",
    ]
)


#: Sums, plain or of products: their terms round as well, and may cancel.
_SUMS = frozenset(
    ["mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "convolution", "convolution_backward", "sum", "mean"]
    + ["var", "var_mean", "std", "cumsum", "linalg_vector_norm", "norm", "_cdist_forward", "_cdist_backward"]
    + [f"_scaled_dot_product_flash_attention_for_cpu{end}" for end in ("", "_backward")]
)

#: Made of several operations that may cancel: run as those. 1 + erf(x) is 0 but for rounding at x = -5, and so is gelu.
_MADE_OF_OTHERS = frozenset(
    [
        "gelu",
        "gelu_backward",
        "silu_backward",
        "mish_backward",
        "softplus_backward",
        "log_sigmoid_backward",
        "elu",
        "elu_backward",
        "sigmoid_backward",
        "tanh_backward",
        "logit_backward",
        "logsumexp",
        "addcmul",
        "lerp",
        "_softmax_backward_data",
        "_log_softmax",
        "_log_softmax_backward_data",
        "native_layer_norm",
        "native_group_norm",
        "native_layer_norm_backward",
        "native_group_norm_backward",
        "native_batch_norm",
        "native_batch_norm_backward",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "_fused_rms_norm",
        "_fused_rms_norm_backward",
        "mse_loss",
        "mse_loss_backward",
        "binary_cross_entropy_with_logits",
        "binary_cross_entropy_backward",
        "_euclidean_dist",
        "pairwise_distance",
    ]
)

#: Far below anything that a program adds to it, far above what underflows.
_LEAST = 1e-290


class Perturbed(TorchDispatchMode):
    """While active, every floating result is perturbed by one rounding; ``longest`` is the longest reduction met.

    ``flip`` turns all signs of the same seed round.
    """

    def __init__(self, u: float, seed: int, *, flip: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.u = u
        self.longest = 1
        self.side = -1.0 if flip else 1.0
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _MADE_OF_OTHERS and func in decomposition_table:
            with self:
                return decomposition_table[func](*args, **(kwargs or {}))
        out = func(*(tree_map(self._perturb, args) if name in _SUMS else args), **(kwargs or {}))
        plain = name.removesuffix("_")
        self.longest = max(self.longest, _reduction_length(plain, args, out))
        if name in _EXACT or plain in _EXACT:
            return out
        if func._schema.is_mutable:  # an operation in place: the tensor that it wrote to is the result
            for argument, given in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write and isinstance(given, Tensor):
                    given.copy_(self._perturb(given))
            return out
        return self._perturb(out) if isinstance(out, Tensor) else tree_map(self._perturb, out)

    def _perturb(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.device.type != "cpu":
            return value
        sign = self._signs(value)
        # the smallest of pushes at an exact zero: what stands on a kink falls to either side
        return torch.addcmul(_LEAST * sign, value, 1 + self.u * sign)

    def _signs(self, value: Tensor) -> Tensor:
        sign = torch.empty(value.shape, dtype=value.dtype).random_(2, generator=self.generator)
        return sign.mul_(2 * self.side).sub_(self.side)

    def nudge(self, value: Any) -> Any:
        """An exact operand, its zeros and its equal elements moved by next to nothing."""
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() < 2:
            return value
        with _disable_current_modes():  # these operands are exact, not results
            _, place, count = value.unique(return_inverse=True, return_counts=True)
            shared = (count[place] > 1).to(value.dtype)
            sign = self._signs(value)
            return torch.where(value == 0, _LEAST * sign, value * (1 + 2.0**-50 * shared * sign))


def _reduction_length(name: str, args: tuple[Any, ...], out: Any) -> int:
    """How many products or terms one output element is the sum of, from the shapes."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    if not tensors:
        return 1
    if name in ("mm", "bmm", "matmul", "dot", "mv"):
        return tensors[0].shape[-1] if tensors[0].dim() else 1
    if name in ("addmm", "baddbmm", "addmv"):
        return tensors[1].shape[-1]
    if name == "convolution":
        return math.prod(tensors[1].shape[1:])
    if name == "convolution_backward":
        grad, _, weight = tensors[:3]
        return max(grad.numel() // max(1, grad.shape[1]), math.prod(weight.shape) // max(1, weight.shape[1]))
    first = out[0] if isinstance(out, (tuple, list)) else out
    if isinstance(first, Tensor) and first.numel():
        if name in ("sum", "mean", "var", "var_mean", "norm", "prod", "cumsum", "logsumexp"):
            return max(1, tensors[0].numel() // first.numel())
        if "norm" in name or "softmax" in name or "loss" in name or "attention" in name:
            shape = tensors[0].shape or (1,)
            return max(shape[-1], tensors[0].numel() // max(1, shape[0]))
    return 1


def spread(run: Callable[[Nudge], dict[str, Tensor]], *, u: float, eta: float) -> dict[str, Tensor]:
    """One-sided error estimates of everything that ``run`` computes, by name.

    Parameters
    ----------
    run
        Runs the program in float64 and returns its results, its exact operands passed through the nudge it is given;
        called once plainly and SAMPLES times perturbed.
    """
    plain = run(lambda value: value)
    largest = {name: torch.zeros_like(value) for name, value in plain.items()}
    longest = 1
    for sample in range(SAMPLES):
        mode = Perturbed(u, sample // 2, flip=bool(sample % 2))
        with mode:
            moved = run(mode.nudge)
        longest = max(longest, mode.longest)
        for name, value in moved.items():
            largest[name] = torch.maximum(largest[name], torch.nan_to_num((value - plain[name]).abs()))
    return {
        name: (16 + longest) * (_smooth(d) + u * plain[name].abs().nan_to_num()) + eta for name, d in largest.items()
    }


def _smooth(deviation: Tensor) -> Tensor:
    """A few samples may agree by chance at some element: never less than a tenth of what its row shows."""
    row = deviation.square().mean(-1, keepdim=True).sqrt() if deviation.dim() else deviation
    return deviation + 0.1 * row
