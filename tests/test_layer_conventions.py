"""`verify_layer` on the ways in which libraries call and keep things: each right one passes, each mistake is named.

Every class is a dense layer, written as some library would; ``wrong`` makes its weight gradient a mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from manual_bp import Adapter, Report, verify_layer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


class Dense:
    """Gradients of x @ W + b; the others differ in where they put them."""

    def __init__(self, wrong: bool = False) -> None:
        self.factor = 0.2 if wrong else 1.0
        self.inputs: Any = None

    def gradients(self, d: Any, w: Any) -> tuple[Any, Any, Any]:
        return d @ w.T, self.factor * self.inputs.T @ d, d.sum(0)


class Stored(Dense):
    """Nothing is returned: output, dinputs, dweights and dbiases are attributes."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.weights, self.biases = np.zeros((4, 3)), np.zeros((1, 3))

    def forward(self, inputs: Any) -> None:
        self.inputs = inputs
        self.output = inputs @ self.weights + self.biases

    def backward(self, dvalues: Any) -> None:
        self.dinputs, self.dweights, db = self.gradients(dvalues, self.weights)
        self.dbiases = db[None]


class Lists(Dense):
    """params[0] and grads[0], filled in place."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.params = [np.zeros((4, 3)), np.zeros(3)]
        self.grads = [np.zeros((4, 3)), np.zeros(3)]

    def forward(self, x: Any) -> Any:
        w, b = self.params
        self.inputs = x
        return x @ w + b

    def backward(self, dout: Any) -> Any:
        dx, dw, db = self.gradients(dout, self.params[0])
        self.grads[0][...], self.grads[1][...] = dw, db
        return dx


class Tensor:
    def __init__(self, data: Any) -> None:
        self.data, self.grad = data, None


class Boxes(Dense):
    """Objects with data and grad; the method is __call__; whether it trains is the second argument."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.weight, self.bias = Tensor(np.zeros((3, 4))), Tensor(np.zeros(3))

    def __call__(self, x: Any, is_train: bool) -> Any:
        assert is_train
        self.inputs = x
        return x @ self.weight.data.T + self.bias.data

    def backward(self, d: Any) -> Any:
        dx, dw, self.bias.grad = self.gradients(d, self.weight.data.T)
        self.weight.grad = dw.T
        return dx


class Accumulating(Dense):
    """Gradients are added up until somebody zeroes them; inputs are kept in a list until they are flushed."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.parameters = {"W": np.zeros((4, 3)), "b": np.zeros((1, 3))}
        self.flush_gradients()

    def flush_gradients(self) -> None:
        self.all: list[Any] = []
        self.gradient = {"W": np.zeros((4, 3)), "b": np.zeros((1, 3))}

    def forward(self, x: Any) -> Any:
        self.all.append(x)
        return x @ self.parameters["W"] + self.parameters["b"]

    def backward(self, d: Any) -> Any:
        self.inputs = self.all[0]
        dx, dw, db = self.gradients(d, self.parameters["W"])
        self.gradient["W"] += dw
        self.gradient["b"] += db
        return dx


class Summing(Dense):
    """Gradients are added up, and nothing zeroes them."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.W, self.b = np.zeros((4, 3)), np.zeros(3)
        self.dW, self.db = np.zeros((4, 3)), np.zeros(3)

    def forward(self, x: Any) -> Any:
        self.inputs = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        dx, dw, db = self.gradients(d, self.W)
        self.dW += dw
        self.db += db
        return dx


class Fused(Dense):
    """The bias is the last row of the weight."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.W = np.zeros((5, 3))

    def forward(self, x: Any) -> Any:
        self.inputs = np.hstack([x, np.ones((len(x), 1))])
        return self.inputs @ self.W

    def backward(self, d: Any) -> Any:
        dx, self.dW, _ = self.gradients(d, self.W)
        self.dW[-1] = d.sum(0)
        return dx[:, :-1]


class Optimised(Dense):
    """Told its input shape, given an optimiser, updates itself in the backward pass."""

    W: Any = None
    w0: Any = None

    def set_input_shape(self, shape: Any) -> None:
        self.input_shape = shape

    def initialize(self, optimizer: Any) -> None:
        self.W, self.w0 = RNG.standard_normal((self.input_shape[0], 3)), np.zeros((1, 3))
        self.optimizer = optimizer

    def forward_pass(self, X: Any, training: bool = True) -> Any:
        self.inputs = X
        return X @ self.W + self.w0

    def backward_pass(self, accum_grad: Any) -> Any:
        dx, dw, db = self.gradients(accum_grad, self.W)
        self.W, self.w0 = self.optimizer.update(self.W, dw), self.optimizer.update(self.w0, db[None])
        return dx


class Rated(Dense):
    """backward(output_gradient, learning_rate) applies the gradient at once; nobody says so."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.weights, self.bias = np.zeros((4, 3)), np.zeros(3)

    def forward(self, in_: Any) -> Any:
        self.inputs = in_
        return in_ @ self.weights + self.bias

    def backward(self, output_gradient: Any, learning_rate: float) -> Any:
        dx, dw, db = self.gradients(output_gradient, self.weights)
        self.weights -= learning_rate * dw
        self.bias -= learning_rate * db
        return dx


