"""Hand-written and torch side by side: one call runs both on the same numbers and compares every result.

Three opinions on each gradient: the engine's, torch's, and central differences of the engine's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from manual_bp.nn import Array, Layer, Loss

DTYPES = (np.float64, np.float32)

#: How far two correct results may lie apart, in units of roundoff of the largest number involved.
ROUNDINGS = 64
#: ... and how far a central difference of step cbrt(eps) may lie from the derivative, likewise relative.
DIFFERENCE = 1e-8


def check_layer(
    layer: Layer,
    module: Callable[..., torch.Tensor],
    *inputs: Array,
    params: Mapping[str, Array] | None = None,
    scale: float = 1,
) -> None:
    """Output, input gradients and parameter gradients of ``layer`` are those of ``module``, for these inputs.

    ``scale`` is the size of the numbers that the results are made from: rounding is measured against it, or against the
    largest result if that is larger. It is 1 for the standard normal numbers that most tests use; 0 where a tiny result
    must be right to its own digits.
    """
    params = randomized(layer, inputs[0].dtype) if params is None else params
    load(module, params)
    leaves = [torch.from_numpy(x.copy()).requires_grad_() for x in inputs]
    expected = module(*leaves)
    output, cache = layer.forward(params, *inputs)
    close(output, expected, f"{layer} output", scale)

    upstream = normal(output.shape, output.dtype, seed=7)
    expected.backward(torch.from_numpy(upstream))
    grads = layer.backward(cache, upstream)
    for i, leaf in enumerate(leaves):
        close(grads.inputs[i], leaf.grad, f"{layer} gradient of input {i}", scale)
    trained = dict(module.named_parameters()) if isinstance(module, torch.nn.Module) else {}
    assert grads.params.keys() == trained.keys() == layer.parameter_shapes().keys()
    for name, parameter in trained.items():
        close(grads.params[name], parameter.grad, f"{layer} gradient of {name}", scale)


def check_loss(
    loss: Loss, module: Callable[..., torch.Tensor], prediction: Array, target: Array, *, scale: float = 1
) -> None:
    """The loss and its gradient are those of ``module``; ``scale`` as in `check_layer`."""
    leaf = torch.from_numpy(prediction.copy()).requires_grad_()
    expected = module(leaf, torch.from_numpy(target))
    value, cache = loss.forward(prediction, target)
    close(value, expected, f"{loss}", scale)

    upstream = normal(value.shape, value.dtype, seed=7)
    expected.backward(torch.from_numpy(upstream))
    close(loss.backward(cache, upstream), leaf.grad, f"{loss} gradient", scale)


def check_layer_differences(layer: Layer, *inputs: Array, params: Mapping[str, Array] | None = None) -> None:
    """Every gradient of ``layer`` (float64) is the central difference of Σ upstream · output."""
    params = dict(randomized(layer, np.float64) if params is None else params)
    output, cache = layer.forward(params, *inputs)
    upstream = normal(output.shape, np.float64, seed=7)
    grads = layer.backward(cache, upstream)

    def scalar(new_inputs: list[Array], new_params: dict[str, Array]) -> float:
        return float((upstream * layer.forward(new_params, *new_inputs)[0]).sum())

    for i, x in enumerate(inputs):
        numeric = central_difference(lambda v, i=i: scalar([*inputs[:i], v, *inputs[i + 1 :]], params), x)
        near(grads.inputs[i], numeric, f"{layer} gradient of input {i}")
    for name in layer.parameter_shapes():
        numeric = central_difference(lambda v, name=name: scalar(list(inputs), params | {name: v}), params[name])
        near(grads.params[name], numeric, f"{layer} gradient of {name}")


def check_loss_differences(loss: Loss, prediction: Array, target: Array) -> None:
    """The gradient of ``loss`` (float64) is the central difference of Σ upstream · loss."""
    value, cache = loss.forward(prediction, target)
    upstream = normal(value.shape, np.float64, seed=7)
    numeric = central_difference(lambda p: float((upstream * loss.forward(p, target)[0]).sum()), prediction)
    near(loss.backward(cache, upstream), numeric, f"{loss} gradient")


def central_difference(f: Callable[[Array], float], x: Array) -> Array:
    """[f(x + h e) - f(x - h e)] / 2h for every unit vector e."""
    h = np.cbrt(np.finfo(x.dtype).eps)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        result[index] = (f(x + step) - f(x - step)) / (2 * h)
    return result


def close(actual: Array, expected: torch.Tensor | None, what: str, scale: float = 1) -> None:
    """Same shape, same dtype, non-finite in the same places, and equal but for rounding."""
    assert expected is not None, what
    wanted = expected.detach().numpy()
    assert isinstance(actual, np.ndarray), f"{what}: a {type(actual).__name__}"
    assert (actual.shape, actual.dtype) == (wanted.shape, wanted.dtype), what
    atol = 0.0
    if wanted.dtype.kind == "f":
        info, finite = np.finfo(wanted.dtype), np.abs(wanted[np.isfinite(wanted)])
        atol = ROUNDINGS * float(info.eps) / 2 * max(finite.max(initial=0), scale, info.tiny)
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=atol, err_msg=what)


def near(actual: Array, numeric: Array, what: str) -> None:
    atol = DIFFERENCE * max(1.0, np.abs(numeric).max(initial=0))
    np.testing.assert_allclose(actual, numeric, rtol=0, atol=atol, err_msg=what)


def normal(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64, *, seed: int = 0) -> Array:
    """Standard normal numbers as an array, 0-d included."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def uniform(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64, *, seed: int = 0) -> Array:
    """Uniform numbers in [0.05, 0.95]."""
    return np.asarray(np.random.default_rng(seed).uniform(0.05, 0.95, shape), dtype)


def randomized(layer: Layer, dtype: npt.DTypeLike) -> dict[str, Array]:
    """Parameters away from their special initial values (a weight of 1 hides that it was forgotten)."""
    params = dict(layer.initial(np.random.default_rng(1), dtype))
    for i, (name, shape) in enumerate(layer.parameter_shapes().items()):
        params[name] = normal(shape, dtype, seed=100 + i)
    return params


def load(module: object, params: Mapping[str, Array]) -> None:
    """Strictly: every name, and in the dtype it comes in."""
    if isinstance(module, torch.nn.Module) and not isinstance(module, torch.nn.Dropout):
        if params and next(iter(params.values())).dtype == np.float64:
            module.double()
        module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in params.items()})


def frozen(*arrays: Any) -> list[Any]:
    """Read-only copies: writing into one raises."""
    copies = [np.array(array) for array in arrays]
    for array in copies:
        array.flags.writeable = False
    return copies
