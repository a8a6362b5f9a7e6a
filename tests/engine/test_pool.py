"""Pooling: the engine beside torch.nn, beside the textbook, beside differences; ties, NaN and infinities on purpose."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manual_bp import nn
from manual_bp.nn import _pieces, _pool, textbook
from tests.engine.parity import check_layer, check_layer_differences, frozen, normal

MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
LENGTHS = {1: (8,), 2: (8, 7), 3: (6, 5, 4)}
DTYPES = (np.float64, np.float32)

#: every way that windows can tile, miss, overlap and reach over
GEOMETRIES = [
    {"kernel_size": 2},
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 3, "padding": 1},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 4, "ceil_mode": True},
    {"kernel_size": 4, "stride": 1, "padding": 2},
]
DILATED = [
    {"kernel_size": 2, "dilation": 2},
    {"kernel_size": 2, "stride": 1, "dilation": 2, "padding": 1},
    {"kernel_size": 2, "stride": 2, "dilation": 3, "padding": 1, "ceil_mode": True},
]
#: as chosen by size, and each of the ways by itself
WAYS = {
    "as chosen": {},
    "positions": {"LITTLE_POOL": 1 << 60},
    "taps": {"LITTLE_POOL": 0},
    "pieces": {"LITTLE_POOL": 0, "PIECE": 1},
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(_pool if name == "LITTLE_POOL" else _pieces, name, value)
    return request.param


@pytest.fixture(params=["at once", "pieces"])
def pieces(request, monkeypatch):
    """How averages, which know no other ways, are taken."""
    if request.param == "pieces":
        monkeypatch.setattr(_pieces, "PIECE", 1)


def ties(shape, dtype=np.float64, seed=0):
    """Few different numbers, and many zeros of both signs as a ReLU leaves them."""
    return np.random.default_rng(seed).choice(np.array([-1, -0.0, 0, 0, 1, 2], dtype), shape)


def torch_like(layer):
    """torch's module of the same hyperparameters."""
    return getattr(torch.nn, type(layer).__name__)(**vars_of(layer))


def vars_of(layer):
    return {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}


# ---------------------------------------------------------------------------------------------- beside torch


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("case", GEOMETRIES + DILATED, ids=str)
def test_max_pooling_beside_torch(case, axes, dtype, way):
    layer = MAX[axes](**case)
    check_layer(layer, torch_like(layer), normal((2, 3, *LENGTHS[axes]), dtype))
    check_layer(layer, torch_like(layer), ties((2, 3, *LENGTHS[axes]), dtype))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_average_pooling_beside_torch(case, axes, pieces):
    options = [{}, {"count_include_pad": False}]
    if axes > 1:
        options += [{"divisor_override": 5}, {"divisor_override": -2, "count_include_pad": False}]
    for option, dtype in itertools.product(options, DTYPES):
        layer = AVG[axes](**case, **option)
        check_layer(layer, torch_like(layer), normal((2, 3, *LENGTHS[axes]), dtype))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_unbatched_and_empty_batch(axes, way):
    for layer in (MAX[axes](2), MAX[axes](3, 2, 1), AVG[axes](2), AVG[axes](3, 2, 1)):
        for shape in ((3, *LENGTHS[axes]), (0, 3, *LENGTHS[axes]), (1, 1, *LENGTHS[axes])):
            check_layer(layer, torch_like(layer), normal(shape))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_numpys_integers_are_integers(axes):
    two, one = np.int64(2), np.int32(1)
    options = {} if axes == 1 else {"divisor_override": np.int64(3)}
    for layer in (
        MAX[axes](two, two, one, one),
        MAX[axes](3, (two,) * axes),
        AVG[axes](two, two, one, **options),
        AVG[axes](3, (two,) * axes),
    ):
        check_layer(layer, torch_like(layer), normal((2, 3, *LENGTHS[axes])))


