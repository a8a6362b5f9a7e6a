"""Each probe is the same every time, fits its network, and has what it claims."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from manual_bp import nn
from manual_bp.data import digits
from manual_bp.errors import ManualBPError
from manual_bp.network import chain
from manual_bp.networks import NETWORKS, get
from manual_bp.nn import Array
from manual_bp.probes import Probe, check_finite, probe, probe_names, probe_set
from manual_bp.probes._step import exact_zeros, last_affine, tied_windows, values

SMALL = [name for name in NETWORKS if name not in ("lenet", "vgg-block", "vgg11")]


def same(a: Probe, b: Probe) -> bool:
    arrays = [*zip(a.params.values(), b.params.values(), strict=True), (a.x, b.x), (a.y, b.y)]
    return list(a.params) == list(b.params) and all(p.tobytes() == q.tobytes() for p, q in arrays)


@pytest.mark.parametrize("name", SMALL)
def test_probes_fit_their_network_and_are_finite(name: str) -> None:
    network = get(name)
    shapes = network.parameter_shapes() | network.buffer_shapes()
    for example in probe_set(network, batch=2):
        assert {p: a.shape for p, a in example.params.items()} == shapes, example.name
        assert example.x.shape[1:] == network.input_shape
        assert example.x.shape[0] == example.y.shape[0] == example.batch
        for what, array in [*example.params.items(), ("x", example.x), ("y", example.y)]:
            check_finite(what, array)
        assert example.description
        assert "\n" not in example.description
        trace = network.run(example.params, example.x, example.y).trace
        assert all(np.isfinite(array).all() for array in trace.values()), example.name


@pytest.mark.parametrize("name", ["three-layer", "two-conv-pooled", "conv1d", "design-batch-norm"])
def test_the_same_seed_gives_the_same_bits_and_another_one_others(name: str) -> None:
    network = get(name)
    for first, again, other in zip(
        probe_set(network, seed=7), probe_set(network, seed=7), probe_set(network, seed=8), strict=True
    ):
        assert same(first, again), first.name
        assert not same(first, other), first.name
    assert same(probe(network, "ties", seed=7), next(p for p in probe_set(network, seed=7) if p.name == "ties"))


@pytest.mark.parametrize("name", ["three-layer", "two-conv-two-hidden", "design-batch-norm-eval"])
def test_single_precision_is_double_precision_rounded_once(name: str) -> None:
    for single, double in zip(
        probe_set(get(name), dtype="float32"), probe_set(get(name), dtype="float64"), strict=True
    ):
        for parameter, array in single.params.items():
            assert array.dtype == (np.float32 if double.params[parameter].dtype.kind == "f" else np.int64)
            np.testing.assert_array_equal(array, double.params[parameter].astype(array.dtype))
        np.testing.assert_array_equal(single.x, double.x.astype(np.float32))
        assert single.y.dtype == (np.float32 if double.y.dtype.kind == "f" else np.int64)


def test_a_faulty_layer_does_not_change_the_probes_it_is_judged_on() -> None:
    class Dead(nn.ReLU):
        def forward(self, params: nn.Params, /, *inputs: Array) -> tuple[Array, nn.Cache]:
            return 0 * inputs[0], inputs[0]

    network = get("three-layer")
    for right, wrong in zip(probe_set(network), probe_set(network.with_layer("a1", Dead())), strict=True):
        assert same(right, wrong), right.name


def test_the_set_begins_with_what_is_real() -> None:
    assert probe_names(get("three-layer"))[0] == "digits"
    assert probe_names(get("conv1d"))[0] == "data"
    assert probe_names(get("kernel-gradient"))[:2] == ("printed", "digits")
    example = probe(get("three-layer"), "digits", batch=20)
    images, labels = digits()
    for x, y in zip(example.x, example.y, strict=True):
        at = [i for i, image in enumerate(images) if np.array_equal(image / 16, x[0])]
        assert len(at) == 1
        assert labels[at[0]] == y[0]
        assert y[0] in (0, 1)


def test_the_ten_class_network_sees_all_ten_digits() -> None:
    assert set(probe(get("two-conv-two-hidden"), "digits", batch=100).y.tolist()) == set(range(10))


# ---------------------------------------------------------------------------- what each of them claims


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ties_has_ties_and_exact_zeros_where_an_error_comes_back(name: str, dtype: str) -> None:
    network = get(name)
    example = probe(network, "ties", dtype=dtype)
    trace = network.run(example.params, example.x, example.y).trace
    for step, count in {**exact_zeros(network, trace), **tied_windows(network, trace)}.items():
        assert count >= 3, step
    for parameter in network.parameter_shapes():
        assert trace[f"{parameter}.grad"].any(), f"nothing comes back to {parameter}"


def test_ties_is_exact_in_any_order_of_summation() -> None:
    """In single precision the sums are those of integers, up to a power of two."""
    network = get("three-layer")
    single, double = (probe(network, "ties", dtype=dtype) for dtype in ("float32", "float64"))
    for name in ("z1", "a1", "a2", "z3"):
        a = values(network, single.params, single.x)[name]
        b = values(network, double.params, double.x)[name]
        np.testing.assert_array_equal(a, b.astype(np.float32), strict=True)
        np.testing.assert_array_equal(a.astype(np.float64), b)
    z1 = values(network, double.params, double.x)["z1"]
    np.testing.assert_array_equal(z1, np.round(z1))


def test_ties_meets_the_kink_of_the_absolute_error() -> None:
    network = get("design-loss-l1")
    example = probe(network, "ties", dtype="float32")
    trace = network.run(example.params, example.x, example.y).trace
    assert np.sum(trace[network.output] == example.y) >= 3
    assert np.sum(trace[network.output] != example.y) >= 3


@pytest.mark.parametrize("name", ["three-layer", "two-conv-two-hidden", "design-loss-logits"])
def test_saturation_has_logits_that_round_to_certainty_and_others_that_do_not(name: str) -> None:
    network = get(name)
    example = probe(network, "saturation")
    affine = last_affine(network)
    assert affine is not None
    size = np.abs(values(network, example.params, example.x)[affine.name])
    assert size.max() == pytest.approx(45)
    assert size.min() < 10


def test_dead_has_units_that_never_fire_beside_others() -> None:
    network = get("lenet")
    example = probe(network, "dead")
    found = values(network, example.params, example.x)
    for step in ("relu1", "relu2", "relu3", "relu4"):
        alive = (found[step] > 0).any(axis=(0, *range(2, found[step].ndim)))
        assert not alive[1::2].any(), step
        assert alive[::2].any(), step


def test_dead_with_a_single_filter_leaves_most_of_its_outputs_dead() -> None:
    example = probe(get("three-layer"), "dead")
    z1 = values(get("three-layer"), example.params, example.x)["z1"]
    assert 0.5 < np.mean(z1 < 0) < 0.7


@pytest.mark.parametrize(("asked", "least"), [(1, 5), (5, 5), (7, 7)])
def test_batch_is_as_large_as_asked_but_at_least_5(asked: int, least: int) -> None:
    assert probe(get("three-layer"), "batch", batch=asked).batch == least


def test_asymmetric_changes_under_every_flip_transposition_and_exchange() -> None:
    example = probe(get("design-channels"), "asymmetric")
    for name, array in [*example.params.items(), ("x", example.x)]:
        for axes in itertools.permutations(range(array.ndim)):
            for flips in itertools.product([False, True], repeat=array.ndim):
                turned = np.flip(array.transpose(axes), [k for k, flip in enumerate(flips) if flip])
                moved = any(flip and n > 1 for flip, n in zip(flips, array.shape, strict=True))
                if axes == tuple(range(array.ndim)) and not moved:
                    continue
                assert turned.shape != array.shape or not np.allclose(turned, array, rtol=0.05), (name, axes, flips)
        assert len(np.unique(array)) == array.size, f"{name} repeats a number"


def test_bad_scale_spans_orders_of_magnitude() -> None:
    example = probe(get("two-conv-two-hidden"), "bad-scale")
    for array in (example.x, example.params["zc1.weight"]):
        sizes = np.abs(array[array != 0])
        assert sizes.max() / sizes.min() > 1e3


def test_normalisations_get_statistics_that_are_not_0_and_1() -> None:
    params = probe(get("design-batch-norm-eval"), "seed-1").params
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert not np.any(params[f"norm.{name}"] == value), name


# ---------------------------------------------------------------------------- what they refuse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "tie"}, "did you mean ties"),
        ({"name": "nothing-like-it"}, "choose one of digits, ties"),
        ({"batch": 0}, "a batch of 0"),
        ({"batch": 361}, "there are 360 digits below 2"),
        ({"seed": -1}, "the seed -1"),
        ({"dtype": "float16"}, "no dtype float16"),
    ],
)
def test_bad_arguments_are_one_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(ManualBPError, match=message):
        probe(get("three-layer"), **{"name": "digits", **options})  # type: ignore[arg-type]  # wrong on purpose


def test_all_digits_can_be_one_batch_and_one_more_cannot() -> None:
    network = get("two-conv-two-hidden")
    assert probe(network, "digits", batch=1797).batch == 1797
    with pytest.raises(ManualBPError, match="a batch of 1798 is larger than the data: there are 1797 digits"):
        probe(network, "digits", batch=1798)


def test_numbers_that_are_none_are_refused_with_their_place() -> None:
    images = np.zeros((2, 3))
    images[1, 2], images[1, 0] = np.inf, np.nan
    with pytest.raises(ManualBPError, match=r"images has 2 of 6 elements .* the first at \[1, 0\]"):
        check_finite("images", images)


def test_nobody_can_change_a_probe() -> None:
    example = probe(get("three-layer"), "digits")
    for array in (example.x, example.y, *example.params.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (2, 16), (5,), (1, 4, 6, 5)])
def test_any_input_shape_gets_the_digits(shape: tuple[int, ...]) -> None:
    layers: dict[str, nn.Layer] = {"flat": nn.Flatten(), "fc": nn.Linear(int(np.prod(shape)), 3)}
    network = chain("own", layers, nn.MSELoss(), shape)
    x: Array = probe_set(network, batch=3)[0].x
    assert x.shape == (3, *shape)
    assert x.min() >= 0
    assert 0.2 < x.max() <= 1
    assert x.std() > 0.05
