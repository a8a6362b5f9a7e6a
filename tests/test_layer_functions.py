"""`verify_layer` on what courses and small libraries are made of; each mistake is blamed where it is.

Functions with caches, settings in dictionaries, averaged gradients, several inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import Adapter, Report, verify_layer

RNG = np.random.default_rng(0)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


# ---------------------------------------------------------------------------------------------------- functions


def affine_forward(x: Any, w: Any, b: Any) -> Any:
    """Weights (in, out), whatever the shape of an example."""
    return x.reshape(len(x), -1) @ w + b, (x, w, b)


def affine_backward(wrong: str = "") -> Callable[..., Any]:
    def backward(dout: Any, cache: Any) -> Any:
        x, w, _ = cache
        dx = dout @ w.T if wrong != "x" else dout @ np.abs(w).T
        db = dout.sum(0) if wrong != "bias" else dout.mean(0)
        return dx.reshape(x.shape), x.reshape(len(x), -1).T @ dout, db

    return backward


@DTYPES
@pytest.mark.parametrize(("wrong", "name"), [("", None), ("x", "x.grad"), ("bias", "1.bias.grad")])
def test_functions_may_take_their_weights_either_way(wrong: str, name: str | None, dtype: str) -> None:
    x = RNG.standard_normal((4, 2, 3, 2))
    reference = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    report = verify_layer((affine_forward, affine_backward(wrong)), reference, x=x, dtype=dtype)
    assert blamed(report) == ({name} if name else set())


def batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: Any) -> Any:
    assert bn_param["mode"] == "train"
    mean, var = x.mean(0), x.var(0)
    std = np.sqrt(var + bn_param.get("eps", 1e-5))
    hat = (x - mean) / std
    return gamma * hat + beta, (hat, std, gamma)


def batchnorm_backward(dout: Any, cache: Any) -> Any:
    hat, std, gamma = cache
    d = dout * gamma
    return (d - d.mean(0) - hat * (d * hat).mean(0)) / std, (dout * hat).sum(0), dout.sum(0)


@DTYPES
def test_settings_are_handed_over_as_a_dictionary(dtype: str) -> None:
    pair = (batchnorm_forward, batchnorm_backward)
    assert verify_layer(pair, nn.BatchNorm1d(5), x=RNG.standard_normal((6, 5)), dtype=dtype).ok
    # the eps of the reference is what the function is given
    assert verify_layer(pair, nn.BatchNorm1d(5, eps=0.1), x=RNG.standard_normal((6, 5)), dtype=dtype).ok
    short = (batchnorm_forward, lambda dout, cache: (dout * cache[2] / cache[1], *batchnorm_backward(dout, cache)[1:]))
    assert blamed(verify_layer(short, nn.BatchNorm1d(5), x=RNG.standard_normal((6, 5)), dtype=dtype)) == {"x.grad"}


def conv_forward(a_prev: Any, W: Any, b: Any, hparameters: Any) -> Any:  # the names of the course
    """Images (m, H, W, C), kernels (f, f, C_prev, C), a bias (1, 1, 1, C)."""
    stride, pad, f = hparameters["stride"], hparameters["pad"], W.shape[0]
    padded = np.pad(a_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((n - f) // stride + 1 for n in padded.shape[1:3])
    z = np.zeros((len(a_prev), rows, columns, W.shape[3]), a_prev.dtype)
    for i in range(rows):
        for j in range(columns):
            part = padded[:, i * stride : i * stride + f, j * stride : j * stride + f]
            z[:, i, j] = np.tensordot(part, W, 3)
    return z + b, (a_prev, W, b, hparameters)


def conv_backward(crop: Callable[[Any, int], Any]) -> Callable[..., Any]:
    def backward(dz: Any, cache: Any) -> Any:
        a_prev, W, b, hparameters = cache  # as above
        stride, pad, f = hparameters["stride"], hparameters["pad"], W.shape[0]
        padded = np.pad(a_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        da, dw = np.zeros_like(padded), np.zeros_like(W)
        for i in range(dz.shape[1]):
            for j in range(dz.shape[2]):
                at = np.s_[:, i * stride : i * stride + f, j * stride : j * stride + f]
                da[at] += np.tensordot(dz[:, i, j], W, ([1], [3]))
                dw += np.tensordot(padded[at], dz[:, i, j], ([0], [0]))
        return crop(da, pad), dw, dz.sum((0, 1, 2)).reshape(b.shape)

    return backward


@DTYPES
def test_a_convolution_with_channels_last_and_its_settings(dtype: str) -> None:
    reference = nn.Conv2d(3, 2, 3, stride=2, padding=1)
    x = RNG.standard_normal((2, 5, 5, 3))
    right = conv_backward(lambda da, p: da[:, p:-p, p:-p])
    assert verify_layer((conv_forward, right), reference, x=x, dtype=dtype).ok
    shifted = conv_backward(lambda da, p: da[:, : -2 * p, : -2 * p])
    assert blamed(verify_layer((conv_forward, shifted), reference, x=x, dtype=dtype)) == {"x.grad"}


def linear_forward(A: Any, W: Any, b: Any) -> Any:  # the names of the course
    """Samples in columns, the bias a column."""
    return W @ A + b, (A, W, b)


def linear_backward(dz: Any, cache: Any) -> Any:
    A, W, _ = cache  # as above
    m = A.shape[1]
    return W.T @ dz, dz @ A.T / m, dz.sum(1, keepdims=True) / m


@DTYPES
def test_averaged_gradients_are_a_convention_that_can_be_said(dtype: str) -> None:
    x, pair = RNG.standard_normal((4, 6)), (linear_forward, linear_backward)
    report = verify_layer(pair, nn.Linear(4, 3), x=x, dtype=dtype)
    assert blamed(report) == {"weight.grad", "bias.grad"}
    assert any("adapter=Adapter(averaged=True)" in note for note in report.notes)
    averaged = Adapter(averaged=True)
    assert verify_layer(pair, nn.Linear(4, 3), x=x, adapter=averaged, dtype=dtype).ok

    def half(dz: Any, cache: Any) -> Any:
        da, dw, db = linear_backward(dz, cache)
        return da, dw, db * cache[0].shape[1]

    assert blamed(verify_layer((linear_forward, half), nn.Linear(4, 3), x=x, adapter=averaged)) == {"bias.grad"}


class Column:
    """A dense layer of a course: samples in columns, gradients averaged over them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.W, self.b = np.zeros((outputs, inputs)), np.zeros((outputs, 1))

    def forward(self, A: Any) -> Any:  # the names of the course
        self.A = A
        return self.W @ A + self.b

    def backward(self, dZ: Any) -> Any:  # as above
        m = dZ.shape[1]
        self.dW, self.db = dZ @ self.A.T / m, dZ.sum(1, keepdims=True) / m
        return self.W.T @ dZ


