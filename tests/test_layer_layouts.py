"""`verify_layer` on the ways in which libraries lay out their arrays: found by what makes the forward pass agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from manual_bp import Adapter, ManualBPError, Report, verify_layer

RNG = np.random.default_rng(0)


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


class Columns:
    """Samples in columns: Z = W A + b with A (in, batch), b (out, 1)."""

    def __init__(self, wrong: bool = False) -> None:
        self.W, self.b = np.zeros((3, 4)), np.zeros((3, 1))
        self.wrong = wrong

    def forward(self, A_prev: Any) -> Any:
        self.A_prev = A_prev
        return self.W @ A_prev + self.b

    def backward(self, dZ: Any) -> Any:
        self.dW, self.db = dZ @ self.A_prev.T, dZ.sum(axis=1, keepdims=True)
        if self.wrong:
            self.db = self.db / dZ.shape[1]
        return self.W.T @ dZ


@pytest.mark.parametrize("batch", [5, 4, 1])
def test_samples_in_columns(batch: int) -> None:
    x = RNG.standard_normal((4, batch))
    assert verify_layer(Columns(), nn.Linear(4, 3), x=x).ok
    if batch > 1:
        assert blamed(verify_layer(Columns(wrong=True), nn.Linear(4, 3), x=x)) == {"bias.grad"}


def windows(x: Any, size: int) -> Any:
    """(N, H, W, C) -> (N, H', W', C, size, size)."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))


