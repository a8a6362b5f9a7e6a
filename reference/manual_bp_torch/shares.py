"""What each of several readers of a quantity gives to its gradient.

The gradient of what several steps read is the sum of a share from each. A pass in which every gradient but one step's
is claimed to be zero leaves that step's share alone, whatever the step is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from manual_bp.trace import GRAD, Array
from manual_bp_torch.program import LOSS, Structure
from manual_bp_torch.tapping import Pass
from manual_bp_torch.weights import to_numpy


def shares_of(
    run: Callable[..., tuple[Pass, Structure]], claims: Mapping[str, Tensor], structure: Structure, name: str
) -> dict[str, Array]:
    """The share of each reader, by its name, in execution order; empty where there are not several.

    Parameters
    ----------
    run
        Runs the reference with ``claims``.
    claims
        What the candidate says, by name: each share is made of its values and gradients.
    name
        A gradient, of a value or of a parameter.
    """
    base = name.removesuffix(GRAD)
    readers = [s.name for s in structure.segments.values() if base in (*s.reads, *s.params)]
    if base == name or len(readers) < 2:
        return {}
    given, _ = run(claims=claims)
    silent = {step + GRAD: torch.zeros_like(given.values[step]) for step in structure.segments}
    shares = {}
    for reader in readers:
        upstream = torch.ones_like(given.values[LOSS]) if reader == LOSS else claims.get(reader + GRAD)
        upstream = given.grads[reader + GRAD] if upstream is None else upstream
        alone, _ = run(claims={**claims, **silent, reader + GRAD: upstream})
        shares[reader] = to_numpy(alone.grads[name])
    return shares
