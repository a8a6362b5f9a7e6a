"""Right code that was called wrong, and mistakes that were put down to the wrong place or given the wrong name."""

from __future__ import annotations

from typing import Any

import numpy as np

from torch import nn

from manual_bp import Report, tap, verify, verify_layer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


def named(report: Report, quantity: str) -> tuple[str, str]:
    """What the mistake is called, and how sure that is."""
    found = next(c.diagnosis for c in report.checks if c.name == quantity and c.diagnosis is not None)
    return found.name, found.confidence


# ---------------------------------------------------------------------- names, layouts, byte order


class Pointwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pw, self.act = nn.Conv2d(3, 4, 1), nn.Tanh()

    def forward(self, x: Any) -> Any:
        return self.act(self.pw(x))


def test_the_layout_of_a_name_that_both_sides_have_for_different_things_is_the_candidates() -> None:
    def mine(params: Any, x: Any, y: Any) -> Any:
        kernel = params["pw"][0, 0]
        p = x @ kernel + params["b"]
        a = np.tanh(p)
        dp = y * (1 - a * a)
        dpw = np.einsum("nhwc,nhwf->cf", x, dp)[None, None]
        return {"p": p, "a": a, "dp": dp, "dpw": dpw, "db": dp.sum((0, 1, 2)), "dx": dp @ kernel.T}

    names = {"p": "pw", "a": "act", "pw": "pw.weight", "b": "pw.bias", "dp": "pw.grad", "dpw": "pw.weight.grad"}
    layouts = {"x": "NHWC", "p": "NHWC", "a": "NHWC", "y": "NHWC", "pw": "HWIO"}
    x = RNG.standard_normal((2, 5, 6, 3))
    report = verify(mine, Pointwise().double(), x=x, names=names, layouts=layouts)
    assert report.ok, str(report)
    layouts = {"x": "NHWC", "pw": "NHWC", "act": "NHWC", "y": "NHWC", "pw.weight": "HWIO"}
    names = {"a": "act", "p": "pw", "b": "pw.bias"}  # the reference's own names are as good where there is no clash

    def other(params: Any, x: Any, y: Any) -> Any:
        found = mine({"pw": params["pw.weight"], "b": params["b"]}, x, y)
        return {"pw.weight.grad" if name == "dpw" else name: value for name, value in found.items()}

    assert verify(other, Pointwise().double(), x=x, names=names, layouts=layouts).ok


def test_numbers_in_another_byte_order_are_numbers() -> None:
    def mine(params: Any, x: Any, do: Any) -> Any:
        output = x @ params["weight"].T + params["bias"]
        return {"output": output.astype(">f8"), "dx": (do @ params["weight"]).astype(">f8")}

    report = verify(mine, nn.Linear(4, 3), x=X.astype(">f8"))
    assert report.ok, str(report)


# ---------------------------------------------------------------------- lists of layers


class Dense:
    def __init__(self, inputs: int, outputs: int) -> None:
        self.W, self.b = np.zeros((inputs, outputs)), np.zeros(outputs)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        self.dW, self.db = self.x.T @ d, d.sum(0)
        return d @ self.W.T


class Tanh:
    def forward(self, x: Any) -> Any:
        self.y = np.tanh(x)
        return self.y

    def backward(self, d: Any) -> Any:
        return d * (1 - self.y**2)


class InPlaceRelu:
    def forward(self, x: Any) -> Any:
        self.mask = x > 0
        x *= self.mask
        return x

    def backward(self, d: Any) -> Any:
        return d * self.mask


def test_a_layer_that_works_in_place_is_blamed_and_not_the_one_before_it() -> None:
    reference = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.ReLU(), nn.Linear(3, 2))
    report = verify_layer([Dense(4, 3), Tanh(), InPlaceRelu(), Dense(3, 2)], reference, x=X)
    assert blamed(report) == {"2"}
    assert report.verdict == "fail"
    assert report.first_wrong == "2"
    name, confidence = named(report, "2")
    assert name == "InPlaceRelu changes its input in place; what is kept of it is no longer what it was"
    assert confidence == "certain"
    assert [f.name for f in report.findings if f.kind == "mutation"] == ["2"]
    assert name in str(report)


def test_a_layer_that_works_in_place_as_its_reference_does_is_right() -> None:
    reference = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    report = verify_layer([Dense(4, 3), InPlaceRelu(), Dense(3, 2)], reference, x=X)
    assert report.ok, str(report)


class Adding(Dense):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gW, self.gb = np.zeros_like(self.W), np.zeros_like(self.b)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        self.gW += self.x.T @ d
        self.gb = self.gb + d.sum(0)
        return d @ self.W.T


class AddingWithinOnePass(Adding):
    def backward(self, d: Any) -> Any:
        self.gW[...] = 0
        self.gb = np.zeros_like(self.b)
        for row, each in zip(self.x, d, strict=True):
            self.gW += np.outer(row, each)
            self.gb += each
        return d @ self.W.T


class AddingUntilItIsStepped(Adding):
    def zero_grad(self) -> None:
        self.gW[...], self.gb[...] = 0, 0


def test_gradients_that_are_never_set_to_zero_are_told() -> None:
    said = "Adding adds to its gradients: zero them before each pass"
    report = verify_layer(Adding(4, 3), nn.Linear(4, 3), x=X)
    assert report.ok
    assert said in report.notes
    for kind in (Dense, AddingWithinOnePass, AddingUntilItIsStepped):
        report = verify_layer(kind(4, 3), nn.Linear(4, 3), x=X)
        assert report.ok
        assert not any("adds to its gradients" in note for note in report.notes), kind.__name__


class Shared(Adding):
    """One layer that stands twice: it holds the inputs of both places, and the sum of what comes back."""

    def __init__(self, inputs: int, outputs: int, forgets: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.inputs: list[Any] = []
        self.forgets = forgets

    def forward(self, x: Any) -> Any:
        self.inputs.append(x)
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        x = self.inputs.pop()
        self.gW = x.T @ d if self.forgets else self.gW + x.T @ d
        self.gb = self.gb + d.sum(0)
        return d @ self.W.T


def test_a_module_that_stands_twice_has_the_sum_of_both_gradients() -> None:
    linear = nn.Linear(4, 4)
    reference = nn.Sequential(linear, nn.Tanh(), linear)
    one = Shared(4, 4)
    assert verify_layer([one, Tanh(), one], reference, x=X).ok
    report = verify_layer([Dense(4, 4), Tanh(), Dense(4, 4)], reference, x=X)  # two layers, a share each
    assert report.ok, str(report)
    assert {"0", "1", "2", "0.weight.grad", "0.bias.grad"} <= {c.name for c in report.checks}
    forgets = Shared(4, 4, forgets=True)
    assert blamed(verify_layer([forgets, Tanh(), forgets], reference, x=X)) == {"0.weight.grad"}


def test_an_activation_that_stands_twice_is_one_at_each_place() -> None:
    act = nn.Tanh()
    reference = nn.Sequential(nn.Linear(4, 3), act, nn.Linear(3, 2), act, nn.MSELoss())
    layers = [Dense(4, 3), Tanh(), Dense(3, 2), Tanh(), lambda x, y: (((x - y) ** 2).mean(), 2 * (x - y) / x.size)]
    report = verify_layer(layers, reference, x=X, y=RNG.standard_normal((5, 2)))
    assert report.ok, str(report)
    assert {"1", "3", "1.grad"} <= {c.name for c in report.checks}