def test_a_number_for_each_axis(way):
    for layer in (
        nn.MaxPool2d((3, 2), (2, 3), (1, 0), (1, 2)),
        nn.MaxPool3d((1, 2, 3), (2, 1, 2), (0, 1, 1), (1, 2, 1), ceil_mode=True),
        nn.MaxPool2d((2,), [3, 1]),
        nn.AvgPool2d((2, 3), ()),
        nn.AvgPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True),
        nn.AvgPool3d((2, 1, 3), (1, 2, 2), (1, 0, 1), count_include_pad=False),
    ):
        check_layer(layer, torch_like(layer), ties((2, 2, *LENGTHS[layer.axes])))


# ---------------------------------------------------------------------------------------------- kinks


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_first_of_equal_maxima_takes_the_whole_gradient(axes, way):
    layer = MAX[axes](2)
    y, cache = layer.forward({}, np.zeros((1, 1, *(4,) * axes)))
    (dx,) = layer.backward(cache, np.full_like(y, 3.0)).inputs
    wanted = np.zeros_like(dx)
    wanted[(..., *(slice(None, None, 2),) * axes)] = 3
    np.testing.assert_array_equal(dx, wanted)
    assert not np.signbit(dx).any()  # the losers get 0, not -0


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("case", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1}], ids=str)
def test_nan_and_infinities_are_routed_as_by_torch(case, axes, way):
    layer = MAX[axes](**case)
    for seed in range(4):
        values = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, -np.inf, 0.0, 1.0], (2, 2, *(5,) * axes))
        check_layer(layer, torch_like(layer), values)
    for value in (np.nan, np.inf, -np.inf):
        check_layer(layer, torch_like(layer), np.full((1, 2, *(4,) * axes), value))


def test_of_several_nans_the_last_one_takes_the_gradient(way):
    y, cache = nn.MaxPool1d(4).forward({}, np.array([[[np.nan, 1, np.nan, 2], [1, 2, 2, 1]]]))
    np.testing.assert_array_equal(y[0, :, 0], [np.nan, 2])
    (dx,) = nn.MaxPool1d(4).backward(cache, np.ones_like(y)).inputs
    np.testing.assert_array_equal(dx[0], [[0, 0, 1, 0], [0, 1, 0, 0]])


@pytest.mark.parametrize("value", [np.inf, np.nan, -np.inf])
def test_a_gradient_that_is_not_finite_reaches_the_winner_alone(value, way):
    layer, x = nn.MaxPool2d(2), normal((1, 1, 4, 4))
    y, cache = layer.forward({}, x)
    upstream = np.zeros_like(y)
    upstream[0, 0, 0, 0] = value
    (dx,) = layer.backward(cache, upstream).inputs
    assert np.count_nonzero(dx != 0) == 1
    assert not np.isfinite(dx[0, 0, :2, :2]).all()


