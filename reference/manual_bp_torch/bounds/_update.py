"""Bounds of one optimiser step from a fresh state: a handful of roundings on parameter and gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manual_bp_torch.bounds._model import Bound, Precision


def update_bound(
    optimizer: torch.optim.Optimizer, new: Tensor, old: Tensor, g: Tensor, e_g: Tensor, precision: Precision
) -> Bound:
    """Bound of a parameter after one step, given its gradient ``g`` with error ``e_g`` (all float64).

    SGD moves by lr d with d = g + weight_decay p (Nesterov: times 1 + momentum): the terms of d may cancel, so their
    sizes count; d and its factors take 8 roundings, the subtraction one.

    Adam's first step is lr h(g), h(g) = g / (|g| + eps), with the decay added to g; AdamW shrinks p instead. |h| is at
    most 1 and h' = eps / (|g| + eps)^2: steep only where the gradient is of the size of eps. Moments, root and quotient
    take 24 roundings; (1 - beta2) g^2 may underflow, and takes sqrt(eta / (1 - beta2)) from the denominator.
    """
    options = optimizer.param_groups[0]
    u, lr, decay = precision.u, float(options["lr"]), float(options.get("weight_decay", 0.0))
    name = type(optimizer).__name__
    if name == "SGD":
        factor = 1.0 + (float(options["momentum"]) if options.get("nesterov") else 0.0)
        move = lr * factor * (g.abs() + 2 * e_g + decay * old.abs())
        e = 2 * u * (old.abs() + move) + 8 * u * move + lr * factor * e_g
    else:
        coupled = decay * old if name == "Adam" else torch.zeros_like(old)
        d, e_d = g + coupled, e_g + 3 * u * (g.abs() + coupled.abs())
        eps, lost = float(options["eps"]), math.sqrt(precision.eta / (1 - float(options["betas"][1])))
        least = torch.clamp(d.abs() - 2 * e_d, min=0.0)
        # with eps = 0 and a gradient of 0 both sides give 0 / 0
        slope = torch.where(least + eps > 0, eps / (least + eps) ** 2, 0.0)
        moved = torch.clamp(slope * e_d, max=2.0)
        underflow = torch.where(least + eps > 0, torch.clamp(lost / (least + eps), max=1.0), 1.0)
        shrunk = 2 * decay * lr * old.abs() if name == "AdamW" else torch.zeros_like(old)
        e = u * (4 * old.abs() + 2 * new.abs() + shrunk) + lr * (moved + 24 * u + underflow)
    return Bound(e + precision.eta, f"certified: {name} update")
