"""Recording every intermediate value and gradient of a torch program, and substituting what a candidate claims.

A *tap* is a named tensor of the program. In a recording pass it is looked at. In a replay, the tap records what torch
computed from what came before, and hands on the candidate's value instead; on the way back it records the gradient
that torch computed from what came after, and hands on the candidate's gradient. So each recorded number is what one
step makes of the candidate's own operands, on any graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manual_bp.errors import ManualBPError
from manual_bp.trace import GRAD, Array
from manual_bp_torch.vjp import vjp


class _Claim(torch.autograd.Function):
    """Identity for the gradient; forward, the claimed value takes the place of the computed one."""

    @staticmethod
    def forward(ctx: Any, computed: Tensor, claimed: Tensor) -> Tensor:
        return claimed.view_as(claimed)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


@dataclass
class Taps:
    """The taps of one pass: ``values`` and ``grads`` are what torch computed, ``claims`` what is handed on instead."""

    claims: Mapping[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)

    def tap(self, name: str, tensor: Tensor) -> Tensor:
        """Record ``tensor`` under ``name``; returns the tensor that the program must go on with."""
        self.values[name] = tensor.detach()
        claim = self.claims.get(name)
        # a new tensor either way: two taps on one tensor must not see each other's gradient
        out: Tensor = tensor.view_as(tensor)
        if claim is not None:
            out = _Claim.apply(tensor, claim)  # type: ignore[no-untyped-call]  # torch does not annotate it
        if out.requires_grad:
            out.register_hook(self._on_gradient(name))
        return out

    def _on_gradient(self, name: str) -> Callable[[Tensor], Tensor | None]:
        def hook(grad: Tensor) -> Tensor | None:
            self.grads[name] = grad.detach().contiguous()
            return self.claims.get(name + GRAD)

        return hook


@dataclass
class Recorder(Taps):
    """Taps that also remember the tensors, so that the graph between them can be walked.

    ``taken`` are names that no tap may have, ``inputs`` those of what the program is given, which are tapped first.
    Once ``returning``, what is tapped is computed again by a checkpoint.
    """

    taken: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()
    returning: bool = False
    raw: dict[str, Tensor] = field(default_factory=dict)
    handed: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """``name``, or ``name#2`` the second time (a module that is called twice)."""
        if name not in self.values:
            return name
        count = 2
        while f"{name}#{count}" in self.values:
            count += 1
        return f"{name}#{count}"

    def tap(self, name: str, tensor: Tensor) -> Tensor:
        self._check(name, tensor)
        if self.returning:
            return self._again(name, tensor)
        if name in self.inputs and name in self.handed:
            if self.handed[name] is tensor:
                return tensor
            raise ManualBPError(f"a tap is named {name!r}, as an input is", hint="rename the tap")
        name = self.unique(name)
        self.raw[name] = tensor
        out = super().tap(name, tensor)
        self.handed[name] = out
        return out

    def _check(self, name: object, tensor: object) -> None:
        if not isinstance(name, str):
            raise ManualBPError(f"a tap is named {name!r}", hint='names are strings: tap("h", h)')
        if name in self.taken or name.endswith(GRAD):
            what = "as a parameter is" if name in self.taken else "like a gradient"
            raise ManualBPError(f"a tap is named {name!r}, {what}", hint="rename the tap")
        if not isinstance(tensor, Tensor):
            raise ManualBPError(f"tap {name!r} is given a {type(tensor).__name__}", hint="give it a tensor")
        if tensor.is_complex():
            hint = "tap its parts, z.real and z.imag, and go on with torch.complex of them"
            raise ManualBPError(f"tap {name!r} is given a complex tensor", hint=hint)

    def _again(self, name: str, tensor: Tensor) -> Tensor:
        """Only to compute what follows: the first time has been recorded, and has the gradient."""
        names = [known for known in self.values if known.partition("#")[0] == name]
        known = next((known for known in names if torch.equal(self.values[known], tensor)), name)
        claim = self.claims.get(known)
        if claim is None:
            return tensor.view_as(tensor)
        out: Tensor = _Claim.apply(tensor, claim)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return out

    def forget(self) -> None:
        """Let go of the graph: its hooks hold these taps, and no garbage collector sees a circle through torch."""
        self.raw.clear()
        self.handed.clear()

    def name_of(self, tensor: object) -> str | None:
        return next((name for name, known in self.handed.items() if known is tensor), None)


@dataclass(frozen=True)
class Pass:
    """What torch computed in one forward and backward pass, by quantity name (``.grad`` included)."""

    values: dict[str, Tensor]
    grads: dict[str, Tensor]
    #: Names of the gradients that are exactly zero, since the loss does not depend on what they are gradients of.
    zeros: frozenset[str] = frozenset()

    def arrays(self) -> dict[str, Array]:
        """All of it for NumPy, in the tensors' own memory; not to be written into."""
        every = {**self.values, **self.grads}
        return {name: t.detach().resolve_conj().resolve_neg().numpy() for name, t in every.items()}


@contextmanager
def tapped_children(module: nn.Module, taps: Taps, names: tuple[str, ...]) -> Iterator[None]:
    """While the block runs, the outputs of these submodules go through taps of the same names."""
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: taps.tap(name, out))
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_pass(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    params: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    names: tuple[str, ...],
    loss_name: str = "loss",
    claims: Mapping[str, Tensor] | None = None,
) -> Pass:
    """One forward and backward pass with the given parameters.

    Parameters
    ----------
    names
        The submodules to tap. ``x`` and the loss are tapped as well.
    claims
        By quantity name, what takes the place of what torch computes; parameters may be claimed too.
    """
    taps = Taps(claims or {})
    leaves = {name: taps.claims.get(name, p).detach().clone().requires_grad_() for name, p in params.items()}
    state = {**leaves, **{name: b.clone() for name, b in buffers.items()}}
    x_leaf = x.detach()
    if x_leaf.is_floating_point():
        x_leaf.requires_grad_()
    with torch.enable_grad(), tapped_children(module, taps, names):
        out = functional_call(module, state, (taps.tap("x", x_leaf),))
        total = taps.tap(loss_name, loss(out, y))
        wanted = [leaf for leaf in (*leaves.values(), x_leaf) if leaf.requires_grad]
        found: Sequence[Tensor | None] = vjp(total, wanted, torch.ones_like(total), allow_unused=True)
    grads = {name + GRAD: grad for name, grad in taps.grads.items()}
    grads |= {name + GRAD: g for name, g in zip(leaves, found, strict=False) if g is not None}
    values = {**{name: p.detach() for name, p in leaves.items()}, **taps.values}
    return Pass(values, grads)
