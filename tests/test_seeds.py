"""The seeds' own numbers and formulas, each computed once more with plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from manual_bp.networks import get
from manual_bp.networks.kernel_gradient import DELTA, ERROR, GRADIENT, KERNEL
from manual_bp.nn import Array
from manual_bp.probes import probe
from manual_bp.trace import Trace


def trace_of(network: str, name: str, **options: object) -> tuple[Trace, Array]:
    example = probe(get(network), name, **options)  # type: ignore[arg-type]  # the test's own keywords
    return get(network).run(example.params, example.x, example.y).trace, example.y


# ---------------------------------------------------------------------------- seed 000


@pytest.mark.parametrize("name", ["digits", "ties", "seed-1", "batch"])
def test_equation_7_is_the_product_of_5_and_6(name: str) -> None:
    trace, y = trace_of("three-layer", name)
    a3 = trace["a3"]
    five = (-y / a3 + (1 - y) / (1 - a3)) / len(y)
    six = a3 * (1 - a3)
    np.testing.assert_allclose(trace["a3.grad"], five, rtol=1e-14)
    np.testing.assert_allclose(trace["z3.grad"], five * six, rtol=1e-14)
    np.testing.assert_allclose(trace["z3.grad"], (a3 - y) / len(y), rtol=1e-14)


def test_equations_1_to_11_forward() -> None:
    trace, y = trace_of("three-layer", "asymmetric")
    x, w1, b1, w3 = trace["x"], trace["z1.weight"][0, 0], trace["z1.bias"][0], trace["z3.weight"][0]
    for n in range(len(x)):
        a1 = np.zeros((6, 6))
        for i, j in itertools.product(range(6), repeat=2):
            a1[i, j] = max(np.sum(x[n, 0, i : i + 3, j : j + 3] * w1) + b1, 0)
        a2 = np.zeros((3, 3))
        for p, r in itertools.product(range(1, 4), repeat=2):  # the seed counts from 1
            window = [(2 * p - 1, 2 * r - 1), (2 * p - 1, 2 * r), (2 * p, 2 * r - 1), (2 * p, 2 * r)]
            a2[p - 1, r - 1] = max(a1[i - 1, j - 1] for i, j in window)
        z3 = sum(a2[k // 3, k % 3] * w3[k] for k in range(9)) + trace["z3.bias"][0]  # equation (9)
        np.testing.assert_allclose(trace["a1"][n, 0], a1, rtol=1e-13)
        np.testing.assert_allclose(trace["a2"][n, 0], a2, rtol=1e-13)
        np.testing.assert_allclose(trace["a3"][n, 0], 1 / (1 + np.exp(-z3)), rtol=1e-13)
    a3 = trace["a3"]
    np.testing.assert_allclose(trace["loss"], -np.mean(y * np.log(a3) + (1 - y) * np.log(1 - a3)), rtol=1e-13)


@pytest.mark.parametrize("name", ["digits", "ties", "batch"])
def test_the_winner_gets_the_error_and_the_other_three_get_exactly_0(name: str) -> None:
    trace, _ = trace_of("three-layer", name, batch=4)
    a1, error, back = trace["a1"], trace["a2.grad"], trace["a1.grad"]
    for n, p, r in itertools.product(range(len(a1)), range(3), range(3)):
        window = a1[n, 0, 2 * p : 2 * p + 2, 2 * r : 2 * r + 2].ravel()
        got = back[n, 0, 2 * p : 2 * p + 2, 2 * r : 2 * r + 2].ravel()
        winner = int(np.argmax(window))  # the first of several
        assert got[winner] == error[n, 0, p, r]
        assert [got[k] for k in range(4) if k != winner] == [0, 0, 0]


def test_what_the_seed_could_not_finish() -> None:
    trace, _ = trace_of("three-layer", "ties")
    a1, z1, delta, x = trace["a1.grad"], trace["z1"], trace["z1.grad"], trace["x"]
    np.testing.assert_array_equal(delta, np.where(z1 > 0, a1, 0))
    w1 = np.zeros((3, 3))
    for n, i, j in itertools.product(range(len(x)), range(6), range(6)):
        w1 += delta[n, 0, i, j] * x[n, 0, i : i + 3, j : j + 3]  # the sum over all patches
    np.testing.assert_allclose(trace["z1.weight.grad"][0, 0], w1, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(trace["z1.bias.grad"][0], delta.sum(), rtol=1e-13, atol=1e-15)
    rotated = trace["z1.weight"][0, 0, ::-1, ::-1]
    padded = np.pad(delta, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for n, i, j in itertools.product(range(len(x)), range(8), range(8)):
        full = np.sum(padded[n, 0, i : i + 3, j : j + 3] * rotated)
        np.testing.assert_allclose(trace["x.grad"][n, 0, i, j], full, rtol=1e-13, atol=1e-15)


# ---------------------------------------------------------------------------- seed 001


def test_the_printed_gradient_to_all_printed_digits() -> None:
    trace, _ = trace_of("kernel-gradient", "printed")
    assert np.round(trace["x1.weight.grad"][0, 0], 6).tolist() == [list(row) for row in GRADIENT]
    assert KERNEL[0][0] == -0.13
    assert round(float(trace["x1"][0, 0, 0, 0]), 2) == 0.25
    np.testing.assert_allclose(trace["x1.grad"][0, 0], DELTA, rtol=1e-13, atol=0)


def test_the_printed_numbers_in_single_precision() -> None:
    trace, _ = trace_of("kernel-gradient", "printed", dtype="float32")
    assert trace["x1.weight.grad"].dtype == np.float32
    assert np.round(trace["x1.weight.grad"][0, 0].astype(np.float64), 6).tolist() == [list(row) for row in GRADIENT]


def test_half_squared_error_and_one_step_of_gradient_descent() -> None:
    trace, t = trace_of("kernel-gradient", "printed")
    np.testing.assert_allclose(trace["loss"], 0.5 * np.sum((t - trace["out"]) ** 2), rtol=1e-14)
    np.testing.assert_allclose(trace["out.grad"], [[ERROR]], rtol=1e-13)
    for name in ("x1.weight", "x1.bias", "out.weight", "out.bias"):
        np.testing.assert_allclose(trace[f"{name}.new"], trace[name] - 0.1 * trace[f"{name}.grad"], rtol=1e-14)


# ---------------------------------------------------------------------------- seed 002


def full_convolution(delta: Array, weight: Array) -> Array:
    """Deltas (N, O, h, w) and weights (O, C, kh, kw) to (N, C, h + kh - 1, w + kw - 1), element by element."""
    n, _, h, w = delta.shape
    _, c, kh, kw = weight.shape
    back = np.zeros((n, c, h + kh - 1, w + kw - 1))
    for i, j, p, q in itertools.product(range(h), range(w), range(kh), range(kw)):
        back[:, :, i + p, j + q] += delta[:, :, i, j] @ weight[:, :, p, q]
    return back


def test_the_delta_of_a_convolution_from_the_delta_of_the_next() -> None:
    trace, _ = trace_of("two-conv-two-hidden", "digits", batch=3)
    delta_c2, c1 = trace["zc2.grad"], trace["c1"]
    assert delta_c2.shape == (3, 6, 4, 4)
    expected = full_convolution(delta_c2, trace["zc2.weight"]) * c1 * (1 - c1)
    np.testing.assert_allclose(trace["zc1.grad"], expected, rtol=1e-12, atol=1e-18)


def test_the_delta_of_the_last_convolution_is_the_dense_one_put_into_its_shape() -> None:
    trace, _ = trace_of("two-conv-two-hidden", "digits", batch=3)
    c2 = trace["c2"]
    expected = (trace["zh1.grad"] @ trace["zh1.weight"]).reshape(c2.shape) * c2 * (1 - c2)
    np.testing.assert_allclose(trace["zc2.grad"], expected, rtol=1e-12, atol=1e-18)


def test_upsample_sends_all_to_the_winner_or_equal_shares() -> None:
    trace, _ = trace_of("two-conv-pooled", "ties")
    for n, c, i, j in itertools.product(range(len(trace["x"])), range(4), range(4), range(4)):
        window = np.s_[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        expected = np.zeros(4)
        expected[np.argmax(trace["c1"][window])] = trace["s1.grad"][n, c, i, j]
        np.testing.assert_array_equal(trace["c1.grad"][window].ravel(), expected)
    shares = np.repeat(np.repeat(trace["s2.grad"] / 4, 2, axis=2), 2, axis=3)
    np.testing.assert_allclose(trace["c2.grad"], shares, rtol=1e-15)


def test_the_one_dimensional_derivation_holds_as_corrected() -> None:
    trace, _ = trace_of("conv1d", "asymmetric")
    for layer, below in ((1, "x"), (2, "y1")):
        y, w = trace[below][:, 0], trace[f"x{layer}.weight"][0, 0]
        delta = trace[f"x{layer}.grad"][:, 0]
        x = np.stack([sum(w[a] * y[:, i + a] for a in range(3)) for i in range(y.shape[1] - 2)], axis=1)
        np.testing.assert_allclose(trace[f"x{layer}"][:, 0], x, rtol=1e-13)
        by_weight = [sum(np.sum(delta[:, i] * y[:, i + a]) for i in range(delta.shape[1])) for a in range(3)]
        np.testing.assert_allclose(trace[f"x{layer}.weight.grad"][0, 0], by_weight, rtol=1e-13)
        by_input = propagated(delta, w, y.shape[1])
        np.testing.assert_allclose(trace[f"{below}.grad"][:, 0], by_input, rtol=1e-13)


def test_a_kernel_flipped_once_more_as_the_seed_writes_it_is_wrong() -> None:
    trace, _ = trace_of("conv1d", "asymmetric")
    as_printed = propagated(trace["x2.grad"][:, 0], trace["x2.weight"][0, 0][::-1], 6)
    assert not np.allclose(trace["y1.grad"][:, 0], as_printed, rtol=0.1)


def propagated(delta: Array, w: Array, length: int) -> Array:
    """∂E/∂y[i] = Σ_a δ[i−a] w[a], where i−a is a position of δ."""
    back = np.zeros((len(delta), length))
    for i, a in itertools.product(range(length), range(len(w))):
        if 0 <= i - a < delta.shape[1]:
            back[:, i] += delta[:, i - a] * w[a]
    return back
