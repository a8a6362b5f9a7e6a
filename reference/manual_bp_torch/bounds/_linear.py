"""Bounds of what is linear in its input: convolution, dense layers, mean pooling, reshapes, sums.

For y = W x + b the textbook bound |fl(y) - y| <= gamma_{n+1} (|W| |x| + |b|), n the number of products that are
summed (Higham 2002, section 3.1), holds for any order of summation. The magnitudes |W| |x|, |W|^T |g| and |g| * |x|
come from the module itself, run on absolute values, and from its vector-Jacobian product: so stride, padding,
dilation, groups and layout can't be got wrong twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from manual_bp_torch.bounds._model import Backward, Bound, Operands, Rule, called, carries, constant, finite, nothing
from manual_bp_torch.vjp import vjp


def _vjp(s: Operands, params: dict[str, Tensor], x: Tensor, g: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """|W|^T g and, per parameter, g * x, by the module's own backward pass."""
    with torch.enable_grad():
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        x = x.detach().requires_grad_()
        y = called(s.module, leaves, x)
        found = vjp(y, [x, *leaves.values()], g)
    return found[0], dict(zip(leaves, found[1:], strict=True))


#: Elements of an input or output that a bound is computed of at a time.
CHUNK = 1 << 19

#: A bound of another side serves here for values of at least so many products and weights' gradients of so many, if
#: what is carried is at most so many times their roundings. That is a matter of speed: where it fails, all is redone.
FEW, MANY, CARRIED = 64, 1 << 14, 64

#: How many elements are looked at for that.
SAMPLE = 1 << 12


@dataclass(frozen=True)
class Near:
    """Bounds of a step's gradients on another side: of its input, and of its parameters by name."""

    input: Bound | None
    params: Mapping[str, Bound | None]


