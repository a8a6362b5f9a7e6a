"""`verify_layer` on lists of layers, each judged by itself, and on loss objects with conventions of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import Adapter, ManualBPError, Report, verify_layer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))
Y = np.array([0, 2, 1, 2, 1])


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


class Affine:
    def __init__(self, inputs: int, outputs: int) -> None:
        self.W, self.b = np.zeros((inputs, outputs)), np.zeros(outputs)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        self.dW, self.db = self.x.T @ d, d.sum(0)
        return d @ self.W.T


class Relu:
    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def forward(self, x: Any) -> Any:
        self.mask = x > 0
        return x * self.mask

    def backward(self, d: Any) -> Any:
        return d if self.wrong else d * self.mask


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class SoftmaxWithLoss:
    """loss(x, t) with one-hot or class targets, a guard in the logarithm, backward(dout=1)."""

    def forward(self, x: Any, t: Any) -> Any:
        self.p, self.t = softmax(x), t if t.ndim == 2 else np.eye(x.shape[1])[t]
        return -np.sum(self.t * np.log(self.p + 1e-7)) / len(x)

    def backward(self, dout: float = 1) -> Any:
        return (self.p - self.t) * dout / len(self.p)


REFERENCE = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.CrossEntropyLoss())


def test_a_list_of_layers_with_its_loss() -> None:
    layers = [Affine(4, 6), Relu(), Affine(6, 3), SoftmaxWithLoss()]
    report = verify_layer(layers, REFERENCE, x=X, y=Y)
    assert report.ok, str(report)
    values = {"0", "1", "2", "loss", "2.grad", "1.grad", "0.grad", "x.grad"}
    assert {c.name for c in report.checks} == values | {f"{i}.{p}.grad" for i in (0, 2) for p in ("weight", "bias")}
    accepted = [c.note for c in report.checks if "log(p + 1e-07)" in c.note]
    assert accepted


def test_only_the_wrong_layer_of_a_list_is_blamed() -> None:
    layers = [Affine(4, 6), Relu(wrong=True), Affine(6, 3)]
    assert blamed(verify_layer(layers, REFERENCE[:3], x=X)) == {"0.grad"}


def test_a_layer_with_its_activation_inside_stands_for_two_modules() -> None:
    class Both:
        def __init__(self) -> None:
            self.affine, self.act = Affine(4, 6), Relu()

        def forward(self, x: Any) -> Any:
            return self.act.forward(self.affine.forward(x))

        def backward(self, d: Any) -> Any:
            return self.affine.backward(self.act.backward(d))

    reference = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 3))
    report = verify_layer([Both(), Affine(6, 3)], reference, x=X)
    assert report.ok, str(report)
    assert {"0.0.weight.grad", "1.weight.grad"} <= {c.name for c in report.checks}


class Flatten:
    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, d: Any) -> Any:
        return d.reshape(self.shape)


class Pointwise:
    """A 1x1 convolution of channels-last images."""

    def __init__(self) -> None:
        self.W, self.b = np.zeros((2, 3)), np.zeros(3)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        self.dW, self.db = np.einsum("nhwi,nhwo->io", self.x, d), d.sum((0, 1, 2))
        return d @ self.W.T


def test_images_flattened_with_their_channels_last() -> None:
    reference = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 5, 2))
    layers = [Pointwise(), Relu(), Flatten(), Affine(3 * 4 * 5, 2)]
    report = verify_layer(layers, reference, x=RNG.standard_normal((3, 4, 5, 2)))
    assert report.ok, str(report)
    assert {"3.weight.grad", "2", "2.grad", "0.weight.grad", "x.grad"} <= {c.name for c in report.checks}


def test_a_list_of_another_length_is_one_sentence() -> None:
    with pytest.raises(ManualBPError, match="2 layers, but the reference has 4 modules"):
        verify_layer([Affine(4, 6), Relu()], REFERENCE, x=X, y=Y)
    with pytest.raises(ManualBPError, match="needs its target"):
        verify_layer([Affine(4, 6), Relu(), Affine(6, 3), SoftmaxWithLoss()], REFERENCE, x=X)
    with pytest.raises(ManualBPError, match="reference of a list of layers is a Linear"):
        verify_layer([Affine(4, 6)], nn.Linear(4, 6), x=X)


# ---------------------------------------------------------------------- losses


class Squared:
    """(y_true, y_pred), called; its derivative is a method; targets without the axis of one."""

    def __init__(self, sign: int = 1) -> None:
        self.sign = sign

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        assert y_true.ndim == 1
        return np.mean((y_true - y_pred[:, 0]) ** 2)

    def derivative(self, y_true: Any, y_pred: Any) -> Any:
        return self.sign * 2 * (y_pred - y_true[:, None]) / len(y_true)


class PerSample:
    """forward gives one loss a sample, calculate their mean; the gradient is kept as dinputs."""

    def forward(self, y_pred: Any, y_true: Any) -> Any:
        return -np.log(np.clip(y_pred[np.arange(len(y_pred)), y_true], 1e-7, 1 - 1e-7))

    def calculate(self, output: Any, y: Any) -> Any:
        return self.forward(output, y).mean()

    def backward(self, dvalues: Any, y_true: Any) -> None:
        self.dinputs = -np.eye(dvalues.shape[1])[y_true] / dvalues / len(dvalues)


class Combined:
    """Softmax and loss in one: backward is given the output of the softmax."""

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def forward(self, inputs: Any, y_true: Any) -> Any:
        self.output = softmax(inputs)
        return PerSample().calculate(self.output, y_true)

    def backward(self, dvalues: Any, y_true: Any) -> None:
        self.dinputs = dvalues.copy()
        self.dinputs[np.arange(len(dvalues)), y_true] -= 1
        if not self.wrong:
            self.dinputs /= len(dvalues)


def softmax_loss(x: Any, y: Any) -> Any:
    p = softmax(x)
    loss, dx = -np.log(p[np.arange(len(x)), y]).mean(), p
    dx[np.arange(len(x)), y] -= 1
    return loss, dx / len(x)


def test_targets_first_and_without_an_axis() -> None:
    x, y = RNG.standard_normal((5, 1)), RNG.standard_normal(5)
    assert verify_layer(Squared(), nn.MSELoss(), x=x, y=y).ok
    assert blamed(verify_layer(Squared(-1), nn.MSELoss(), x=x, y=y)) == {"x.grad"}


def test_softmax_and_loss_in_one() -> None:
    assert verify_layer(Combined(), nn.CrossEntropyLoss(), x=X, y=Y).ok
    assert blamed(verify_layer(Combined(wrong=True), nn.CrossEntropyLoss(), x=X, y=Y)) == {"x.grad"}


def test_one_function_that_returns_loss_and_gradient() -> None:
    assert verify_layer(softmax_loss, nn.CrossEntropyLoss(), x=X, y=Y).ok
    doubled = lambda x, y: (softmax_loss(x, y)[0], 2 * softmax_loss(x, y)[1])  # noqa: E731  # a loss in a line
    assert blamed(verify_layer(doubled, nn.CrossEntropyLoss(), x=X, y=Y)) == {"x.grad"}


def test_a_loss_of_probabilities_is_given_probabilities() -> None:
    reference = lambda p, t: -torch.log(p[range(len(t)), t]).mean()  # noqa: E731  # a loss in a line
    p = softmax(X)
    assert verify_layer(PerSample(), reference, x=p, y=Y).ok

    class Summed(PerSample):
        def backward(self, dvalues: Any, y_true: Any) -> None:
            super().backward(dvalues, y_true)
            self.dinputs *= len(dvalues)

    assert blamed(verify_layer(Summed(), reference, x=p, y=Y)) == {"x.grad"}


class Binary:
    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def loss(self, y: Any, p: Any) -> Any:
        return -np.mean(y * np.log(p + 1e-15) + (1 - y) * np.log(1 - p + 1e-15))

    def gradient(self, y: Any, p: Any) -> Any:
        p = np.clip(p, 1e-15, 1 - 1e-15)
        d = -(y / p) + (1 - y) / (1 - p)
        return d if self.wrong else d / p.size


def test_a_guard_in_a_binary_loss_is_accepted_and_a_missing_mean_is_not() -> None:
    p, y = RNG.uniform(0.1, 0.9, (6, 1)), np.array([0, 1, 1, 0, 1, 0])
    assert verify_layer(Binary(), nn.BCELoss(), x=p, y=y).ok
    assert blamed(verify_layer(Binary(wrong=True), nn.BCELoss(), x=p, y=y)) == {"x.grad"}


def test_a_loss_by_an_adapter() -> None:
    class Odd:
        def evaluate(self, mode: str, p: Any, t: Any) -> Any:
            return ((p - t) ** 2).mean() if mode == "value" else 2 * (p - t) / p.size

    adapter = Adapter(
        forward=lambda loss, x, y: loss.evaluate("value", x, y),
        backward=lambda loss, x, y: loss.evaluate("slope", x, y),
    )
    assert verify_layer(Odd(), nn.MSELoss(), x=X, y=RNG.standard_normal((5, 4)), adapter=adapter).ok
    with pytest.raises(ManualBPError, match="no method that is called"):
        verify_layer(Odd(), nn.MSELoss(), x=X, y=RNG.standard_normal((5, 4)))
    with pytest.raises(ManualBPError, match=r"target has shape \(5,\), the prediction \(5, 4\)"):
        verify_layer(Odd(), nn.MSELoss(), x=X, y=RNG.standard_normal(5), adapter=adapter)
