"""``verify_layer``: one layer of a from-scratch library against the torch.nn module that it should equal."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.adapters import UPDATE_RATE, Adapter, find, layouts_for, read, write
from manual_bp.candidate import Given, as_array, call
from manual_bp.errors import ManualBPError
from manual_bp.layouts import from_torch_layout
from manual_bp.report import Report
from manual_bp.trace import GRAD, Array
from manual_bp.verification import verify

_LETTERS = {1: "O", 2: "OI", 3: "OIL", 4: "OIHW", 5: "OIDHW"}


def verify_layer(
    layer: Any,
    reference: Any,
    *,
    x: Any,
    y: Any = None,
    upstream: Any = None,
    adapter: Adapter | None = None,
    layouts: Mapping[str, str] | None = None,
    dtype: str | None = None,
    probes: Sequence[str] | str | None = "all",
    seed: int = 0,
    strict_kinks: bool = False,
    title: str = "",
) -> Report:
    """Judge a layer object: its output, dL/dx, and the gradient of each of its parameters.

    Parameters
    ----------
    layer
        An object with forward and backward methods under any usual name, or a pair of functions
        ``forward(x, weight, bias) -> (output, cache)`` and ``backward(upstream, cache) -> (dx, dweight, dbias)``. Its
        parameters are overwritten by the reference's.
    reference
        The torch.nn module it should equal; a loss module if the layer is a loss (then ``y`` is the target).
    x
        Input in the layer's own layout.
    upstream
        dL/d(output) in the layer's own layout; random if not given. Ones hide whole classes of mistakes.
    adapter
        Where parameters and gradients live, if they are not where one would look.
    layouts
        By ``x``, ``output`` or torch's parameter name: "NHWC", "HWIO", "IO"; what is not given is found by shape, and
        where shapes leave a choice, by which one makes the forward pass agree.
    dtype, probes, seed, strict_kinks, title
        As in `manual_bp.verify`.
    """
    module = _torch_side.build.checked_module(reference)
    shapes = _torch_side.build.parameter_shapes(module)
    data = as_array("x", x)
    said = {**(adapter.layouts if adapter else {}), **(layouts or {})}
    name = title or (layer[0].__name__ if isinstance(layer, tuple) else type(layer).__name__)
    common: dict[str, Any] = {
        "dtype": dtype, "probes": probes, "seed": seed, "strict_kinks": strict_kinks, "title": name,
    }  # fmt: skip
    if _torch_side.build.is_loss(module):
        target = as_array("y", y) if y is not None else None
        if target is None:
            raise ManualBPError("a loss needs its target", hint="give y=...")
        run = _loss(layer, adapter, module, data, target)
        return verify(run, _torch_side.build.identity(), x=data, y=target, loss=module, **common)
    if isinstance(layer, tuple):
        layer, adapter = _Pair(layer[0], layer[1], tuple(shapes)), adapter or _Pair.adapter(tuple(shapes))
    where = find(layer, adapter, shapes)
    if any(not isinstance(read(layer, where.params[n]), np.ndarray) for n in shapes):
        where = _initialised(layer, where, adapter, shapes, data)
    said |= _channels_last(module, data, said)
    options = _options(layer, where, shapes, said)
    chosen = _choose(layer, where, options, said, module, data) if len(options) > 1 else options[0]
    both = {**said, **chosen}
    if "output" not in both and "x" in both and data.ndim > 2:
        both["output"] = both["x"]
    candidate = _runner(layer, where, tuple(shapes))
    return verify(candidate, module, x=data, y=upstream, layouts=both, **common)


def _runner(
    layer: Any, where: Adapter, names: tuple[str, ...]
) -> Callable[[Mapping[str, Array], Any, Any], dict[str, Array]]:
    """The layer as a function that `verify` takes."""

    def candidate(params: Mapping[str, Array], x: Any, upstream: Any) -> dict[str, Array]:
        before = {name: np.array(params[name]) for name in names}
        output = _forward(layer, where, before, x)
        reported = {"output": np.array(output), **_backward(layer, where, names, before, upstream)}
        return {name: _reshaped(name, value, before) for name, value in reported.items() if value is not None}

    return candidate


def _forward(layer: Any, where: Adapter, params: Mapping[str, Array], x: Any) -> Any:
    for name, value in params.items():
        write(layer, where.params[name], np.array(value))
    output = _call_forward(layer, where, x)
    # libraries that initialise on the first call have just overwritten the parameters
    if any(not _same(read(layer, where.params[n]), v) for n, v in params.items()):
        for name, value in params.items():
            write(layer, where.params[name], np.array(value))
        output = _call_forward(layer, where, x)
    return output[0] if isinstance(output, tuple) else output


def _initialised(
    layer: Any, where: Adapter, adapter: Adapter | None, shapes: Mapping[str, tuple[int, ...]], x: Array
) -> Adapter:
    """Many libraries make their parameters in the first forward call: make it, and look again."""
    if not isinstance(layer, _Pair):
        call(lambda: _call_forward(layer, where, x), Given(), None, None)
    return find(layer, adapter, shapes)


def _call_forward(layer: Any, where: Adapter, x: Any) -> Any:
    return where.forward(layer, x) if callable(where.forward) else getattr(layer, where.forward)(x)


def _same(a: Any, b: Array) -> bool:
    return isinstance(a, np.ndarray) and a.shape == b.shape and np.array_equal(a, b)


def _backward(
    layer: Any, where: Adapter, names: tuple[str, ...], before: Mapping[str, Array], upstream: Any
) -> dict[str, Any]:
    rate = (UPDATE_RATE,) if where.applied else ()
    if callable(where.backward):
        returned = where.backward(layer, upstream, *rate)
    else:
        returned = getattr(layer, where.backward)(upstream, *rate)
    found: dict[str, Any] = {}
    if isinstance(returned, Mapping):
        found = {("x.grad" if k in ("x", "dx", "input") else k): v for k, v in returned.items()}
        found = {k if k.endswith(GRAD) else k + GRAD: v for k, v in found.items()}
    elif isinstance(returned, (tuple, list)):
        found = dict(zip(("x.grad", *(n + GRAD for n in names)), returned, strict=False))
    else:
        found = {"x.grad": returned}
    for name in names:
        if name + GRAD in found:
            continue
        if where.applied:
            after = read(layer, where.params[name])
            found[name + GRAD] = (before[name] - after) / UPDATE_RATE
        else:
            value = read(layer, where.grads[name]) if name in where.grads else None
            found[name + GRAD] = value[-1] if isinstance(value, list) and value else value
    return {name: None if value is None else np.array(value) for name, value in found.items()}


def _reshaped(name: str, value: Array, params: Mapping[str, Array]) -> Array:
    """A bias gradient of shape (1, O) for a bias of shape (O,), or the other way round, is the same gradient."""
    own = params.get(name.removesuffix(GRAD))
    if own is None or [n for n in value.shape if n > 1] != [n for n in own.shape if n > 1]:
        return value
    return value.reshape(own.shape)


# ---------------------------------------------------------------------- layouts


def _channels_last(module: Any, x: Array, said: Mapping[str, str]) -> dict[str, str]:
    """Images whose channels can only be the last axis are channels-last."""
    channels = _torch_side.build.channels(module)
    if "x" in said or channels is None or x.ndim < 3 or x.shape[1] == channels or x.shape[-1] != channels:
        return {}
    return {"x": {3: "NLC", 4: "NHWC", 5: "NDHWC"}[x.ndim]}


def _options(
    layer: Any, where: Adapter, shapes: Mapping[str, tuple[int, ...]], said: Mapping[str, str]
) -> list[dict[str, str]]:
    """All combinations of parameter layouts that the shapes allow, the likeliest first."""
    each = []
    for name, shape in shapes.items():
        if name in said:
            each.append([said[name]])
            continue
        held = read(layer, where.params[name])
        found = layouts_for(held.shape if isinstance(held, np.ndarray) else None, shape, _LETTERS[len(shape)])
        if not found:
            raise ManualBPError(
                f"the layer's {name} has shape {held.shape}, torch's {shape}",
                hint=f"say how it is laid out: layouts={{{name!r}: '...'}}; see manual_bp.layouts",
            )
        each.append(found)
    # torch's own layout needs no mention
    return [
        {n: t for n, t, s in zip(shapes, texts, shapes.values(), strict=True) if t != _LETTERS[len(s)]}
        for texts in product(*each)
    ]


def _choose(
    layer: Any, where: Adapter, options: list[dict[str, str]], said: Mapping[str, str], module: Any, x: Array
) -> dict[str, str]:
    """The first layout under which the forward pass agrees with torch's; the likeliest if none does."""
    both = dict(said)
    expected = _torch_side.build.forward_numpy(module, x, both.get("x"), both.get("output", both.get("x")))
    params = _torch_side.build.parameters_numpy(module)
    for option in options:
        layouts = {**both, **option}
        given = {n: from_torch_layout(a, layouts[n]) if n in layouts else a for n, a in params.items()}
        try:
            output = np.asarray(_forward(layer, where, given, x.astype(np.float64)))
        except Exception:  # noqa: BLE001  # a layout that the layer cannot work with is not its layout
            continue
        if output.shape == expected.shape and np.allclose(
            output, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()
        ):
            return option
    return options[0]