def test_a_window_over_padding_alone_is_minus_infinity_and_gives_nobody_a_gradient(way):
    layer = nn.MaxPool2d(3, 3, 1, dilation=2, ceil_mode=True)
    y, cache = layer.forward({}, np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(y, [[[[-np.inf]]]])
    np.testing.assert_array_equal(layer.backward(cache, np.ones_like(y)).inputs[0], [[[[0.0]]]])


# ---------------------------------------------------------------------------------------------- three opinions


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("case", GEOMETRIES[3:], ids=str)
def test_gradients_are_central_differences(case, axes):
    lengths = {1: (7,), 2: (6, 5), 3: (4, 3, 4)}[axes]
    distinct = np.random.default_rng(0).permutation(2.0 * np.arange(np.prod(lengths))).reshape(1, 1, *lengths) / 8
    check_layer_differences(MAX[axes](**case), distinct)
    if axes < 3 or min(lengths) >= case["kernel_size"]:
        check_layer_differences(AVG[axes](**case), distinct)


@st.composite
def poolings(draw):
    """Fields of a pooling layer of any shape, and the shape of an input that it takes."""
    axes = draw(st.integers(1, 3))

    def small(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel = small(1, 4)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    fields = {"kernel_size": kernel, "stride": small(1, 4), "padding": padding, "ceil_mode": draw(st.booleans())}
    return axes, fields, (draw(st.integers(0, 3)), draw(st.integers(1, 3)), *small(4, 8)), small(1, 2)


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=25)
@given(drawn=poolings(), threads=st.integers(1, 3), seed=st.integers(0, 1000))
def test_every_way_agrees_with_the_textbook(name, drawn, threads, seed):
    axes, fields, shape, dilation = drawn
    x = ties(shape, seed=seed)
    nn.set_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in {**WAYS[name], "SHARED_POOL": 0}.items():
            patch.setattr(_pool if constant == "LITTLE_POOL" else _pieces, constant, value)
        try:
            layer = MAX[axes](**fields, dilation=dilation)
            if min(layer.window.outputs(shape[2:], ceil=layer.ceil_mode)) > 0:
                y, cache = layer.forward({}, x)
                upstream = normal(y.shape, seed=1)
                np.testing.assert_array_equal(y, textbook.max_pool_forward(x, layer.window, ceil_mode=layer.ceil_mode))
                np.testing.assert_allclose(
                    layer.backward(cache, upstream).inputs[0],
                    textbook.max_pool_backward(x, upstream, layer.window),
                    rtol=0,
                    atol=1e-13,
                )
            rules = {"count_include_pad": bool(seed % 2)}
            mean = AVG[axes](**fields, **rules)
            y, cache = mean.forward({}, x)
            upstream = normal(y.shape, seed=1)
            wanted = textbook.avg_pool_forward(x, mean.window, ceil_mode=mean.ceil_mode, **rules)
            np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-14)
            wanted = textbook.avg_pool_backward(upstream, shape[2:], mean.window, **rules)
            np.testing.assert_allclose(mean.backward(cache, upstream).inputs[0], wanted, rtol=0, atol=1e-13)
        finally:
            nn.set_threads(None)


# ---------------------------------------------------------------------------------------------- arrays as they come


