"""Convolution: the engine beside torch.nn, beside the textbook, beside differences, and in every formulation."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manual_bp import nn
from manual_bp.nn import _formulation, _formulation_columns, _formulation_threads, textbook
from manual_bp.nn._window_pad import MODES, pad, unpad
from tests.engine.parity import check_layer, check_layer_differences, frozen, normal, randomized

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TORCH = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
LENGTHS = {1: (9,), 2: (9, 7), 3: (5, 4, 6)}
DTYPES = (np.float64, np.float32)

#: one entry for each class of hyperparameters, together where they interact
CASES = [
    {"kernel_size": 3},
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2, "padding": 1},
    {"kernel_size": 3, "bias": False},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 2, "stride": 3, "padding": 2},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 2, "padding": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 2},
    {"kernel_size": 2, "dilation": 3, "padding": 1, "stride": 2},
    {"kernel_size": 3, "padding": "valid", "stride": 2},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 2, "padding": "same", "dilation": 3},
    {"kernel_size": 3, "groups": 2},
    {"kernel_size": 3, "groups": 4, "padding": 1},
    {"kernel_size": 3, "groups": 4, "padding": 1, "stride": 2, "bias": False},
    *({"kernel_size": 3, "padding": 2, "padding_mode": mode} for mode in MODES[1:]),
    *({"kernel_size": 2, "padding": "same", "padding_mode": mode, "groups": 2} for mode in MODES[1:]),
    {"kernel_size": 3, "padding": 3, "padding_mode": "circular", "stride": 2, "dilation": 2},
]


def case_id(case):
    return "-".join(f"{key}={value}" for key, value in case.items())


# ---------------------------------------------------------------------------------------------- beside torch


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_every_hyperparameter_beside_torch(case, axes, dtype):
    x = normal((2, 4, *LENGTHS[axes]), dtype)
    check_layer(CONV[axes](4, 8, **case), TORCH[axes](4, 8, **case), x)


@pytest.mark.parametrize(
    ("axes", "case"),
    [
        (1, {"kernel_size": (3,), "stride": (2,), "padding": (1,), "dilation": (2,)}),
        (2, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2), "dilation": (1, 3)}),
        (2, {"kernel_size": (1, 3), "padding": (2, 1), "padding_mode": "replicate"}),
        (2, {"kernel_size": (2, 3), "stride": (2,), "padding": (1,)}),
        (3, {"kernel_size": (1, 2, 3), "stride": (2, 1, 3), "padding": (0, 1, 2), "dilation": (1, 2, 1)}),
        (3, {"kernel_size": [2, 1, 3], "padding": [0, 2, 3], "padding_mode": "circular"}),
    ],
    ids=str,
)
def test_a_number_for_each_axis(axes, case):
    check_layer(CONV[axes](2, 3, **case), TORCH[axes](2, 3, **case), normal((2, 2, *LENGTHS[axes])))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_unbatched_and_empty_batch(axes, mode):
    for shape in ((2, *LENGTHS[axes]), (0, 2, *LENGTHS[axes]), (1, 2, *LENGTHS[axes])):
        case = {"kernel_size": 3, "padding": 1, "padding_mode": mode}
        check_layer(CONV[axes](2, 3, **case), TORCH[axes](2, 3, **case), normal(shape))
        case |= {"stride": 2}
        check_layer(CONV[axes](2, 3, **case), TORCH[axes](2, 3, **case), normal(shape))


def test_the_kernel_may_be_as_large_as_the_padded_input():
    for case in (
        {"kernel_size": (9, 7)},
        {"kernel_size": (11, 7), "padding": (1, 0)},
        {"kernel_size": 3, "dilation": 3},
    ):
        check_layer(nn.Conv2d(2, 3, **case), torch.nn.Conv2d(2, 3, **case), normal((2, 2, 9, 7)))


def test_infinities_and_nan_go_where_torch_sends_them():
    x, layer, module = normal((1, 1, 6, 6)), nn.Conv2d(1, 2, 3), torch.nn.Conv2d(1, 2, 3)
    x[0, 0, 1, 1], x[0, 0, 5, 0] = np.nan, np.inf
    check_layer(layer, module, x)


# ---------------------------------------------------------------------------------------------- three opinions


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("case", CASES[::2], ids=case_id)
def test_gradients_are_central_differences(case, axes):
    lengths = {1: (7,), 2: (5, 5), 3: (5, 4, 4)}[axes]
    case = {**case, "groups": min(case.get("groups", 1), 2)}
    check_layer_differences(CONV[axes](2, 2, **case), normal((1, 2, *lengths)))


@contextmanager
def formulation(**constants):
    """The thresholds that choose a formulation, for a while: small ones make every branch run on small arrays."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(_formulation_columns if hasattr(_formulation_columns, name) else _formulation, name, value)
        yield


