"""Another right answer: a step of operands that were held more exactly than they are reported.

A candidate may compute in a higher precision and round what it reports, or leave out a term that is zero by derivation:
the mean of x - μ, in the gradient of μ. Held against what torch makes of the rounded μ it is off by what that rounding
makes of it, which is much where numbers cancel. So where a step differs, its operands are moved by the rounding that
they were stored with, too; and, where that is more, by the error that they were computed with: p - y is exact, and the
sum of two large gradients that it is in a chain of reported ones is not. What is accepted so is as exact as it would
have to be if its operands had not been reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from manual_bp_torch.bounds import Alternative, Bound
from manual_bp_torch.bounds._model import Later
from manual_bp_torch.perturbed import FACTOR
from manual_bp_torch.stochastic import SUDDEN, Estimate, spread

_REASON = "as exact as the operands are that were reported: more of them was known, or they cancel by derivation"


def unrounded(
    run: Callable[..., dict[str, Tensor]],
    values: Mapping[str, Tensor],
    *,
    u: float,
    eta: float,
    operands: Mapping[str, Tensor],
    hold: Callable[[], AbstractContextManager[Any]],
    claims: Mapping[str, Tensor],
    bounds: Mapping[str, Bound],
) -> dict[str, Sequence[Alternative]]:
    """By name, the same value with a bound that takes in the rounding of its operands, made when somebody looks at it.

    Where there is no derivative it is none: what moves there is no rounding.

    Parameters
    ----------
    run, u, eta, operands, hold
        As for `stochastic.spread`; ``run`` gets a second function, which moves an operand by its rounding, and the
        errors by which it moves what is reported.
    values
        What torch computed.
    claims, bounds
        What is reported, and the bounds on its own operands, which are read when somebody looks.
    """

    @cache
    def estimates() -> dict[str, Estimate]:
        reported = {name: t for name, t in claims.items() if name in bounds and t.is_floating_point()}
        typical = {name: _typical(t, bounds[name].e, u) for name, t in reported.items()}
        return spread(partial(run, errors=typical), u=u, eta=eta, operands=operands, stored=True, hold=hold)

    def made(name: str) -> Iterator[Alternative]:
        found = estimates()[name]
        value = values[name]
        if found.kinks is not None:
            value = value.masked_fill(found.kinks.mask, torch.nan)
        yield Alternative(value, found.e, _REASON, each=True)

    return {name: Later(partial(made, name)) for name in values}


def _typical(value: Tensor, e: Tensor, u: float) -> Tensor:
    """What roundings are like where the bound is ``e``. Beside a kink a bound says more, and that is no rounding.

    Zeros were zero.
    """
    size = value.abs().nan_to_num(posinf=0.0)
    most = SUDDEN * u * float(size.max()) if size.numel() else 0.0
    found = torch.maximum(u * size, (e / FACTOR).nan_to_num(posinf=0.0).clamp(max=most))
    return found.masked_fill(value == 0, 0.0)
