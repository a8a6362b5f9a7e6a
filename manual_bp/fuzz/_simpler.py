"""From a failing case to the smallest one that still shows it.

First the network: only its beginning, only its end (the values that come in become the input), without single steps;
then fewer examples; then zeros, ones and round numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from manual_bp import nn
from manual_bp.network import INPUT, Network, Node
from manual_bp.nn import Array
from manual_bp.probes import Probe

Fails = Callable[[Probe], bool]
Case = tuple[Network, Probe]

#: How many simplifications of the numbers are tried.
TRIALS = 400


def simplify_network(network: Network, probe: Probe, fails: Callable[[Network, Probe], bool]) -> Case:
    """The smallest network found that still fails, with the numbers that its steps saw in the large one."""
    while True:
        smaller = next((case for case in _parts(network, probe) if fails(*case)), None)
        if smaller is None:
            return network, probe
        network, probe = smaller


def _parts(network: Network, probe: Probe) -> Iterator[Case]:
    """Networks with fewer steps, the smallest first."""
    values = network.run(probe.params, probe.x, probe.y).trace
    count = len(network.nodes)
    for size in range(1, count):
        for first in range(count - size + 1):
            yield from _part(network, probe, values, first, first + size)
    for i, node in enumerate(network.nodes):
        if 0 < i < count - 1:
            others = (n for n in network.nodes if n is not node)
            swap = {node.name: node.inputs[0]}
            rest = [replace(n, inputs=tuple(swap.get(name, name) for name in n.inputs)) for n in others]
            yield _made(network, probe, rest)
    yield from _narrower(network, probe)
    if network.optimizer is not None:
        yield replace(network, optimizer=None), probe
    if type(network.loss) is not nn.MSELoss:
        yield replace(network, loss=nn.MSELoss()), replace(probe, y=np.zeros_like(values[network.output]))


def _part(network: Network, probe: Probe, values: dict[str, Array], first: int, last: int) -> Iterator[Case]:
    """The steps from ``first`` up to ``last`` alone, if all that they read from outside is one value."""
    nodes = network.nodes[first:last]
    inside = {node.name for node in nodes}
    outside = {name for node in nodes for name in node.inputs if name not in inside}
    unread = {node.name for node in nodes[:-1]} - {name for node in nodes for name in node.inputs}
    if len(outside) != 1 or unread:
        return
    (source,) = outside
    x = values[source]
    nodes = tuple(replace(n, inputs=tuple(INPUT if name == source else name for name in n.inputs)) for n in nodes)
    small = replace(network, nodes=nodes, input_shape=x.shape[1:])
    params = {name: a for name, a in probe.params.items() if name.split(".")[0] in inside}
    probe = replace(probe, params=params, x=x)
    if last == len(network.nodes):
        yield replace(small, optimizer=None), probe
        yield small, probe
        return
    yield replace(small, loss=nn.MSELoss(), optimizer=None), replace(probe, y=np.zeros_like(values[nodes[-1].name]))


def _narrower(network: Network, probe: Probe) -> Iterator[Case]:
    """Half of the input along each axis, where the layers take it; the target becomes 0, which suits a squared loss."""
    if type(network.loss) is not nn.MSELoss:
        return
    for axis in range(1, probe.x.ndim):
        if probe.x.shape[axis] < 2:
            continue
        x = np.take(probe.x, range(probe.x.shape[axis] // 2), axis)
        output = network.run(probe.params, x, x).trace.get(network.output)
        if output is not None:
            yield replace(network, input_shape=x.shape[1:]), replace(probe, x=x, y=np.zeros_like(output))


def _made(network: Network, probe: Probe, nodes: list[Node]) -> Case:
    names = {node.name for node in nodes}
    params = {name: a for name, a in probe.params.items() if name.split(".")[0] in names}
    return replace(network, nodes=tuple(nodes)), replace(probe, params=params)


def simplify(probe: Probe, fails: Fails, *, trials: int = TRIALS) -> Probe:
    """The simplest probe found that still fails.

    Whole arrays are tried first, then halves, and so on to single elements; what is kept is never undone.
    """
    left = [trials]

    def attempt(candidate: Probe) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fails(candidate)

    while probe.batch > 1 and left[0] > 0:
        smaller = next((c for c in _fewer(probe) if attempt(c)), None)
        if smaller is None:
            break
        probe = smaller
    for name in ("x", "y", *probe.params):
        for target in (np.zeros_like, np.ones_like, np.round):
            probe = _simplify_array(probe, name, target, attempt)
    return probe


def _fewer(probe: Probe) -> Iterator[Probe]:
    """One half of the examples, then all but one."""
    n = probe.batch
    everything = list(range(n))
    for keep in (everything[: n // 2], everything[n // 2 :], *([i for i in everything if i != d] for d in everything)):
        yield replace(probe, x=probe.x[keep], y=probe.y[keep])


def _simplify_array(probe: Probe, name: str, target: Callable[[Array], Array], attempt: Fails) -> Probe:
    """Give ever smaller parts of an array simpler values, as long as the failure stays."""
    size = _array(probe, name).size
    if _array(probe, name).dtype.kind != "f":
        return probe
    part = size
    while part >= 1:
        for start in range(0, size, part):
            current = _array(probe, name)
            simpler = current.copy()
            simpler.reshape(-1)[start : start + part] = target(current).reshape(-1)[start : start + part]
            if not np.array_equal(simpler, current):
                candidate = _with(probe, name, simpler)
                probe = candidate if attempt(candidate) else probe
        part //= 2
    return probe


def _array(probe: Probe, name: str) -> Array:
    return {"x": probe.x, "y": probe.y}[name] if name in ("x", "y") else probe.params[name]


def _with(probe: Probe, name: str, array: Array) -> Probe:
    if name == "x":
        return replace(probe, x=array)
    if name == "y":
        return replace(probe, y=array)
    return replace(probe, params={**probe.params, name: array})
