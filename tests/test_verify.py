"""`verify` on programs that people bring along: right ones pass, each planted mistake is named, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manual_bp import ManualBPError, Report, tap, verify
from manual_bp.candidate import CandidateError

Arrays = dict[str, Any]


class Residual(nn.Module):
    """A branch with a functional ReLU in it, joined to the input again."""

    def __init__(self) -> None:
        super().__init__()
        self.f1, self.f2, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(x + self.f2(torch.relu(self.f1(x))))
        return out


def residual(p: Mapping[str, Any], x: Any, y: Any, *mistakes: str) -> Arrays:
    """The same by hand."""
    f1 = x @ p["f1.weight"].T + p["f1.bias"]
    h = np.maximum(f1, 0)
    f2 = h @ p["f2.weight"].T + p["f2.bias"]
    r = x + f2
    out = r @ p["out.weight"].T + p["out.bias"]
    d_out = 2 * (out - y) / out.size
    d_r = d_out @ p["out.weight"]
    d_h = d_r @ p["f2.weight"]
    d_f1 = d_h * (f1 > 0)
    d_x = d_f1 @ p["f1.weight"] + d_r
    if "skip branch forgotten" in mistakes:
        d_x = d_f1 @ p["f1.weight"]
    d_w2 = d_r.T @ h
    if "divided by 3" in mistakes:
        d_w2 = d_w2 / 3
    return {
        "f1": f1, "f2": f2, "out": out, "loss": ((out - y) ** 2).mean(),
        "out.grad": d_out, "f2.grad": d_r, "f1.grad": d_f1,
        "f2.weight.grad": d_w2, "f2.bias.grad": d_r.sum(0), "f1.weight.grad": d_f1.T @ x, "f1.bias.grad": d_f1.sum(0),
        "out.weight.grad": d_out.T @ r, "out.bias.grad": d_out.sum(0), "x.grad": d_x,
    }  # fmt: skip


@pytest.fixture
def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((5, 4)), rng.standard_normal((5, 2))


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_residual_network_passes_on_every_probe(data: Any, dtype: str) -> None:
    x, y = data
    report = verify(residual, Residual(), x=x, y=y, loss=nn.MSELoss(), dtype=dtype)
    assert report.ok, str(report)
    assert len(report.probes) == 6
    assert report.counts["pass"] == len(report.checks) == 6 * 14


@pytest.mark.parametrize(
    ("mistakes", "names"),
    [
        (["skip branch forgotten"], {"x.grad"}),
        (["divided by 3"], {"f2.weight.grad"}),
        (["skip branch forgotten", "divided by 3"], {"x.grad", "f2.weight.grad"}),
    ],
)
def test_exactly_the_wrong_quantities_are_blamed(data: Any, mistakes: list[str], names: set[str]) -> None:
    x, y = data
    report = verify(lambda params, x, y: residual(params, x, y, *mistakes), Residual(), x=x, y=y, loss=nn.MSELoss())
    assert not report.ok
    assert blamed(report) == names
    assert report.first_wrong == ("f2.weight.grad" if "divided by 3" in mistakes else "x.grad")


def test_unreported_quantities_widen_the_segment_and_are_said(data: Any) -> None:
    x, y = data

    def sparse(params: Arrays, x: Any, y: Any) -> Arrays:
        every = residual(params, x, y, "divided by 3")
        return {name: every[name] for name in ("out", "f2.weight.grad", "x.grad")}

    report = verify(sparse, Residual(), x=x, y=y, loss=nn.MSELoss())
    assert blamed(report) == {"f2.weight.grad"}
    assert any(f.kind == "coverage" and "f1.grad" in f.text for f in report.findings)
    assert not verify(sparse, Residual(), x=x, y=y, loss=nn.MSELoss(), complete=True).ok


def test_names_and_layouts_hand_over_and_take_back(data: Any) -> None:
    x, y = data

    def mine(params: Arrays, x: Any, y: Any) -> Arrays:
        z = x @ params["W"] + params["b"]
        assert params["W"].shape == (4, 2)
        assert params["b"].shape == (1, 2)
        d = 2 * (z - y) / z.size
        return {"W.grad": x.T @ d, "b.grad": d.sum(0, keepdims=True), "z": z, "dz": d}

    names = {"W": "0.weight", "b": "0.bias", "z": "0", "dz": "0.grad"}
    layouts = {"W": "IO", "b": "1O"}
    report = verify(mine, nn.Sequential(nn.Linear(4, 2)), x=x, y=y, loss=nn.MSELoss(), names=names, layouts=layouts)
    assert report.ok, str(report)
    assert {c.name for c in report.checks} == {"0.weight.grad", "0.bias.grad", "0", "0.grad"}


def test_channels_last_and_its_flattened_vector() -> None:
    rng = np.random.default_rng(1)
    reference = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 2))

    def mine(p: Arrays, x: Any, y: Any) -> Arrays:  # x (N, 3, 3, 2)
        windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))  # (N, 2, 2, I, kh, kw)
        c = np.einsum("nhwikl,klio->nhwo", windows, p["0.weight"]) + p["0.bias"]
        flat = c.reshape(len(x), -1)  # (N, H W C)
        out = flat @ p["2.weight"].T + p["2.bias"]
        d = 2 * (out - y) / out.size
        d_flat = d @ p["2.weight"]
        d_c = d_flat.reshape(c.shape)
        return {
            "0": c, "1": flat, "2": out, "1.grad": d_flat, "0.grad": d_c, "2.weight.grad": d.T @ flat,
            "0.weight.grad": np.einsum("nhwikl,nhwo->klio", windows, d_c),
        }  # fmt: skip

    layouts = {"x": "NHWC", "0": "NHWC", "0.weight": "HWIO", "1": "N(HWC)", "2.weight": "O(HWC)"}
    x, y = rng.standard_normal((4, 3, 3, 2)), rng.standard_normal((4, 2))
    report = verify(mine, reference, x=x, y=y, loss=nn.MSELoss(), layouts=layouts)
    assert report.ok, str(report)


def test_a_function_with_taps_is_a_reference(data: Any) -> None:
    x, _ = data
    w = np.random.default_rng(2).standard_normal((4, 3))
    y = np.random.default_rng(3).standard_normal((5, 3))

    def reference(params: Any, x: Any, y: Any) -> Any:
        z = tap("z", x @ params["w"])
        return ((tap("a", torch.tanh(z)) - y) ** 2).sum()

    def mine(params: Arrays, x: Any, y: Any, power: int = 2) -> Arrays:
        z = x @ params["w"]
        a = np.tanh(z)
        da = 2 * (a - y)
        dz = da * (1 - a**power)
        return {"z": z, "a": a, "a.grad": da, "z.grad": dz, "w.grad": x.T @ dz, "x.grad": dz @ params["w"].T}

    assert verify(mine, reference, x=x, y=y, params={"w": w}).ok
    wrong = verify(lambda params, x, y: mine(params, x, y, 3), reference, x=x, y=y, params={"w": w})
    assert blamed(wrong) == {"z.grad"}


class Twice(torch.autograd.Function):
    """A dense layer whose bias gradient is doubled."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any, b: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x @ w.T + b

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, w = ctx.saved_tensors
        return g @ w, g.T @ x, 2 * g.sum(0)