def layouts(x):
    """The same numbers in other memory: Fortran order, a view of more, backwards, batch last, read-only."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    yield np.asfortranarray(x)
    yield wide[..., ::2]
    yield x[..., ::-1].copy()[..., ::-1]
    yield np.ascontiguousarray(np.moveaxis(x, 0, -1)).transpose(x.ndim - 1, *range(x.ndim - 1))
    yield frozen(x)[0]


@pytest.mark.parametrize(
    "layer", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1)], ids=str
)
def test_the_order_in_memory_changes_nothing(layer, way):
    x = ties((3, 2, 6, 8))
    y, cache = layer.forward({}, x)
    upstream = normal(y.shape)
    (wanted,) = layer.backward(cache, upstream).inputs
    for other, delta in zip(layouts(x), layouts(upstream), strict=True):
        again, cache = layer.forward({}, other)
        np.testing.assert_array_equal(again, y)
        np.testing.assert_allclose(layer.backward(cache, delta).inputs[0], wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble], ids=lambda d: d.__name__)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_floating_dtype_stays_what_it_is(dtype, stride, way):
    x = ties((2, 2, 6, 6), dtype)
    for layer in (nn.MaxPool2d(2, stride), nn.AvgPool2d(2, stride)):
        y, cache = layer.forward({}, x)
        (dx,) = layer.backward(cache, np.ones_like(y)).inputs
        assert y.dtype == dx.dtype == dtype
    wanted, _ = nn.MaxPool2d(2, stride).forward({}, x.astype(np.float64))
    np.testing.assert_array_equal(nn.MaxPool2d(2, stride).forward({}, x)[0], wanted)


@pytest.mark.parametrize(
    "layer", [nn.MaxPool2d(1), nn.MaxPool2d(1, 2), nn.MaxPool2d(2), nn.AvgPool2d(1), nn.AvgPool2d(2, 1)], ids=str
)
def test_the_output_is_the_callers_and_backward_can_be_repeated(layer, way):
    x = ties((2, 2, 6, 6))
    original = x.copy()
    y, cache = layer.forward({}, x)
    upstream = normal(y.shape)
    first = layer.backward(cache, upstream).inputs[0]
    kept = first.copy()
    y[...] = np.nan
    first[...] = np.nan
    np.testing.assert_array_equal(layer.backward(cache, upstream).inputs[0], kept)
    np.testing.assert_array_equal(x, original)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MaxPool2d(0), r"MaxPool2d: kernel_size=0 is too small"),
        (lambda: nn.MaxPool2d((2, 2, 2)), r"kernel_size=\(2, 2, 2\) has 3 entries for 2 axes"),
        (lambda: nn.MaxPool2d(2, 0), r"stride=0"),
        (lambda: nn.MaxPool2d(2, padding=-1), r"padding=-1"),
        (lambda: nn.MaxPool2d(3, padding=2), r"padding=2; it takes at most half of kernel_size=3"),
        (lambda: nn.AvgPool1d(3, padding=2), r"padding=2; it takes at most half of kernel_size=3"),
        (lambda: nn.MaxPool2d(3, padding=2, dilation=2), r"it takes at most half of kernel_size=3"),
        (lambda: nn.MaxPool1d(3, dilation=0), r"dilation=0"),
        (lambda: nn.MaxPool1d("3"), r"kernel_size='3' is not made of integers"),
        (lambda: nn.MaxPool2d(2, return_indices=True), r"return_indices=True"),
        (lambda: nn.MaxPool2d(2, np.int64(0)), r"stride=np.int64\(0\) is too small"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), r"divisor_override=0"),
        (lambda: nn.AvgPool2d(2, divisor_override=2.5), r"divisor_override=2.5; it takes an integer"),
        (lambda: nn.AvgPool3d(2, divisor_override="4"), r"divisor_override='4'; it takes an integer"),
    ],
)
def test_hyperparameters_that_are_refused(make, message):
    with pytest.raises(nn.NNError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (nn.MaxPool2d(2), normal((4, 4)), r"it takes \(N, C, H, W\), or \(C, H, W\)"),
        (nn.MaxPool1d(2), normal((4,)), r"it takes \(N, C, L\)"),
        (nn.AvgPool3d(2), normal((4, 4, 4)), r"it takes \(N, C, D, H, W\)"),
        (nn.MaxPool2d(2), normal((2, 0, 4, 4)), r"only the batch may be empty"),
        (nn.MaxPool2d(2), normal((0, 4, 4)), r"only the batch may be empty"),
        (nn.MaxPool2d(5), normal((1, 1, 4, 8)), r"spatial shape \(4, 8\).* smaller than the window, \(5, 5\)"),
        (nn.AvgPool2d(7, padding=1), normal((1, 1, 4, 8)), r"padding \(1, 1\) on both sides"),
        (nn.AvgPool3d(4, padding=2), normal((1, 1, 3, 4, 4)), r"AvgPool3d: .* without padding"),
        (nn.MaxPool2d(2), np.ones((1, 1, 4, 4), np.int32), r"int32, not floating point"),
        (nn.MaxPool2d(2), torch.ones(1, 1, 4, 4), r"a Tensor, not a NumPy array"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_inputs_that_are_refused(layer, x, message):
    with pytest.raises(nn.NNError, match=message):
        layer.forward({}, x)
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":  # torch refuses it as well
        with pytest.raises(RuntimeError):
            torch_like(layer)(torch.from_numpy(x))


def test_upstream_gradients_that_are_refused():
    for layer in (nn.MaxPool2d(2), nn.AvgPool2d(2)):
        y, cache = layer.forward({}, normal((2, 1, 4, 4)))
        for upstream in (y[0], y.astype(np.float32), y.tolist()):
            with pytest.raises(nn.NNError, match="upstream is"):
                layer.backward(cache, upstream)
