"""What each layer is defined by: its output and its gradients as trees that can be edited.

These are the textbook formulas once more, this time as data. Whether they are right is not taken on trust: a formula is
used on a quantity only if it gives the reference's own numbers (`manual_bp.diagnose._search`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from manual_bp import nn
from manual_bp.nn._window import Window

from ._formulas_elementwise import forward_of, slope_of
from ._formulas_norm import batch_norm, layer_norm
from ._node import Node, add, const, fn, mul, neg, node, one_minus, total


@dataclass(frozen=True)
class Parts:
    """Formulas of a step's output and of the gradients of its inputs and parameters."""

    y: Node
    inputs: tuple[Node, ...]
    params: Mapping[str, Node]


@dataclass(frozen=True)
class Operands:
    """Leaves of a step: inputs, parameters and buffers by local name, the upstream gradient; the input's axes."""

    inputs: tuple[Node, ...]
    params: Mapping[str, Node]
    g: Node
    ndim: int

    @property
    def x(self) -> Node:
        return self.inputs[0]


def formulas_of(layer: Any, s: Operands) -> Parts | None:
    """The formulas of a layer, None if it is not known here."""
    for kinds, build in _BUILDERS:
        if isinstance(layer, kinds):
            return build(layer, s)
    y = forward_of(layer, s.x)
    if y is None:
        return None
    return Parts(y, (slope_of(layer, s.x, s.g),), {})


def _spatial(ndim: int) -> tuple[int, ...]:
    return (0, *range(2, ndim))


def _linear(layer: nn.Linear, s: Operands) -> Parts:
    x, w, g = s.x, s.params["weight"], s.g
    y = node("matmul", x, w, left=False, right=True, says="x Wᵀ")
    params = {"weight": node("matmul", g, x, left=True, right=False, says="∂L/∂W")}
    if layer.bias:
        y = add(y, s.params["bias"], says="y")
        params["bias"] = total(g, tuple(range(s.ndim - 1)), says="∂L/∂b")
    return Parts(y, (node("matmul", g, w, left=False, right=False, says="∂L/∂x"),), params)


def _conv(layer: Any, s: Operands) -> Parts | None:
    if s.ndim != layer.axes + 2:
        return None
    x, w, g = s.x, s.params["weight"], s.g
    window, groups, mode = layer.window, layer.groups, layer.padding_mode
    inner, source = window, x
    if mode != "zeros":
        none = (0,) * layer.axes
        inner = Window(window.kernel, window.stride, window.dilation, none, none)
        source = node("pad", x, window=window, mode=mode, says="the padded input")
    y = node("conv", source, w, window=inner, outputs=inner, groups=groups, says="w ⋆ x")
    dx = node("conv_dx", g, w, source, window=inner, groups=groups, order="", says="∂L/∂x")
    if mode != "zeros":
        dx = node("unpad", dx, x, window=window, mode=mode, says="∂L/∂x")
    params = {"weight": node("conv_dw", g, source, w, window=inner, groups=groups, says="∂L/∂w")}
    if layer.bias:
        y = add(y, node("column", s.params["bias"], y, axis=1, says="the bias"), says="y")
        params["bias"] = total(g, _spatial(s.ndim), says="∂L/∂b")
    return Parts(y, (dx,), params)


def _max_pool(layer: Any, s: Operands) -> Parts | None:
    if s.ndim != layer.axes + 2:
        return None
    window = layer.window
    y = node("maximum", s.x, window=window, outputs=window, ceil=layer.ceil_mode, fill=float("-inf"), says="y")
    return Parts(y, (node("maximum_dx", s.g, s.x, window=window, winner="first", order="", says="∂L/∂x"),), {})


def _avg_pool(layer: Any, s: Operands) -> Parts | None:
    if s.ndim != layer.axes + 2:
        return None
    options = {
        "window": layer.window,
        "count_include_pad": layer.count_include_pad,
        "divisor": getattr(layer, "divisor_override", None),
    }
    y = node("average", s.x, outputs=layer.window, ceil=layer.ceil_mode, says="y", **options)
    return Parts(y, (node("average_dx", s.g, s.x, order="", says="∂L/∂x", **options),), {})


def _flatten(layer: nn.Flatten, s: Operands) -> Parts:
    y = node("merge", s.x, first=layer.start_dim, last=layer.end_dim, says="y")
    return Parts(y, (node("like", s.g, s.x, says="∂L/∂x"),), {})


def _add(_: nn.Add, s: Operands) -> Parts:
    return Parts(add(*s.inputs, says="y"), tuple(_same(s.g) for _ in s.inputs), {})


def _identity(_: Any, s: Operands) -> Parts:
    return Parts(_same(s.x), (_same(s.g),), {})


def _same(a: Node) -> Node:
    return add(a, says=a.says)


