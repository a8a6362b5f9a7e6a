"""Which layouts a layer uses: those under which its forward pass agrees with torch's; gradients have no say in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.adapters import UPDATE_RATE, Adapter
from manual_bp.candidate import Given, call
from manual_bp.errors import ManualBPError
from manual_bp.layer_objects import _methods
from manual_bp.layer_objects._influence import Tried, likeliest
from manual_bp.layer_objects._pairs import Pair
from manual_bp.layer_objects._parameters import Wiring, find_parameters
from manual_bp.layer_objects._paths import read
from manual_bp.layer_objects._views import (
    View,
    agreement,
    grouped,
    handed_views,
    identity,
    input_views,
    output_views,
    view_of,
    views,
)
from manual_bp.layer_objects._wired import Wired
from manual_bp.trace import Array

#: How many combinations of layouts are tried at most.
TRIALS = 2000


@dataclass(frozen=True)
class Matched:
    """A layer, how its input and output are laid out, and the module that returns just what it returns.

    ``single`` says whether it computes in float32 whatever it is given; ``sample`` is what it made of the given input.
    """

    wired: Wired
    x: View
    output: View
    module: Any
    single: bool
    sample: Array


@dataclass(frozen=True)
class _Option:
    """One combination of conventions."""

    wiring: Wiring
    views: dict[str, tuple[View, ...]]
    x: View
    module: Any
    expected: Array


def match(
    layer: Any, module: Any, adapter: Adapter | None, x: Array, said: Mapping[str, str], *, x_view: View | None = None
) -> Matched:
    """Find the conventions of a layer.

    Parameters
    ----------
    said
        Layouts by ``x``, ``output`` or torch's parameter name; what is not said is found.
    x_view
        How x is laid out, where that is known already.

    Raises
    ------
    ManualBPError
        If a method or a parameter cannot be found or has an impossible shape; if the layer itself raises.
    """
    reference = _torch_side.layer_reference
    shapes = reference.shapes(module)
    training = bool(getattr(module, "training", True))
    wired = Wired(layer, adapter or Adapter(), training, bool(shapes))
    wired.check()
    wirings = _wirings(wired, adapter, shapes, x)
    absent = [name for name in shapes if not wirings[0].get(name)]
    module = reference.without(module, absent)
    params = trial_parameters(module)
    tried: list[Tried] = []
    options: list[_Option] = []
    failed: _Option | None = None
    for option in islice(_options(wired, wirings, module, params, x, said, x_view), TRIALS):
        try:
            found = _trial(wired, option, params, x)
        except Exception:  # noqa: BLE001  # conventions that the layer cannot work with are not its own
            failed = failed or option
            continue
        tried.append(_tried(wired, option, x, found, _output_options(found, option, said)))
        options.append(option)
        if max(tried[-1].scores)[0] == 1.0:
            break
    if not tried:
        assert failed is not None
        option = failed
        call(lambda: _trial(wired, option, params, x), Given(), None, None)  # it raises, with its own traceback
        raise ManualBPError("the layer raised once and not the second time", hint="make its forward pass repeatable")
    chosen, view = likeliest(tried, params)
    option = options[chosen]
    wired = replace(wired, wiring=option.wiring, views=option.views)
    single = _computes_single(wired, params, x)
    sample = wired.forward(params, np.array(x))
    return Matched(wired, option.x, view, option.module, single, sample)


def _wirings(wired: Wired, adapter: Adapter | None, shapes: Mapping[str, tuple[int, ...]], x: Array) -> list[Wiring]:
    """Where the parameters are; a layer that makes them late is brought to make them first."""
    layer = wired.layer
    if not shapes:
        _ready(layer, x)
        return [{}]
    first: ManualBPError | None = None
    for attempt in (lambda: None, lambda: _ready(layer, x), lambda: wired.call_forward(x)):
        try:
            attempt()
        except Exception as error:  # noqa: BLE001  # said below, unless the parameters are there all the same
            first = first or ManualBPError(
                f"{type(layer).__name__} has no parameters yet, and making a first forward pass for them raised "
                f"{type(error).__name__}: {error}",
                hint="give it initialised",
            )
        try:
            found = find_parameters(layer, adapter, shapes)
        except ManualBPError as error:
            first = first or error
            continue
        if all(isinstance(read(layer, path), np.ndarray) for paths in found[0].values() for path in paths):
            return found
    assert first is not None
    raise first


def _ready(layer: Any, x: Array) -> None:
    """Have the layer told its input shape, as the library's own model would."""
    if not getattr(layer, "__dict__", None) or any(
        callable(getattr(layer, name, None))
        for name in ("set_input_shape", "build", "initialize", "init_weights", "init_params")
    ):
        _methods.prepare(layer, x.shape, _methods.Applying(UPDATE_RATE))