class Pool:
    """2x2 maximum pooling of channels-last images; nothing in it says how many channels there are."""

    def forward(self, x: Any) -> Any:
        n, h, w, c = x.shape
        self.tiles = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, c, 4)
        self.shape = x.shape
        self.at = self.tiles.argmax(-1)
        return self.tiles.max(-1)

    def backward(self, d: Any) -> Any:
        n, h, w, c = self.shape
        tiles = np.zeros_like(self.tiles)
        np.put_along_axis(tiles, self.at[..., None], d[..., None], -1)
        return tiles.reshape(n, h // 2, w // 2, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, h, w, c)


@pytest.mark.parametrize("shape", [(3, 6, 4, 2), (2, 4, 4, 4)])
def test_channels_last_pooling(shape: tuple[int, ...]) -> None:
    report = verify_layer(Pool(), nn.MaxPool2d(2), x=RNG.standard_normal(shape))
    assert report.ok, str(report)


class Unbatched:
    """One (H, W, C) image at a time, a bias of shape (1, 1, 1, O)."""

    def __init__(self, wrong: bool = False) -> None:
        self.kernel, self.bias = np.zeros((3, 3, 2, 4)), np.zeros((1, 1, 1, 4))
        self.wrong = wrong

    def forward(self, x: Any) -> Any:
        self.x = x
        return np.einsum("nijchw,hwco->nijo", windows(x[None], 3), self.kernel)[0] + self.bias[0]

    def backward(self, d: Any) -> Any:
        self.grads = {"kernel": np.einsum("nijchw,ijo->hwco", windows(self.x[None], 3), d)}
        self.grads["bias"] = d.sum((0, 1)).reshape(1, 1, 1, 4)
        kernel = self.kernel if self.wrong else self.kernel[::-1, ::-1]
        padded = np.pad(d, ((2, 2), (2, 2), (0, 0)))[None]
        return np.einsum("nijohw,hwco->nijc", windows(padded, 3), kernel)[0]


def test_one_channels_last_image_without_a_batch() -> None:
    x = RNG.standard_normal((6, 5, 2))
    assert verify_layer(Unbatched(), nn.Conv2d(2, 4, 3), x=x).ok
    assert blamed(verify_layer(Unbatched(wrong=True), nn.Conv2d(2, 4, 3), x=x)) == {"x.grad"}


class Grey:
    """Grey images (N, H, W) without a channel axis, filters (O, 3, 3), output (N, H', W', O); no dL/dx, no bias."""

    def __init__(self) -> None:
        self.filters = np.zeros((4, 3, 3))

    def forward(self, x: Any) -> Any:
        self.x = x
        return np.einsum("nijhw,ohw->nijo", windows(x, 3), self.filters)

    def backward(self, d: Any) -> None:
        self.dfilters = np.einsum("nijhw,nijo->ohw", windows(self.x, 3), d)


@pytest.mark.parametrize("shape", [(3, 6, 5), (6, 5)])
def test_a_single_channel_without_an_axis(shape: tuple[int, ...]) -> None:
    class Layer(Grey):
        def forward(self, x: Any) -> Any:
            return super().forward(x) if x.ndim == 3 else super().forward(x[None])[0]

        def backward(self, d: Any) -> Any:
            super().backward(d if d.ndim == 4 else d[None])
            return None  # said, not forgotten: it is the first layer

    report = verify_layer(Layer(), nn.Conv2d(1, 4, 3, bias=False), x=RNG.standard_normal(shape))
    assert report.ok, str(report)
    assert {c.name for c in report.checks} == {"output", "weight.grad"}


class Sequence:
    """h' = tanh(x Wx + h Wh + b) over (T, N, D); all states are returned."""

    last = False

    def __init__(self, wrong: bool = False) -> None:
        self.Wx, self.Wh, self.b = np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(3)
        self.wrong = wrong

    def forward(self, x: Any) -> Any:
        self.x, self.h = x, [np.zeros((x.shape[1], 3))]
        for x_t in x:
            self.h.append(np.tanh(x_t @ self.Wx + self.h[-1] @ self.Wh + self.b))
        return self.h[-1] if self.last else np.stack(self.h[1:])

    def backward(self, dh: Any) -> Any:
        every = np.zeros((len(self.x), *self.h[0].shape), dh.dtype)
        every[-1 if self.last else slice(None)] = dh
        self.dWx, self.dWh, self.db = np.zeros_like(self.Wx), np.zeros_like(self.Wh), np.zeros_like(self.b)
        dx, carried = np.zeros_like(self.x), np.zeros_like(every[0])
        for t in reversed(range(len(self.x))):
            da = (every[t] + carried) * (1 - self.h[t + 1] ** 2)
            self.dWx += self.x[t].T @ da
            self.dWh += self.h[t + (1 if self.wrong else 0)].T @ da
            self.db += da.sum(0)
            dx[t], carried = da @ self.Wx.T, da @ self.Wh.T
        return dx


class Last(Sequence):
    last = True


@pytest.mark.parametrize("layer", [Sequence, Last])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_recurrent_layer_with_one_bias(layer: Any, batch_first: bool) -> None:
    x = RNG.standard_normal((4, 3, 2))
    report = verify_layer(layer(), nn.RNN(2, 3, batch_first=batch_first), x=x)
    assert report.ok, str(report)
    named = {"output", "x.grad", "weight_ih_l0.grad", "weight_hh_l0.grad", "bias_ih_l0.grad"}
    assert {c.name for c in report.checks} == named
    assert blamed(verify_layer(layer(wrong=True), nn.RNN(2, 3, batch_first=batch_first), x=x)) == {"weight_hh_l0.grad"}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class Gates:
    """An LSTM over (N, T, D): output, forget, input and cell gate in one array, which multiplies [h, x]."""

    def __init__(self, wrong: bool = False) -> None:
        self.W, self.b = np.zeros((12, 5)), np.zeros((12, 1))
        self.wrong = wrong

    def forward(self, x: Any) -> Any:
        h, c = np.zeros((2, len(x), 3))
        self.kept = []
        for t in range(x.shape[1]):
            z = np.hstack([h, x[:, t]])
            a = z @ self.W.T + self.b[:, 0]
            o, f, i, g = sigmoid(a[:, :3]), sigmoid(a[:, 3:6]), sigmoid(a[:, 6:9]), np.tanh(a[:, 9:])
            before, c = c, f * c + i * g
            h = o * np.tanh(c)
            self.kept.append((z, o, f, i, g, before, c))
        return h

    def backward(self, dh: Any) -> Any:
        dc, dx = np.zeros_like(dh), []
        self.grad_W, self.grad_b = np.zeros_like(self.W), np.zeros_like(self.b)
        for z, o, f, i, g, before, c in reversed(self.kept):
            dc = dc + dh * o * (1 - np.tanh(c) ** 2)
            parts = [
                dh * np.tanh(c) * o * (1 - o),
                dc * before * f * (1 - f),
                dc * g * i * (1 - i),
                dc * i * (1 - g**2),
            ]
            da = np.hstack(parts)
            self.grad_W += da.T @ z
            self.grad_b += da.sum(0)[:, None]
            dz = da @ self.W
            dh, dc = dz[:, :3], dc if self.wrong else dc * f
            dx.append(dz[:, 3:])
        return np.stack(dx[::-1], axis=1)


def test_an_lstm_whose_gates_stand_in_another_order() -> None:
    x = RNG.standard_normal((4, 3, 2))
    report = verify_layer(Gates(), nn.LSTM(2, 3, batch_first=True), x=x)
    assert report.ok, str(report)
    assert "x.grad" in blamed(verify_layer(Gates(wrong=True), nn.LSTM(2, 3, batch_first=True), x=x))


def test_an_lstm_by_an_adapter() -> None:
    slices = ("W[6:9{}]", "W[3:6{}]", "W[9:{}]", "W[:3{}]")
    adapter = Adapter(
        params={
            "weight_ih_l0": [s.format(", 3:") for s in slices],
            "weight_hh_l0": [s.format(", :3") for s in slices],
            "bias_ih_l0": [s.format("").replace("W", "b") for s in slices],
            "bias_hh_l0": None,
        }
    )
    x = RNG.standard_normal((4, 3, 2))
    assert verify_layer(Gates(), nn.LSTM(2, 3, batch_first=True), x=x, adapter=adapter).ok


def test_a_forward_pass_that_is_wrong_does_not_hide_the_layout() -> None:
    class Halved(Columns):
        def forward(self, A_prev: Any) -> Any:
            return super().forward(A_prev) * 0.5

    report = verify_layer(Halved(), nn.Linear(4, 3), x=RNG.standard_normal((4, 5)))
    assert blamed(report) == {"output"}


def test_shapes_that_cannot_be_are_said() -> None:
    x = RNG.standard_normal((5, 4))
    with pytest.raises(ManualBPError, match=r"nothing that looks like 'weight'|has shape"):
        verify_layer(Columns(), nn.Linear(4, 7), x=x)
    with pytest.raises(ManualBPError, match=r"cannot work with an input of shape \(5, 9\)"):
        verify_layer(Columns(), nn.Linear(4, 3), x=RNG.standard_normal((5, 9)))
    with pytest.raises(ManualBPError, match="is a class"):
        verify_layer(Columns(), nn.Linear, x=x)
    with pytest.raises(ManualBPError, match="has 4 axes"):
        verify_layer(Columns(), nn.Linear(4, 3), x=x, layouts={"x": "NHWC"})


class Turned:
    """A dense layer that keeps its weight as (in, out), and the gradient of it as (out, in)."""

    def __init__(self, size: int) -> None:
        self.W, self.b = np.zeros((4, size)), np.zeros(size)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, d: Any) -> Any:
        self.dW, self.db = d.T @ self.x, d.sum(0)
        return d @ self.W.T


