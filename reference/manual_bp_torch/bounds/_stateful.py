"""Bounds of any one step of an optimiser: new parameters and new state from given parameters, gradient and state.

The operands carry no error: both sides start from the candidate's own. `stateful_bounds` follows the whole step from
the state before it, `from_new_state` its last part alone, from the state that came of it. Each quantity is followed
from rounding to rounding with its magnitude (capital letters) and its error (e_...), as the formulas stand in
torch.optim; gamma counts a few roundings more than the shortest order of operations takes, so that fused and reordered
forms are covered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from manual_bp_torch.bounds._model import Alternative, Bound, Later, Precision

#: Four roundings of the optimiser's scalars (1 - beta^t and the like): in double, whatever the dtype of the parameters.
_SCALAR = 2.0**-51

#: One unit in the last place of a power below 1 in float32. Half of it is told, since twice a bound is allowed for two
#: sides, and here there is one.
_POWER = 2.0**-24

_SINGLE = "its settings are numbers of float32, as in C: 1 − β₂ is {:.6g} then"


def stateful_bounds(
    optimizer: torch.optim.Optimizer, old: Tensor, g: Tensor, state: Mapping[str, Tensor], precision: Precision
) -> dict[str, Bound]:
    """The bound of a parameter after one step, under ``""``, and that of each entry of its state, by name.

    Parameters
    ----------
    optimizer
        torch's SGD, Adam or AdamW.
    old, g
        Parameter and gradient before the step, in float64.
    state
        Its state before the step by torch's names, in float64; empty before the first step.
    """
    options: dict[str, Any] = optimizer.param_groups[0]
    name = type(optimizer).__name__
    if name == "SGD":
        errors = _sgd(options, old, g, state, precision)
    else:
        found = _adam(options, old, g, state, precision, decoupled=name == "AdamW")
        errors = {key: e for key, (_, e) in found.items()}
    return {key: Bound(e, f"certified: {name} {'state' if key else 'update'}") for key, e in errors.items()}


def in_single(
    optimizer: torch.optim.Optimizer, old: Tensor, g: Tensor, state: Mapping[str, Tensor], precision: Precision
) -> Mapping[str, Sequence[Alternative]]:
    """The same step with settings that were rounded to float32, by the same names, made when somebody looks at it.

    A program in float32 throughout has no other settings. 1 - 0.999 is off by 1e-5 of itself then, and all that is
    made of it.
    """
    name = type(optimizer).__name__
    if name == "SGD" or precision.u != 2.0**-24:
        return defaultdict(tuple)
    options = dict(optimizer.param_groups[0])
    for key in ("lr", "eps", "weight_decay"):
        options[key] = _float32(options[key])
    options["betas"] = tuple(map(_float32, options["betas"]))
    reason = _SINGLE.format(1 - options["betas"][1])

    @cache
    def step() -> dict[str, tuple[Tensor, Tensor]]:
        return _adam(options, old, g, state, precision, decoupled=name == "AdamW", scalar=0.5 * _POWER)

    def made(key: str) -> Iterator[Alternative]:
        if key != "step":
            yield Alternative(*step()[key], reason)

    keys = ("", "step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    return {key: Later(partial(made, key)) for key in keys}


def _float32(value: float | Tensor) -> float:
    return float(torch.tensor(float(value), dtype=torch.float32))


def from_new_state(
    optimizer: torch.optim.Optimizer, old: Tensor, g: Tensor, new: Mapping[str, Tensor], precision: Precision
) -> tuple[Tensor, Bound]:
    """The parameter that a step makes of a new state that it already has, in float64, and its bound.

    Parameters
    ----------
    old, g
        Parameter and gradient before the step, in float64.
    new
        The state after it by torch's names, in float64; the step may have used it before it was rounded.
    """
    options: dict[str, Any] = optimizer.param_groups[0]
    name = type(optimizer).__name__
    if name == "SGD":
        value, e = _sgd_moved(options, old, g, new["momentum_buffer"], precision)
    else:
        value, e = _adam_moved(options, old, new, precision, decoupled=name == "AdamW")
    return value, Bound(e, f"certified: {name} update, from the candidate's own new state")


def _sgd(o: dict[str, Any], old: Tensor, g: Tensor, state: Mapping[str, Tensor], p: Precision) -> dict[str, Tensor]:
    """g' = g + lambda p;  b' = mu b + (1 - tau) g' (the first time g');  p' = p - lr (b', or g' + mu b')."""
    lr, mu, kept = float(o["lr"]), float(o["momentum"]), abs(1 - float(o["dampening"]))
    _, D, e_d = _decayed(float(o["weight_decay"]), old, g, p)
    found: dict[str, Tensor] = {}
    if mu:
        if "momentum_buffer" in state:
            B = mu * state["momentum_buffer"].abs() + kept * D
            e_b = kept * e_d + p.gamma(4) * B + 4 * p.eta
        else:
            B, e_b = D, e_d
        found["momentum_buffer"] = e_b
        D, e_d = (D + mu * B, e_d + mu * e_b + p.gamma(3) * (D + mu * B)) if o["nesterov"] else (B, e_b)
    found[""] = _moved(lr, old, D, e_d, p)
    return found


def _sgd_moved(o: dict[str, Any], old: Tensor, g: Tensor, b: Tensor, p: Precision) -> tuple[Tensor, Tensor]:
    """p' = p - lr b', with Nesterov's p - lr (g' + mu b'), and its error."""
    lr, mu = float(o["lr"]), float(o["momentum"])
    e_b = p.gamma(4) * b.abs() + 4 * p.eta
    if not o["nesterov"]:
        return old - lr * b, _moved(lr, old, b.abs(), e_b, p)
    d, D, e_d = _decayed(float(o["weight_decay"]), old, g, p)
    D = D + mu * b.abs()
    return old - lr * (d + mu * b), _moved(lr, old, D, e_d + mu * e_b + p.gamma(3) * D, p)


