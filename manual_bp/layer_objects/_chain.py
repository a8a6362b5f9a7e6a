"""Layers one after another as a candidate for `manual_bp.verify`: each judged on its own, findings in its own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.candidate import Located, as_array
from manual_bp.diagnose import place_of
from manual_bp.layer_objects._in_place import InPlace
from manual_bp.layer_objects._losses import LossObject
from manual_bp.layer_objects._match import Matched
from manual_bp.layer_objects._views import View
from manual_bp.layer_objects._wired import Wired
from manual_bp.report import Report
from manual_bp.trace import GRAD, Array
from manual_bp.verification import verify


@dataclass(frozen=True)
class Link:
    """One layer of a chain: the name of its output, and the prefix of its parameters, in the reference.

    Those of a module that stands twice have the prefix of the first place.
    """

    name: str
    prefix: str
    known: Matched

    def own(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """Its parameters, by its module's own names."""
        return {name: params[self.prefix + name] for name in self.known.wired.wiring}


def judged_chain(chain: list[Link], module: Any, loss: LossObject | None, *others: Any) -> Report:
    """The report; where the gradients of parameters are means, and nothing else is wrong, it says how to say so."""
    report = _run(chain, module, loss, *others)
    wrong = {check.kind for check in report.checks if check.status == "wrong"}
    if report.ok or loss is not None or wrong != {"parameter_gradient"}:
        return report
    if any(link.known.wired.adapter.averaged for link in chain):
        return report
    means = [replace(link, known=replace(link.known, wired=_averaged(link.known.wired))) for link in chain]
    if not _run(means, module, loss, *others).ok:
        return report
    text = (
        "the gradients of its parameters are means over the examples; if that is meant: adapter=Adapter(averaged=True)"
    )
    return replace(report, notes=(*report.notes, text))


def _due(chain: list[Link], x: Array) -> list[str]:
    """Names of the gradients that the layers should have; running statistics and frozen parameters have none."""
    found: list[str] = []
    before = "x"
    for link in chain:
        frozen = _torch_side.layer_reference.frozen(link.known.module)
        for name in link.known.wired.due():
            if name == "x":
                found += [before + GRAD] if before != "x" or x.dtype.kind == "f" else []
            elif name not in frozen:
                found.append(link.prefix + name + GRAD)
        before = link.name
    return found


def with_hints(report: Report) -> Report:
    """What is missing, with how to say where it is."""
    missing = [check.name for check in report.checks if check.status == "missing"]
    if not missing:
        return report
    name = missing[0].removesuffix(GRAD)
    hint = (
        "backward returned nothing for it"
        if name == "x"
        else f"if the layer has it after backward, say where: Adapter(grads={{{name!r}: 'its attribute'}})"
    )
    text = f"no {missing[0]} was found; {hint}; if it computes none: Adapter(grads={{{name!r}: None}})"
    return replace(report, notes=(*report.notes, text))


def _place(chain: list[Link], loss: LossObject | None, quantity: str) -> str:
    """Where the method is that makes a quantity."""
    if not quantity.endswith(GRAD):
        owner = next((link for link in chain if link.name == quantity), None)
        return place_of(owner.known.wired.method("forward") if owner else loss and loss.method("forward"))
    base = quantity.removesuffix(GRAD)
    names = ["x", *(link.name for link in chain)]
    if base in names:  # the gradient of a value is made by what reads it
        at = names.index(base)
        return place_of(
            chain[at].known.wired.method("backward") if at < len(chain) else loss and loss.method("backward")
        )
    owner = next((link for link in chain if base.startswith(link.prefix)), None)
    return place_of(owner.known.wired.method("backward")) if owner else ""


def _averaged(wired: Wired) -> Wired:
    return replace(wired, adapter=replace(wired.adapter, averaged=True))


