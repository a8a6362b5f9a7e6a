"""What is done elsewhere to decide whether two gradients are equal: the same candidates held against other rules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.trace import GRAD, Array, Quantity

Traces = Mapping[str, Array]
#: From the candidate's trace and torch's the names that a rule calls different, in execution order.
Rule = Callable[[tuple[Quantity, ...], Traces, Traces], list[str]]


def _differing(equal: Callable[[Array, Array], bool], wanted: Callable[[Quantity], bool]) -> Rule:
    def rule(quantities: tuple[Quantity, ...], candidate: Traces, reference: Traces) -> list[str]:
        names = [q.name for q in quantities if wanted(q) and q.kind != "parameter" and q.name in reference]
        return [
            name
            for name in names
            if name not in candidate
            or candidate[name].shape != reference[name].shape
            or not equal(candidate[name], reference[name])
        ]

    return rule


def _assert_close(a: Array, b: Array) -> bool:
    try:
        torch.testing.assert_close(torch.from_numpy(np.array(a)), torch.from_numpy(np.array(b)))
    except AssertionError:
        return False
    return True


def relative_error(a: Array, b: Array) -> float:
    """max |a - b| / max(1e-8, |a| + |b|), as the assignments of Stanford's CS231n compute it."""
    if not a.size:
        return 0.0
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b))))


def _everything(_: Quantity) -> bool:
    return True


def _weights(quantity: Quantity) -> bool:
    return quantity.kind == "parameter_gradient"


def _final(quantity: Quantity) -> bool:
    return quantity.kind == "parameter_gradient" or quantity.name == "x" + GRAD


#: By name, as the table shows it.
RULES: Mapping[str, Rule] = {
    "assert_close, every quantity": _differing(_assert_close, _everything),
    "assert_close, weight gradients": _differing(_assert_close, _weights),
    "np.allclose, every quantity": _differing(lambda a, b: bool(np.allclose(a, b)), _everything),
    "np.allclose, weight gradients": _differing(lambda a, b: bool(np.allclose(a, b)), _weights),
    "CS231n: relative error < 1e-7": _differing(lambda a, b: relative_error(a, b) < 1e-7, _final),
    "CS231n: relative error < 1e-2": _differing(lambda a, b: relative_error(a, b) < 1e-2, _final),
}

GRADCHECK = ("gradcheck, slow mode", "gradcheck, fast mode")


class _Candidate(torch.autograd.Function):
    """A hand-written pass as torch sees it: the loss forward, its gradients backward."""

    @staticmethod
    def forward(ctx: Any, network: Network, y: Array, names: tuple[str, ...], *tensors: torch.Tensor) -> torch.Tensor:
        x, *params = (t.detach().numpy() for t in tensors)
        trace = network.run(dict(zip(names, params, strict=True)), x, y).trace
        wanted = ("x", *(name for name in names if name in network.parameter_shapes()))
        ctx.found = {name: torch.from_numpy(np.array(trace[name + GRAD])) for name in wanted}
        ctx.names = ("x", *names)
        return torch.from_numpy(np.array(trace[network.loss_name]))

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        return None, None, None, *(ctx.found[n] * upstream[0] if n in ctx.found else None for n in ctx.names)


def gradcheck(network: Network, probe: Probe, *, fast: bool) -> bool:
    """Whether torch.autograd.gradcheck, with its defaults, calls the candidate's gradients right."""
    names = tuple(probe.params)
    trained = network.parameter_shapes()
    leaves = [torch.from_numpy(np.array(probe.x)).requires_grad_()]
    leaves += [torch.from_numpy(np.array(probe.params[n])).requires_grad_(n in trained) for n in names]
    torch.manual_seed(0)  # the fast mode looks along a random direction
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(
                torch.autograd.gradcheck(
                    lambda *t: _Candidate.apply(network, probe.y, names, *t),
                    leaves,
                    fast_mode=fast,
                    raise_exception=False,
                )
            )
        except (KeyError, RuntimeError):  # the candidate raised, or reported something of another shape
            return False
