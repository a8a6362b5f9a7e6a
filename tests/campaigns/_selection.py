"""Which planted mistakes a campaign judges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from manual_bp import mutants
from manual_bp.mutants import _generic
from manual_bp.network import Network

from ._networks import NAMES, network_of

DTYPES = ("float64", "float32")
_ANYWHERE = {mutant.id for mutant in _generic.MISTAKES}


@dataclass(frozen=True)
class Case:
    """One or two mistakes in one network, by names alone: it travels between processes."""

    network: str
    dtype: str
    sites: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """What the result is stored under."""
        return f"{self.network} {self.dtype} {' + '.join(f'{mutant}@{step}' for mutant, step in self.sites)}"


def cases(dtype: str, *, names: Sequence[str] = NAMES, thorough: bool = False) -> list[Case]:
    """Every mistake in every kind of step where it can be made: each set of options counts, sizes do not.

    Mistakes that can be made anywhere are judged once for each class of layers; in float32, all are. With ``thorough``
    every mistake is judged in every step of every network.
    """
    seen: set[object] = set()
    found = []
    for name in by_size(names):
        network = network_of(name)
        for site in mutants.sites(network, dtype=dtype):
            part = mutants.part_of(network, site.step)
            coarse = site.mutant.id in _ANYWHERE or dtype == "float32"
            key: object = (site.mutant.id, type(part), "" if coarse else _options(part))
            if thorough:
                key = (name, str(site))
            if key not in seen:
                seen.add(key)
                found.append(Case(name, dtype, ((site.mutant.id, site.step),)))
    return found


def _options(part: object) -> str:
    """A layer's hyperparameters but for its numbers of channels and features."""
    return re.sub(r"((in|out)_(channels|features)|num_features|normalized_shape)=[^,)]*", "", repr(part))


def by_size(names: Sequence[str]) -> list[str]:
    """Names of networks, the smallest network first."""
    return sorted(names, key=lambda name: inputs_of(network_of(name)))


def pairs(dtype: str, number: int, *, names: Sequence[str] = NAMES, seed: int = 0) -> list[Case]:
    """Two mistakes at once, in different steps, that leave each other something to be wrong about.

    Where one makes everything behind it zero or NaN, no number shows the other.
    """
    rng = np.random.default_rng([seed, DTYPES.index(dtype)])
    by_network: dict[str, list[mutants.Site]] = {}
    found: dict[str, Case] = {}
    while len(found) < number:
        name = str(rng.choice(list(names)))
        if name not in by_network:
            every = mutants.sites(network_of(name), dtype=dtype)
            by_network[name] = [site for site in every if _can_be_paired(site.mutant)]
        first, second = (by_network[name][i] for i in sorted(rng.choice(len(by_network[name]), 2, replace=False)))
        if first.step == second.step or first.faulty & second.faulty:
            continue
        case = Case(name, dtype, tuple((site.mutant.id, site.step) for site in (first, second)))
        found[case.key] = case
    return sorted(found.values(), key=lambda case: case.key)


def _can_be_paired(mutant: mutants.Mutant) -> bool:
    return (
        isinstance(mutant, mutants.StepMutant)
        and mutant.kind == "wrong"
        and mutant.hypothesis not in ("nonfinite", "result-missing")
    )


def representatives(found: Iterable[Case]) -> list[Case]:
    """Each mistake once, in the smallest network where it makes a difference."""
    first: dict[tuple[str, str], Case] = {}
    for case in found:
        first.setdefault((case.dtype, case.sites[0][0]), case)
    return list(first.values())


def inputs_of(network: Network) -> int:
    """How many numbers the loss of one example depends on."""
    return int(np.prod(network.input_shape)) + sum(int(np.prod(s)) for s in network.parameter_shapes().values())
