"""Another right answer: a step of operands that were held more exactly than they are reported.

A candidate may compute in a higher precision and round what it reports, or leave out a term that is zero by derivation:
the mean of x - μ, in the gradient of μ. Held against what torch makes of the rounded μ it is off by what that rounding
makes of it, which is much where numbers cancel. So where a step differs, its operands are moved by the rounding that
they were stored with, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from manual_bp_torch.bounds import Alternative
from manual_bp_torch.bounds._model import Later
from manual_bp_torch.stochastic import Estimate, spread

_REASON = "as exact as the operands are that were reported: more of them was known, or they cancel by derivation"


def unrounded(
    run: Callable[..., dict[str, Tensor]],
    values: Mapping[str, Tensor],
    *,
    u: float,
    eta: float,
    operands: Mapping[str, Tensor],
    hold: Callable[[], AbstractContextManager[Any]],
) -> dict[str, Sequence[Alternative]]:
    """By name, the same value with a bound that takes in the rounding of its operands, made when somebody looks at it.

    Where there is no derivative it is none: what moves there is no rounding.

    Parameters
    ----------
    run, u, eta, operands, hold
        As for `stochastic.spread`; ``run`` gets a second function, which moves an operand by its rounding.
    values
        What torch computed.
    """

    @cache
    def estimates() -> dict[str, Estimate]:
        return spread(run, u=u, eta=eta, operands=operands, stored=True, hold=hold)

    def made(name: str) -> Iterator[Alternative]:
        found = estimates()[name]
        value = values[name]
        if found.kinks is not None:
            value = value.masked_fill(found.kinks.mask, torch.nan)
        yield Alternative(value, found.e, _REASON, each=True)

    return {name: Later(partial(made, name)) for name in values}
