"""Where the steps of a network go on a page: layers from top to bottom, branches beside each other.

A connection that passes over layers gets a lane of its own in each of them, so that no line runs through a step.
Lanes keep their place as long as they can, so that a chain is a straight line and a residual branch runs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: A connection from one step to a later one, by name.
Link = tuple[str, str]

#: More places than this for connections that pass over layers, and the longest of them are left out.
MOST_PLACES = 2000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layer and lane of each step, and the lanes of each link in the layers between its ends (top to bottom)."""

    layer: Mapping[str, int]
    lane: Mapping[str, int]
    routes: Mapping[Link, tuple[int, ...]]
    dropped: int

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return max(self.layer.values(), default=-1) + 1

    @property
    def lanes(self) -> int:
        """How many lanes there are."""
        used = [*self.lane.values(), *(lane for route in self.routes.values() for lane in route)]
        return max(used, default=-1) + 1


def arrange(inputs: Mapping[str, Sequence[str]], last: Sequence[str] = ()) -> Layout:
    """Lay out steps, given in execution order with the names of what each reads.

    Names that no earlier step has are ignored. The steps in ``last`` (which read nothing that is drawn) go below all
    others.
    """
    layer = _layers(inputs, last)
    links = [
        (source, target)
        for target, sources in inputs.items()
        for source in dict.fromkeys(sources)
        if source in layer and layer[source] < layer[target]
    ]
    kept, dropped = _affordable(links, layer)
    lane, routes = _lanes(layer, kept)
    return Layout(layer=layer, lane=lane, routes=routes, dropped=dropped)


def _layers(inputs: Mapping[str, Sequence[str]], last: Sequence[str]) -> dict[str, int]:
    layer: dict[str, int] = {}
    for name, sources in inputs.items():
        if name not in last:
            layer[name] = 1 + max((layer[source] for source in sources if source in layer), default=-1)
    bottom = 1 + max(layer.values(), default=-1)
    return layer | dict.fromkeys(last, bottom)


def _affordable(links: list[Link], layer: Mapping[str, int]) -> tuple[list[Link], int]:
    """The links whose routes fit into :data:`MOST_PLACES`, short ones first; and how many do not."""
    length = {link: layer[link[1]] - layer[link[0]] - 1 for link in links}
    left, kept = MOST_PLACES, set()
    for link in sorted(links, key=length.__getitem__):
        if length[link] <= left:
            left -= length[link]
            kept.add(link)
    return [link for link in links if link in kept], len(links) - len(kept)


def _lanes(layer: Mapping[str, int], links: Sequence[Link]) -> tuple[dict[str, int], dict[Link, tuple[int, ...]]]:
    """Layer by layer: each step takes the lane of what it reads, or the next free one; passing links come after."""
    reads: dict[str, list[str]] = {}
    for source, target in links:
        reads.setdefault(target, []).append(source)
    rows: dict[int, list[str]] = {}
    for name, number in layer.items():
        rows.setdefault(number, []).append(name)

    lane: dict[str, int] = {}
    routes: dict[Link, tuple[int, ...]] = dict.fromkeys(links, ())
    for number in sorted(rows):
        passing = [link for link in links if layer[link[0]] < number < layer[link[1]]]
        # what is already in a lane is wanted there again, also by the step that a passing link ends in
        wish = {
            name: min((_came_from(lane, routes, (source, name)) for source in reads.get(name, ())), default=0)
            for name in rows[number]
        }
        taken: set[int] = set()
        for name in sorted(rows[number], key=lambda name: wish[name]):
            lane[name] = _free(wish[name], taken)
        for link in sorted(passing, key=lambda link: _came_from(lane, routes, link)):
            # several links out of one step run as one line as far as they go together
            beside = [other for other in passing if other[0] == link[0] and len(routes[other]) > len(routes[link])]
            place = routes[beside[0]][-1] if beside else _free(_came_from(lane, routes, link), taken)
            routes[link] = (*routes[link], place)
    return lane, routes


def _came_from(lane: Mapping[str, int], routes: Mapping[Link, tuple[int, ...]], link: Link) -> int:
    route = routes[link]
    return route[-1] if route else lane[link[0]]


def _free(wanted: int, taken: set[int]) -> int:
    """The first lane from ``wanted`` on that is not taken; it is taken now."""
    while wanted in taken:
        wanted += 1
    taken.add(wanted)
    return wanted
