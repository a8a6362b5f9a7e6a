"""Calibrated tolerances for what has no certified rule: stochastic arithmetic.

The program is run again in float64, several times, and the result of every single operation is multiplied, element by
element, by 1 + s u with random signs s, u being the unit roundoff of the dtype under judgement (the CESTAC method,
Vignes 1993). How far the results move is how far rounding moves them, cancellation inside the segment included. Where
terms cancel inside a single operation, its result shows nothing of it: so an operation that is made of others (gelu, a
norm) is taken apart first, and the terms of a sum or a matrix product are perturbed as well. A few samples show less
than the worst case, so the spread is multiplied by 17. A reduction over n terms may be off by n roundings rather than
by one: it, and its terms, are moved by (16 + n) / 17 as much. What an operation that is not known may add up is taken
to be all that it is given.

Functions of one number (ELU, mish) are computed by formulas that cancel near a zero of theirs, e^x - 1 or log(1 + e^x):
what these lose is absolute, of the size of one, or of x where that is larger, and is no mistake.

Where a function has no derivative (ReLU at 0, equal maxima) rounding shows nothing, since the operands are exact, and
yet two right implementations may differ. So exact zeros and equal elements of what goes into a segment are moved by
next to nothing, to one side in one sample and to the other in the next: samples come in pairs of opposite signs.

This estimates; it does not prove. Checks that rest on it say "calibrated".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from manual_bp_torch.failures import TheirError

#: How many perturbed passes there are, in pairs of opposite signs; the spread is the largest deviation among them.
SAMPLES = 6

#: What moves an operand off a kink.
Nudge = Callable[[Any], Any]

#: Views, copies and choices: they do not round.
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
        "max_pool3d_with_indices",
        "max_pool3d_with_indices_backward",
        "adaptive_max_pool2d",
        "adaptive_max_pool2d_backward",
        "adaptive_max_pool3d",
        "adaptive_max_pool3d_backward",
        "sort",
        "topk",
        "median",
        "kthvalue",
        "index_select",
        "select_backward",
        "slice_backward",
        "repeat",
        "pixel_shuffle",
        "pixel_unshuffle",
        "diagonal",
        "tril",
        "triu",
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
        "to",
        "empty",
        "scalar_tensor",
        "arange",
        "bernoulli",
        "im2col",
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


#: Functions of one number that grow with it, and their derivatives times a gradient.
_GROWING = frozenset(
    f"{name}{end}"
    for name in ("elu", "celu", "selu", "mish", "gelu", "silu", "softplus", "hardswish", "hardsigmoid", "log_sigmoid")
    for end in ("", "_forward", "_backward")
)

#: The same of functions that do not.
_BOUNDED = frozenset(f"{name}{end}" for name in ("sigmoid", "tanh") for end in ("", "_backward"))

#: Never below 0.
_POSITIVE = frozenset(["sigmoid", "softplus"])

#: Work element by element, and torch does not say so of them.
_ELEMENTWISE = (
    _GROWING
    | _BOUNDED
    | frozenset(
        f"{name}{end}"
        for name in ("hardtanh", "leaky_relu", "softshrink", "hardshrink", "threshold", "_prelu_kernel", "glu")
        for end in ("", "_backward")
    )
    | frozenset(["native_dropout", "native_dropout_backward", "remainder", "rsub", "fmod", "where", "masked_fill"])
    | frozenset(["add", "sub", "mul", "div", "pow", "clamp"])
)

#: What torch's own kernels are off by, in float64 too: this one holds 1/6 in float32.
_OWN = {"hardsigmoid_backward": 2.0**-27}

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
        "binary_cross_entropy",
        "binary_cross_entropy_backward",
        "smooth_l1_loss",
        "smooth_l1_loss_backward",
        "huber_loss",
        "huber_loss_backward",
        "_euclidean_dist",
        "pairwise_distance",
    ]
)

#: Far below anything that a program adds to it, far above what underflows.
_LEAST = 1e-290


#: What the spread of a few samples is multiplied by.
FACTOR = 17

#: No number is moved by more, relative to its size.
_MOST = 2.0**-6


class Perturbed(TorchDispatchMode):
    """While active, every floating result is perturbed: by one rounding, that of a reduction by more.

    ``flip`` turns all signs of the same seed round.
    """

    def __init__(self, u: float, seed: int, *, flip: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.u = u
        self.side = -1.0 if flip else 1.0
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "binary_cross_entropy":  # of probabilities, which were moved before
            args = (args[0].clamp(0.0, 1.0), *args[1:])
        if name in _MADE_OF_OTHERS and func in decomposition_table:
            with self:
                out = decomposition_table[func](*args, **(kwargs or {}))
            return self._cancelled(name, out, args)
        plain = name.removesuffix("_")
        if name in _EXACT or plain in _EXACT:
            return func(*args, **(kwargs or {}))
        alone = torch.Tag.pointwise in func.tags or plain in _ELEMENTWISE
        terms = 1 if alone else _reduction_length(plain, args)
        move = partial(self._perturb, weight=max((FACTOR - 1 + terms) / FACTOR, _OWN.get(plain, 0.0) / self.u))
        out = func(*(args if alone else tree_map(move, args)), **(kwargs or {}))
        if func._schema.is_mutable:  # an operation in place: the tensor that it wrote to is the result
            for argument, given in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write and isinstance(given, Tensor):
                    given.copy_(move(given))
            return out
        out = move(out) if isinstance(out, Tensor) else tree_map(move, out)
        return self._cancelled(plain, out, args)

    def _perturb(self, value: Any, weight: float = 1.0) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.device.type != "cpu":
            return value
        sign = self._signs(value)
        # the smallest of pushes at an exact zero: what stands on a kink falls to either side
        return torch.addcmul(_LEAST * sign, value, 1 + min(weight * self.u, _MOST) * sign)

    def _cancelled(self, name: str, out: Any, args: tuple[Any, ...]) -> Any:
        """A function's value, or its derivative times a gradient, off by what usual formulas lose in absolute terms."""
        tensors = [a for a in args if isinstance(a, Tensor)]
        growing = name in _GROWING
        if not (growing or name in _BOUNDED) or not isinstance(out, Tensor) or tensors[-1].shape != out.shape:
            return out
        size = 1 + tensors[-1].abs() if growing else torch.ones_like(out)
        if len(tensors) > 1:
            size = size * tensors[0].abs()
        moved = torch.addcmul(out, size, self.u * self._signs(out))
        # what follows may refuse a probability above 1, or a variance below 0
        if name in _POSITIVE:
            moved = torch.maximum(moved, 2.0**-10 * out)
        return moved.clamp(-1.0, 1.0) if name in ("sigmoid", "tanh") else moved

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