class Stateless(Dense):
    """backward takes the input again, before the gradient, and returns a dictionary."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.params = {"W": np.zeros((4, 3)), "b": np.zeros(3)}

    def forward(self, x: Any) -> Any:
        return x @ self.params["W"] + self.params["b"], {"x": x}

    def backward(self, cache: Any, grad_output: Any) -> Any:
        self.inputs = cache["x"]
        dx, dw, db = self.gradients(grad_output, self.params["W"])
        return {"dx": dx, "dW": dw, "db": db}


class Pairs(Dense):
    """A property hands out (value, gradient) by name; weights come last in what backward returns."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self._w, self._v = np.zeros((4, 3)), np.zeros(3)

    @property
    def params(self) -> Any:
        return {"weights": (self._w, None), "biases": (self._v, None)}

    def forward(self, x: Any) -> Any:
        self.inputs = x
        return x @ self._w + self._v

    def backward(self, d: Any) -> Any:
        dx, dw, db = self.gradients(d, self._w)
        return dw, db, dx


class Shared(Dense):
    """The same array under two names, and the forward pass reads the other one."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__(wrong)
        self.W, self.b = np.zeros((4, 3)), np.zeros(3)
        self.parameters = {"weight": self.W, "bias": self.b}

    def forward(self, x: Any) -> Any:
        self.inputs = x
        return x @ self.parameters["weight"] + self.parameters["bias"]

    def backward(self, d: Any) -> Any:
        dx, self.grad_W, self.grad_b = self.gradients(d, self.parameters["weight"])
        return dx


class Nested:
    """A wrapper around the layer proper."""

    def __init__(self, wrong: bool = False) -> None:
        self.inner = Summing(wrong)

    def forward(self, x: Any) -> Any:
        return self.inner.forward(x)

    def backward(self, d: Any) -> Any:
        return self.inner.backward(d)


LAYERS = (
    Stored, Lists, Boxes, Accumulating, Summing, Fused, Optimised, Rated, Stateless, Pairs, Shared, Nested,
)  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_a_right_layer_passes_with_nothing_said_about_its_conventions(layer: Any) -> None:
    report = verify_layer(layer(), nn.Linear(4, 3), x=X)
    assert report.ok, str(report)
    assert {c.name for c in report.checks} == {"output", "x.grad", "weight.grad", "bias.grad"}


@pytest.mark.parametrize("layer", LAYERS)
def test_its_wrong_weight_gradient_is_the_only_quantity_blamed(layer: Any) -> None:
    report = verify_layer(layer(wrong=True), nn.Linear(4, 3), x=X, dtype="float32", probes=["given", "seed-1"])
    assert blamed(report) == {"weight.grad"}


class Single(Stored):
    """Computes in float32 whatever it is given."""

    def forward(self, inputs: Any) -> None:
        super().forward(inputs.astype(np.float32))
        self.output = self.output.astype(np.float32)

    def backward(self, dvalues: Any) -> None:
        super().backward(dvalues)
        self.dinputs = self.dinputs.astype(np.float32)


def test_a_layer_that_computes_in_float32_is_judged_in_float32() -> None:
    report = verify_layer(Single(), nn.Linear(4, 3), x=X)
    assert report.ok, str(report)
    assert report.dtype == "float32"
    assert any("float32" in note for note in report.notes)
    assert blamed(verify_layer(Single(wrong=True), nn.Linear(4, 3), x=X)) == {"weight.grad"}
    assert not verify_layer(Single(), nn.Linear(4, 3), x=X, dtype="float64").ok


class InPlace:
    """Zeroes the very array that it is handed."""

    def forward(self, x: Any) -> Any:
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout: Any) -> Any:
        dout[self.mask] = 0
        return dout


def test_an_upstream_gradient_changed_in_place_is_mentioned_and_no_mistake() -> None:
    report = verify_layer(InPlace(), nn.ReLU(), x=X)
    assert report.ok, str(report)
    assert any("in place" in note for note in report.notes)


class Curve:
    """An activation: a function, and its derivative f'(x)."""

    def __init__(self, slope: Any) -> None:
        self.slope = slope

    def __call__(self, x: Any) -> Any:
        return np.tanh(x)

    def derivative(self, x: Any) -> Any:
        return self.slope(x)


