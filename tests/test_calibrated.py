"""Calibrated tolerances: the same function computed in another order is never flagged, a typical mistake always is.

Each candidate is a torch program of plain operations that its author wrote differently from torch's module; the mistake
is in one backward pass only (`slip` hands on another gradient than the right one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from manual_bp import Report, verify

RNG = np.random.default_rng(0)


def blamed(report: Report) -> set[str]:
    return {c.name for c in report.checks if c.status not in ("pass", "kink", "inherited")}


class Slip(torch.autograd.Function):
    """The identity, whose gradient is off by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.factor, None


def slip(x: Tensor, wrong: bool) -> Tensor:
    """``x``; with a gradient that is wrong in its fourth digit, if it is to be wrong."""
    out: Tensor = Slip.apply(x, 1.0005) if wrong else x
    return out


def attention(m: Any, x: Tensor, wrong: bool) -> Tensor:
    heads = []
    for i in range(2):
        q, k, v = (x @ w[4 * i : 4 * i + 4].T for w in m.qkv.weight.chunk(3))
        scores = torch.stack([(q[:, t : t + 1] * k).sum(-1) for t in range(x.shape[1])], 1) / 2
        weights = torch.exp(scores - scores.logsumexp(-1, keepdim=True))
        heads.append(torch.einsum("nts,nsd->ntd", slip(weights, wrong), v))
    return torch.cat(heads, -1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (part.view(n, t, 2, 4).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        out = functional.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).reshape(n, t, 8)


def lstm(m: Any, x: Tensor, wrong: bool) -> Tensor:
    h, c = x.new_zeros(2, len(x), 3)
    for x_t in x.unbind(1):
        a = torch.cat([x_t, h], 1) @ torch.cat([m.weight_ih_l0, m.weight_hh_l0], 1).T + (m.bias_ih_l0 + m.bias_hh_l0)
        i, f, g, o = (a[:, 3 * k : 3 * k + 3] for k in range(4))
        c = slip(c, wrong) / (1 + torch.exp(-f)) + torch.sigmoid(i) * (2 * torch.sigmoid(2 * g) - 1)
        h = torch.tanh(c) / (1 + torch.exp(-o))
    return h


def group_norm(m: Any, x: Tensor, wrong: bool) -> Tensor:
    parts = []
    for group in x.split(2, 1):
        flat = group.flatten(1)
        mean = flat.sum(1, keepdim=True) / flat.shape[1]
        centred = slip(flat - mean, wrong)
        variance = (centred * centred).sum(1, keepdim=True) / flat.shape[1]
        parts.append((centred * (variance + m.eps) ** -0.5).view_as(group))
    return torch.cat(parts, 1) * m.weight[:, None, None] + m.bias[:, None, None]


def rms_norm(m: Any, x: Tensor, wrong: bool) -> Tensor:
    return m.weight * (x / slip((x.pow(2).sum(-1, keepdim=True) / x.shape[-1] + 1e-6).sqrt(), wrong))


class SwiGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(a, b, bias=False) for a, b in ((6, 10), (6, 10), (10, 6)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return out


def swiglu(m: Any, x: Tensor, wrong: bool) -> Tensor:
    gate = sum(x[..., i : i + 1] * m.gate.weight[:, i] for i in range(6))  # column by column
    return torch.einsum(
        "...h,oh->...o", slip(gate / (1 + torch.exp(-gate)), wrong) * (x @ m.up.weight.T), m.down.weight
    )


def convolution(m: Any, x: Tensor, wrong: bool) -> Tensor:
    """Shift and add: one product a tap of the kernel, no convolution at all."""
    padded = functional.pad(x, (1, 1, 1, 1))
    out = torch.zeros(())
    for i in range(3):
        for j in range(3):
            patch = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            out = out + torch.einsum("nchw,oc->nohw", slip(patch, wrong and i == j == 0), m.weight[:, :, i, j])
    return out + m.bias[:, None, None]


def last(m: nn.Module) -> nn.Module:
    m.register_forward_hook(lambda _m, _i, out: out[0][:, -1])
    return m


CASES: dict[str, tuple[Callable[[Any, Tensor, bool], Tensor], nn.Module, tuple[int, ...]]] = {
    "attention": (attention, Attention(), (2, 5, 8)),
    "lstm": (lstm, last(nn.LSTM(2, 3, batch_first=True)), (3, 4, 2)),
    "group norm": (group_norm, nn.GroupNorm(2, 4), (2, 4, 3, 5)),
    "RMSNorm": (rms_norm, nn.RMSNorm(8, eps=1e-6), (3, 5, 8)),
    "SwiGLU": (swiglu, SwiGLU(), (4, 6)),
    "convolution": (convolution, nn.Conv2d(3, 2, 3, padding=1), (2, 3, 5, 4)),
}


class Written(nn.Module):
    """A module's parameters, and another forward pass."""

    def __init__(self, name: str, wrong: bool = False) -> None:
        super().__init__()
        self.function, module, _ = CASES[name]
        for key, part in [*module.named_parameters(recurse=False), *module.named_children()]:
            setattr(self, key, part)
        self.eps, self.wrong = getattr(module, "eps", 0.0), wrong

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x, self.wrong)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_order_of_the_same_operations_is_never_flagged(name: str, dtype: str) -> None:
    _, module, shape = CASES[name]
    for seed in (0, 1):
        report = verify(Written(name), module, x=RNG.standard_normal(shape), dtype=dtype, seed=seed)
        assert report.ok, str(report)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_slip_in_the_fourth_digit_is_flagged(name: str, dtype: str) -> None:
    _, module, shape = CASES[name]
    report = verify(Written(name, wrong=True), module, x=RNG.standard_normal(shape), dtype=dtype, probes=["seed-1"])
    assert "x.grad" in blamed(report)
    assert "output" not in blamed(report)