def _run(
    chain: list[Link],
    module: Any,
    loss: LossObject | None,
    x: Array,
    y: Array | None,
    upstream: Any,
    dtype: str | None,
    title: str,
    common: dict[str, Any],
) -> Report:
    first, last = chain[0].known, chain[-1].known
    notes: list[str] = []
    if dtype is None and any(link.known.single for link in chain):
        dtype = "float32"
        notes.append("it computes in float32 whatever it is given; judged in float32")
    given = None if upstream is None else last.output.to_torch(as_array("upstream", upstream))
    own_dtype = np.dtype(dtype or (x.dtype if x.dtype in (np.float32, np.float64) else np.float64))
    in_place = InPlace()

    def candidate(params: Mapping[str, Array], x: Any, y: Any) -> dict[str, Any]:
        reported: dict[str, Any] = {}
        start = current = first.x.to_layer(x)
        for link in chain:
            handed, before = current, np.array(current)
            current = link.known.wired.forward(link.own(params), handed)
            if handed is not start and not getattr(link.known.module, "inplace", False):
                in_place.look(before, handed, link.name, type(link.known.wired.layer).__name__)
            reported[link.name] = np.array(link.known.output.to_torch(current))  # the next layer may work on it
        if not np.shares_memory(start, x):
            x[...] = first.x.to_torch(start)  # a layer that works on its input in place is seen to do so
        # where layers average, and the loss leaves it to them, gradients of values are as many times too large
        many = len(x) if any(link.known.wired.adapter.averaged for link in chain) else 1
        shrunk, grown = (many, 1) if loss is not None else (1, many)
        if loss is None:
            gradient: Any = last.output.to_layer(np.array(y))
        else:
            reported["loss"] = loss.forward(current, y)
            gradient = loss.backward(current, y)
            reported[chain[-1].name + GRAD] = _torch_or_none(last.output, gradient, shrunk)
        shares: dict[str, dict[int, Array]] = {}
        for at, link in reversed(list(enumerate(chain))):
            if gradient is None:
                break
            gradient, found = link.known.wired.backward(link.own(params), np.array(gradient))
            scale = grown if link.known.wired.adapter.averaged else 1
            for name, value in found.items():
                _share(shares, link, name, value * scale if scale > 1 else value)
            if at or x.dtype.kind == "f":
                reported[(chain[at - 1].name if at else "x") + GRAD] = _torch_or_none(link.known.x, gradient, shrunk)
            notes.extend(link.known.wired.notes)
        reported |= {name: reduce(np.add, uses.values()) for name, uses in shares.items()}
        return {name: like(value, own_dtype, notes) for name, value in reported.items() if value is not None}

    report = verify(
        Located(candidate, lambda quantity: _place(chain, loss, quantity)),
        module,
        x=first.x.to_torch(x),
        y=y if loss is not None else given,
        loss=loss.reference if loss is not None else None,
        dtype=dtype,
        title=title,
        complete=_due(chain, x),
        **common,
    )
    report = in_place.blamed(with_hints(report), lambda quantity: _place(chain, loss, quantity))
    return replace(report, notes=(*report.notes, *dict.fromkeys(notes)))


def _share(shares: dict[str, dict[int, Array]], link: Link, name: str, value: Array) -> None:
    """Add what one use of a module gives to the gradient of its parameter.

    Two layers have a share each. One layer that stands twice should hold the sum of both after its last backward pass;
    only what it returns each time is added up, as whoever calls it would.
    """
    wired = link.known.wired
    mine = shares.setdefault(link.prefix + name, {})
    known = None if wired.holds(name.removesuffix(GRAD)) else mine.get(id(wired.layer))
    mine[id(wired.layer)] = value if known is None else known + value


def _torch_or_none(view: View, value: Any, divisor: int) -> Array | None:
    if value is None:
        return None
    found = np.array(view.to_torch(np.asarray(value)))
    return found / found.dtype.type(divisor) if divisor > 1 and found.dtype.kind == "f" else found


def like(value: Any, dtype: np.dtype[Any], notes: list[str]) -> Array:
    """Whole numbers and masks as numbers; float64 that was made of float32 as float32, which only rounds once more."""
    array = np.asarray(value)
    if array.dtype.kind in "iub" or (array.dtype == np.float64 and dtype == np.float32):
        if array.dtype.kind == "f":
            notes.append("it returns float64 for float32; compared as float32")
        return array.astype(dtype)
    return array