# ---------------------------------------------------------------------- pairs of functions, losses


class _Pair:
    """Two functions, ``forward(x, *params)`` and ``backward(upstream, cache)``, as a layer object."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], names: tuple[str, ...]) -> None:
        self._forward, self._backward, self._names = forward, backward, names
        for name in names:
            setattr(self, name, None)
        self._cache: Any = None

    @staticmethod
    def adapter(names: tuple[str, ...]) -> Adapter:
        """Parameters are passed; gradients are returned."""
        return Adapter(params={name: name for name in names})

    def forward(self, x: Array) -> Any:
        """Output; the cache is kept for `backward`."""
        returned = self._forward(x, *(getattr(self, name) for name in self._names))
        output, self._cache = returned if isinstance(returned, tuple) else (returned, None)
        return output

    def backward(self, upstream: Array) -> Any:
        """Gradients, as the function returns them."""
        return self._backward(upstream, self._cache)


def _loss(
    layer: Any, adapter: Adapter | None, module: Any, x: Array, y: Array
) -> Callable[[Mapping[str, Array], Any, Any], dict[str, Any]]:
    """A loss object as a function that `verify` takes; which of prediction and target comes first is tried."""
    where = replace(adapter or Adapter(), params={}, grads={})
    where = find(layer, where, {}) if not isinstance(layer, tuple) else where
    forward = layer[0] if isinstance(layer, tuple) else getattr(layer, str(where.forward))
    backward = layer[1] if isinstance(layer, tuple) else getattr(layer, str(where.backward))
    expected = _torch_side.build.loss_numpy(module, x, y)

    def value(a: Any, b: Any) -> Any:
        result = forward(a, b)
        return result[0] if isinstance(result, tuple) else result

    def agrees(a: Any, b: Any) -> bool:
        try:
            return bool(np.allclose(np.asarray(value(a, b)), expected, rtol=1e-3))
        except Exception:  # noqa: BLE001  # the wrong order may well raise
            return False

    swapped = not agrees(x, y) and agrees(y, x)

    def candidate(_params: Mapping[str, Array], prediction: Any, target: Any) -> dict[str, Any]:
        pair = (target, prediction) if swapped else (prediction, target)
        returned = forward(*pair)
        total, cache = returned if isinstance(returned, tuple) else (returned, None)
        if isinstance(layer, tuple) and cache is not None and np.shape(cache) == np.shape(prediction):
            gradient = cache  # softmax_loss(x, y) -> (loss, dx)
        else:
            count = len([p for p in inspect.signature(backward).parameters.values() if p.default is p.empty])
            gradient = backward(*((), (1.0,), pair)[min(count, 2)])
        gradient = gradient[0] if isinstance(gradient, tuple) else gradient
        gradient = np.asarray(gradient)
        # the identity in front of the loss hands both on
        return {"output": np.array(prediction), "loss": np.asarray(total), "output.grad": gradient, "x.grad": gradient}

    return candidate
