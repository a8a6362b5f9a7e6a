"""Bounds of one optimiser step: a handful of roundings on the parameter, the gradient and the state."""

from __future__ import annotations

import torch
from torch import Tensor

from manual_bp_torch.bounds._model import Bound, Precision


def update_bound(
    optimizer: torch.optim.Optimizer, new: Tensor, old: Tensor, g: Tensor, e_g: Tensor, precision: Precision
) -> Bound:
    """Bound of a parameter after one step, given its gradient ``g`` with error ``e_g`` (all float64).

    SGD moves by lr (g + weight_decay p), whose terms may cancel; Adam and AdamW by lr m / (sqrt(v) + eps), which is
    at most a few lr and loses accuracy only where the gradient is of the size of eps.
    """
    options = optimizer.param_groups[0]
    u, lr, decay = precision.u, float(options["lr"]), float(options.get("weight_decay", 0.0))
    name = type(optimizer).__name__
    if name == "SGD":
        move = lr * (g.abs() + decay * old.abs()) * (2.0 if options.get("nesterov") else 1.0)
        e = 8 * u * (old.abs() + move) + lr * 2 * e_g
    else:
        # d/dg of g / (|g| + eps) is at most 1 / eps, and 1 / |g| away from zero
        slope = 1.0 / torch.clamp(g.abs() - 2 * e_g, min=float(options["eps"]))
        coupled = decay * old.abs() if name == "Adam" else torch.zeros_like(old)
        step = (new - old).abs()
        shaky = 16 * u * (g.abs() + coupled) * torch.clamp(slope, max=1.0 / float(options["eps"]))
        e = 16 * u * (old.abs() + new.abs() + step) + lr * (torch.clamp(slope * e_g, max=2.0) + shaky + 64 * u)
    return Bound(e + precision.eta, f"certified: {name} update")
