"""References as people write them: parts that the loss does not depend on, several outputs,
domains, checkpoints, and what cannot be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from manual_bp import tap, verify
from manual_bp.errors import ManualBPError
from manual_bp.report import Report

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((5, 4)), RNG.standard_normal((5, 3))


def statuses(report: Report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


# ---------------------------------------------------------------------- what the loss does not depend on


class Idle(nn.Module):
    """A layer that takes no part, and one whose output is detached."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.detached = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x) + self.detached(x).detach()


def idle(params: Any, x: Any, upstream: Any, *, size: float = 0.0) -> dict[str, Any]:
    return {
        "used": x @ params["used.weight"].T + params["used.bias"],
        "used.weight.grad": upstream.T @ x,
        "unused.weight.grad": np.full((3, 4), size),
        "detached.weight.grad": np.full((3, 4), size),
        "detached.grad": np.full((5, 3), size),
    }


def test_the_gradient_of_what_the_loss_does_not_depend_on_is_zero() -> None:
    report = verify(idle, Idle(), x=X, probes=None)
    assert report.ok, str(report)
    assert {"unused.weight.grad", "detached.weight.grad", "detached.grad"} <= statuses(report).keys()
    without = verify(lambda p, x, g: {"used": idle(p, x, g)["used"]}, Idle(), x=X, probes=None, complete=False)
    assert without.ok


