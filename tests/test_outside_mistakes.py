"""Right code that was called wrong, and mistakes that were put down to the wrong place or given the wrong name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import Report, tap, verify, verify_layer
from manual_bp.diagnose import Effort, searching

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
        self.dW, self.db = np.zeros_like(self.W), np.zeros_like(self.b)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        self.dW += self.x.T @ d
        self.db = self.db + d.sum(0)
        return d @ self.W.T


class AddingWithinOnePass(Adding):
    def backward(self, d: Any) -> Any:
        self.dW[...] = 0
        self.db = np.zeros_like(self.b)
        for row, each in zip(self.x, d, strict=True):
            self.dW += np.outer(row, each)
            self.db += each
        return d @ self.W.T


class AddingUntilItIsStepped(Adding):
    def zero_grad(self) -> None:
        self.dW[...], self.db[...] = 0, 0


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
        self.dW = x.T @ d if self.forgets else self.dW + x.T @ d
        self.db = self.db + d.sum(0)
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
    with searching(Effort(seconds=1)):
        report = verify_layer([forgets, Tanh(), forgets], reference, x=X)
    assert blamed(report) == {"0.weight.grad"}
    assert "bias" not in named(report, "0.weight.grad")[0]


def test_an_activation_that_stands_twice_is_one_at_each_place() -> None:
    act = nn.Tanh()
    reference = nn.Sequential(nn.Linear(4, 3), act, nn.Linear(3, 2), act, nn.MSELoss())
    layers = [Dense(4, 3), Tanh(), Dense(3, 2), Tanh(), lambda x, y: (((x - y) ** 2).mean(), 2 * (x - y) / x.size)]
    report = verify_layer(layers, reference, x=X, y=RNG.standard_normal((5, 2)))
    assert report.ok, str(report)
    assert {"1", "3", "1.grad"} <= {c.name for c in report.checks}


# ---------------------------------------------------------------------- the names of mistakes


class TanhGelu:
    def forward(self, x: Any) -> Any:
        self.x, self.t = x, np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + self.t)

    def backward(self, d: Any) -> Any:
        inner = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * self.x**2)
        return d * (0.5 * (1 + self.t) + 0.5 * self.x * (1 - self.t**2) * inner)


def test_a_layer_of_the_same_type_is_told_by_its_options() -> None:
    report = verify_layer(TanhGelu(), nn.GELU(), x=X)
    assert named(report, "output") == ("GELU(approximate='tanh') in place of GELU()", "certain")


def test_a_share_that_is_missing_is_not_called_subtracted() -> None:
    def reference(params: Any, x: Any) -> Any:
        n = tap("n", nn.functional.layer_norm(x, (4,)))
        return tap("o", x + n)

    def mine(params: Any, x: Any, y: Any) -> Any:
        s = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        n = (x - x.mean(-1, keepdims=True)) / s
        dx = (y - y.mean(-1, keepdims=True) - n * (y * n).mean(-1, keepdims=True)) / s
        return {"n": n, "o": x + n, "dn": y, "dx": dx}

    report = verify(mine, reference, x=X, params={})
    assert blamed(report) == {"x.grad"}
    assert named(report, "x.grad")[0] == "the share that comes back from o is missing"


def test_a_value_that_was_overwritten_is_told_so() -> None:
    def reference(params: Any, x: Any) -> Any:
        z = tap("z", x @ params["W"])
        return tap("a", torch.relu(z))

    def mine(params: Any, x: Any, y: Any) -> Any:
        z = x @ params["W"]
        a = np.maximum(z, 0, out=z)
        dz = y * (a > 0)
        return {"z": z, "a": a, "dz": dz, "dW": x.T @ dz, "dx": dz @ params["W"].T}

    report = verify(mine, reference, x=X, params={"W": RNG.standard_normal((4, 3))})
    assert blamed(report) == {"z"}
    assert named(report, "z") == ("z holds a: it was overwritten (np.maximum(..., out=z)?)", "certain")


def test_a_gradient_that_is_added_to_in_the_array_of_another_is_told_so() -> None:
    def reference(params: Any, x: Any) -> Any:
        h = tap("h", torch.tanh(x))
        return tap("o", h + tap("k", h * 2))

    def mine(params: Any, x: Any, y: Any) -> Any:
        h = np.tanh(x)
        dh = do = y.copy()
        dh += 2 * do
        return {"h": h, "k": 2 * h, "o": 3 * h, "do": do, "dh": dh, "dx": dh * (1 - h * h)}

    report = verify(mine, reference, x=X, params={})
    assert named(report, "o.grad")[0].startswith("o.grad holds h.grad: it was overwritten")
    assert blamed(report) == {"o.grad"}
    note = next(check.note for check in report.checks if check.name == "h.grad")
    assert note == "is right over the whole pass: it was computed into the array of o.grad, which holds it now"


def test_a_wrong_dtype_alone_has_no_numbers_to_be_explained() -> None:
    def mine(params: Any, x: Any, do: Any) -> Any:
        return {"output": (x @ params["weight"].T + params["bias"]).astype(np.float64), "dx": do @ params["weight"]}

    report = verify(mine, nn.Linear(4, 3), x=X, dtype="float32")
    assert {c.status for c in report.checks if c.name == "output"} == {"mismatch"}
    assert all(c.diagnosis is None for c in report.checks)
    assert next(c.note for c in report.checks if c.status == "mismatch") == "is float64, expected float32"


def test_another_element_on_each_probe_is_not_a_single_element() -> None:
    def wrong_at(place: Any) -> Any:
        def mine(params: Any, x: Any, do: Any) -> Any:
            dx = do @ params["weight"]
            dx[place(x)] *= 1.5
            return {"output": x @ params["weight"].T + params["bias"], "dx": dx}

        return mine

    same = verify(wrong_at(lambda x: (0, 1)), nn.Linear(4, 3), x=X)
    assert named(same, "x.grad") == ("a single element is wrong, all the others are right", "certain")
    largest = verify(wrong_at(lambda x: np.unravel_index(np.abs(x).argmax(), x.shape)), nn.Linear(4, 3), x=X)
    assert "single element" not in named(largest, "x.grad")[0]
    assert named(largest, "x.grad")[1] != "certain"


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_maximum_that_is_looked_for_from_0_is_seen_in_large_windows(size: int) -> None:
    def pool(start: float) -> Any:
        def mine(_: Any, x: Any) -> Any:
            n, c, h, w = x.shape
            tiles = x.reshape(n, c, h // size, size, w // size, size)
            return {"output": np.maximum(tiles.max((3, 5)), start)}

        return mine

    x = np.random.default_rng(size).standard_normal((2, 2, 2 * size, 4 * size))
    assert verify(pool(-np.inf), nn.MaxPool2d(size), x=x).ok
    assert blamed(verify(pool(0.0), nn.MaxPool2d(size), x=x)) == {"output"}
