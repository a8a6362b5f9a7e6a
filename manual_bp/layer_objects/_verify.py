"""``verify_layer``: a layer, a loss, or a list of layers of a from-scratch library beside torch.nn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.adapters import Adapter
from manual_bp.candidate import Located, as_array, stays
from manual_bp.diagnose import place_of
from manual_bp.errors import ManualBPError
from manual_bp.inputs import is_several
from manual_bp.layer_objects._chain import Link, judged_chain, like
from manual_bp.layer_objects._losses import LossObject
from manual_bp.layer_objects._match import match
from manual_bp.layer_objects._pairs import as_layer
from manual_bp.layer_objects._several import verify_several
from manual_bp.report import Report
from manual_bp.trace import GRAD, Array
from manual_bp.variants import within
from manual_bp.verification import verify


@stays
def verify_layer(
    layer: Any,
    reference: Any,
    *,
    x: Any,
    y: Any = None,
    upstream: Any = None,
    adapter: Adapter | Mapping[str, Adapter] | None = None,
    layouts: Mapping[str, str] | None = None,
    dtype: str | None = None,
    probes: Sequence[str] | str | None = "all",
    seed: int = 0,
    strict_kinks: bool = False,
    title: str = "",
) -> Report:
    """Judge a layer object: its output, dL/dx, and the gradient of each of its parameters.

    What a library calls its methods, where it keeps parameters and gradients, how it lays out its arrays and whether it
    computes in float32 is found by names, by shapes, and by what makes the *forward* pass agree; never by whether a
    gradient agrees.

    Parameters
    ----------
    layer
        An object with forward and backward methods; a pair of functions ``forward(x, weight, bias) -> (output, cache)``
        and ``backward(upstream, cache) -> (dx, dweight, dbias)``; or a list of such, one for each child of the
        reference, which is an nn.Sequential then. Its parameters are overwritten by the reference's.
    reference
        The torch.nn module it should equal, or a function of one tensor such as ``F.silu``. For a loss, a loss module
        or a function of (prediction, target) in torch; at the end of an nn.Sequential, the list's last member is the
        loss.
    x
        Input in the layer's own layout; a tuple of several, in torch's.
    y
        The target of a loss, as torch takes it.
    upstream
        dL/d(output) in the layer's own layout; random if not given. Ones hide whole classes of mistakes.
    adapter
        Where things are, if they are not found. For a loss, ``forward`` and ``backward`` are functions of
        ``(loss, x, y)``. For a list, one for all of its layers, or by the names of the reference's children.
    layouts
        By ``x``, ``output`` or torch's parameter name: "NHWC", "HWIO", "IO"; what is not given is found.
    dtype
        float32 or float64; if not given, float32 for a layer that computes in float32 whatever it is given.
    probes, seed, strict_kinks, title
        As in `manual_bp.verify`.

    Returns
    -------
    Report

    Raises
    ------
    ManualBPError
        If something cannot be found, or the layer raises.
    """
    if is_several(x) and not isinstance(layer, list):
        return verify_several(
            layer,
            reference,
            tuple(as_array("x", part) for part in (x.values() if isinstance(x, Mapping) else x)),
            y if upstream is None else upstream,
            adapter if isinstance(adapter, Adapter) else None,
            layouts or {},
            dtype,
            title,
            {"probes": probes, "seed": seed, "strict_kinks": strict_kinks},
        )
    data = as_array("x", x)
    adapters = adapter if isinstance(adapter, Mapping) else {}
    adapter = None if isinstance(adapter, Mapping) else adapter
    common: dict[str, Any] = {"probes": probes, "seed": seed, "strict_kinks": strict_kinks}
    said = {**(adapter.layouts if adapter else {}), **(layouts or {})}
    target = None if y is None else as_array("y", y)
    if isinstance(layer, list):
        return _verify_list(layer, reference, data, target, upstream, said, adapter or adapters, dtype, title, common)
    if adapters:
        raise ManualBPError("several adapters are given for one layer", hint="give one: adapter=Adapter(...)")
    name = title or getattr(layer[0] if isinstance(layer, tuple) else layer, "__name__", type(layer).__name__)
    if y is None and not _torch_side.layer_reference.is_module(reference) and callable(reference):
        reference = _torch_side.layer_reference.of_one(reference) or reference
    if _is_loss(reference):
        return _verify_loss(layer, reference, data, target, adapter, dtype, name, common)
    if upstream is None and y is not None:
        upstream = y
    module = _torch_side.layer_reference.checked(reference)
    known = match(*as_layer(layer, adapter, module), data, said)
    chain = [Link("output", "", known)]
    return judged_chain(chain, known.module, None, data, None, upstream, dtype, name, common)


def _is_loss(reference: Any) -> bool:
    side = _torch_side.layer_reference
    return side.is_loss(reference) or (callable(reference) and not side.is_module(reference))


# ---------------------------------------------------------------------- layers


def _verify_list(
    layers: list[Any],
    reference: Any,
    x: Array,
    y: Array | None,
    upstream: Any,
    said: Mapping[str, str],
    adapters: Adapter | Mapping[str, Adapter] | None,
    dtype: str | None,
    title: str,
    common: dict[str, Any],
) -> Report:
    side = _torch_side.layer_reference
    children, loss = side.split_sequence(side.checked(reference))
    if len(layers) != len(children) + (loss is not None):
        raise ManualBPError(
            f"there are {len(layers)} layers, but the reference has {len(children) + (loss is not None)} modules",
            hint="give one module a layer; an nn.Sequential inside stands for a layer with its activation in it",
        )
    common_one = adapters if isinstance(adapters, Adapter) else None
    by_name = adapters if isinstance(adapters, Mapping) else {}
    names = [name for name, _ in children] + list(reference._modules)[len(children) :]  # and the loss
    if unknown := [name for name in by_name if name not in names]:
        raise ManualBPError(f"an adapter is given for {unknown[0]!r}", hint=f"the modules are {', '.join(names)}")
    chain: list[Link] = []
    current, view = x, None
    stands: dict[int, Link] = {}  # by module: where it stands first
    for (name, child), layer in zip(children, layers, strict=False):
        own = {key.removeprefix(f"{name}."): v for key, v in said.items() if key.startswith(f"{name}.")}
        own |= {"x": said["x"]} if not chain and "x" in said else {}
        known = match(*as_layer(layer, by_name.get(name, common_one), child), current, own, x_view=view)
        first = stands.get(id(child))
        if first is not None:  # it has the weights that it has there
            known = replace(known, module=side.twin(first.known.module))
        chain.append(Link(name, first.prefix if first else f"{name}.", known))
        stands.setdefault(id(child), chain[-1])
        view = known.output
        current = known.sample
    module = side.sequence([(link.name, link.known.module) for link in chain])
    judged = None
    if loss is not None:
        if y is None:
            raise ManualBPError("a loss needs its target", hint="give y=...")
        y = side.fitting_target(loss, chain[-1].known.output.to_torch(current), y)
        judged = LossObject(layers[-1], by_name.get(names[-1], Adapter()), loss, view=view)
        judged.settle(current, y)
    return judged_chain(chain, module, judged, x, y, upstream, dtype, title or "layers", common)


# ---------------------------------------------------------------------- losses


def _verify_loss(
    layer: Any,
    reference: Any,
    x: Array,
    y: Array | None,
    adapter: Adapter | None,
    dtype: str | None,
    title: str,
    common: dict[str, Any],
) -> Report:
    if y is None:
        hint = "give y=..." + (
            ""
            if _torch_side.layer_reference.is_loss(reference)
            else "; for a layer, a torch.nn module or lambda x: ..."
        )
        raise ManualBPError("a loss needs its target", hint=hint)
    y = _torch_side.layer_reference.fitting_target(reference, x, y)
    loss = LossObject(layer, adapter or Adapter(), reference)
    notes: list[str] = []
    if loss.settle(x, y) and dtype is None and x.dtype != np.float32:
        dtype = "float32"
        notes.append("it computes in float32 whatever it is given; judged in float32")
    if common["probes"] == "all" and x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1:
        common = {**common, "probes": within(x, y, seed=common["seed"])}
    own_dtype = np.dtype(dtype or (x.dtype if x.dtype in (np.float32, np.float64) else np.float64))

    def candidate(_params: Mapping[str, Array], x: Any, y: Any) -> dict[str, Any]:
        value, gradient = loss.forward(x, y), loss.backward(x, y)
        reported = {"loss": value} if gradient is None else {"loss": value, "x.grad": gradient}
        return {name: like(value, own_dtype, notes) for name, value in reported.items()}

    placed = Located(
        candidate, lambda quantity: place_of(loss.method("backward" if quantity.endswith(GRAD) else "forward"))
    )
    report = verify(placed, _itself, x=x, y=y, loss=reference, dtype=dtype, title=title, **common)
    return replace(report, notes=(*report.notes, *dict.fromkeys(notes)))


def _itself(x: Any) -> Any:
    """What stands in front of a loss that is judged alone."""
    return x
