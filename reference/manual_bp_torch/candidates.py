"""Candidates that are torch programs themselves: modules, custom autograd Functions, fused kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manual_bp.inputs import mapped
from manual_bp.trace import Array
from manual_bp_torch.program import Program
from manual_bp_torch.weights import to_numpy, to_torch


def runner(candidate: Any, reference: Program) -> Callable[[Mapping[str, Array], Any, Any], dict[str, Array]] | None:
    """A function that runs a torch candidate and reports its values and gradients; None if it is not one.

    A module is run like the reference, with the same names. A `torch.autograd.Function` (the class or its ``apply``)
    gets x and the trained parameters, in the order of the reference's.
    """
    if isinstance(candidate, nn.Module):
        program = Program(candidate, reference.loss, reference.dtype)
        return lambda params, x, y: _report(program, _once(params, program), x, y)
    function = _function_class(candidate)
    if function is not None:
        apply: Any = function.apply

        def call(params: Any, x: Any) -> Any:
            return apply(x, *params.values())

        program = Program(call, reference.loss, reference.dtype)
        return lambda params, x, y: _report(program, _once(params, reference), x, y)
    return None


def _function_class(candidate: Any) -> type[torch.autograd.Function] | None:
    owner = candidate if isinstance(candidate, type) else getattr(candidate, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
        return owner
    return None


def _once(params: Mapping[str, Array], program: Program) -> dict[str, Array]:
    """The parameters without the further names of tied ones."""
    tied = program.tied()
    return {name: array for name, array in params.items() if name not in tied}


def _report(program: Program, params: Mapping[str, Array], x: Any, y: Any) -> dict[str, Array]:
    tensors = {name: to_torch(a) for name, a in params.items()}
    found, _ = program.run(tensors, mapped(x, _tensor), _tensor(y))
    values = {name: t for name, t in found.values.items() if name not in params}
    everything: dict[str, Tensor] = {**values, **found.grads}
    return {name: to_numpy(t) for name, t in everything.items()}


def _tensor(value: Any) -> Any:
    return to_torch(value) if isinstance(value, np.ndarray) else value
