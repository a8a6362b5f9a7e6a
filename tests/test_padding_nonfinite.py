"""0 · NaN beyond the edge: a convolution may form such products or leave them out, and nothing else is excused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from manual_bp import nn
from manual_bp.compare import Alternative, Expected, Item, compare
from manual_bp.nn import Array
from manual_bp.trace import Quantity
from manual_bp_torch.answers import alternatives_of, expected_of
from manual_bp_torch.bounds import Precision
from manual_bp_torch.certify import Plan, PlanStep, Walk
from manual_bp_torch.vjp import vjp
from tests.campaigns._selection import Case
from tests.campaigns.detection import judged

DTYPES = ("float32", "float64")
NAMES = ("y", "x.grad", "weight.grad", "bias.grad")
TORCH: dict[int, Any] = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
ENGINE: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

#: Dimensions and options; sizes are small enough for loops.
GEOMETRIES: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {"kernel_size": 3}),
    (1, {"kernel_size": 3, "padding": 1}),
    (1, {"kernel_size": 4, "padding": "same"}),
    (1, {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2}),
    (1, {"kernel_size": 3, "padding": 1, "stride": 2}),
    (1, {"kernel_size": 2, "padding": 1, "stride": 3}),
    (1, {"kernel_size": 3, "padding": 2, "padding_mode": "replicate"}),
    (1, {"kernel_size": 3, "padding": 6, "dilation": 6}),  # the outer taps of the inner windows see nothing at all
    (2, {"kernel_size": 3, "padding": 1}),
    (2, {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2)}),
    (2, {"kernel_size": 3, "padding": (1, 2), "stride": (2, 1), "groups": 4}),
    (2, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}),
    (3, {"kernel_size": 2, "padding": 1, "groups": 2}),
    (3, {"kernel_size": 2, "padding": "same"}),
    (3, {"kernel_size": 2, "padding": (1, 0, 1), "stride": 2}),
)
LENGTHS = {1: (6,), 2: (5, 4), 3: (3, 4, 2)}


@dataclass(frozen=True)
class Numbers:
    """What one convolution is given."""

    conv: torch.nn.Module
    x: Array
    weight: Array
    bias: Array
    g: Array

    def plant(self, where: str, what: float, at: int) -> Numbers:
        """The same with one more element that is not finite."""
        changed = {name: getattr(self, name).copy() for name in ("x", "weight", "g")}
        changed[where].reshape(-1)[at] = what
        return Numbers(self.conv, changed["x"], changed["weight"], self.bias, changed["g"])


def numbers(
    dims: int, options: Mapping[str, Any], dtype: str, *, batch: int = 2, lengths: tuple[int, ...] = ()
) -> Numbers:
    rng = np.random.default_rng(0)
    conv = TORCH[dims](4, 4, **options).to(getattr(torch, dtype))
    x = torch.from_numpy(rng.standard_normal((batch, 4, *(lengths or LENGTHS[dims]))).astype(dtype))
    shapes = (conv.weight.shape, conv.bias.shape, conv(x).shape)
    weight, bias, g = (rng.standard_normal(tuple(s)).astype(dtype) for s in shapes)
    return Numbers(conv, x.numpy(), weight, bias, g)


def items(given: Numbers, claimed: Mapping[str, Array]) -> list[Item]:
    """What torch makes of these numbers, its bounds, and the other right answers."""
    torch_of = {name: torch.from_numpy(getattr(given, name)) for name in ("x", "weight", "bias", "g")}
    leaves = [torch_of[name].clone().requires_grad_() for name in ("x", "weight", "bias")]
    state = dict(zip(("weight", "bias"), leaves[1:], strict=True))
    y = torch.func.functional_call(given.conv, state, (leaves[0],))
    found = dict(zip(NAMES, (y, *vjp(y, leaves, torch_of["g"])), strict=True))
    step = PlanStep("y", given.conv, ("x",), {"weight": "weight", "bias": "bias"})
    values = {**torch_of, "y": torch.from_numpy(claimed["y"])}
    precision = Precision.of(y.dtype)
    plan = Plan((step,), "loss", torch.nn.MSELoss(), "y")
    walk = Walk(plan, values, {"y.grad": torch_of["g"]}, torch_of["x"], precision, {*values, "y.grad"})
    bounds = {**walk.forward(step), **walk.backward(step)}
    return [
        Item(
            quantity=Quantity(name=name, kind="value", step="y"),
            isolated=expected_of(found[name].detach(), bounds[name]),
            end_to_end=None,
            alternatives=alternatives_of(bounds[name]),
        )
        for name in NAMES
    ]


def statuses(given: Numbers, candidate: Mapping[str, Array]) -> dict[str, str]:
    """All that is not right."""
    checks = compare(items(given, candidate), candidate, probe="p")
    return {check.name: check.status for check in checks if check.status != "pass"}


# ------------------------------------------------------------------ ways to write it


def _axes(conv: Any) -> Iterator[tuple[int, int, int, int, int]]:
    """Of each axis: kernel, stride, dilation, padding before and after."""
    both = conv._reversed_padding_repeated_twice
    yield from zip(conv.kernel_size, conv.stride, conv.dilation, both[-2::-2], both[::-2], strict=True)


def _surrounded(given: Numbers) -> tuple[Array, Any]:
    """x with its padding, and the way back for its gradient."""
    conv: Any = given.conv
    widths = [(0, 0), (0, 0), *((before, after) for *_, before, after in _axes(conv))]
    modes = {"zeros": "constant", "replicate": "edge", "circular": "wrap", "reflect": "reflect"}
    source = np.pad(np.arange(given.x.size).reshape(given.x.shape), widths, mode=modes[conv.padding_mode])  # type: ignore[call-overload]  # NumPy lists the modes
    inside = np.pad(np.ones(given.x.shape, bool), widths, mode=modes[conv.padding_mode])  # type: ignore[call-overload]  # a mode by name
    padded = np.where(inside, given.x.reshape(-1)[source], 0)

    def back(d_padded: Array) -> Array:
        dx = np.zeros(given.x.size, given.x.dtype)
        with np.errstate(all="ignore"):
            np.add.at(dx, source[inside], d_padded[inside])
        return dx.reshape(given.x.shape)

    return padded, (inside, back)


def loops(given: Numbers, *, clipped: bool) -> dict[str, Array]:
    """By definition, tap by tap: ``clipped`` to what is an element, or over all of the padded input."""
    conv: Any = given.conv
    padded, (inside, back) = _surrounded(given)
    groups = conv.groups
    w = given.weight.reshape(groups, -1, *given.weight.shape[1:])  # (G, O/G, C/G, *K)
    x = padded.reshape(len(padded), groups, -1, *padded.shape[2:])  # (N, G, C/G, *L)
    g = given.g.reshape(len(padded), groups, -1, *given.g.shape[2:])  # (N, G, O/G, *P)
    y, dx, dw = np.zeros_like(g), np.zeros_like(x), np.zeros_like(w)
    _, strides, dilations, *_ = zip(*_axes(conv), strict=True)
    with np.errstate(all="ignore"):
        for window in np.ndindex(g.shape[3:]):
            for tap in np.ndindex(w.shape[3:]):
                place = tuple(p * s + k * d for p, s, k, d in zip(window, strides, tap, dilations, strict=True))
                if clipped and not inside[(0, 0, *place)]:
                    continue
                seen, up, own = x[(..., *place)], g[(..., *window)], w[(..., *tap)]
                y[(..., *window)] += np.einsum("goc,ngc->ngo", own, seen)
                dx[(..., *place)] += np.einsum("goc,ngo->ngc", own, up)
                dw[(..., *tap)] += np.einsum("ngo,ngc->goc", up, seen)
    y = y.reshape(given.g.shape) + given.bias.reshape(-1, *(1,) * (given.g.ndim - 2))
    db = given.g.sum(axis=(0, *range(2, given.g.ndim)))
    return dict(zip(NAMES, (y, back(dx.reshape(padded.shape)), dw.reshape(given.weight.shape), db), strict=True))


def turned(given: Numbers) -> dict[str, Array]:
    """Gradients as the full convolution of the upstream gradient, with zeros in between and around."""
    conv: Any = given.conv
    found = loops(given, clipped=False)
    padded, (_, back) = _surrounded(given)
    spans, strides, dilations = zip(*((d * (k - 1) + 1, s, d) for k, s, d, *_ in _axes(conv)), strict=True)
    wide = np.zeros((*given.g.shape[:2], *(n + span - 1 for n, span in zip(padded.shape[2:], spans, strict=True))))
    places = (slice(n - 1, n + (p - 1) * s, s) for n, p, s in zip(spans, given.g.shape[2:], strides, strict=True))
    wide[(..., *places)] = given.g
    w = given.weight.reshape(conv.groups, -1, *given.weight.shape[1:])
    x = padded.reshape(len(padded), conv.groups, -1, *padded.shape[2:])
    g = wide.astype(given.g.dtype).reshape(len(padded), conv.groups, -1, *wide.shape[2:])
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    with np.errstate(all="ignore"):
        for tap in np.ndindex(w.shape[3:]):
            firsts = [n - 1 - k * d for n, k, d in zip(spans, tap, dilations, strict=True)]
            up = g[(..., *(slice(first, first + n) for first, n in zip(firsts, padded.shape[2:], strict=True)))]
            dx += np.einsum("goc,ngo...->ngc...", w[(..., *tap)], up)
            dw[(..., *tap)] = np.einsum("ngop,ngcp->goc", *(a.reshape(*a.shape[:3], -1) for a in (up, x)))
    gradients = {"x.grad": back(dx.reshape(padded.shape)), "weight.grad": dw.reshape(given.weight.shape)}
    return {**found, **gradients}


def engine(given: Numbers) -> dict[str, Array]:
    """The engine's, in the formulation that it chooses."""
    conv: Any = given.conv
    fields = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    layer = ENGINE[given.x.ndim - 2](4, 4, **{name: getattr(conv, name) for name in fields})
    y, cache = layer.forward({"weight": given.weight, "bias": given.bias}, given.x)
    found = layer.backward(cache, given.g)
    return {"y": y, "x.grad": found.inputs[0], **{f"{name}.grad": a for name, a in found.params.items()}}