def test_a_derivative_is_multiplied_by_the_upstream_gradient() -> None:
    assert verify_layer(Curve(lambda x: 1 - np.tanh(x) ** 2), nn.Tanh(), x=X).ok
    assert verify_layer((np.tanh, lambda x: 1 - np.tanh(x) ** 2), nn.Tanh(), x=X).ok
    assert blamed(verify_layer(Curve(lambda x: 1 - np.tanh(x)), nn.Tanh(), x=X)) == {"x.grad"}


class Normalised:
    """Batch normalisation that normalises by its running statistics when it does not train."""

    def __init__(self, variance: bool = True) -> None:
        self.gamma, self.beta = np.ones(4), np.zeros(4)
        self.running_mean, self.running_var = np.zeros(4), np.ones(4)
        self.variance = variance

    def forward(self, x: Any, train: bool = True) -> Any:
        assert not train
        self.scale = 1 / np.sqrt(self.running_var + 1e-5)
        self.x_hat = (x - self.running_mean) * self.scale
        return self.gamma * self.x_hat + self.beta

    def backward(self, d: Any) -> Any:
        self.dgamma, self.dbeta = (d * self.x_hat).sum(0), d.sum(0)
        return d * self.gamma * (self.scale if self.variance else self.scale**2)


def test_running_statistics_are_handed_over_in_evaluation_mode() -> None:
    reference = nn.BatchNorm1d(4).double()
    reference.running_mean.copy_(reference.running_mean + 0.5)  # type: ignore[union-attr]  # it has one by default
    reference.running_var.mul_(2.0)  # type: ignore[union-attr]  # as above
    assert verify_layer(Normalised(), reference.eval(), x=X).ok
    assert blamed(verify_layer(Normalised(variance=False), reference, x=X)) == {"x.grad"}


class TwoLayers:
    """A whole network in one object, parameters numbered."""

    def __init__(self, wrong: bool = False) -> None:
        shapes = {"W1": (4, 6), "b1": (6,), "W2": (6, 3), "b2": (3,)}
        self.params = {name: np.zeros(shape) for name, shape in shapes.items()}
        self.wrong = wrong

    def forward(self, x: Any) -> Any:
        p = self.params
        self.x, self.h = x, np.maximum(x @ p["W1"] + p["b1"], 0)
        return self.h @ p["W2"] + p["b2"]

    def backward(self, d: Any) -> Any:
        dh = d @ self.params["W2"].T * (self.h > 0)
        if self.wrong:
            dh = d @ self.params["W2"].T
        self.grads = {"W2": self.h.T @ d, "b2": d.sum(0), "W1": self.x.T @ dh, "b1": dh.sum(0)}
        return dh @ self.params["W1"].T


def test_a_network_with_numbered_parameters() -> None:
    reference = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    report = verify_layer(TwoLayers(), reference, x=X)
    assert report.ok, str(report)
    assert {"0.weight.grad", "2.bias.grad", "x.grad", "2"} <= {c.name for c in report.checks}
    assert {"0.weight.grad", "0.bias.grad"} <= blamed(verify_layer(TwoLayers(wrong=True), reference, x=X))
    assert "2.weight.grad" not in blamed(verify_layer(TwoLayers(wrong=True), reference, x=X))


def test_an_adapter_names_parts_of_arrays_and_what_is_not_there() -> None:
    adapter = Adapter(params={"weight": "W[:-1]", "bias": "W[-1]"}, grads={"weight": "dW[:-1]", "bias": "dW[-1]"})
    assert verify_layer(Fused(), nn.Linear(4, 3), x=X, adapter=adapter).ok
    assert blamed(verify_layer(Fused(wrong=True), nn.Linear(4, 3), x=X, adapter=adapter)) == {"weight.grad"}

    class Biasless(Summing):
        def forward(self, x: Any) -> Any:
            self.inputs = x
            return x @ self.W

    report = verify_layer(Biasless(), nn.Linear(4, 3), x=X, adapter=Adapter(params={"bias": None}))
    assert report.ok, str(report)
    assert "bias.grad" not in {c.name for c in report.checks}