class Squares:
    """Its gradient is that of one sample: the layers divide."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def forward(self, A: Any, Y: Any) -> Any:  # as above
        return ((A - Y) ** 2).sum() / A.shape[1] / 2

    def backward(self, A: Any, Y: Any) -> Any:  # as above
        return self.scale * (A - Y)


@DTYPES
def test_a_whole_network_whose_loss_leaves_the_mean_to_its_layers(dtype: str) -> None:
    x, y = RNG.standard_normal((4, 6)), RNG.standard_normal((6, 2))

    class HalfMean(nn.MSELoss):
        def forward(self, a: Any, t: Any) -> Any:
            return (a - t).square().sum() / len(a) / 2

    reference = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), HalfMean())
    options: dict[str, Any] = {"x": x, "y": y, "adapter": Adapter(averaged=True), "layouts": {"x": "CN"}}
    layers = [Column(4, 3), Column(3, 2)]
    assert blamed(verify_layer([*layers, Squares()], reference, **options, dtype=dtype)) == set()
    assert blamed(verify_layer([*layers, Squares(2.0)], reference, **options, dtype=dtype)) == {"1.grad"}


# ---------------------------------------------------------------------------------------------------- inputs, names


class Attention:
    """Several inputs; returns (dq, dk, dv)."""

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def forward(self, q: Any, k: Any, v: Any) -> Any:
        self.q, self.k, self.v = q, k, v
        self.scale = np.asarray(q.shape[-1] ** -0.5, q.dtype)
        s = q @ k.swapaxes(-1, -2) * self.scale
        e = np.exp(s - s.max(-1, keepdims=True))
        self.a = e / e.sum(-1, keepdims=True)
        return self.a @ v

    def backward(self, dout: Any) -> Any:
        da = dout @ self.v.swapaxes(-1, -2)
        ds = self.a * (da - (da * self.a).sum(-1, keepdims=True)) * self.scale
        dk = ds @ self.q if self.wrong else ds.swapaxes(-1, -2) @ self.q
        return ds @ self.k, dk, self.a.swapaxes(-1, -2) @ dout


class Scaled(nn.Module):
    def forward(self, q: Any, k: Any, v: Any) -> Any:
        return nn.functional.scaled_dot_product_attention(q, k, v)


@DTYPES
def test_a_layer_of_several_inputs(dtype: str) -> None:
    x = tuple(RNG.standard_normal((2, 4, 3)) for _ in range(3))
    assert verify_layer(Attention(), Scaled(), x=x, dtype=dtype).ok
    report = verify_layer(Attention(wrong=True), Scaled(), x=x, dtype=dtype)
    assert report.first_wrong == "x[1].grad"
    assert blamed(report) == {"x[1].grad"}


class Bilinear:
    """Two inputs and parameters that are laid out (in, out)."""

    def __init__(self) -> None:
        self.params = {"Wa": np.zeros((3, 2)), "Wb": np.zeros((4, 2))}
        self.grads: dict[str, Any] = {}

    def forward(self, a: Any, b: Any) -> Any:
        self.a, self.b = a, b
        return a @ self.params["Wa"] + b @ self.params["Wb"]

    def backward(self, d: Any) -> Any:
        self.grads = {"Wa": self.a.T @ d, "Wb": self.b.T @ d}
        return d @ self.params["Wa"].T, d @ self.params["Wb"].T


class TwoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2, bias=False), nn.Linear(4, 2, bias=False)

    def forward(self, a: Any, b: Any) -> Any:
        return self.first(a) + self.second(b)


def test_parameters_are_found_by_size_where_no_name_tells() -> None:
    report = verify_layer(Bilinear(), TwoLinear(), x=(RNG.standard_normal((5, 3)), RNG.standard_normal((5, 4))))
    names = {c.name for c in report.checks}
    assert {"first.weight.grad", "second.weight.grad", "x[0].grad", "x[1].grad"} <= names
    assert report.ok


class Phased:
    """Whether it trains is a property that reads another attribute."""

    def __init__(self) -> None:
        self._is_training = False
        self.gamma, self.beta = np.ones(4), np.zeros(4)

    @property
    def is_training(self) -> bool:
        return self._is_training

    def forward(self, x: Any) -> Any:
        mean, var = (x.mean(0), x.var(0)) if self.is_training else (0, 1)
        self.std = np.sqrt(var + np.asarray(1e-5, x.dtype))
        self.hat = (x - mean) / self.std
        return self.gamma * self.hat + self.beta

    def backward(self, d: Any) -> Any:
        self.dgamma, self.dbeta = (d * self.hat).sum(0), d.sum(0)
        g = d * self.gamma
        return (g - g.mean(0) - self.hat * (g * self.hat).mean(0)) / self.std


def test_a_mode_behind_a_property_is_set_where_it_is_kept() -> None:
    assert verify_layer(Phased(), nn.BatchNorm1d(4), x=RNG.standard_normal((6, 4))).ok


def test_a_finding_points_into_the_layers_own_code() -> None:
    report = verify_layer((affine_forward, affine_backward("x")), nn.Linear(4, 3), x=RNG.standard_normal((5, 4)))
    places = {c.diagnosis.location for c in report.checks if c.diagnosis}
    assert {Path(place.rpartition(":")[0]).name for place in places} == {Path(__file__).name}


class Lookup:
    """An embedding: whole numbers in, no gradient of them."""

    def __init__(self, add: bool = True) -> None:
        self.W, self.add = np.zeros((7, 3)), add

    def forward(self, idx: Any) -> Any:
        self.idx = idx
        return self.W[idx]

    def backward(self, d: Any) -> None:
        self.dW = np.zeros_like(self.W)
        if self.add:
            np.add.at(self.dW, self.idx, d)
        else:
            self.dW[self.idx] = d


def test_a_row_that_is_looked_up_twice_adds_up() -> None:
    idx = np.array([[0, 1, 1], [6, 1, 0]])
    assert verify_layer(Lookup(), nn.Embedding(7, 3), x=idx).ok
    assert blamed(verify_layer(Lookup(add=False), nn.Embedding(7, 3), x=idx)) == {"weight.grad"}


def test_float32_probabilities_are_judged_in_float32() -> None:
    def forward(p: Any, y: Any) -> Any:
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum()

    def backward(p: Any, y: Any) -> Any:
        return -y / p + (1 - y) / (1 - p)

    p, y = RNG.uniform(0.1, 0.9, (5, 4)), RNG.integers(0, 2, (5, 4))
    assert verify_layer((forward, backward), nn.BCELoss(reduction="sum"), x=p, y=y, dtype="float32").ok
    assert torch.get_default_dtype() == torch.float32