def _reduction_length(name: str, args: tuple[Any, ...]) -> int:
    """How many products or terms one output element may be the sum of, from the shapes."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    if not tensors:
        return 1
    if name in ("mm", "bmm", "matmul", "dot", "mv"):
        return tensors[0].shape[-1] if tensors[0].dim() else 1
    if name in ("addmm", "baddbmm", "addmv"):
        return tensors[1].shape[-1]
    if name == "_trilinear":
        return _trilinear_length(*args[:7])
    if name == "convolution":
        weight, transposed, groups = tensors[1], args[6], args[8]
        return math.prod(weight.shape[2:]) * (weight.shape[0] // groups if transposed else weight.shape[1])
    if name == "convolution_backward":
        grad, _, weight = tensors[:3]
        return max(grad.numel() // max(1, grad.shape[1]), math.prod(weight.shape) // max(1, min(weight.shape[:2])))
    if name in ("cumsum", "cumprod", "_softmax") or (name == "prod" and len(args) > 1):
        return tensors[0].shape[args[1]] if tensors[0].dim() else 1
    if name in ("sum", "mean", "var", "var_mean", "std", "norm", "linalg_vector_norm", "prod", "logsumexp"):
        return _reduced(tensors[0], args)
    if "loss" in name:
        return 1 if "backward" in name else tensors[0].numel()
    if "norm" in name or "attention" in name:
        shape = tensors[0].shape or (1,)
        return max(shape[-1], tensors[0].numel() // max(1, shape[0]))
    axes = re.search(r"(?:pool|upsample_[a-z]*|pad)(\d)d", name)
    if axes is not None:  # at most all of one channel
        return math.prod(tensors[0].shape[-int(axes[1]) :])
    # places that are added to are given by number; of everything else an element may be the sum of all
    places = [a for a in tensors if not a.is_floating_point()]
    return max(a.numel() for a in places or tensors)


def _reduced(a: Tensor, args: tuple[Any, ...]) -> int:
    """Over the dimensions that are named among the arguments, or all."""
    named = next((d for d in args[1:] if isinstance(d, (list, tuple))), None)
    return math.prod(a.shape[d] for d in named) if named and a.dim() else max(1, a.numel())


def _trilinear_length(
    a: Tensor, b: Tensor, c: Tensor, of_a: list[int], of_b: list[int], of_c: list[int], summed: list[int]
) -> int:
    """Each factor has dimensions of length 1 inserted; the product is summed over some of all."""
    shapes = []
    for factor, inserted in ((a, of_a), (b, of_b), (c, of_c)):
        shape = list(factor.shape)
        for d in sorted(inserted):
            shape.insert(d, 1)
        shapes.append(shape)
    whole = torch.broadcast_shapes(*shapes)
    return math.prod(whole[d] for d in summed)


def spread(run: Callable[[Nudge], dict[str, Tensor]], *, u: float, eta: float) -> dict[str, Tensor]:
    """One-sided error estimates of everything that ``run`` computes, by name.

    Parameters
    ----------
    run
        Runs the program in float64 and returns its results, its exact operands passed through the nudge it is given;
        called once plainly and SAMPLES times perturbed. Where it refuses numbers that were moved (out of a range), the
        other samples must do.
    """
    plain = run(lambda value: value)
    largest = {name: torch.zeros_like(value) for name, value in plain.items()}
    for sample in range(SAMPLES):
        mode = Perturbed(u, sample // 2, flip=bool(sample % 2))
        try:
            with mode:
                moved = run(mode.nudge)
        except TheirError:
            continue
        for name, value in moved.items():
            largest[name] = torch.maximum(largest[name], torch.nan_to_num((value - plain[name]).abs()))
    return {name: FACTOR * (_smooth(d) + u * plain[name].abs().nan_to_num()) + eta for name, d in largest.items()}


def _smooth(deviation: Tensor) -> Tensor:
    """A few samples may agree by chance at some element: never less than a tenth of what its row shows."""
    row = deviation.square().mean(-1, keepdim=True).sqrt() if deviation.dim() else deviation
    return deviation + 0.1 * row