def trial_parameters(module: Any) -> dict[str, Array]:
    """Random parameters: with those of a fresh normalisation (ones and zeros) layouts could not be told apart."""
    rng = np.random.default_rng(0)
    params = _torch_side.layer_reference.parameters(module)
    frozen = _torch_side.layer_reference.frozen(module)
    return {
        name: a if name in frozen else rng.uniform(0.5, 1.5, a.shape) * rng.choice([-1.0, 1.0], a.shape)
        for name, a in params.items()
    }


def _options(
    wired: Wired,
    wirings: list[Wiring],
    module: Any,
    params: Mapping[str, Array],
    x: Array,
    said: Mapping[str, str],
    x_view: View | None,
) -> Iterator[_Option]:
    reference = _torch_side.layer_reference
    refused: ManualBPError | None = None
    runs = False
    for view in _input_options(x, module, said, x_view):
        for selected in reference.selections(module):
            try:
                expected = reference.forward(selected, params, view.to_torch(x))
            except ManualBPError as error:
                refused = refused or error
                continue
            runs = True
            for wiring in wirings:
                for chosen in parameter_options(wired.layer, wiring, params, said, view):
                    yield _Option(wiring, chosen, view, selected, expected)
    if not runs:
        assert refused is not None
        raise refused


def _input_options(x: Array, module: Any, said: Mapping[str, str], x_view: View | None) -> list[View]:
    if x_view is not None:
        return [x_view]
    if "x" in said:
        return [view_of(said["x"], x.shape, None, ())]
    if x.dtype.kind != "f":
        return [identity(x.shape)]
    return list(input_views(x.shape, _torch_side.layer_reference.channels(module)))


def parameter_options(
    layer: Any, wiring: Wiring, params: Mapping[str, Array], said: Mapping[str, str], x: View
) -> Iterator[dict[str, tuple[View, ...]]]:
    """All combinations of parameter layouts that the shapes allow, the likeliest first."""
    each: list[list[tuple[View, ...]]] = []
    for name, paths in wiring.items():
        shape = params[name].shape
        part = (shape[0] // len(paths), *shape[1:]) if len(paths) > 1 else shape
        if isinstance(layer, Pair) and name not in said:
            each.append([(view,) for view in handed_views(shape)])
            continue
        held = [read(layer, path).shape for path in paths]
        if name in said:
            each.append([tuple(view_of(said[name], one, part, ()) for one in held)])
            continue
        options = [[g for view in views(one, part) for g in (*grouped(view, x), view)] for one in held]
        if not all(options):
            raise ManualBPError(
                f"the layer's {name} has shape {held[0]}, torch's {part}",
                hint=f"give the reference the same sizes, or say how it is laid out: layouts={{{name!r}: '...'}}",
            )
        each.append(list(zip(*options, strict=False)) or [()])
    for chosen in product(*each):
        yield dict(zip(wiring, chosen, strict=True))


def _trial(wired: Wired, option: _Option, params: Mapping[str, Array], x: Array) -> Array:
    wired.wiring, wired.views = option.wiring, option.views
    with np.errstate(all="ignore"):
        return wired.forward(params, np.array(x))


def _tried(wired: Wired, option: _Option, x: Array, found: Array, outputs: list[View]) -> Tried:
    return Tried(
        own=lambda params, x: _trial(wired, option, params, option.x.to_layer(x)),
        reference=lambda params, x: _torch_side.layer_reference.forward(option.module, params, x),
        x=option.x.to_torch(x),
        turned=any(view.turned for view in (option.x, *(v for of in option.views.values() for v in of))),
        views=outputs,
        scores=[agreement(np.asarray(view.to_torch(found), np.float64), option.expected) for view in outputs],
        elements=option.expected.size,
    )


def _output_options(found: Array, option: _Option, said: Mapping[str, str]) -> list[View]:
    if "output" in said:
        return [view_of(said["output"], found.shape, option.expected.shape, (option.x.torch,))]
    options = list(islice(output_views(found.shape, option.expected.shape, option.x), 24))
    return options or [View(found.shape, found.shape, found.shape, tuple(range(found.ndim)))]


def _computes_single(wired: Wired, params: Mapping[str, Array], x: Array) -> bool:
    """Whether anything that the layer makes of float64 is float32."""
    if x.dtype.kind == "f" and x.dtype != np.float64:
        return False
    output = wired.forward(params, np.array(x))
    upstream = np.random.default_rng(1).standard_normal(output.shape)
    try:
        with np.errstate(all="ignore"):
            dx, gradients = wired.backward(params, upstream)
    except Exception:  # noqa: BLE001  # whatever it is, it is said when the layer is judged
        return output.dtype == np.float32
    every = [output, dx, *gradients.values()]
    return any(getattr(a, "dtype", None) == np.float32 for a in every)
