"""From a network and a probe to a fixture: what a program in any language starts from, and what it is to find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from manual_bp import __version__, _torch_side
from manual_bp.dumps._layout import base, channels_last, torch_layouts
from manual_bp.dumps._manifest import EXPECTED, Given, Manifest, Role, Shape, Wanted, crc
from manual_bp.errors import ManualBPError
from manual_bp.layouts import from_torch_layout
from manual_bp.network import INPUT, TARGET, Network
from manual_bp.probes import Probe
from manual_bp.trace import Array, Quantity, Trace


def fixture(
    network: Network,
    probe: Probe,
    *,
    expected: bool = True,
    layouts: Mapping[str, str] | None = None,
    last: bool = False,
) -> tuple[Manifest, dict[str, Array]]:
    """The manifest of a fixture and its arrays by place.

    Parameters
    ----------
    expected
        Whether what PyTorch has for every quantity stands beside (needs torch).
    layouts
        By value or parameter ("z1", "z1.weight"), how it is to be stored and expected back; gradients follow.
    last
        Channels last, throughout: NHWC, HWIO, IO. ``layouts`` says what is to be otherwise.

    Raises
    ------
    ManualBPError
        A layout is for nothing that there is, or does not fit.
    """
    wanted = [q for q in network.quantities() if q.kind != "parameter" and q.name != INPUT]
    torch_arrays = _expected(network, probe, wanted) if expected else network.run(probe.params, probe.x, probe.y).trace
    given: Trace = {**probe.params, INPUT: probe.x, TARGET: probe.y}
    chosen = _layouts(network, {**given, **torch_arrays}, layouts or {}, last)
    nearby = [array.shape for array in (*given.values(), *torch_arrays.values()) if array.ndim > 2]

    def stored(name: str, array: Array) -> Array:
        text = chosen.get(base(name))
        return np.array(array if text is None else from_torch_layout(array, text, shapes=nearby), order="C")

    arrays: dict[str, Array] = {}
    entries: list[Given] = []
    for name, array in given.items():
        own = stored(name, array)
        entry = Given(role=_role(network, name), crc32=crc(own), **_entry(name, own, chosen, array.shape))
        arrays[entry.at] = own
        entries.append(entry)
    answers: list[Wanted] = []
    for quantity in wanted:
        array = torch_arrays[quantity.name]
        own = stored(quantity.name, array)
        text = quantity.equation.text if quantity.equation else ""
        shape = _entry(quantity.name, own, chosen, array.shape)
        answers.append(Wanted(kind=quantity.kind, equation=text, **shape))
        if expected:
            arrays[EXPECTED + quantity.name] = own
    torch = f" with torch {_torch_side.torch_version()}" if expected else ""
    manifest = Manifest(
        network=network.name,
        probe=probe.name,
        description=probe.description,
        dtype=str(next(a.dtype for a in (probe.x, *probe.params.values()) if a.dtype.kind == "f")),
        seed=probe.seed,
        batch=probe.batch,
        given=tuple(entries),
        wanted=tuple(answers),
        written_by=f"manual-bp {__version__}{torch}",
    )
    return manifest, arrays


def _expected(network: Network, probe: Probe, wanted: Iterable[Quantity]) -> Trace:
    """torch's own pass."""
    judge = _torch_side.judge.Judge(network, str(probe.x.dtype))
    found = {item.quantity.name: item.end_to_end for item in judge.items(probe.params, probe.x, probe.y, {})}
    return {q.name: answer.value for q in wanted if (answer := found[q.name]) is not None}


def _layouts(network: Network, arrays: Trace, asked: Mapping[str, str], last: bool) -> dict[str, str]:
    ranks = {name: array.ndim for name, array in arrays.items() if name == base(name)}
    for name in asked:
        if name not in ranks:
            close = get_close_matches(name, ranks, n=1)
            raise ManualBPError(
                f"a layout is given for {name!r}, which network {network.name!r} does not have",
                hint=f"did you mean {close[0]}" if close else f"choose one of {', '.join(ranks)}",
            )
    return {**(channels_last if last else torch_layouts)(network, ranks), **asked}


def _role(network: Network, name: str) -> Role:
    if name in (INPUT, TARGET):
        return "input" if name == INPUT else "target"
    return "parameter" if name in network.parameter_shapes() else "buffer"


def _entry(name: str, own: Array, layouts: Mapping[str, str], torch_shape: Shape) -> dict[str, Any]:
    return {
        "name": name,
        "shape": own.shape,
        "dtype": str(own.dtype),
        "layout": layouts.get(base(name)),
        "torch_shape": tuple(torch_shape),
    }