WAYS = {
    "clipped": lambda given: loops(given, clipped=True),
    "padded": lambda given: loops(given, clipped=False),
    "turned": turned,
    "engine": engine,
}

# ------------------------------------------------------------------ what is right


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dims", "options"), GEOMETRIES, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch copies the input of an even kernel
def test_every_way_to_write_a_convolution_is_right_whatever_is_not_finite(dims, options, dtype):
    for where in ("x", "weight", "g"):
        alone = numbers(dims, options, dtype, batch=1).plant(where, np.nan, 0)
        both_infinities = numbers(dims, options, dtype, batch=2).plant(where, np.inf, -1).plant(where, -np.inf, 1)
        for given in (alone, both_infinities):
            assert {way: statuses(given, write(given)) for way, write in WAYS.items()} == {way: {} for way in WAYS}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", ["x", "weight", "g"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("lengths", [(90,), (30, 28), (9, 8, 7)], ids=str)
def test_the_engine_is_right_in_its_formulations_of_more(lengths, stride, where, dtype):
    for batch in (1, 5):
        options = {"kernel_size": 3, "padding": 1, "stride": stride}
        given = numbers(len(lengths), options, dtype, batch=batch, lengths=lengths).plant(where, np.nan, 0)
        given = given.plant(where, np.inf, -1)
        assert statuses(given, engine(given)) == {}


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_operands_may_be_not_finite_at_once(dtype):
    given = numbers(2, {"kernel_size": 3, "padding": 1}, dtype)
    given = given.plant("x", np.inf, 0).plant("g", np.nan, 0).plant("weight", np.inf, 0).plant("weight", -np.inf, 8)
    assert {way: statuses(given, write(given)) for way, write in WAYS.items()} == {way: {} for way in WAYS}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", ["x", "weight", "g"])
