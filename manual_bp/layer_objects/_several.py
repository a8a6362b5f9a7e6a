"""Layers of several inputs, such as attention or a sum: ``forward(q, k, v)``, ``backward(upstream) -> (dq, dk, dv)``.

Inputs are in torch's layout; the parameters' layouts are found as for one input, by the forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.adapters import Adapter
from manual_bp.candidate import Given, Located, as_array, call
from manual_bp.diagnose import place_of
from manual_bp.layer_objects._chain import like, with_hints
from manual_bp.layer_objects._influence import Tried, likeliest
from manual_bp.layer_objects._match import TRIALS, parameter_options, trial_parameters
from manual_bp.layer_objects._pairs import as_layer
from manual_bp.layer_objects._parameters import find_parameters
from manual_bp.layer_objects._views import View, agreement, identity, output_views
from manual_bp.layer_objects._wired import Wired
from manual_bp.report import Report
from manual_bp.trace import GRAD, Array
from manual_bp.verification import verify


def verify_several(
    layer: Any,
    reference: Any,
    x: tuple[Array, ...],
    upstream: Any,
    adapter: Adapter | None,
    said: Mapping[str, str],
    dtype: str | None,
    title: str,
    common: Mapping[str, Any],
) -> Report:
    """`manual_bp.verify_layer` for a tuple of inputs."""
    side = _torch_side.layer_reference
    own, module, own_adapter = as_layer(layer, adapter, side.checked(reference))
    shapes = side.shapes(module)
    wired = Wired(own, own_adapter or Adapter(), bool(module.training), bool(shapes), inputs=len(x))
    wired.check()
    if shapes:
        wirings = find_parameters(own, own_adapter, shapes)
        module = side.without(module, [name for name in shapes if not wirings[0].get(name)])
        view = _settle(wired, wirings, module, x, said)
    else:
        with np.errstate(all="ignore"):
            view = identity(call(lambda: wired.forward({}, _copies(x)), Given(), None, None).shape)
    notes: list[str] = []
    floats = [part.dtype for part in x if part.dtype.kind == "f"]
    own_dtype = np.dtype(dtype or (floats[0] if floats and floats[0] in (np.float32, np.float64) else np.float64))
    common_dtype = dtype or str(own_dtype)

    def candidate(params: Mapping[str, Array], x: Any, y: Any) -> dict[str, Any]:
        mine = {name: params[name] for name in wired.wiring}
        reported: dict[str, Any] = {"output": view.to_torch(wired.forward(mine, x))}
        gradients, found = wired.backward(mine, view.to_layer(np.array(y)))
        for at, gradient in enumerate(gradients if isinstance(gradients, tuple) else (gradients,)):
            if gradient is not None and x[at].dtype.kind == "f":
                reported[f"x[{at}]{GRAD}"] = gradient
        reported |= found
        notes.extend(wired.notes)
        return {name: like(value, own_dtype, notes) for name, value in reported.items() if value is not None}

    placed = Located(candidate, lambda name: place_of(wired.method("backward" if name.endswith(GRAD) else "forward")))
    given = None if upstream is None else view.to_torch(as_array("upstream", upstream))
    name = title or getattr(layer[0] if isinstance(layer, tuple) else layer, "__name__", type(layer).__name__)
    frozen = side.frozen(module)
    due = [f"{n}{GRAD}" for n in wired.due() if n != "x" and n not in frozen]
    due += [f"x[{at}]{GRAD}" for at, part in enumerate(x) if part.dtype.kind == "f" and "x" in wired.due()]
    report = with_hints(verify(placed, module, x=x, y=given, dtype=common_dtype, title=name, complete=due, **common))
    return replace(report, notes=(*report.notes, *dict.fromkeys(notes)))


def _settle(wired: Wired, wirings: list[Any], module: Any, x: tuple[Array, ...], said: Mapping[str, str]) -> View:
    """Find where and how the parameters are, by the forward pass; the layout of the output."""
    params = trial_parameters(module)
    expected = _torch_side.layer_reference.forward(module, params, x)
    tried: list[Tried] = []
    tries: list[tuple[Any, Any]] = []
    failed: Any = None
    options = ((w, v) for w in wirings for v in parameter_options(wired.layer, w, params, said, identity(x[0].shape)))

    def own(wiring: Any, views: Any, params: Mapping[str, Array], x: tuple[Array, ...]) -> Array:
        wired.wiring, wired.views = wiring, views
        with np.errstate(all="ignore"):
            return wired.forward(params, _copies(x))

    for wiring, views in islice(options, TRIALS):
        try:
            found = own(wiring, views, params, x)
        except Exception:  # noqa: BLE001  # conventions that the layer cannot work with are not its own
            failed = failed or (wiring, views)
            continue
        outputs = list(islice(output_views(found.shape, expected.shape, identity(expected.shape)), 24))
        if not outputs:
            continue
        tries.append((wiring, views))
        tried.append(
            Tried(
                own=partial(own, wiring, views),
                reference=partial(_torch_side.layer_reference.forward, module),
                x=x,
                turned=any(view.turned for of in views.values() for view in of),
                views=outputs,
                scores=[agreement(np.asarray(view.to_torch(found), np.float64), expected) for view in outputs],
                elements=expected.size,
            )
        )
        if max(tried[-1].scores)[0] == 1.0:
            break
    if not tried:
        wired.wiring, wired.views = failed or (wired.wiring, wired.views)
        found = call(lambda: wired.forward(params, _copies(x)), Given(), None, None)  # raises what it raised
        return identity(found.shape)
    chosen, view = likeliest(tried, params)
    wired.wiring, wired.views = tries[chosen]
    return view


def _copies(x: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(np.array(part) for part in x)
