"""Alternative correct implementations of every layer, loss and optimiser: none of them may ever be flagged.

Each is a class to be put in front of the engine's class (`dress`): the same hyperparameters, other arithmetic.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np

from manual_bp.network import Network
from tests.campaigns._variants_curve import CURVES
from tests.campaigns._variants_linear import LINEAR
from tests.campaigns._variants_loss import LOSSES, OPTIMIZERS
from tests.campaigns._variants_norm import NORMS

T = TypeVar("T")

#: By the engine's class: everything that may take its place.
VARIANTS: dict[type, list[type]] = {**LINEAR, **CURVES, **NORMS, **LOSSES, **OPTIMIZERS}


def variants_of(described: object) -> list[type]:
    """The alternatives to a layer, loss or optimiser of the engine (none for what only moves numbers)."""
    return VARIANTS.get(type(described), [])


def dress(described: T, variant: type) -> T:
    """The same hyperparameters, computed the variant's way."""
    made: Any = _class(variant, type(described))
    return made(**{f.name: getattr(described, f.name) for f in fields(described)})  # type: ignore[arg-type]  # dataclass


@cache
def _class(variant: type, base: type) -> type:
    return type(f"{variant.__name__}{base.__name__}", (variant, base), {})


def dressed(network: Network, rng: np.random.Generator) -> Network:
    """Every step by one of its alternatives, or as it is."""
    nodes = tuple(replace(node, layer=_any(node.layer, rng)) for node in network.nodes)
    optimizer = None if network.optimizer is None else _any(network.optimizer, rng)
    return replace(network, nodes=nodes, loss=_any(network.loss, rng), optimizer=optimizer)


def _any(described: T, rng: np.random.Generator) -> T:
    choice = [None, *variants_of(described)]
    variant = choice[int(rng.integers(len(choice)))]
    return described if variant is None else dress(described, variant)