def _moved(lr: float, old: Tensor, D: Tensor, e_d: Tensor, p: Precision) -> Tensor:
    """The error of p - lr d."""
    return lr * e_d + p.gamma(3) * (old.abs() + lr * D) + (4 + 4 * lr) * p.eta


def _adam(
    o: dict[str, Any],
    old: Tensor,
    g: Tensor,
    state: Mapping[str, Tensor],
    p: Precision,
    *,
    decoupled: bool,
    scalar: float = _SCALAR,
) -> dict[str, tuple[Tensor, Tensor]]:
    """m' = b1 m + (1 - b1) g;  v' = b2 v + (1 - b2) g^2;  p' as in `_adam_by`. Each and its error."""
    decay, (beta1, beta2) = float(o["weight_decay"]), o["betas"]
    zero = torch.zeros_like(old)
    t = float(state["step"]) + 1 if "step" in state else 1.0
    m, v = state.get("exp_avg", zero), state.get("exp_avg_sq", zero)
    d, D, e_d = (g, g.abs(), zero) if decoupled else _decayed(decay, old, g, p)

    # torch writes m + (1 - b1) (g - m), others b1 m + (1 - b1) g
    M = m.abs() + (1 - beta1) * (D + m.abs())
    e_m = (1 - beta1) * e_d + p.gamma(6) * M + 4 * p.eta
    m_new = beta1 * m + (1 - beta1) * d
    top = (d.abs() + e_d).square()
    e_v = (1 - beta2) * (top - d.square()) + p.gamma(8) * (beta2 * v + (1 - beta2) * top) + 8 * p.eta
    v_new = beta2 * v + (1 - beta2) * d.square()
    found = {"step": (torch.tensor(t).double(), torch.zeros(()).double())}
    found |= {"exp_avg": (m_new, e_m), "exp_avg_sq": (v_new, e_v)}
    if o["amsgrad"]:
        v_new = torch.maximum(state.get("max_exp_avg_sq", zero), v_new)
        found["max_exp_avg_sq"] = v_new, e_v

    found[""] = _adam_by(o, old, (m_new, e_m), (v_new, e_v), t, p, decoupled=decoupled, scalar=scalar)
    return found


def _adam_moved(
    o: dict[str, Any], old: Tensor, new: Mapping[str, Tensor], p: Precision, *, decoupled: bool
) -> tuple[Tensor, Tensor]:
    """p' of `_adam_by` from m', v' and t, and its error."""
    m, v, t = new["exp_avg"], new["max_exp_avg_sq" if o["amsgrad"] else "exp_avg_sq"], float(new["step"])
    e_m, e_v = p.gamma(6) * m.abs() + 4 * p.eta, p.gamma(8) * v.abs() + 8 * p.eta
    return _adam_by(o, old, (m, e_m), (v, e_v), t, p, decoupled=decoupled)


def _adam_by(
    o: dict[str, Any],
    old: Tensor,
    average: tuple[Tensor, Tensor],
    square: tuple[Tensor, Tensor],
    t: float,
    p: Precision,
    *,
    decoupled: bool,
    scalar: float = _SCALAR,
) -> tuple[Tensor, Tensor]:
    """p' = p - lr/(1 - b1^t) m' / (sqrt(v'/(1 - b2^t)) + eps), of m' and v' with their errors, and its own.

    ``scalar`` bounds the error of b^t.
    """
    (m, e_m), (v, e_v) = average, square
    lr, eps, (beta1, beta2) = float(o["lr"]), float(o["eps"]), o["betas"]
    # the denominator lies between these two, the quotient between m / high and m / low
    first, second = 1 - beta1**t, 1 - beta2**t
    low = (torch.clamp(v - e_v, min=0) / second).sqrt() + eps
    high = ((v + e_v) / second).sqrt() + eps
    scalars = scalar * (1 / first + 0.5 / second)  # a rounding of b^t, where the second stands under a root
    largest = (m.abs() + e_m) / low
    e_q = e_m / low + m.abs() * (1 / low - 1 / high) + (p.gamma(12) + scalars) * largest
    shrunk = lr * float(o["weight_decay"]) if decoupled else 0.0
    moved = lr / first
    e: Tensor = moved * e_q + p.gamma(4) * (old.abs() * (1 + shrunk) + moved * largest) + (4 + 4 * moved) * p.eta
    return (1 - shrunk) * old - moved * m / ((v / second).sqrt() + eps), e


def _decayed(decay: float, old: Tensor, g: Tensor, p: Precision) -> tuple[Tensor, Tensor, Tensor]:
    """g + decay p: its value, the sum of the sizes, and its error."""
    if not decay:
        return g, g.abs(), torch.zeros_like(g)
    size = g.abs() + decay * old.abs()
    return g + decay * old, size * (1 + p.gamma(3)), p.gamma(3) * size + 4 * p.eta