def _serves(s: Operands, n: int, *carried: tuple[Tensor, Tensor]) -> bool:
    """Whether n roundings are likely to cover what comes with the operands, given with the errors that they carry.

    A sample tells, without its largest eighth: beside a kink an element may carry anything.
    """
    room = CARRIED * s.precision.gamma(n)

    def little(a: Tensor, e: Tensor) -> bool:
        step = max(1, a.numel() // SAMPLE)
        a, e = a.reshape(-1)[::step], e.reshape(-1)[::step].sort().values
        return float(e[: -(e.numel() // 8) or None].sum()) <= room * float(a.abs().sum())

    return all(constant(e) or little(a, e) for a, e in carried)


class Affine(Rule):
    """Linear and convolution layers: ``counts(s)`` gives (label, products per output, per dx, per dW).

    With X = |x| + 2 e_x and G = |g| + 2 e_g, all terms that one product of |W| can hold are added up before it::

        e_y = gamma (|W| (X + e_x / gamma) + |b|) + (n+1) eta
        e_dx = gamma |W|^T (G + e_g / gamma) + n eta
        e_dW = gamma ((G + e_g / gamma) * X + G * (e_x / gamma)) + m eta

    (G + e_g / gamma) * (X + e_x / gamma) is that in one product, and gamma (e_g / gamma) * (e_x / gamma) more: so it
    is taken where that is little beside the rest, as where m, the number of products, is large.

    gamma stands in front of the products: of a subnormal operand it would leave nothing, however large the other one.
    """

    narrow = True

    def __init__(self, counts: Callable[[Operands], tuple[str, int, int, int]]) -> None:
        self.counts = counts

    def within(self, s: Operands, near: Bound | None) -> Bound | None:
        """The bound of another side's output, where it is likely to cover what the input carries."""
        n, carried = self.counts(s)[1], (s.inputs[0], s.errors[0])
        serves = not carries(s.errors[0]) or (n >= FEW and _serves(s, n, carried))
        if near is None or near.e.dtype != s.output.dtype or not serves:
            return None

        def wider() -> Bound:
            found = self.forward(s)
            return found if finite(found.e) or not s.narrow else self.forward(s.widened())

        return Bound(near.e, near.rule, wider=wider)

    def forward(self, s: Operands) -> Bound:
        label, n, _, _ = self.counts(s)
        p, guard = s.precision, s.guard(n)
        gamma = p.gamma(n + 1)
        params = {name: a.abs() for name, a in s.params.items()}
        e = torch.empty_like(s.output, memory_format=torch.contiguous_format)
        for part, x, e_x in _parts(s, s.inputs[0], s.errors[0]):
            size = called(s.module, params, _spread(x, e_x, gamma))
            torch.add(e.new_tensor((n + 1) * p.eta * guard), size, alpha=gamma * guard, out=e[part])
        return Bound(e, f"certified: {label}, n = {n}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor, near: Near | None = None) -> Backward:
        """With ``near``, bounds of another side are taken where they are likely to cover what is carried."""
        label, _, n, m = self.counts(s)
        p = s.precision
        weight = s.params["weight"].abs()
        gamma = p.gamma(max(1, n))
        near_dx, near_params = self._near(s, g, e_g, near, n, m) if near else (None, {})
        if near_dx and near_params:
            return Backward((near_dx,), near_params)
        e_dx = torch.empty_like(s.inputs[0], memory_format=torch.contiguous_format)
        # more than |W|^T G, and little more
        magnitude = None if s.narrow else torch.empty_like(e_dx)
        eta = e_dx.new_tensor(n * p.eta * s.guard(n))
        sizes: dict[str, Tensor] = {}
        for part, x, e_x, up, e_up in _parts(s, s.inputs[0], s.errors[0], g, e_g):
            if near_dx is None:
                size = _into_input(s, weight, x, _spread(up, e_up, gamma))
                torch.add(eta, size, alpha=gamma * s.guard(n), out=e_dx[part])
                if magnitude is not None:
                    magnitude[part] = size
            if near_params:
                continue
            for name, more in _parameter_sizes(s, weight, (x, e_x), (up, e_up), m):
                sizes[name] = sizes[name].add_(more) if name in sizes else more
        eta = e_dx.new_tensor(m * p.eta * s.guard(m))
        for size in sizes.values():  # in place
            torch.add(eta, size, alpha=p.gamma(m) * s.guard(m), out=size)
        dx = near_dx or Bound(e_dx, f"certified: {label} dx, n = {n}", magnitude=magnitude)
        own = {name: Bound(e, f"certified: {label} d{name}, n = {m}") for name, e in sizes.items()}
        return Backward((dx,), near_params or own)

    def _near(
        self, s: Operands, g: Tensor, e_g: Tensor, near: Near, n: int, m: int
    ) -> tuple[Bound | None, dict[str, Bound]]:
        """Which of another side's bounds serve here: of the input's gradient, and of the parameters'."""

        @cache
        def wider() -> Backward:
            found = self.backward(s, g, e_g)
            whole = all(finite(bound.e) for bound in (*found.inputs, *found.params.values()))
            return found if whole or not s.narrow else self.backward(s.widened(), g.double(), e_g.double())

        of_x, of_g = (s.inputs[0], s.errors[0]), (g, e_g)
        dx, params = None, {}
        if near.input and near.input.e.dtype == g.dtype and n >= FEW and _serves(s, n, of_g):
            dx = Bound(near.input.e, near.input.rule, wider=lambda: wider().inputs[0])
        own = {name: bound for name, bound in near.params.items() if bound and bound.e.dtype == g.dtype}
        if len(own) == len(near.params) and m >= MANY and _serves(s, m, of_g, of_x):
            params = {
                name: Bound(bound.e, bound.rule, wider=lambda name=name: wider().params[name])  # type: ignore[misc]  # mypy infers no type for the bound default
                for name, bound in own.items()
            }
        return dx, params


def _parts(s: Operands, *operands: Tensor) -> Iterator[tuple[Any, ...]]:
    """Examples that are looked at together, as a slice, and the operands there: what is made of them stays in cache."""
    x = s.inputs[0]
    dims = 1 if isinstance(s.module, nn.Linear) else len(_kernel(s.module)) + 1
    count = x.shape[0] if x.dim() > dims else 0
    size = max(x.numel(), s.output.numel())
    several = -(-count * CHUNK // size) if count and size > CHUNK else count
    if several >= count:
        yield (..., *operands)
        return
    for start in range(0, count, several):
        part = slice(start, start + several)
        yield (part, *(a[part] for a in operands))


def _spread(a: Tensor, e: Tensor, gamma: float) -> Tensor:
    """|a| + 2 e + e / gamma, in memory of its own."""
    out = a.abs()
    return out.add_(e, alpha=2 + 1 / gamma) if carries(e) else out


def _at_most(a: Tensor, e: Tensor) -> Tensor:
    """|a| + 2 e, in memory of its own."""
    out = a.abs()
    return out.add_(e, alpha=2) if carries(e) else out


#: Share of a bound that may come from making one product in place of two.
TOGETHER = 1 / 16


def _parameter_sizes(
    s: Operands, weight: Tensor, of_x: tuple[Tensor, Tensor], of_g: tuple[Tensor, Tensor], m: int
) -> Iterator[tuple[str, Tensor]]:
    """What adds up to a parameter's bound / gamma, by name; x and the upstream gradient with what they carry."""
    gamma, e_x, e_g = s.precision.gamma(m), of_x[1], of_g[1]
    up, top = _spread(*of_g, gamma), _at_most(*of_x)
    if not carries(e_x):
        yield from _into_parameters(s, weight, top, up).items()
        return
    if "bias" in s.params:  # its gradient does not depend on x
        yield "bias", _over_all_but_channels(s, up)
    carried = float(e_x.sum())
    more = carried / (gamma * float(top.sum()) + carried) * float(e_g.sum() / (gamma * up.sum()))
    if gamma < 1 and more <= TOGETHER:
        yield "weight", _into_weight(s, weight, top.add_(e_x, alpha=1 / gamma), up)
    else:
        yield "weight", _into_weight(s, weight, top, up)
        yield "weight", _into_weight(s, weight, e_x / gamma, _at_most(*of_g))


def _plain(module: nn.Module, x: Tensor) -> bool:
    """Whether torch's functions for the gradients of a convolution can be asked directly: no forward pass needed."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return False
    batched = x.dim() == len(module.kernel_size) + 2
    return batched and x.numel() > 0 and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _backward_of(module: nn.Module, up: Tensor, x: Tensor, weight: Tensor, of: int) -> Tensor:
    """One of the two gradients of a plain convolution: of its input (0) or of its weight (1)."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    options = (module.stride, module.padding, module.dilation, False, [0], module.groups)
    mask = [of == 0, of == 1, False]
    found: Tensor = torch.ops.aten.convolution_backward(up, x, weight, None, *options, mask)[of]
    return found


def _into_input(s: Operands, weight: Tensor, x: Tensor, up: Tensor) -> Tensor:
    """|W|^T up, of the shape of x."""
    if isinstance(s.module, nn.Linear):
        return up @ weight
    if _plain(s.module, x):
        return _backward_of(s.module, up, x, weight, 0)
    return _vjp(s, _with_bias(s, weight), x, up)[0]


def _into_parameters(s: Operands, weight: Tensor, x: Tensor, up: Tensor) -> dict[str, Tensor]:
    """up * x, and the sum of up for a bias."""
    found = {"weight": _into_weight(s, weight, x, up)}
    return found | {"bias": _over_all_but_channels(s, up)} if "bias" in s.params else found


def _into_weight(s: Operands, weight: Tensor, x: Tensor, up: Tensor) -> Tensor:
    """up * x, of the shape of the weight."""
    if isinstance(s.module, nn.Linear):
        rows: Tensor = up.reshape(-1, up.shape[-1])
        return rows.T @ x.reshape(-1, x.shape[-1])
    if _plain(s.module, x):
        return _backward_of(s.module, up, x, weight, 1)
    return _vjp(s, _with_bias(s, weight), x, up)[1]["weight"]


def _over_all_but_channels(s: Operands, up: Tensor) -> Tensor:
    """The sum of up for each element of a bias."""
    channel = up.dim() - 1 if isinstance(s.module, nn.Linear) else up.dim() - len(_kernel(s.module)) - 1
    return up.sum([axis for axis in range(up.dim()) if axis != channel]) if up.dim() > 1 else up.clone()


def _with_bias(s: Operands, weight: Tensor) -> dict[str, Tensor]:
    """All parameters of the step; the bias does not matter, but its dtype does."""
    return {"weight": weight, **{name: torch.zeros_like(a) for name, a in s.params.items() if name != "weight"}}


def _kernel(module: nn.Module) -> tuple[int, ...]:
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return module.kernel_size


def convolution_counts(s: Operands) -> tuple[str, int, int, int]:
    """A convolution sums C_in/groups * K products a value, C_out/groups * K for dx, batch * positions for dW."""
    conv = s.module
    assert isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    area = math.prod(conv.kernel_size)
    dims = len(conv.kernel_size)
    copies = _copies(conv)
    batch = s.output.shape[0] if s.output.dim() == dims + 2 else 1
    positions = math.prod(s.output.shape[-dims:])
    n = conv.in_channels // conv.groups * area
    return f"conv{dims}d", n, conv.out_channels // conv.groups * area * copies, max(1, batch * positions)


def _copies(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> int:
    """How many elements of the padded input at most are one element of the input; each brings its own products to dx.

    Reflection and wrapping show an element at most once on either side; replication shows the border as often as the
    padding is wide.
    """
    if conv.padding_mode == "zeros":
        return 1
    if conv.padding_mode != "replicate":
        return int(3 ** len(conv.kernel_size))
    both = conv._reversed_padding_repeated_twice  # 'same' is resolved there; two entries an axis
    return math.prod(1 + a + b for a, b in zip(both[::2], both[1::2], strict=True))


def linear_counts(s: Operands) -> tuple[str, int, int, int]:
    """A dense layer sums fan-in products a value, fan-out for dx, one a row for dW."""
    linear = s.module
    assert isinstance(linear, nn.Linear)
    return "linear", linear.in_features, linear.out_features, max(1, math.prod(s.inputs[0].shape[:-1]))


class MeanPool(Rule):
    """Mean over a window: a sum of n terms and a division; dx sums the shares of the windows that overlap."""

    def forward(self, s: Operands) -> Bound:
        n, _, label = self._counts(s.module)
        p = s.precision
        e = s.module(s.errors[0] + p.gamma(n + 2) * s.tops()[0]).abs() + (n + 1) * p.eta  # the divisor may be negative
        return Bound(e, f"certified: {label}, n = {n}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        _, c, label = self._counts(s.module)
        p = s.precision
        dx = _vjp(s, {}, s.inputs[0], g.abs() + 2 * e_g)[0].abs()
        e = p.gamma(c + 2) * dx + c * p.eta
        if e_g.any():
            e = e + _vjp(s, {}, s.inputs[0], e_g)[0].abs()
        return Backward((Bound(e, f"certified: {label} dx, n = {c}", magnitude=dx),))

    @staticmethod
    def _counts(module: nn.Module) -> tuple[int, int, str]:
        assert isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d)
        dims = int(type(module).__name__[-2])
        kernel, stride = as_tuple(module.kernel_size, dims), as_tuple(module.stride, dims)
        overlap = math.prod(-(-k // t) for k, t in zip(kernel, stride, strict=True))
        return math.prod(kernel), overlap, f"avgpool{dims}d"


def as_tuple(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    """A hyperparameter as torch takes it (a number, or one each dimension) as one each dimension."""
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) if len(value) == dims else tuple(value) * dims


class Exact(Rule):
    """Reshapes and copies: the same bits in another order."""

    narrow = True

    def forward(self, s: Operands) -> Bound:
        e = s.module(s.errors[0]) if carries(s.errors[0]) else nothing(s.output)
        return Bound(e, "certified: exact, only the shape changes")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        shape = s.inputs[0].shape
        rule = "certified: exact, only the shape changes"
        return Backward((Bound(e_g.reshape(shape), rule, magnitude=g.abs().reshape(shape)),))


class Sum(Rule):
    """y = a + b: one rounding forward, none backward."""

    def forward(self, s: Operands) -> Bound:
        e = sum(s.errors, torch.zeros_like(s.output)) + s.precision.gamma(len(s.inputs) - 1) * sum(s.tops())
        return Bound(e, f"certified: sum of {len(s.inputs)}")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        return Backward(tuple(Bound(e_g, "certified: exact, the gradient is handed on", g.abs()) for _ in s.inputs))


class Masked(Rule):
    """Dropout with a given mask: y = x m / (1 - p), three roundings either way.

    With p held in working precision, 1 - p inherits the rounding of p, relative to its own size p u / (1 - p).
    """

    @staticmethod
    def _scale(s: Operands) -> tuple[Tensor, float]:
        """m / (1 - p), and its relative rounding together with that of the product."""
        p = float(s.module.p)  # type: ignore[arg-type]  # a float on our module
        if p >= 1:
            return torch.zeros_like(s.params["mask"]), 0.0
        return s.params["mask"].abs() / (1 - p), (3 + p / (1 - p)) * s.precision.u

    def forward(self, s: Operands) -> Bound:
        scale, rounding = self._scale(s)
        e = scale * (s.errors[0] + rounding * s.tops()[0]) + s.precision.eta
        return Bound(e, "certified: dropout with a given mask")

    def backward(self, s: Operands, g: Tensor, e_g: Tensor) -> Backward:
        scale, rounding = self._scale(s)
        top = g.abs() + 2 * e_g
        e = scale * (e_g + rounding * top) + s.precision.eta
        return Backward((Bound(e, "certified: dropout dx", magnitude=scale * top),))