def test_the_ways_differ_where_the_theory_says_so(where, dtype):
    given = numbers(1, {"kernel_size": 3, "padding": 1}, dtype).plant(where, np.nan, 0)
    clipped, padded, full = (WAYS[way](given) for way in ("clipped", "padded", "turned"))
    unlike = {name for name in NAMES if len({np.isnan(way[name]).tobytes() for way in (clipped, padded, full)}) > 1}
    assert unlike == {"x": {"weight.grad"}, "weight": {"y", "x.grad"}, "g": {"weight.grad"}}[where]


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_element_may_be_written_in_its_own_way(dtype):
    given = numbers(2, {"kernel_size": 3, "padding": 1}, dtype).plant("weight", np.nan, 0)
    clipped, padded = WAYS["clipped"](given), WAYS["padded"](given)
    mixed = np.where(np.arange(given.g.size).reshape(given.g.shape) % 2, clipped["y"], padded["y"])
    unlike = np.isnan(clipped["y"]) != np.isnan(padded["y"])
    assert len(np.unique(np.isnan(mixed[unlike]))) == 2
    assert statuses(given, {**clipped, "y": mixed}) == {}


# ------------------------------------------------------------------ what is not


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("where", "name"), [("weight", "y"), ("weight", "x.grad"), ("g", "weight.grad")])
def test_a_nan_that_no_product_gives_is_found_beside_one_that_is_excused(where, name, way, dtype):
    given = numbers(2, {"kernel_size": 3, "padding": 1}, dtype).plant(where, np.nan, 0)
    candidate = WAYS[way](given)
    allowed = np.isnan(turned(given)[name])
    assert allowed.any()
    assert not allowed.all()
    wrong = candidate[name].copy()
    wrong.reshape(-1)[np.flatnonzero(~allowed)[-1]] = np.nan
    assert statuses(given, {**candidate, name: wrong}) == {name: "nonfinite"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("where", "name"), [("weight", "y"), ("weight", "x.grad"), ("g", "weight.grad")])
