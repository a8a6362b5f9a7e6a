"""Any torch program as a reference: its taps, and which step reads which.

A *program* is a module (the outputs of its submodules are tapped) or a function that calls ``tap``. One recording pass
finds the graph between the taps by walking autograd's own graph, so branches, residuals, modules called twice and
functional operations in between are all seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.stateless import _reparametrize_module

from manual_bp.errors import ManualBPError
from manual_bp.inputs import named, rebuilt
from manual_bp.tapping import tapping
from manual_bp.trace import GRAD
from manual_bp_torch.bounds import rule_for
from manual_bp_torch.calls import arguments, call_by_name
from manual_bp_torch.certify import Plan, PlanStep
from manual_bp_torch.failures import own_fault
from manual_bp_torch.refusals import backward_fault, loss_fault, prepared, takes_one, usable_loss
from manual_bp_torch.tapping import Pass, Recorder
from manual_bp_torch.vjp import vjp

OUTPUT = "output"
LOSS = "loss"


@dataclass(frozen=True)
class Segment:
    """What lies between taps: the taps it reads (once an edge), the parameters it uses, its operations."""

    name: str
    reads: tuple[str, ...]
    params: tuple[str, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True)
class Structure:
    """The graph of a program, found by one recording pass.

    Attributes
    ----------
    segments
        By tap, in execution order, the loss last.
    calls
        Taps that are the output of one leaf module whose inputs are taps too: the module's name and those inputs.
    inputs
        What the program is given.
    output
        The tap that the loss reads, if it reads exactly one.
    aliases
        Modules made of others whose output is one of theirs: name -> the tap's.
    """

    segments: dict[str, Segment]
    calls: dict[str, tuple[str, tuple[str, ...]]]
    inputs: tuple[str, ...]
    output: str | None
    aliases: dict[str, str] = field(default_factory=dict)


class Program:
    """A reference in torch, run with given parameters.

    Parameters
    ----------
    reference
        A module, or a function of (params, x, y, tap), any subset by name, that returns the output or the loss.
    loss
        A function of (output, y), a loss module, or None: then the output is the loss if it is a scalar, and
        otherwise the loss is the sum of output times ``y``, so that ``y`` is the upstream gradient.
    """

    def __init__(self, reference: Any, loss: Any, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.module: nn.Module | None = None
        self.notes: list[str] = []
        if isinstance(reference, nn.Module):
            self.module = prepared(reference, dtype, self.notes)
            self.function: Callable[..., Any] = self.module
        elif callable(reference) and not isinstance(reference, type):
            self.function = reference
        else:
            what = f"the class {reference.__name__}" if isinstance(reference, type) else f"a {type(reference).__name__}"
            hint = "call it, so that there is a module" if isinstance(reference, type) else "give a torch.nn.Module"
            raise ManualBPError(f"the reference is {what}", hint=f"{hint} or a function of tensors")
        self._scalar = False  # whether the reference returns its loss itself; known once it has run
        self.loss = usable_loss(loss, dtype)
        own = dict(self.module.named_parameters()) if self.module is not None else {}
        # asked once: a module that stands twice is left with tensors that it was lent as its parameters
        self._frozen = frozenset(name for name, p in own.items() if not p.requires_grad)
        self._trained = frozenset(name for name, p in own.items() if p.is_floating_point() and p.requires_grad)
        first = {id(p): name for name, p in own.items()}
        every = self.module.named_parameters(remove_duplicate=False) if self.module is not None else ()
        self._tied = {name: first[id(p)] for name, p in every if first[id(p)] != name}

    def wide(self) -> Program:
        """The same program in float64."""
        return Program(self.module if self.module is not None else self.function, self.loss, torch.float64)

    # ------------------------------------------------------------------ running

    def run(
        self,
        params: Mapping[str, Tensor],
        x: Any,
        y: Any,
        *,
        claims: Mapping[str, Tensor] | None = None,
    ) -> tuple[Pass, Structure]:
        """One forward and backward pass; ``params`` holds buffers as well, told apart by their names in the module."""
        if both := named(x).keys() & params.keys():
            name = min(both)
            raise ManualBPError(f"{name!r} is the name of an input and of a parameter", hint="rename the input")
        taps = Recorder(claims or {}, taken=frozenset(params), inputs=frozenset(named(x)))
        trained = self.trained(params)
        leaves = {
            name: taps.claims.get(name, p).detach().clone().requires_grad_()
            for name, p in params.items()
            if name in trained
        }
        state = {**{name: p.clone() for name, p in params.items() if name not in trained}, **leaves}
        inputs = {name: _leaf(part) for name, part in named(x).items()}
        with torch.enable_grad(), tapping(taps.tap), self._holding(state, taps):
            tapped = {n: taps.tap(n, part) if isinstance(part, Tensor) else part for n, part in inputs.items()}
            with own_fault(x, self.function):
                out = self._call(state, rebuilt(x, tapped), y, taps)
            total = self._loss(out, y, taps)
            # a new dictionary: the one that the module holds is written to when it lets go
            state = {**state, **self._left_behind(state.keys() - leaves.keys(), state)}
            wanted = [leaf for leaf in (*leaves.values(), *inputs.values()) if _differentiable(leaf)]
            structure = self._structure(taps, leaves, tuple(inputs))
            taps.returning = True
            found = _gradients(total, wanted)
        grads = {name + GRAD: grad for name, grad in taps.grads.items() if name != LOSS}
        grads |= {name + GRAD: g for name, g in zip(leaves, found, strict=False) if g is not None}
        values = {**{name: p.detach() for name, p in state.items()}, **taps.values}
        # what no gradient arrives at, the loss does not depend on
        floating = [*leaves, *(name for name, value in taps.values.items() if _floating(value) and name != LOSS)]
        zeros = {n + GRAD: torch.zeros_like(values[n]) for n in floating if n + GRAD not in grads}
        taps.forget()
        return Pass(values, {**grads, **zeros}, frozenset(zeros)), structure

    @property
    def upstream_given(self) -> bool:
        """Whether there is no loss, and ``y`` is the gradient that the output receives."""
        return self.loss is None and not self._scalar

    def frozen(self) -> frozenset[str]:
        """Names of the module's frozen parameters: they get no gradient."""
        return self._frozen

    def tied(self) -> dict[str, str]:
        """Further names of tied parameters: name -> the first one's."""
        return self._tied

    def trained(self, params: Mapping[str, Tensor]) -> frozenset[str]:
        """Names of what gets a gradient: a module's parameters unless frozen, every floating one of a function's."""
        if self.module is not None:
            return self._trained
        return frozenset(name for name, p in params.items() if p.is_floating_point())

    @contextmanager
    def _holding(self, state: dict[str, Tensor], taps: Recorder) -> Iterator[None]:
        """While the block runs, the module has these parameters and buffers, and its submodules' outputs are tapped.

        The backward pass belongs in there: a checkpoint runs parts of the module again on the way back.
        """
        if self.module is None:
            yield
            return
        alone = not any(True for _ in self.module.children())
        handles = [
            child.register_forward_hook(self._hook(name, OUTPUT if alone else shown_as(name, taps.inputs), taps))
            for name, child in self.module.named_modules()
            if name or alone
        ]
        try:
            # what functional_call does, but for longer than the call
            with _reparametrize_module(self.module, state, tie_weights=True):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _call(self, state: dict[str, Tensor], x: Any, y: Any, taps: Recorder) -> Any:
        if self.module is None:
            return call_by_name(self.function, {"params": state, "x": x, "y": y, "tap": taps.tap})
        positional, by_name = arguments(x)
        return self.module(*positional, **by_name)

    def _left_behind(self, names: Collection[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The buffers as the forward pass leaves them, also those that were replaced rather than written to."""
        own = dict(self.module.named_buffers()) if self.module is not None else {}
        return {name: own.get(name, state[name]).detach().clone() for name in names}

    @staticmethod
    def _hook(module: str, name: str, taps: Recorder) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def hook(child: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            leaf = not any(True for _ in child.children())
            if isinstance(output, (tuple, list)):
                parts = [
                    taps.tap(name if i == 0 else f"{name}[{i}]", part) if _floating(part) else part
                    for i, part in enumerate(output)
                ]
                return type(output)(parts) if not hasattr(output, "_fields") else type(output)(*parts)
            if not _floating(output):
                return output
            if not leaf and (known := taps.name_of(output)) is not None:
                taps.aliases[name] = known
                return output
            reads = [taps.name_of(i) for i in inputs]
            tapped = taps.unique(name)
            if leaf and all(reads) and rule_for(child) is not None:
                taps.calls[tapped] = (module, tuple(r for r in reads if r is not None))
            return taps.tap(name, output)

        return hook

    def _loss(self, out: Any, y: Any, taps: Recorder) -> Tensor:
        whole, out = out, _main(out)
        if not isinstance(out, Tensor):
            raise ManualBPError(
                f"the reference returned a {type(out).__name__}", hint="return the output tensor, or the loss"
            )
        if self.loss is not None:
            if taps.name_of(out) is None:
                plain, out = out, taps.tap(OUTPUT, out)
                whole = _with(whole, plain, out)
            handed = out if takes_one(self.loss) else whole
            with loss_fault(self.loss, handed, y):
                total = self.loss(handed, y)
        elif out.dim() == 0:
            self._scalar = True
            return out if taps.name_of(out) == LOSS else taps.tap(LOSS, out)
        else:
            if taps.name_of(out) is None:
                out = taps.tap(OUTPUT, out)
            if not isinstance(y, Tensor) or y.shape != out.shape:
                raise ManualBPError(
                    f"the reference's output has shape {tuple(out.shape)} and there is no loss",
                    hint="give loss=..., or an upstream gradient of that shape as y",
                )
            total = (out * y).sum()
        if not isinstance(total, Tensor) or total.dim() != 0:
            what = tuple(total.shape) if isinstance(total, Tensor) else type(total).__name__
            raise ManualBPError(
                f"the loss is not a scalar but {what}",
                hint="reduce it by mean or sum",
            )
        return taps.tap(LOSS, total)

    def output_shape(self, params: Mapping[str, Tensor], x: Any, y: Any) -> tuple[int, ...]:
        """Shape of what the reference returns (its first tensor), found by running it once."""
        with torch.no_grad(), tapping(lambda _name, tensor: tensor), own_fault(x, self.function):
            state = {name: p.clone() for name, p in params.items()}
            if self.module is not None:
                out = functional_call(self.module, state, *arguments(x))
            else:
                out = call_by_name(self.function, {"params": state, "x": x, "y": y, "tap": lambda _n, t: t})
        first = _main(out)
        return tuple(first.shape) if isinstance(first, Tensor) else ()

    # ------------------------------------------------------------------ structure

    @staticmethod
    def _structure(taps: Recorder, leaves: Mapping[str, Tensor], inputs: tuple[str, ...]) -> Structure:
        ends = {out.grad_fn: name for name, out in taps.handed.items() if out.grad_fn is not None}
        parameter = {id(leaf): name for name, leaf in leaves.items()}
        segments = {name: _walk(name, raw, ends, parameter) for name, raw in taps.raw.items() if name not in inputs}
        reads = segments[LOSS].reads if LOSS in segments else ()
        output = reads[0] if len(set(reads)) == 1 else None
        return Structure(segments, dict(taps.calls), inputs, output, dict(taps.aliases))

    def plan(self, structure: Structure, wide: nn.Module | None, wide_loss: Any) -> Plan:
        """The steps whose bounds can be certified: one known module between taps."""
        steps = []
        tied = self.tied()
        if wide is not None:
            for name, (module, inputs) in structure.calls.items():
                segment = structure.segments[name]
                own = wide.get_submodule(module)
                if sorted(segment.reads) != sorted(inputs):
                    continue
                params = {local: f"{module}.{local}".removeprefix(".") for local, _ in _state(own)}
                params = {local: tied.get(name, name) for local, name in params.items()}
                steps.append(PlanStep(name, own, inputs, params))
        loss = wide_loss if isinstance(wide_loss, nn.Module) else nn.Module()
        edges = [(read, s.name) for s in structure.segments.values() for read in s.reads]
        readers = {name: tuple(by for read, by in edges if read == name) for name, _ in edges}
        used = [p for s in structure.segments.values() for p in s.params]
        shared = frozenset(p for p in used if used.count(p) > 1)
        return Plan(tuple(steps), LOSS, loss, structure.output or "", readers, shared)


def shown_as(module: str, inputs: Collection[str]) -> str:
    """The name of what a submodule returns: its own, unless an input has it."""
    return f"{module}.{OUTPUT}" if module in inputs else module


def _walk(name: str, raw: Tensor, ends: Mapping[Any, str], parameter: Mapping[int, str]) -> Segment:
    """From a tap's own result back to the taps and parameters that it was made of."""
    reads: list[str] = []
    params: list[str] = []
    ops: list[str] = []
    seen: set[Any] = set()
    start = raw.grad_fn
    if start in ends:
        return Segment(name, (ends[start],), (), ())
    todo = [start] if start is not None else []
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            if id(leaf) in parameter:
                params.append(parameter[id(leaf)])
            continue
        ops.append(type(node).__name__.removesuffix("0").removesuffix("Backward"))
        for following, _ in node.next_functions:
            if following is None:
                continue
            if following in ends:
                reads.append(ends[following])
            else:
                todo.append(following)
    return Segment(name, tuple(reads), tuple(sorted(set(params))), tuple(reversed(ops)))


def _leaf(value: Any) -> Any:
    """A copy of an input that gathers a gradient, where it can have one."""
    if not isinstance(value, Tensor):
        return value
    leaf = value.detach().clone()
    return leaf.requires_grad_() if leaf.is_floating_point() else leaf


def _main(out: Any) -> Any:
    """Of several outputs the first floating one."""
    if isinstance(out, Mapping):
        out = tuple(out.values())
    return next((part for part in out if _floating(part)), None) if isinstance(out, (tuple, list)) else out


def _with(out: Any, old: Tensor, new: Tensor) -> Any:
    """What a reference returned, one of its tensors exchanged."""
    if isinstance(out, Mapping):
        return {name: new if part is old else part for name, part in out.items()}
    if isinstance(out, (tuple, list)):
        parts = [new if part is old else part for part in out]
        return type(out)(*parts) if hasattr(out, "_fields") else type(out)(parts)
    return new


def _gradients(total: Tensor, wanted: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Of the parameters and inputs, None where the loss does not depend on them."""
    if not wanted:
        return ()
    if not total.requires_grad:
        raise ManualBPError(
            "the result of the reference has no gradient: it is constant, detached or computed under torch.no_grad()",
            hint="compute it from x or the parameters by operations that torch can differentiate",
        )
    with backward_fault():
        return vjp(total, wanted, torch.ones_like(total), allow_unused=True)


def _differentiable(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
