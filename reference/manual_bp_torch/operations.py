"""What torch's operations are to rounding, by name: exact, element by element, made of others; how much they add up."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

#: Views, copies and choices: they do not round.
EXACT = frozenset(
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
        "conj_physical",
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

#: Copies, choices by places and masks that are given, and sums of products: none of them looks at what a number is, so
#: that it has a derivative wherever it has a value. What makes a place or a mask of numbers (eq, argmax) is not here.
SMOOTH = frozenset([
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice", "select", "unsqueeze",
    "squeeze", "alias", "detach", "clone", "copy_", "as_strided", "unfold", "split", "split_with_sizes",
    "unsafe_split", "unbind", "chunk", "cat", "stack", "select_backward", "slice_backward", "repeat",
    "pixel_shuffle", "pixel_unshuffle", "diagonal", "tril", "triu", "flip", "roll", "constant_pad_nd", "im2col",
    "conj_physical", "lift_fresh", "embedding", "embedding_dense_backward", "index", "index_select", "gather",
    "scatter", "scatter_add", "index_put", "index_add", "masked_fill", "where", "empty", "empty_like", "zeros",
    "zeros_like", "ones", "ones_like", "new_zeros", "new_ones", "full", "full_like", "new_full", "fill_",
    "scalar_tensor", "arange", "add", "sub", "rsub", "mul", "div", "neg", "reciprocal", "square", "pow", "sqrt",
    "rsqrt", "addcmul", "addcdiv", "sum", "mean", "cumsum", "var", "var_mean", "mm", "addmm", "bmm", "baddbmm",
    "mv", "addmv", "dot", "convolution", "convolution_backward", "avg_pool2d", "avg_pool2d_backward", "exp", "exp2",
    "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "sinh", "cosh", "tanh", "sigmoid", "erf", "silu",
    "tanh_backward", "sigmoid_backward", "native_layer_norm", "native_layer_norm_backward", "native_group_norm",
    "native_group_norm_backward", "native_batch_norm", "native_batch_norm_backward", "_fused_rms_norm",
    "_fused_rms_norm_backward", "binary_cross_entropy_with_logits", "log_sigmoid", "log_sigmoid_forward",
    "log_sigmoid_backward", "_softmax", "_log_softmax", "logsumexp", "nll_loss_forward", "nll_loss_backward",
    "nll_loss2d_forward", "nll_loss2d_backward", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
])  # fmt: skip  # a table

#: Functions of one number that grow with it, and their derivatives times a gradient.
GROWING = frozenset(
    f"{name}{end}"
    for name in ("elu", "celu", "selu", "mish", "gelu", "silu", "softplus", "hardswish", "hardsigmoid", "log_sigmoid")
    for end in ("", "_forward", "_backward")
) | frozenset(["expm1", "log1p", "sinh", "asinh", "atanh"])

#: The same of functions that do not.
BOUNDED = frozenset(f"{name}{end}" for name in ("sigmoid", "tanh") for end in ("", "_backward"))

#: Never below 0.
POSITIVE = frozenset(["sigmoid", "softplus"])

#: Work element by element, and torch does not say so of them.
ELEMENTWISE = (
    GROWING
    | BOUNDED
    | frozenset(
        f"{name}{end}"
        for name in ("hardtanh", "leaky_relu", "softshrink", "hardshrink", "threshold", "_prelu_kernel", "glu")
        for end in ("", "_backward")
    )
    | frozenset(["native_dropout", "native_dropout_backward", "remainder", "rsub", "fmod", "where", "masked_fill"])
    | frozenset(["add", "sub", "mul", "div", "pow", "clamp"])
)

#: Made of several operations that may cancel: run as those. 1 + erf(x) is 0 but for rounding at x = -5, and so is gelu.
MADE_OF_OTHERS = frozenset(
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


@dataclass(frozen=True)
class Kind:
    """What is known of an operation of torch, before its operands are.

    Attributes
    ----------
    exact
        It does not round.
    smooth
        It has a derivative wherever it has a value; see `SMOOTH`. Where it has ``parts``, and not, they say it.
    parts
        Runs it as the operations that it is made of.
    alone
        Each element of its result is made of one of each operand.
    growing, bounded
        Of one number, by formulas that cancel; see `GROWING` and `BOUNDED`.
    writes
        Positions of the operands that it writes to.
    """

    name: str
    exact: bool
    smooth: bool
    parts: Callable[..., Any] | None
    alone: bool
    growing: bool
    bounded: bool
    writes: tuple[int, ...]


@cache
def kind_of(func: Any) -> Kind:
    """What an overload of an operation is; x.exp_() is as x.exp()."""
    whole = func.overloadpacket.__name__
    parts = _parts(func) if whole in MADE_OF_OTHERS else None
    name = whole if parts is not None else whole.removesuffix("_")
    aliases = [argument.alias_info for argument in func._schema.arguments]
    return Kind(
        name=name,
        exact=parts is None and not EXACT.isdisjoint((whole, name)),
        smooth=not SMOOTH.isdisjoint((whole, name)) and "mode" not in func._overloadname,  # div(rounding_mode="floor")
        parts=parts,
        alone=torch.Tag.pointwise in func.tags or name in ELEMENTWISE,
        growing=name in GROWING,
        bounded=name in BOUNDED,
        writes=tuple(i for i, alias in enumerate(aliases) if alias is not None and alias.is_write),
    )


def _parts(func: Any) -> Callable[..., Any] | None:
    """Torch's own way to make it of others; of float64 alone, less what finds the dtype.

    That takes longer than all else, and imports SymPy.
    """
    whole = decomposition_table.get(func)
    if whole is None or func._schema.is_mutable:
        return whole
    plain = unwrap(whole)

    def run(*args: Any, **kwargs: Any) -> Any:
        alike = all(a.dtype == torch.float64 for a in args if isinstance(a, Tensor))
        return (plain if alike else whole)(*args, **kwargs)

    return run


def own_error(name: str, args: tuple[Any, ...]) -> float:
    """What torch's own kernel is off by, relative to its result, in float64 too: these hold a constant in float32."""
    if name == "hardsigmoid_backward":  # 1/6
        return 2.0**-27
    if name == "elu_backward" and args[3] != 1:  # 1/alpha of celu
        return 2.0**-24
    return 0.0