IMAGES = {"SMALL_IMAGE": 0, "FEW_WINDOWS": 0}
BLOCKS = {"BLOCK": 1, "COLUMNS": 1}
FORMULATIONS = {
    "as chosen": {},
    "positions": {"LITTLE_IMAGE": 1 << 60},
    "the whole matrix": {"LITTLE_MATRIX": 1 << 60},
    "tiles": {"TILE": 2, "JOIN": 0, "GAIN": 0, "SHORT": 1 << 10, "BLOCK": 0},
    "large tiles, image by image": {"TILE": 9, "JOIN": 0, "GAIN": 0, "SHORT": 1 << 10, **IMAGES},
    "batch last, gather": {"SMALL_IMAGE": 1 << 60, "SCATTER": 1 << 60},
    "batch last, scatter": {"SMALL_IMAGE": 1 << 60, "SCATTER": 0},
    "batch last, gather, row by row": {"SMALL_IMAGE": 1 << 60, "SCATTER": 1 << 60, **BLOCKS},
    "batch last, scatter, row by row": {"SMALL_IMAGE": 1 << 60, "SCATTER": 0, **BLOCKS},
    "batch last, scatter, both at a time": {"SMALL_IMAGE": 1 << 60, "SCATTER": 0, "SHARED": 1 << 60, "LONG": 0},
    "batch last, in parts": {"SMALL_IMAGE": 1 << 60, "ROW": 1},
    "image by image, gather": {**IMAGES, "SCATTER": 1 << 60},
    "image by image, scatter": {**IMAGES, "SCATTER": 0},
    "image by image, gather, row by row": {**IMAGES, "SCATTER": 1 << 60, **BLOCKS},
    "image by image, scatter, row by row": {**IMAGES, "SCATTER": 0, **BLOCKS},
    "no scratch memory": {"SCRATCH": 0},
    "scratch memory for the smallest": {"LITTLE": 0},
}


@st.composite
def convolutions(draw):
    """A layer of any shape and an input that it takes."""
    axes = draw(st.integers(1, 3))
    small = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731  # one line says it
    groups, kernel, dilation = draw(st.integers(1, 3)), small(1, 3), small(1, 2)
    padding, stride = small(0, 3), small(1, 3)
    lengths = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 7)) for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    channels, out_channels = (groups * draw(st.integers(1, 3)) for _ in range(2))
    fields = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": draw(st.booleans())}
    shape = (draw(st.integers(0, 4)), channels, *lengths)
    return CONV[axes](channels, out_channels, kernel, **fields), shape, draw(st.integers(0, 1 << 30))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", FORMULATIONS)
@settings(max_examples=12)
@given(drawn=convolutions(), threads=st.integers(1, 3))
def test_every_formulation_keeps_to_the_textbook_within_its_certified_bound(name, dtype, drawn, threads):
    layer, shape, seed = drawn
    with formulation(**{"LITTLE_IMAGE": 0, "LITTLE_MATRIX": 0, "TILE": 1, "SHARED": 0, **FORMULATIONS[name]}):
        nn.set_threads(threads)
        try:
            check_against_textbook(layer, normal(shape, dtype, seed=seed))
        finally:
            nn.set_threads(None)