@pytest.mark.parametrize("name", ["unused.weight.grad", "detached.weight.grad", "detached.grad"])
def test_any_other_number_is_wrong(name: str) -> None:
    def wrong(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        return {**idle(params, x, upstream), name: idle(params, x, upstream, size=1e-6)[name]}

    report = verify(wrong, Idle(), x=X)
    assert {n for n, s in statuses(report).items() if s == "wrong"} == {name}
    assert "bug in manual-bp" not in str(report)


def test_it_is_never_demanded() -> None:
    def whole(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        z = x @ params["used.weight"].T + params["used.bias"]
        fixed = x @ params["detached.weight"].T + params["detached.bias"]
        both = {"used.grad": upstream, "used.weight.grad": upstream.T @ x, "used.bias.grad": upstream.sum(0)}
        return {"used": z, "detached": fixed, "output": z + fixed, **both, "dx": upstream @ params["used.weight"]}

    report = verify(whole, Idle(), x=X, probes=None, complete=True)
    assert report.ok, str(report)


def test_an_unused_input() -> None:
    def reference(params: Any, x: Any) -> Any:
        return tap("o", 2 * x["a"])

    inputs = {"a": X, "b": Y}
    right = verify(lambda p, x, g: {"o": 2 * x["a"], "da": 2 * g, "db": 0 * x["b"]}, reference, x=inputs)
    wrong = verify(lambda p, x, g: {"o": 2 * x["a"], "da": 2 * g, "db": 1 + 0 * x["b"]}, reference, x=inputs)
    assert right.ok, str(right)
    assert statuses(right)["b.grad"] == "pass"
    assert statuses(wrong)["b.grad"] == "wrong"


# ---------------------------------------------------------------------- several outputs


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mu, self.lv = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mu(x), self.lv(x)


def divergence(out: Any, y: Any) -> Any:
    mu, lv = out[0], out[1]
    return (-0.5 * (1 + lv - mu**2 - lv.exp())).mean()


def two_heads(params: Any, x: Any, y: Any) -> dict[str, Any]:
    mu = x @ params["mu.weight"].T + params["mu.bias"]
    lv = x @ params["lv.weight"].T + params["lv.bias"]
    dmu, dlv = mu / mu.size, 0.5 * (np.exp(lv) - 1) / lv.size
    loss = (-0.5 * (1 + lv - mu**2 - np.exp(lv))).mean()
    dx = dmu @ params["mu.weight"] + dlv @ params["lv.weight"]
    return {"mu": mu, "lv": lv, "loss": loss, "dmu": dmu, "dlv": dlv, "dx": dx, "lv.weight.grad": dlv.T @ x}


def test_the_loss_gets_all_that_the_module_returns() -> None:
    report = verify(two_heads, TwoHeads(), x=X, y=Y, loss=divergence)
    assert report.ok, str(report)
    assert {"mu.grad", "lv.grad", "x.grad"} <= statuses(report).keys()
    halved = verify(lambda p, x, y: {**two_heads(p, x, y), "dlv": two_heads(p, x, y)["dlv"] / 2}, TwoHeads(), x=X, y=Y,
                    loss=divergence)  # fmt: skip  # one call
    assert statuses(halved)["lv.grad"] == "wrong"


def test_outputs_that_no_module_makes() -> None:
    class Bare(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": 2 * x, "b": 3 * x}

    def loss(out: Any, y: Any) -> Any:
        return (out["a"] * y).sum() + out["b"].sum()

    report = verify(lambda p, x, y: {"output": 2 * x, "dx": 2 * y + 3, "output.grad": y}, Bare(), x=X, y=X, loss=loss)
    assert report.ok, str(report)


def test_a_loss_of_torch_gets_the_first_output() -> None:
    def candidate(params: Any, x: Any, y: Any) -> dict[str, Any]:
        mu = x @ params["mu.weight"].T + params["mu.bias"]
        return {"mu": mu, "loss": ((mu - y) ** 2).mean(), "mu.grad": 2 * (mu - y) / mu.size}

    assert verify(candidate, TwoHeads(), x=X, y=Y, loss=nn.MSELoss()).ok


def test_a_loss_that_raises_is_named() -> None:
    def loss(out: Any, y: Any) -> Any:
        return out.square().sum()

    with pytest.raises(ManualBPError, match=r"the loss loss raised AttributeError .*all that the reference returns"):
        verify(two_heads, TwoHeads(), x=X, y=Y, loss=loss)


# ---------------------------------------------------------------------- probes outside of the reference's domain


def entropy(params: Any, x: Any, y: Any) -> dict[str, Any]:
    loss = -(y * np.log(x) + (1 - y) * np.log(1 - x)).mean()
    return {"output": x, "loss": loss, "output.grad": (x - y) / (x * (1 - x)) / x.size}


P, T = 1 / (1 + np.exp(-X)), (X > 0) * 1.0


def test_a_probe_that_the_reference_cannot_work_with_is_left_out() -> None:
    report = verify(entropy, nn.Identity(), x=P, y=T, loss=nn.BCELoss())
    assert report.ok, str(report)
    assert "given" in [probe.name for probe in report.probes]
    assert "seed-1" not in [probe.name for probe in report.probes]
    assert any(note.startswith("probe seed-1 is left out: the reference cannot work with it: all elements of input")
               for note in report.notes)  # fmt: skip  # one condition


def test_what_is_left_out_shows_in_a_wrong_report_too() -> None:
    def wrong(params: Any, x: Any, y: Any) -> dict[str, Any]:
        return {**entropy(params, x, y), "output.grad": (x - y) / x.size}

    for probes in ("all", None):
        report = verify(wrong, nn.Identity(), x=P, y=T, loss=nn.BCELoss(), probes=probes)
        assert statuses(report)["output.grad"] == "wrong"
        assert "the search for the mistake failed" not in str(report)


def test_a_factorisation() -> None:
    def reference(params: Any, x: Any) -> Any:
        return tap("L", torch.linalg.cholesky(x))

    matrix = X.T @ X + np.eye(4)
    assert verify(lambda p, x: {"L": np.linalg.cholesky(x)}, reference, x=matrix).ok


def volume(params: Any, x: Any) -> Any:
    """What a linear flow is trained with: the logarithm of its determinant is -∞ for a singular matrix."""
    z = tap("z", x @ params["M"])
    return (z**2).mean() - torch.linalg.slogdet(params["M"])[1]


def volume_by_hand(params: Any, x: Any) -> dict[str, Any]:
    m = params["M"]
    z = x @ m
    dz = 2 * z / z.size
    return {"z": z, "dz": dz, "dM": x.T @ dz - np.linalg.inv(m).T, "dx": dz @ m.T}


def test_a_probe_that_neither_side_can_work_with_is_left_out() -> None:
    ties = np.array([[1.0, 0.0], [1.0, 0.0]])  # what small integers may be, too
    with pytest.raises(ManualBPError, match="Singular matrix"):
        verify(volume_by_hand, volume, x=X[:, :2], params={"M": ties})
    left_out = 0
    for seed in range(4):
        report = verify(volume_by_hand, volume, x=X[:, :2], params={"M": np.eye(2)}, seed=seed)
        assert report.ok, str(report)
        left_out += "probe ties is left out: the reference cannot work with it: Singular matrix" in report.notes
    assert left_out


def test_a_candidate_that_raises_where_the_reference_has_numbers_is_not_excused() -> None:
    def mine(params: Any, x: Any) -> dict[str, Any]:
        if not (x % 1).any():
            raise ValueError("whole numbers")
        return {"x.grad": 2 * x / x.size}

    with pytest.raises(ManualBPError, match="whole numbers"):
        verify(mine, lambda x: (x**2).mean(), x=X, params={})


def test_the_given_data_and_probes_of_ones_own_must_do() -> None:
    from manual_bp.variants import Variant

    with pytest.raises(ManualBPError, match="between 0 and 1"):
        verify(entropy, nn.Identity(), x=2 + P, y=T, loss=nn.BCELoss())
    own = Variant(name="own", description="outside", params={}, x=2 + P, y=T)
    with pytest.raises(ManualBPError, match="between 0 and 1"):
        verify(entropy, nn.Identity(), x=P, y=T, loss=nn.BCELoss(), probes=[own])


# ---------------------------------------------------------------------- checkpoints


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(self.block, x, use_reentrant=False)


def block(params: Any, x: Any, upstream: Any, *, off: float = 0.0) -> dict[str, Any]:
    h = x @ params["block.0.weight"].T + params["block.0.bias"]
    a = np.tanh(h) + off
    da = upstream @ params["block.2.weight"]
    dh = da * (1 - a**2)
    z = a @ params["block.2.weight"].T + params["block.2.bias"]
    forward = {"block.0": h, "block.1": a, "block.2": z}
    return {**forward, "block.1.grad": da, "block.0.grad": dh, "dx": dh @ params["block.0.weight"],
            "block.2.weight.grad": upstream.T @ a, "block.0.weight.grad": dh.T @ x}  # fmt: skip  # one dictionary


def test_a_checkpoint_computes_with_the_weights_of_the_probe() -> None:
    report = verify(block, Checkpointed(), x=X)
    assert report.ok, str(report)
    assert len(report.probes) > 1


def test_a_checkpoint_computes_with_what_the_candidate_claims() -> None:
    def wrong(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        return block(params, x, upstream, off=0.1)

    # everything after the one wrong value is right for that value
    assert {n for n, s in statuses(verify(wrong, Checkpointed(), x=X)).items() if s == "wrong"} == {"block.1"}


@pytest.mark.filterwarnings(
    "ignore:None of the inputs have requires_grad"
)  # torch says so where only the shape is asked
def test_the_other_kind_of_checkpoint_is_refused() -> None:
    class Reentrant(Checkpointed):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.utils.checkpoint.checkpoint(self.block, x, use_reentrant=True)

    with pytest.raises(ManualBPError, match="use_reentrant=False"):
        verify(block, Reentrant(), x=X)


# ---------------------------------------------------------------------- what cannot be compared


def relu(params: Any, x: Any, y: Any) -> dict[str, Any]:
    return {"output": np.maximum(x, 0)}


class Blind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = self.fc(x)
        return out


W = {"w": np.eye(4)}


@pytest.mark.parametrize(
    ("reference", "more", "says"),
    [
        (lambda params, x: torch.zeros(5, 4), {}, "has no gradient"),
        (lambda params, x: tap("output", x.detach() * 2), {}, "has no gradient"),
        (Blind(), {}, "has no gradient"),
        (lambda params, x: tap("w", x @ params["w"]), {"params": W}, "a tap is named 'w', .*rename the tap"),
        (lambda params, x: tap("a.grad", x * 2), {}, "a tap is named 'a.grad', .*rename the tap"),
        (lambda params, x: tap(3, x * 2), {}, "a tap is named 3"),  # type: ignore[arg-type]  # this is the mistake
        (lambda params, x: x * tap("h", 2.0), {}, "tap 'h' is given a float"),
        (lambda params, x: tap("f", torch.fft.rfft(x)).abs(), {}, "tap 'f' is given a complex tensor"),
        (nn.LazyLinear(2), {}, "has no size yet"),
        (nn.Linear(4, 4, device="meta"), {}, "device meta"),
        (nn.ReLU(), {"seed": -1}, "the seed is -1"),
        (nn.ReLU(), {"seed": "a"}, "the seed is 'a'"),
        (nn.ReLU(), {"names": ["x"]}, "names is a list"),
        (nn.ReLU(), {"layouts": ["x"]}, "layouts is a list"),
        (nn.ReLU(), {"equations": ["x"]}, "equations is a list"),
        (nn.ReLU(), {"params": [1]}, "params is a list"),
        (nn.ReLU(), {"y": X, "loss": nn.MSELoss}, r"the loss is the class MSELoss\. call it: MSELoss\(\)"),
        (nn.ReLU(), {"y": X, "loss": "mse"}, "the loss is 'mse'"),
        (nn.ReLU(), {"loss": nn.MSELoss()}, "the loss MSELoss raised .*give y=..., its target"),
        (
            nn.ReLU(),
            {"y": np.array([0, 1, 2, 3, 7]), "loss": nn.CrossEntropyLoss()},
            "Target 7 is out of bounds. give y",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")  # torch says so whenever one is built
def test_what_cannot_be_compared_is_one_clear_error(reference: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ManualBPError, match=says):
        verify(relu, reference, x=X, **more)


def test_taps_of_whole_numbers_and_masks_are_compared_exactly() -> None:
    def reference(params: Any, x: Any) -> Any:
        return tap("o", x * tap("mask", x > 0) * tap("whole", x.long()))

    def candidate(params: Any, x: Any, *, more: int = 0) -> dict[str, Any]:
        whole = np.trunc(x).astype(np.int32) + more
        return {"mask": x > 0, "whole": whole, "o": x * (x > 0) * np.trunc(x)}

    assert verify(candidate, reference, x=3 * X).ok
    wrong = verify(lambda p, x: candidate(p, x, more=1), reference, x=3 * X)
    assert statuses(wrong)["whole"] == "wrong"
    assert "bug in manual-bp" not in str(wrong)


def test_sparse_gradients_are_compared_with_their_zeros() -> None:
    def candidate(params: Any, x: Any, upstream: Any) -> dict[str, Any]:
        dw = np.zeros((6, 3))
        np.add.at(dw, x, upstream)
        return {"output": params["weight"][x], "weight.grad": dw}

    assert verify(candidate, nn.Embedding(6, 3, sparse=True), x=np.array([[1, 2, 1]])).ok


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_weights_of_a_module_that_stands_twice_are_judged(dtype: str) -> None:
    layer = nn.Linear(4, 4)
    module = nn.Sequential(layer, nn.Tanh(), layer)

    def candidate(factor: float) -> Any:
        def run(params: dict[str, np.ndarray], x: Any, y: Any) -> dict[str, Any]:
            w, b = params["0.weight"], params["0.bias"]
            a = np.tanh(x @ w.T + b)
            dz = (y @ w) * (1 - a * a)
            return {"x.grad": dz @ w, "0.weight.grad": factor * (y.T @ a + dz.T @ x), "0.bias.grad": (y + dz).sum(0)}

        return run

    x = np.random.default_rng(0).standard_normal((5, 4))
    assert verify(candidate(1.0), module, x=x, dtype=dtype).ok
    for factor in (0.0, 1.001):
        report = verify(candidate(factor), module, x=x, dtype=dtype)
        assert {c.name for c in report.checks if c.status == "wrong"} == {"0.weight.grad"}