@pytest.mark.parametrize("candidate", [Twice, Twice.apply])
def test_an_autograd_function_without_a_loss_gets_a_random_upstream(data: Any, candidate: Any) -> None:
    report = verify(candidate, nn.Linear(4, 3), x=data[0])
    assert blamed(report) == {"bias.grad"}


class Attention(nn.Module):
    """Embedding, normalisation, attention: one part certified, one calibrated."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(10, 8), nn.LayerNorm(8)
        self.attend, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.embed(x))
        out: torch.Tensor = self.out((h + self.attend(h, h, h, need_weights=False)[0]).mean(1))
        return out


class Sliced(Attention):
    """The same computed head by head, in plain operations: another order of everything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(tap("embed", self.embed.weight[x]))
        q, k, v = (h @ self.attend.in_proj_weight.T + self.attend.in_proj_bias).chunk(3, -1)
        heads = []
        for i in (slice(0, 4), slice(4, 8)):
            weights = torch.exp(q[..., i] @ k[..., i].transpose(1, 2) / 2)
            heads.append(weights / weights.sum(-1, keepdim=True) @ v[..., i])
        joined = torch.cat(heads, -1) @ self.attend.out_proj.weight.T + self.attend.out_proj.bias
        out: torch.Tensor = self.out((h + joined).sum(1) / x.shape[1])
        return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attention_written_out_head_by_head_passes(dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 10, (3, 5))
    report = verify(Sliced(), Attention(), x=x, y=np.array([0, 1, 2]), loss=nn.CrossEntropyLoss(), dtype=dtype)
    rules = {c.name: c.rule.split(":")[0] for c in report.checks}
    assert report.ok, str(report)
    assert rules["norm"] == "certified"
    assert rules["attend.in_proj_weight.grad"] == "calibrated"