def check_against_textbook(layer, x):
    """Each result lies within γ_n Σ|w||x| of the exact one: the classical bound for any order of summation."""
    params = randomized(layer, x.dtype)
    y, cache = layer.forward(params, x)
    upstream = normal(y.shape, x.dtype, seed=3)
    grads = layer.backward(cache, upstream)

    def exact(x, weight, bias, delta):
        x, weight, bias, delta = (None if a is None else a.astype(np.longdouble) for a in (x, weight, bias, delta))
        dx, dw, db = textbook.conv_backward(x, weight, delta, layer.window, groups=layer.groups)
        return textbook.conv_forward(x, weight, bias, layer.window, groups=layer.groups), dx, dw, db

    weight, bias = params["weight"], params.get("bias")
    taps, positions = np.prod(weight.shape[2:], dtype=int), len(x) * np.prod(y.shape[2:], dtype=int)
    terms = (weight[0].size + 1, len(weight) // layer.groups * taps, positions, positions)
    wanted = exact(x, weight, bias, upstream)
    sizes = exact(*(None if a is None else abs(a) for a in (x, weight, bias, upstream)))
    found = (y, grads.inputs[0], grads.params["weight"], grads.params.get("bias"))
    for what, actual, right, size, n in zip(("y", "dx", "dw", "db"), found, wanted, sizes, terms, strict=True):
        if actual is None:
            continue
        assert (actual.shape, actual.dtype) == (right.shape, x.dtype), what
        u = np.finfo(x.dtype).eps / 2
        bound = n * u / (1 - n * u) * size + n * np.finfo(x.dtype).tiny
        assert (abs(actual - right) <= bound).all(), f"{what} of {layer} leaves its bound"


def test_the_textbook_computes_in_the_dtype_it_is_given():
    layer = nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2)
    for dtype in (np.float16, np.float32, np.float64, np.longdouble):
        x, params = normal((2, 2, 5, 4), dtype), randomized(layer, dtype)
        y = textbook.conv_forward(x, params["weight"], params["bias"], layer.window, groups=2)
        results = (y, *textbook.conv_backward(x, params["weight"], y, layer.window, groups=2))
        assert {result.dtype for result in results} == {np.dtype(dtype)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_unpadding_is_the_adjoint_of_padding(mode, dtype):
    window = nn.Conv2d(1, 1, (3, 3), padding=(2, 3)).window
    x, upstream = normal((2, 3, 4, 5), dtype, seed=1), normal((2, 3, 8, 11), dtype, seed=2)
    left, right = (pad(x, window, mode) * upstream).sum(), (x * unpad(upstream, window, (4, 5), mode)).sum()
    np.testing.assert_allclose(left, right, rtol=200 * np.finfo(dtype).eps)


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


@pytest.mark.parametrize("name", FORMULATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_order_in_memory_changes_nothing(name, stride):
    layer, x = nn.Conv2d(2, 3, 3, padding=1, stride=stride), normal((3, 2, 5, 6))
    with formulation(**{"LITTLE_IMAGE": 0, "LITTLE_MATRIX": 0, "TILE": 1, **FORMULATIONS[name]}):
        params = randomized(layer, x.dtype)
        y, cache = layer.forward(params, x)
        upstream = normal(y.shape)
        wanted = layer.backward(cache, upstream)
        for other, delta, weight in zip(layouts(x), layouts(upstream), layouts(params["weight"]), strict=True):
            again, cache = layer.forward({**params, "weight": weight}, other)
            grads = layer.backward(cache, delta)
            np.testing.assert_allclose(again, y, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(grads.inputs[0], wanted.inputs[0], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(grads.params["weight"], wanted.params["weight"], rtol=1e-12, atol=1e-12)


def test_an_axis_of_length_one_may_have_any_stride():
    layer, x = nn.Conv2d(1, 2, 3, padding=1), normal((1, 1, 4, 1))
    odd = np.lib.stride_tricks.as_strided(x, x.shape, (8, 123_456, 8, 8_000))
    params = randomized(layer, x.dtype)
    (y, cache), (wanted, right) = layer.forward(params, odd), layer.forward(params, x)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(layer.backward(cache, y).inputs[0], layer.backward(right, y).inputs[0])


@pytest.mark.parametrize("name", FORMULATIONS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_output_is_the_callers_and_backward_can_be_repeated(name, kernel):
    layer, x = nn.Conv2d(2, 3, kernel), normal((2, 2, 5, 4))
    with formulation(**{"LITTLE_IMAGE": 0, "LITTLE_MATRIX": 0, "TILE": 1, **FORMULATIONS[name]}):
        y, cache = layer.forward(randomized(layer, x.dtype), x)
        first = layer.backward(cache, np.ones_like(y))
        kept = first.inputs[0].copy(), first.params["weight"].copy()
        y[...] = np.nan
        first.inputs[0][...] = np.nan
        second = layer.backward(cache, np.ones_like(y))
    np.testing.assert_array_equal(second.inputs[0], kept[0])
    np.testing.assert_array_equal(second.params["weight"], kept[1])
    assert np.isfinite(x).all()


def test_a_thread_sees_the_callers_floating_point_settings_and_its_errors_come_back():
    def work(start, stop):
        if start:
            return np.geterr()["divide"]
        return "mine"

    with np.errstate(divide="ignore"):
        assert _formulation_threads.shard(work, 4, 2) == ["mine", "ignore"]
    with np.errstate(divide="raise"):
        assert _formulation_threads.shard(work, 4, 2) == ["mine", "raise"]
    with pytest.raises(ZeroDivisionError):
        _formulation_threads.shard(lambda start, stop: 1 // (start - 2), 4, 2)


# ---------------------------------------------------------------------------------------------- initial values


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_initial_parameters_have_torchs_distribution(axes):
    layer, module = CONV[axes](8, 16, 3, groups=2), TORCH[axes](8, 16, 3, groups=2)
    drawn = layer.initial(np.random.default_rng(0), np.float32)
    assert {k: (v.shape, v.dtype) for k, v in drawn.items()} == {
        name: (tuple(p.shape), np.float32) for name, p in module.named_parameters()
    }
    bound = 1 / np.sqrt(4 * 3**axes)
    both = np.concatenate([drawn["weight"].ravel(), module.weight.detach().numpy().ravel()])
    assert abs(both).max() <= bound * (1 + 1e-6)
    assert abs(drawn["weight"]).max() > 0.9 * bound
    assert abs(drawn["weight"].mean()) < 4 * bound / np.sqrt(3 * drawn["weight"].size)
    assert set(CONV[axes](2, 2, 1, bias=False).initial(np.random.default_rng(0))) == {"weight"}


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (((0, 1, 3), {}), r"in_channels=0 is too small"),
        (((2, -1, 3), {}), r"out_channels=-1 is too small"),
        (((3, 4, 3), {"groups": 2}), r"in_channels=3 is not divisible by groups=2"),
        (((4, 3, 3), {"groups": 2}), r"out_channels=3 is not divisible by groups=2"),
        (((4, 4, 3), {"groups": 0}), r"groups=0"),
        (((2, 3, 0), {}), r"kernel_size=0"),
        (((2, 3, (3,)), {}), r"kernel_size=\(3,\) has 1 entries for 2 axes"),
        (((2, 3, 2.5), {}), r"kernel_size=2.5 is not made of integers"),
        (((2, 3, True), {}), r"kernel_size=True"),
        (((2, 3, 3), {"stride": 0}), r"stride=0"),
        (((2, 3, 3), {"stride": (1, 1, 1)}), r"stride=\(1, 1, 1\) has 3 entries"),
        (((2, 3, 3), {"dilation": 0}), r"dilation=0"),
        (((2, 3, 3), {"padding": -1}), r"padding=-1"),
        (((2, 3, 3), {"padding": "full"}), r"padding='full' is not one of 'same', 'valid'"),
        (((2, 3, 3), {"padding": "same", "stride": 2}), r"padding='same' takes stride 1"),
        (((2, 3, 3), {"padding_mode": "constant"}), r"padding_mode='constant' is not one of"),
    ],
    ids=str,
)
def test_hyperparameters_that_are_refused(fields, message):
    with pytest.raises(nn.NNError, match=message):
        nn.Conv2d(*fields[0], **fields[1])


@pytest.mark.parametrize(
    ("fields", "x", "message"),
    [
        ({}, normal((5, 4)), r"has shape \(5, 4\); it takes \(N, C, H, W\)"),
        ({}, normal((1, 3, 5, 5)), r"3 channels; it takes in_channels=2"),
        ({}, normal((1, 2, 2, 5)), r"smaller than the window, \(3, 3\)"),
        (
            {"padding": 1, "dilation": 4},
            normal((1, 2, 6, 6)),
            r"padded to \(8, 8\), is smaller than the window, \(9, 9\)",
        ),
        ({"padding": 3}, normal((1, 2, 0, 5)), r"only the batch may be empty"),
        ({}, np.ones((1, 2, 5, 5), np.int64), r"int64, not floating point"),
        ({}, [[1.0]], r"list, not a NumPy array"),
        ({}, normal((1, 2, 5, 5), np.float32), r"weight is float64 of shape .* expected float32"),
        ({"padding": 5, "padding_mode": "reflect"}, normal((1, 2, 5, 9)), r"axis 0 of length 5; .* takes at most 4"),
        ({"padding": 6, "padding_mode": "circular"}, normal((1, 2, 9, 5)), r"axis 1 of length 5; .* takes at most 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_inputs_that_are_refused(fields, x, message):
    layer = nn.Conv2d(2, 3, 3, **fields)
    with pytest.raises(nn.NNError, match=message):
        layer.forward(randomized(layer, np.float64), x)


def test_parameters_and_upstream_gradients_that_are_refused():
    layer, x = nn.Conv2d(2, 3, 3), normal((1, 2, 5, 5))
    params = randomized(layer, x.dtype)
    with pytest.raises(nn.NNError, match="parameter 'bias' is missing"):
        layer.forward({"weight": params["weight"]}, x)
    with pytest.raises(
        nn.NNError, match=r"weight is float64 of shape \(3, 2, 9\), expected float64 of shape \(3, 2, 3, 3\)"
    ):
        layer.forward({**params, "weight": params["weight"].reshape(3, 2, 9)}, x)
    y, cache = layer.forward(params, x)
    for upstream in (y[0], y.astype(np.float32), y.swapaxes(0, 1)):
        with pytest.raises(nn.NNError, match="upstream is"):
            layer.backward(cache, upstream)


@pytest.mark.parametrize("value", ["0", "two", "-1", "²"])
def test_a_number_of_threads_that_is_refused(value, monkeypatch):
    if not _formulation_threads._workers.blas.known:
        pytest.skip("this NumPy's BLAS shows no thread control, so the engine shares nothing")
    monkeypatch.setenv("MANUAL_BP_THREADS", value)
    with pytest.raises(nn.NNError, match="MANUAL_BP_THREADS"):
        _formulation_threads.threads()
    with pytest.raises(nn.NNError, match="at least 1"):
        nn.set_threads(0)
