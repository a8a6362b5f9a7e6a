"""What a program's pass leaves behind in its buffers: the running statistics of a normalisation, whole numbers.

A buffer is a quantity of its own, its value after the pass, under the buffer's own name. It is judged where it is
reported, and never asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from manual_bp_torch.bounds import Bound, Precision

_BatchNorm = nn.modules.batchnorm._BatchNorm
_MEAN, _VARIANCE = "running_mean", "running_var"


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the buffers that a pass has changed."""
    return tuple(name for name, old in before.items() if not torch.equal(old, after[name]))


def statistics_of(
    module: nn.Module, prefix: str, x: Tensor, e_x: Tensor, before: Mapping[str, Tensor], precision: Precision
) -> dict[str, Bound]:
    r"""Bounds of a BatchNorm's new running statistics, by the buffers' global names; nothing for other modules.

    ``r' = (1 - m) r + m s``, where s is the mean ``μ`` of the n numbers of a channel, or their unbiased variance
    ``Σ (x - μ)² / (n - 1)``. A computed mean is off by ``γ(n) Σ|x| / n`` (Higham, Accuracy and Stability, 4.2). A mean
    that is off by δ adds ``n δ²`` to the sum of squares, whose own n terms have a few roundings each (1.9). In one
    pass, ``Σ x² - n μ²``, and by Welford's update the terms are of the size of ``x²``, and cancel; so do those of
    ``r + m (s - r)`` where m is near 1. Both are right as well.

    Parameters
    ----------
    x, e_x
        Input (N, C, *L) in float64, and how far it may be off itself.
    before
        The buffers as they were given, by global name.
    """
    if not isinstance(module, _BatchNorm) or not module.training or module.running_mean is None or x.dim() < 2:
        return {}
    mean, variance, count = (f"{prefix}.{n}".lstrip(".") for n in (_MEAN, _VARIANCE, "num_batches_tracked"))
    axes = tuple(d for d in range(x.dim()) if d != 1)
    n = math.prod(x.shape[d] for d in axes)
    m = module.momentum if module.momentum is not None else 1 / (int(before[count]) + 1)
    few, many = precision.gamma(8), precision.gamma(n + 8)

    e_mean = many * (x.abs() + e_x).mean(axes) + e_x.mean(axes)  # (C,)
    d = (x - x.mean(axes, keepdim=True)).abs()
    e_d = (e_x + e_mean.reshape(1, -1, *(1,) * (x.dim() - 2))).expand_as(d)
    largest = (d + e_d).square()
    # without an error of its own an input shows δ in second order only
    first_order = (2 * d * (e_x + e_x.mean(axes, keepdim=True))).sum(axes)
    squares = d.square().sum(axes)
    top = x.abs() + 2 * e_x
    one_pass = top.square().sum(axes) + 2 * n * top.mean(axes).square()
    e_squares = first_order + e_d.square().sum(axes) + many * (largest.sum(axes) + one_pass)  # (C,)

    def new(old: Tensor, size: Tensor, e: Tensor) -> Tensor:
        moved = abs(m) * (old.abs() + size + e)  # the terms of m (s - r)
        return few * (abs(1 - m) * old.abs() + moved) + abs(m) * e + precision.eta

    wide = {name: before[name].double() for name in (mean, variance)}
    return {
        mean: Bound(new(wide[mean], x.mean(axes).abs(), e_mean), f"certified: running mean, n = {n}"),
        variance: Bound(
            new(wide[variance], squares / max(1, n - 1), e_squares / max(1, n - 1)),
            f"certified: running variance, n = {n}",
        ),
    }
