"""One array for two quantities: when they are reported, the earlier one holds the numbers of the later one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from manual_bp.trace import GRAD, NEW, bit_identical

from ._probe import KeptProbe

if TYPE_CHECKING:  # who computes what is asked only if something was overwritten
    from ._graph import Graph


def overwritten(name: str, probes: Sequence[KeptProbe]) -> tuple[str, str] | None:
    """What to say of a wrong quantity whose array was used for another one, and what speaks for it."""
    later = holds(name, probes)
    if later is None:
        return None
    how = "+= or *= on an array that is still needed" if later.endswith(GRAD) else "np.maximum(..., out=z)"
    return f"{name} holds {later}: it was overwritten ({how}?)", _same(probes)


def acquitted(name: str, probes: Sequence[KeptProbe], graph: Callable[[], Graph]) -> tuple[str, str] | None:
    """The same of a quantity that is right in the whole pass, and not what an overwritten one would give as it is now.

    It was computed from that one before, or into its array.
    """
    own = [p for p in probes if name in p.reported and name in p.items]
    if not own or not all(_right(name, p) for p in own):
        return None
    wrong = dict.fromkeys(n for p in probes for n, s in p.statuses.items() if s == "wrong" and n != name)
    lost = {n: other for n in wrong if (other := holds(n, probes)) is not None}
    earlier = next((n for n, other in lost.items() if other == name), None)
    if earlier is not None:
        text = f"nothing is wrong with {name}: it was computed into the array of {earlier}, which holds it now"
        return text, _same(probes)
    read = next((n for n in _ancestors(graph(), name) if n in lost), None) if lost else None
    if read is None:
        return None
    text = f"nothing is wrong with {name}: it was computed from {read} before that was overwritten with {lost[read]}"
    return text, f"in the whole pass it is right{_every(probes)}; it is not what {read} would give as it is now"


def _same(probes: Sequence[KeptProbe]) -> str:
    return f"the two are the same to the last bit{_every(probes)}"


def _every(probes: Sequence[KeptProbe]) -> str:
    return " on every probe" if len(probes) > 1 else ""


def holds(name: str, probes: Sequence[KeptProbe]) -> str | None:
    """The later quantity whose numbers this one has on every probe, to the bit, while they are right for that one.

    Then both are one array, and the later was computed into it: unless the numbers are right for this one, too.
    """
    probes = [p for p in probes if name in p.reported and name in p.items]
    if not probes or all(_right(name, p) for p in probes):
        return None
    order = list(probes[0].items)
    later = [n for n in order[order.index(name) + 1 :] if all(n in p.reported and n in p.items for p in probes)]
    return next((other for other in later if all(_one_array(name, other, p) for p in probes)), None)


def _one_array(name: str, other: str, probe: KeptProbe) -> bool:
    kinds = {probe.items[n].quantity.kind for n in (name, other)}
    own = probe.reported[other]
    if not kinds <= {"value", "gradient"} or own.size < 2 or not own.any():
        return False
    return bit_identical(own, probe.reported[name]) and _right(other, probe)


def _right(name: str, probe: KeptProbe) -> bool:
    """Whether a quantity is right in the whole pass, whatever it makes of what it is said to be computed from."""
    own, whole = probe.reported[name], probe.items[name].end_to_end
    if whole is None or own.shape != whole.value.shape:
        return False
    with np.errstate(all="ignore"):
        return bool(np.all(np.abs(own - whole.value) <= whole.allowed))


def _ancestors(graph: Graph, name: str) -> Iterator[str]:
    """Everything that a quantity is computed from, the nearest first."""
    seen, edge = {name}, [name]
    while edge:
        read = dict.fromkeys(n for quantity in edge for n in _read(graph, quantity))
        edge = [n for n in read if n not in seen]
        seen.update(edge)
        yield from edge


def _read(graph: Graph, name: str) -> Iterator[str]:
    """What the steps that make a quantity read; for a gradient, what they are given from behind, first."""
    if name.endswith(NEW):
        yield name.removesuffix(NEW) + GRAD
    for maker in graph.makers(name):
        step = graph.step(maker)
        if step is None:
            yield graph.output
            continue
        if name.endswith(GRAD):
            yield from (step.name + GRAD, step.name)
        yield from step.inputs
