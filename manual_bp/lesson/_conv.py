"""Convolution with a run's numbers: the patch, the sum over all patches, the rotated kernel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from manual_bp.nn import Array
from manual_bp.report_lesson import Grid, Worked

from ._number import Index, Term, as_plane, at, grid, largest, sum_of_products
from ._view import View

_PAD: dict[str, Literal["constant", "reflect", "edge", "wrap"]] = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


class _Taps:
    """Which input element each output sees through each tap of the kernel."""

    def __init__(self, view: View) -> None:
        window, mode, groups = view.options.window, view.options.padding_mode, view.options.groups
        self.axes = len(window.kernel)
        self.kernel, self.stride, self.dilation, self.before = (
            window.kernel,
            window.stride,
            window.dilation,
            window.before,
        )
        self.lengths = view.x[0].shape[-self.axes :]
        self.outputs = view.y.shape[-self.axes :]
        self.plain = set(window.stride) == set(window.dilation) == {1} and mode == "zeros"
        self.out_of_group = view.params["weight"].shape[0] // groups
        self.in_of_group = view.params["weight"].shape[1]
        widths = zip(self.lengths, window.before, window.after, strict=True)
        self.sources = [_sources(length, (before, after), mode) for length, before, after in widths]

    def seen(self, position: Index, tap: Index) -> Index | None:
        """The input element, None where it is a padded zero."""
        found = tuple(
            int(self.sources[a][position[a] * self.stride[a] + tap[a] * self.dilation[a]]) for a in range(self.axes)
        )
        return None if -1 in found else found

    def channel(self, o: int, c: int) -> int:
        """The input channel that filter o calls c."""
        return int(o // self.out_of_group * self.in_of_group + c)

    def positions(self) -> Iterator[Index]:
        return itertools.product(*map(range, self.outputs))

    def taps(self) -> Iterator[Index]:
        return itertools.product(*map(range, self.kernel))

    def seers(self, element: Index) -> list[tuple[Index, Index]]:
        """Every (output position, tap) through which an input element is seen."""
        by_axis = [
            [
                (p, t)
                for p in range(self.outputs[a])
                for t in range(self.kernel[a])
                if self.sources[a][p * self.stride[a] + t * self.dilation[a]] == element[a]
            ]
            for a in range(self.axes)
        ]
        return [(tuple(p for p, _ in pairs), tuple(t for _, t in pairs)) for pairs in itertools.product(*by_axis)]


def _sources(length: int, width: tuple[int, int], mode: str) -> Array:
    """The element that each padded position copies, -1 for a padded zero."""
    options: dict[str, Any] = {"constant_values": -1} if mode == "zeros" else {}
    padded: Array = np.pad(np.arange(length), width, mode=_PAD[mode], **options)
    return padded


def value(view: View) -> tuple[Worked, ...]:
    """One output: the patch of the image times the kernel."""
    taps, w, x = _Taps(view), view.params["weight"], view.x[0]
    index = largest(view.y)
    n, o, position = index[0], index[1], index[2:]
    terms: list[Term] = []
    patch = np.zeros(w.shape[1:])
    for c, tap in itertools.product(range(taps.in_of_group), taps.taps()):
        seen = taps.seen(position, tap)
        patch[(c, *tap)] = x[(n, taps.channel(o, c), *seen)] if seen else 0.0
        terms.append((float(w[(o, c, *tap)]), float(patch[(c, *tap)])))
    if "bias" in view.params:
        terms.append((float(view.params["bias"][o]),))
    grids: tuple[Grid, ...] = ()
    if taps.axes < 3:
        first = "" if taps.in_of_group == 1 else ", first channel"
        grids = (
            grid(f"the patch of {view.symbols['x0']}{first}", as_plane(patch[0])),
            grid(f"the kernel {view.symbols['weight']}{first}", as_plane(w[o, 0])),
        )
    return (sum_of_products(at(view.symbols["y"], index), terms, view.y[index], grids=grids),)


def input_gradient(view: View, index: Index) -> tuple[Worked, ...]:
    """What one input element gets back from every output that saw it."""
    taps, w = _Taps(view), view.params["weight"]
    n, channel, element = index[0], index[1], index[2:]
    group, c = divmod(channel, taps.in_of_group)
    filters = range(group * taps.out_of_group, (group + 1) * taps.out_of_group)
    terms = [
        (float(view.dy[(n, o, *position)]), float(w[(o, c, *tap)]))
        for o in filters
        for position, tap in taps.seers(element)
    ]
    grids: tuple[Grid, ...] = ()
    if taps.plain and taps.axes < 3:
        o = max(filters, key=lambda k: float(np.abs(_around(taps, view.dy[n, k], element)).sum()))
        of = "" if len(filters) == 1 else f", filter {o}"
        grids = (
            grid(f"{view.symbols['dy']} around it{of}", as_plane(_around(taps, view.dy[n, o], element))),
            grid(f"the kernel rotated by 180°{of}", as_plane(np.flip(w[o, c]))),
        )
    note = "each of these outputs saw the element through another tap: read along the outputs, the kernel is rotated"
    return (sum_of_products(at(view.symbols["dx0"], index), terms, view.dx[0][index], grids=grids, note=note),)


def _around(taps: _Taps, delta: Array, element: Index) -> Array:
    """The deltas of the outputs that saw an element, 0 where there is no output; stride and dilation are 1."""
    found = np.zeros(taps.kernel)
    for tap in taps.taps():
        position = tuple(u + b - (k - 1) + t for u, b, k, t in zip(element, taps.before, taps.kernel, tap, strict=True))
        if all(0 <= p < n for p, n in zip(position, taps.outputs, strict=True)):
            found[tap] = delta[position]
    return found


def weight_gradient(view: View) -> tuple[Worked, ...]:
    """One weight: the sum over all patches of all examples."""
    taps, x = _Taps(view), view.x[0]
    index = largest(view.dparams["weight"])
    o, c, tap = index[0], index[1], index[2:]
    channel = taps.channel(o, c)
    terms: list[Term] = []
    shifted = np.zeros((len(x), *taps.outputs))
    for n in range(len(x)):
        for position in taps.positions():
            seen = taps.seen(position, tap)
            shifted[(n, *position)] = x[(n, channel, *seen)] if seen else 0.0
            terms.append((float(view.dy[(n, o, *position)]), float(shifted[(n, *position)])))
    grids: tuple[Grid, ...] = ()
    if taps.axes < 3:
        n = largest(view.dy[:, o])[0]
        place = largest(as_plane(view.dy[n, o]))
        around = (place[0], place[1])
        where = f", example {n}" if len(x) > 1 else ""
        through = ",".join(map(str, tap))
        grids = (
            grid(f"{view.symbols['dy']}{where}", as_plane(view.dy[n, o]), around=around),
            grid(f"{view.symbols['x0']} as seen through tap [{through}]{where}", as_plane(shifted[n]), around=around),
        )
    note = f"one term for each of the {len(terms)} patches"
    result = view.dparams["weight"][index]
    return (sum_of_products(at(view.symbols["dweight"], index), terms, result, grids=grids, note=note),)


def bias_gradient(view: View) -> tuple[Worked, ...]:
    """The bias entered every output of its filter with factor 1."""
    (o,) = largest(view.dparams["bias"])
    terms = [(float(value),) for value in view.dy[:, o].ravel()]
    return (sum_of_products(at(view.symbols["dbias"], (o,)), terms, view.dparams["bias"][o]),)