class Shared(nn.Module):
    """One dense layer called twice, around an in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.f(self.act(self.f(x)))
        return out


@pytest.mark.parametrize("overwritten", [False, True])
def test_a_module_called_twice_and_an_in_place_relu(data: Any, overwritten: bool) -> None:
    def mine(params: Arrays, x: Any, upstream: Any) -> Arrays:
        w, b = params["f.weight"], params["f.bias"]
        first = x @ w.T + b
        a = np.maximum(first, 0)
        second = a @ w.T + b
        d_a = upstream @ w
        d_first = d_a * (first > 0)
        dw = d_first.T @ x if overwritten else d_first.T @ x + upstream.T @ a
        return {
            "f": first, "act": a, "f#2": second, "act.grad": d_a, "f.grad": d_first, "f.weight.grad": dw,
            "f.bias.grad": d_first.sum(0) + upstream.sum(0), "x.grad": d_first @ w,
        }  # fmt: skip

    report = verify(mine, Shared(), x=data[0])
    assert blamed(report) == ({"f.weight.grad"} if overwritten else set())
    assert any("in place" in note for note in report.notes)


# ---------------------------------------------------------------------- bad input: one clear sentence each


def _say(candidate: Any, **options: Any) -> str:
    x, y = np.ones((2, 4)), np.ones((2, 2))
    with pytest.raises(ManualBPError) as error:
        verify(candidate, Residual(), **{"x": x, "y": y, "loss": nn.MSELoss(), **options})
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned nothing"),
        (3.0, "returned a float"),
        ([1, 2], "returned a list"),
        ({}, "empty dictionary"),
        ({"f1": "text"}, "'f1' is an array of"),
        ({"f1": [[1, 2], [3]]}, "'f1' is no array"),
        ({"ouy": np.ones(2), "z": np.ones(2)}, "did you mean out"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(returned: Any, said: str) -> None:
    assert said in _say(lambda params, x, y: returned)


def test_a_candidate_that_raises_shows_its_own_traceback() -> None:
    def broken(params: Arrays, x: Any, y: Any) -> Arrays:
        raise ZeroDivisionError("mine")

    with pytest.raises(CandidateError, match="ZeroDivisionError: mine") as error:
        verify(broken, Residual(), x=np.ones((2, 4)), y=np.ones((2, 2)), loss=nn.MSELoss())
    assert "in broken" in error.value.traceback_text
    assert "verification.py" not in error.value.traceback_text


def test_reported_twice_under_two_names() -> None:
    said = _say(lambda params, x, y: {"a": np.ones((2, 4)), "f1": np.ones((2, 4))}, names={"a": "f1"})
    assert "twice" in said


def test_dropout_in_training_mode_is_refused() -> None:
    with pytest.raises(ManualBPError, match=r"Dropout in training mode.*eval"):
        verify(lambda p, x: {"0": x}, nn.Sequential(nn.Dropout(0.5)), x=np.ones((2, 4)))


@pytest.mark.parametrize("name", ["f1.bias", "x"])
def test_what_is_changed_in_place_is_a_difference(data: Any, name: str) -> None:
    def sneaky(params: Arrays, x: Any, y: Any) -> Arrays:
        reported = {k: np.array(v) for k, v in residual(params, x, y).items()}
        target = x if name == "x" else params[name]
        target += 1
        return reported

    report = verify(sneaky, Residual(), x=data[0], y=data[1], loss=nn.MSELoss())
    assert blamed(report) == {name}
    assert "mutation" in {f.kind for f in report.findings}


def test_wrong_shapes_dtypes_and_nan_are_statuses(data: Any) -> None:
    def odd(params: Arrays, x: Any, y: Any) -> Arrays:
        reported = residual(params, x, y)
        reported["f2.weight.grad"] = reported["f2.weight.grad"][:, :3]
        reported["f1.bias.grad"] = reported["f1.bias.grad"].astype(np.float16)
        reported["out.bias.grad"] = np.full(2, np.nan)
        reported["out.weight.grad"] = torch.from_numpy(reported["out.weight.grad"])
        return reported

    report = verify(odd, Residual(), x=data[0], y=data[1], loss=nn.MSELoss(), probes=None)
    found = {c.name: c.status for c in report.checks if c.status != "pass"}
    assert found == {"f2.weight.grad": "mismatch", "f1.bias.grad": "mismatch", "out.bias.grad": "nonfinite"}


def test_a_candidate_with_weights_of_its_own_is_only_given_other_data(data: Any) -> None:
    module = Residual().double()
    own = {n: p.detach().numpy().copy() for n, p in module.named_parameters()}
    report = verify(lambda params, x, y: residual(own, x, y), module, x=data[0], y=data[1], loss=nn.MSELoss())
    assert report.ok, str(report)


def test_interrupted_after_the_first_probe_there_is_a_partial_report(data: Any) -> None:
    calls = []

    def slow(params: Arrays, x: Any, y: Any) -> Arrays:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return residual(params, x, y)

    report = verify(slow, Residual(), x=data[0], y=data[1], loss=nn.MSELoss())
    assert report.partial
    assert len(report.probes) == 1


def test_raise_if_wrong_carries_the_report(data: Any) -> None:
    report = verify(
        lambda params, x, y: residual(params, x, y, "divided by 3"), Residual(), x=data[0], y=data[1], loss=nn.MSELoss()
    )
    with pytest.raises(AssertionError, match=r"f2\.weight\.grad"):
        report.raise_if_wrong()


@pytest.mark.parametrize("y", [[0, -100, 2], [-100, -100, -100]])
def test_targets_to_ignore_beside_a_wrong_loss_are_reported(y: list[int]) -> None:
    def forgets(_params: Arrays, x: Any, y: Any) -> Arrays:
        p = np.exp(x - x.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        rows, classes = np.arange(len(y)), np.where(y < 0, 0, y)
        gradient = p.copy()
        gradient[rows, classes] -= 1
        return {"output": x, "loss": -np.log(p[rows, classes]).mean(), "output.grad": gradient / len(y)}

    x = np.random.default_rng(0).standard_normal((3, 4))
    report = verify(forgets, nn.Identity(), x=x, y=np.array(y), loss=nn.CrossEntropyLoss(), probes=None)
    assert blamed(report) == {"loss", "output.grad"}


@pytest.mark.parametrize("scale", [np.array(0.3), 0.3])
def test_a_parameter_may_be_a_single_number(scale: Any) -> None:
    def mine(params: Any, x: Any, upstream: Any) -> Arrays:
        return {"o": x * params["s"], "s.grad": (upstream * x).sum(), "x.grad": upstream * params["s"]}

    report = verify(mine, lambda params, x: tap("o", x * params["s"]), x=np.eye(3) + 1, params={"s": scale})
    assert report.ok
    assert len(report.probes) == 6
