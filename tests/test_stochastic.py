"""Calibrated tolerances, an operation at a time: what is taken apart stays itself, and cancellation inside it shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from manual_bp_torch import stochastic
from manual_bp_torch.perturbed import Perturbed

U = 2.0**-24

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu, tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "mish": functional.mish,
    "softplus": functional.softplus,
    "log sigmoid": functional.logsigmoid,
    "elu": functional.elu,
    "celu": functional.celu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: functional.softmax(x, -1),
    "log softmax": lambda x: functional.log_softmax(x, -1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "layer norm": lambda x: functional.layer_norm(x, (6,)),
    "group norm": lambda x: functional.group_norm(x, 2),
    "instance norm": functional.instance_norm,
    "batch norm": lambda x: functional.batch_norm(x, None, None, training=True),
    "batch norm, evaluation": lambda x: functional.batch_norm(x, torch.ones(4).double(), torch.ones(4).double()),
    "rms norm": lambda x: functional.rms_norm(x, (6,)),
    "standard deviation": lambda x: x.std(-1),
    "3-norm": lambda x: x[0].norm(3),
    "product": lambda x: x.prod(-1),
    "cosine similarity": lambda x: functional.cosine_similarity(x[:, :1], x[:, 1:], dim=-1),
    "distances": lambda x: torch.cdist(x, x + 1),
    "pairwise distance": lambda x: functional.pairwise_distance(x, x.flip(0)),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x.flip(1), x),
    "causal attention": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    "lerp": lambda x: torch.lerp(x, x.flip(0), x.sigmoid()),
    "addcmul": lambda x: torch.addcmul(x, x, x.flip(0)),
    "logit": lambda x: torch.logit(0.5 + 0.4 * x.sin()),
    "mse": lambda x: functional.mse_loss(x, x.flip(0) ** 2),
    "bce": lambda x: functional.binary_cross_entropy(0.5 + 0.4 * x.sin(), x.flip(0).sigmoid()),
    "huber": lambda x: functional.huber_loss(x, x.flip(0) ** 2),
    "smooth l1": lambda x: functional.smooth_l1_loss(x, x.flip(0) ** 2),
    "bce with logits": lambda x: functional.binary_cross_entropy_with_logits(x, x.flip(0).sigmoid()),
    "cross entropy": lambda x: functional.cross_entropy(x, torch.zeros(3, 6, dtype=torch.long)),
    "convolution": nn.Conv1d(4, 3, 3).double(),
}


def passes(operation: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and input gradient for a fixed upstream gradient."""
    leaf = x.clone().requires_grad_()
    y = operation(leaf)
    upstream = torch.linspace(0.3, 1.7, y.numel(), dtype=y.dtype).reshape(y.shape)
    (dx,) = torch.autograd.grad((y * upstream).sum(), leaf)
    return y.detach(), dx


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_an_operation_that_is_taken_apart_gives_what_it_gives_whole(operation: Callable[[Tensor], Tensor]) -> None:
    x = 3 * torch.randn(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = passes(operation, x)
    with Perturbed(2.0**-50, 0):
        apart = passes(operation, x)
    for a, b in zip(whole, apart, strict=True):
        assert float((a - b).abs().max()) <= 1e-12 * float(a.abs().max())
    assert any(bool((a != b).any()) for a, b in zip(whole, apart, strict=True)), "it was perturbed"


def error_of(operation: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """How far float32 is from float64, output and input gradient."""
    wide, narrow = passes(operation, x.double()), passes(operation, x)
    return tuple((a - b.double()).abs() for a, b in zip(wide, narrow, strict=True))  # type: ignore[return-value]  # two


def estimate(operation: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The calibrated bounds of the same two."""

    def run(_nudge: stochastic.Nudge) -> dict[str, Tensor]:
        y, dx = passes(operation, x.double())
        return {"y": y, "dx": dx}

    found = stochastic.spread(run, u=U, eta=0.0)
    return found["y"].e, found["dx"].e


CANCELLING: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "gelu far left": (functional.gelu, torch.linspace(-5.4, -4, 40)),
    "silu at its lowest": (functional.silu, torch.linspace(-1.2786, -1.2783, 40)),
    "mish at its lowest": (functional.mish, torch.linspace(-1.193, -1.192, 40)),
    "a sum of large terms": (lambda x: x.sum(-1), torch.tensor([[1e6, 1.25, -1e6], [3e7, 0.3, -3e7]])),
    "a product of large terms": (
        lambda x: x @ torch.tensor([[1.1e4], [1.3], [1.0]], dtype=x.dtype),
        torch.tensor([[1.0, 0.7, -1.1e4], [-3.0, 0.1, 3.3e4]]),
    ),
    "layer norm of almost equal numbers": (
        lambda x: functional.layer_norm(x, (4,)),
        torch.tensor([[1e3, 1e3 + 0.25, 1e3 - 0.5, 1e3]]),
    ),
    # the roundings of y and of y² meet in 1 - y²; each row by itself, none shows what another one hides
    "the slope of a saturated tanh": (torch.tanh, torch.linspace(3, 5, 4000)[:, None]),
}


@pytest.mark.parametrize(("operation", "x"), CANCELLING.values(), ids=list(CANCELLING))
def test_cancellation_inside_an_operation_shows(operation: Callable[[Tensor], Tensor], x: Tensor) -> None:
    for error, bound in zip(error_of(operation, x), estimate(operation, x), strict=True):
        assert bool((error <= bound).all())