def test_a_nan_of_a_proper_product_must_be_there(where, name, way, dtype):
    given = numbers(2, {"kernel_size": 3, "padding": 1}, dtype).plant(where, np.nan, 0)
    candidate = WAYS[way](given)
    proper = np.isnan(WAYS["clipped"](given)[name])
    wrong = candidate[name].copy()
    wrong.reshape(-1)[np.flatnonzero(proper)[0]] = 0.0
    assert statuses(given, {**candidate, name: wrong}) == {name: "wrong"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("where", "name"), [("weight", "y"), ("weight", "x.grad"), ("g", "weight.grad")])
def test_a_number_in_place_of_an_excused_nan_must_be_the_right_one(where, name, dtype):
    given = numbers(2, {"kernel_size": 3, "padding": 1}, dtype).plant(where, np.nan, 0)
    candidate = WAYS["clipped"](given)
    either = np.flatnonzero(np.isfinite(candidate[name]) & np.isnan(turned(given)[name]))
    for at in (either[0], either[-1]):
        wrong = candidate[name].copy()
        wrong.reshape(-1)[at] *= 1 + 1e-3
        assert statuses(given, {**candidate, name: wrong}) == {name: "wrong"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_finite_operands_excuse_nothing(name, dtype):
    given = numbers(2, {"kernel_size": 3, "padding": 1}, dtype)
    candidate = WAYS["engine"](given)
    assert [len(item.alternatives) for item in items(given, candidate)] == [0, 0, 0, 0]
    wrong = candidate[name].copy()
    wrong.reshape(-1)[0] = np.nan
    assert statuses(given, {**candidate, name: wrong}) == {name: "nonfinite"}


def test_an_alternative_for_the_whole_explains_all_or_nothing():
    two, off = np.array([1.0, 2.0]), np.array([0.0, 0.0])
    named = Quantity(name="y", kind="value", step="y")
    for each, status in ((False, "wrong"), (True, "pass")):
        others = [Alternative(value=v, allowed=off, reason="r", each=each) for v in (two + 1, two - 1)]
        item = Item(quantity=named, isolated=Expected(value=two, allowed=off), end_to_end=None, alternatives=others)
        (check,) = compare([item], {"y": np.array([2.0, 1.0])}, probe="p")
        assert check.status == status


# ------------------------------------------------------------------ in a network


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sites",
    [
        (("dx-nan", "mean"),),
        (("dx-nan", "conv2"),),
        (("dw-nan", "conv2"),),
        (("y-nan", "conv2"),),
        (("dx-nan", "mean"), ("dw-nan", "conv1")),
    ],
    ids=str,
)
def test_a_nan_is_blamed_on_the_step_that_made_it(sites, dtype):
    found = judged(Case("design-1d", dtype, sites))
    assert found["exact"], found
