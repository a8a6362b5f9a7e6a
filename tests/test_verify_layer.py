"""`verify_layer` on layer objects as from-scratch libraries write them, each with its own conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from manual_bp import Adapter, ManualBPError, Report, verify_layer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


class Attributes:
    """W (in, out), a bias row, dW and db as attributes."""

    def __init__(self, n: int = 3) -> None:
        self.W, self.b = np.zeros((4, n)), np.zeros((1, n))

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        self.dW, self.db = self.x.T @ d, d.sum(0, keepdims=True)
        return d @ self.W.T


class Averaged(Attributes):
    """The weight gradient is a mean where it should be a sum."""

    def backward(self, d: Any) -> Any:
        out = super().backward(d)
        self.dW /= len(d)
        return out


class Dictionaries:
    """Parameters and gradients in dictionaries, made in the first call."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {"W": None, "b": None}
        self.gradients: dict[str, Any] = {}

    def forward(self, x: Any) -> Any:
        if self.parameters["W"] is None:
            self.parameters = {"W": RNG.standard_normal((x.shape[1], 3)), "b": np.zeros((1, 3))}
        self.x = x
        return x @ self.parameters["W"] + self.parameters["b"]

    def backward(self, d: Any) -> Any:
        self.gradients = {"W": self.x.T @ d, "b": d.sum(0, keepdims=True)}
        return d @ self.parameters["W"].T


class Parameter:
    def __init__(self, value: Any) -> None:
        self.value, self.grad = value, np.zeros_like(value)


class Objects:
    """Parameter objects with a value and an accumulated gradient."""

    def __init__(self) -> None:
        self.W, self.B = Parameter(np.zeros((4, 3))), Parameter(np.zeros(3))

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W.value + self.B.value

    def backward(self, d: Any) -> Any:
        self.W.grad = self.x.T @ d
        self.B.grad = d.sum(0)
        return d @ self.W.value.T


class Returned:
    """backward returns everything."""

    def __init__(self) -> None:
        self.weights, self.bias = np.zeros((3, 4)), np.zeros(3)

    def forward_pass(self, x: Any) -> Any:
        self.x = x
        return x @ self.weights.T + self.bias

    def backward_pass(self, d: Any) -> Any:
        return d @ self.weights, d.T @ self.x, d.sum(0)


class Applied:
    """The gradient is applied at once and never shown."""

    def __init__(self) -> None:
        self.w, self.b = np.zeros((4, 3)), np.zeros(3)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.w + self.b

    def backprop(self, d: Any, rate: float) -> Any:
        dx = d @ self.w.T
        self.w -= rate * self.x.T @ d
        self.b -= rate * d.sum(0)
        return dx


def affine_forward(x: Any, w: Any, b: Any) -> Any:
    return x @ w.T + b, (x, w)


def affine_backward(d: Any, cache: Any) -> Any:
    x, w = cache
    return d @ w, d.T @ x, d.sum(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layer", "adapter"),
    [
        (Attributes(), None),
        (Dictionaries(), None),
        (Objects(), None),
        (Returned(), None),
        (Applied(), Adapter(applied=True)),
        ((affine_forward, affine_backward), None),
    ],
    ids=["attributes", "dictionaries", "objects", "returned", "applied", "functions"],
)
def test_a_right_dense_layer_passes_whatever_its_conventions(layer: Any, adapter: Any, dtype: str) -> None:
    report = verify_layer(layer, nn.Linear(4, 3), x=X, adapter=adapter, dtype=dtype)
    assert report.ok, str(report)
    assert {c.name for c in report.checks} == {"output", "x.grad", "weight.grad", "bias.grad"}
    assert all(c.rule.startswith("certified") for c in report.checks)


def test_the_layout_of_a_square_weight_is_found_by_the_forward_pass() -> None:
    assert verify_layer(Attributes(4), nn.Linear(4, 4), x=X).ok


def test_a_wrong_gradient_is_the_only_one_blamed() -> None:
    assert blamed(verify_layer(Averaged(), nn.Linear(4, 3), x=X)) == {"weight.grad"}
    assert blamed(verify_layer(Averaged(), nn.Linear(4, 3), x=X, dtype="float32")) == {"weight.grad"}