@pytest.mark.parametrize(("size", "status"), [(3, "mismatch"), (4, "wrong")])
def test_a_gradient_that_is_not_laid_out_as_its_weight_is(size: int, status: str) -> None:
    """That torch would lay it out in this way says nothing: it does not fit the layer's own weight."""
    report = verify_layer(Turned(size), nn.Linear(4, size), x=np.random.default_rng(0).standard_normal((5, 4)))
    assert {c.name: c.status for c in report.checks if c.status != "pass"} == {"weight.grad": status}


def test_a_function_may_hand_over_the_gradient_as_torch_has_it() -> None:
    adapter = Adapter(grads={"weight": lambda layer: layer.dW})
    x = np.random.default_rng(0).standard_normal((5, 4))
    verify_layer(Turned(3), nn.Linear(4, 3), x=x, adapter=adapter).raise_if_wrong()


@pytest.mark.parametrize("size", [3, 4])
def test_a_function_may_hand_over_the_gradient_as_the_layer_has_its_weight(size: int) -> None:
    """Of a square weight too, whose gradient has torch's shape in either order."""
    adapter = Adapter(grads={"weight": lambda layer: layer.dW.T})
    x = np.random.default_rng(0).standard_normal((5, 4))
    verify_layer(Turned(size), nn.Linear(4, size), x=x, adapter=adapter).raise_if_wrong()


def test_an_upstream_gradient_in_another_order_than_the_input() -> None:
    class Scale:
        def forward(self, x: Any) -> Any:  # (N, H, W, C)
            return x * 2

        def backward(self, d: Any) -> Any:
            return (2 * d).transpose(0, 3, 1, 2)  # (N, C, H, W), by mistake

    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3))
    report = verify_layer(Scale(), lambda x: x * 2, x=x, layouts={"x": "NHWC", "output": "NHWC"})
    assert {c.name: c.status for c in report.checks if c.status != "pass"} == {"x.grad": "mismatch"}