def _dropout(layer: nn.Dropout, s: Operands) -> Parts | None:
    if not layer.training:
        return _identity(layer, s)
    if layer.p >= 1 or "mask" not in s.params:
        return None
    keep = const(1 / (1 - layer.p), "1/(1 − p)")
    return Parts(mul(s.x, s.params["mask"], keep, says="y"), (mul(s.g, s.params["mask"], keep, says="∂L/∂x"),), {})


def _softmax(layer: nn.Softmax, s: Operands) -> Parts:
    assert layer.dim is not None  # the layer refuses it
    axis = layer.dim % s.ndim
    y = node("softmax", s.x, axis=axis, says="y")
    inner = total(mul(s.g, y, says="δ y"), (axis,), keep=True, says="Σ δ y")
    return Parts(y, (mul(y, add(s.g, neg(inner), says="δ − Σ δ y"), says="∂L/∂x"),), {})


def _log_softmax(layer: nn.LogSoftmax, s: Operands) -> Parts:
    assert layer.dim is not None  # the layer refuses it
    axis = layer.dim % s.ndim
    y = node("log_softmax", s.x, axis=axis, says="y")
    share = mul(fn("exp", y, "e^y"), total(s.g, (axis,), keep=True, says="Σ δ"), says="e^y Σ δ")
    return Parts(y, (add(s.g, neg(share), says="∂L/∂x"),), {})


def _normed(layer: Any, s: Operands) -> Parts | None:
    build = layer_norm if isinstance(layer, nn.LayerNorm) else batch_norm
    y, dx, params = build(layer, s.x, s.params, s.g, s.ndim)
    return Parts(y, (dx,), params)


_BUILDERS: tuple[tuple[Any, Callable[..., Parts | None]], ...] = (
    (nn.Linear, _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    ((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _avg_pool),
    (nn.Flatten, _flatten),
    (nn.Add, _add),
    (nn.Identity, _identity),
    (nn.Dropout, _dropout),
    (nn.Softmax, _softmax),
    (nn.LogSoftmax, _log_softmax),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm), _normed),
)


def forms_of(layer: Any, s: Operands) -> list[Node]:
    """∂L/∂x of a layer once more, as others write it: a mistake may have been made in that form."""
    match layer:
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.MaxPool3d():
            return [node("maximum_dx", s.g, s.x, window=layer.window, winner="all", order="", says="∂L/∂x")]
        case nn.Sigmoid():
            y = fn("sigmoid", s.x, "y")
            return [mul(s.g, add(y, neg(fn("square", y, "y²")), says="y − y²"), says="∂L/∂x")]
        case nn.LeakyReLU(negative_slope=slope):
            positive = node("greater", s.x, than=0.0, says="the mask x > 0")
            less = mul(const(slope, "the negative slope"), s.g, says="the slope times δ")
            return [node("where", positive, s.g, less, says="∂L/∂x")]
        case nn.Softmax(dim=int(dim)):
            return [softmax_jacobian(node("softmax", s.x, axis=dim % s.ndim, says="y"), s.g, dim % s.ndim)]
        case nn.LogSoftmax(dim=int(dim)):
            p = node("softmax", s.x, axis=dim % s.ndim, says="p")
            own = mul(s.g, one_minus(p), says="the Jacobian's diagonal")
            rest = add(total(s.g, (dim % s.ndim,), keep=True), neg(s.g), says="Σ over the others of δ")
            return [add(own, neg(mul(p, rest, says="the Jacobian off its diagonal")), says="∂L/∂x")]
    return []


def softmax_jacobian(y: Node, g: Node, axis: int) -> Node:
    """∂L/∂x of y = softmax(x) by the two kinds of entries of its Jacobian."""
    own = mul(g, y, one_minus(y), says="the softmax Jacobian's diagonal")
    both = mul(g, y, says="δ y")
    rest = add(total(both, (axis,), keep=True), neg(both), says="Σ over the others of δ y")
    return add(own, neg(mul(y, rest, says="the softmax Jacobian off its diagonal")), says="∂L/∂x")


def value_forms_of(layer: Any, s: Operands) -> list[Node]:
    """The output of a layer once more, as others write it."""
    match layer:
        case nn.Softmax(dim=int(dim)):
            parts = [exponentials(s.x, (dim % s.ndim,), largest=axis) for axis in (dim % s.ndim, None)]
            return [mul(e, fn("reciprocal", whole, "1/Σ e^x"), says="y") for e, whole in parts]
        case nn.LogSoftmax(dim=int(dim)):
            e, whole = exponentials(s.x, (dim % s.ndim,))
            return [add(e.args[0], neg(fn("log", whole, "log Σ e^x")), says="y")]
    return []


def exponentials(x: Node, axes: tuple[int, ...], *, largest: int | None = -1) -> tuple[Node, Node]:
    """e^(x − max x) and its sum, which no overflow spoils; the maximum along an axis, or (None) of all."""
    axis = axes[0] if largest == -1 else largest
    e = fn("exp", add(x, neg(node("max_along", x, axis=axis, says="max x")), says="x − max x"), "e^x")
    return e, total(e, axes, keep=True, says="Σ e^x")