class ChannelsLast:
    """3x3 convolution of NHWC images with an HWIO kernel."""

    def __init__(self, *, rotate: bool = True) -> None:
        self.filters, self.bias = np.zeros((3, 3, 2, 4)), np.zeros(4)
        self.rotate = rotate

    def forward(self, x: Any) -> Any:
        self.x = x
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return np.einsum("nijchw,hwco->nijo", windows, self.filters) + self.bias

    def backward(self, d: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(self.x, (3, 3), axis=(1, 2))
        self.dfilters, self.dbias = np.einsum("nijchw,nijo->hwco", windows, d), d.sum((0, 1, 2))
        padded = np.pad(d, ((0, 0), (2, 2), (2, 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        kernel = self.filters[::-1, ::-1] if self.rotate else self.filters
        return np.einsum("nijohw,hwco->nijc", windows, kernel)


def test_a_channels_last_convolution_needs_no_adapter() -> None:
    x = RNG.standard_normal((2, 6, 5, 2))
    assert verify_layer(ChannelsLast(), nn.Conv2d(2, 4, 3), x=x).ok
    assert blamed(verify_layer(ChannelsLast(rotate=False), nn.Conv2d(2, 4, 3), x=x)) == {"x.grad"}


class Rectifier:
    def __init__(self, at_zero: float) -> None:
        self.at_zero = at_zero

    def forward(self, x: Any) -> Any:
        self.x = x
        return np.maximum(x, 0)

    def backward(self, d: Any) -> Any:
        return d * ((self.x > 0) + self.at_zero * (self.x == 0))


@pytest.mark.parametrize(("at_zero", "status"), [(0.0, "pass"), (0.5, "kink"), (1.0, "kink"), (1.5, "wrong")])
def test_any_slope_between_0_and_1_is_a_derivative_of_relu_at_0(at_zero: float, status: str) -> None:
    x = np.array([[0.0, 1.0, -1.0, 0.0]])
    report = verify_layer(Rectifier(at_zero), nn.ReLU(), x=x, probes=None)
    assert {c.status for c in report.checks if c.name == "x.grad"} == {status}
    if status == "kink":
        assert not verify_layer(Rectifier(at_zero), nn.ReLU(), x=x, probes=None, strict_kinks=True).ok


class SoftmaxLoss:
    """Takes (target, prediction): the other way round."""

    def forward(self, target: Any, x: Any) -> Any:
        e = np.exp(x - x.max(1, keepdims=True))
        self.p, self.target = e / e.sum(1, keepdims=True), target
        return -np.log(self.p[np.arange(len(x)), target]).mean()

    def backward(self) -> Any:
        d = self.p.copy()
        d[np.arange(len(d)), self.target] -= 1
        return d / len(d)


class Unscaled(SoftmaxLoss):
    def backward(self) -> Any:
        return super().backward() * len(self.p)


def test_a_loss_object_is_judged_with_its_target_wherever_that_stands() -> None:
    y = np.array([0, 3, 1, 2, 1])
    assert verify_layer(SoftmaxLoss(), nn.CrossEntropyLoss(), x=X, y=y).ok
    assert "x.grad" in blamed(verify_layer(Unscaled(), nn.CrossEntropyLoss(), x=X, y=y))


def test_what_cannot_be_found_is_said_with_what_there_is() -> None:
    class Nameless:
        def __init__(self) -> None:
            self.tensor, self.more = np.zeros((4, 3)), np.zeros((4, 7))

        def forward(self, x: Any) -> Any:
            return x @ self.tensor

    with pytest.raises(ManualBPError, match="no backward method"):
        verify_layer(Nameless(), nn.Linear(4, 3, bias=False), x=X)
    Nameless.backward = lambda self, d: d @ self.tensor.T  # type: ignore[attr-defined]  # a method added late
    with pytest.raises(ManualBPError, match=r"nothing that looks like 'weight'.*it has tensor"):
        verify_layer(Nameless(), nn.Linear(4, 5, bias=False), x=X)


def test_a_gradient_that_is_not_found_is_missing_unless_there_is_none() -> None:
    class Forgetful:
        def __init__(self) -> None:
            self.W = np.zeros((4, 3))

        def forward(self, x: Any) -> Any:
            return x @ self.W

        def backward(self, d: Any) -> Any:
            return d @ self.W.T

    report = verify_layer(Forgetful(), nn.Linear(4, 3, bias=False), x=X)
    assert {c.name: c.status for c in report.checks if c.status != "pass"} == {"weight.grad": "missing"}
    assert any("Adapter(grads={'weight': 'its attribute'})" in note for note in report.notes)
    report = verify_layer(Forgetful(), nn.Linear(4, 3, bias=False), x=X, adapter=Adapter(grads={"weight": None}))
    assert report.ok
    assert any("weight.grad" in f.text for f in report.findings if f.kind == "coverage")
    Forgetful.backward = lambda self, d: None  # type: ignore[method-assign,assignment]  # the mistake: no return
    report = verify_layer(Forgetful(), nn.Linear(4, 3, bias=False), x=X, adapter=Adapter(grads={"weight": None}))
    assert blamed(report) == {"x.grad"}
