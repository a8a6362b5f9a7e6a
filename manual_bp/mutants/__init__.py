"""Planted mistakes: a catalogue of what people get wrong in hand-written backward passes.

The shipped engine has no switch for any of them: a mistake is planted from outside, into one step of a network, and
the result is a network like any other that can be run and judged. `sites` lists where each mistake makes a difference;
`Mutant.faulty` is the ground truth of what a judge must blame, and nothing else.

>>> from manual_bp import networks
>>> network = networks.get("three-layer")
>>> mutant = get("conv-kernel-not-rotated")
>>> sorted(mutant.faulty(network, "z1"))
['x.grad']
>>> faulty = mutant.plant(network, "z1")  # run it, or judge it as a candidate beside the right network
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from manual_bp.errors import ManualBPError
from manual_bp.network import Network

from . import _activation, _conv, _dense, _generic, _loss, _norm, _optim, _plumbing, _pool
from ._hypotheses import HYPOTHESES
from ._mutant import Mutant, StepMutant, names_of, part_of, steps_of
from ._seen import Seen, SeenLoss, SeenUpdate
from ._trial import differs

__all__ = [
    "CATALOGUE", "HYPOTHESES", "Mutant", "Seen", "SeenLoss", "SeenUpdate", "Site", "StepMutant",
    "differs", "get", "names_of", "part_of", "plant", "sites", "steps_of",
]  # fmt: skip

_FAMILIES = (_conv, _pool, _activation, _dense, _loss, _norm, _optim, _plumbing, _generic)

#: Every mistake by its id.
CATALOGUE: Mapping[str, Mutant] = MappingProxyType(
    {mutant.id: mutant for family in _FAMILIES for mutant in family.MISTAKES}
)


@dataclass(frozen=True)
class Site:
    """A mistake and the step it can be made in."""

    mutant: Mutant
    step: str
    faulty: frozenset[str]

    def __str__(self) -> str:
        return f"{self.mutant.id}@{self.step}"


def get(id_: str) -> Mutant:
    """The mistake of that id.

    Raises
    ------
    ManualBPError
        There is none.
    """
    try:
        return CATALOGUE[id_]
    except KeyError:
        raise ManualBPError(f"there is no planted mistake {id_!r}", hint="see manual_bp.mutants.CATALOGUE") from None


def sites(network: Network, *, dtype: str = "float64", only: Iterable[str] | None = None) -> tuple[Site, ...]:
    """Every mistake in every step of the network where it changes a number, in the catalogue's order.

    Parameters
    ----------
    dtype
        "float32" or "float64": float32 inside is a mistake in float64 only.
    only
        Ids to look at; all of them by default.
    """
    chosen = CATALOGUE.values() if only is None else [get(id_) for id_ in only]
    found = []
    for mutant in chosen:
        for step in steps_of(network) if dtype in mutant.dtypes else ():
            faulty = mutant.faulty(network, step)
            if faulty:
                found.append(Site(mutant, step, faulty))
    return tuple(found)


def plant(network: Network, chosen: Iterable[Site]) -> Network:
    """The network with several mistakes at once."""
    for site in chosen:
        network = site.mutant.plant(network, site.step)
    return network