def own_gap(name: str, args: tuple[Any, ...]) -> Tensor | None:
    """How far torch's own function is from the exact one: softplus is x itself, and its slope 1, above a threshold."""
    if name not in ("softplus", "softplus_backward"):
        return None
    tensors = [a for a in args if isinstance(a, Tensor)]
    x, given = tensors[-1], list(args[len(tensors) :])
    beta, threshold = given + [1, 20][len(given) :]
    beyond = torch.where(x * beta > threshold, torch.exp(-x * beta), 0.0)  # ln(1 + e^-t) < e^-t
    return beyond * tensors[0].abs() if len(tensors) > 1 else beyond / beta


def resampled(name: str, args: tuple[Any, ...]) -> float:
    """By how many roundings of the largest number an interpolated one may be off; 0 for other operations.

    A place between the elements is rounded relative to the length, and its fraction, the weight, by as much. What
    comes back to an element is a sum over the places that it lies next to.
    """
    if not name.startswith("upsample_") or "nearest" in name:
        return 0.0
    dims = int(name.partition("d")[0][-1]) if name.partition("d")[0][-1:].isdigit() else 2
    given = next(a for a in args if isinstance(a, Tensor))
    ends = given.shape[-dims:]
    length = max(ends)
    if "backward" in name:
        source = args[2][-dims:]
        length = max(source) * math.prod(2 + t / n for t, n in zip(ends, source, strict=True))
    return length / 4


def reduction_length(name: str, args: tuple[Any, ...]) -> int:
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
