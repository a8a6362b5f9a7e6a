"""The same passes in other libraries, for those that are installed: torch, JAX, HIPS autograd, DeZero, numpy-ml.

Each adapter takes a workload and returns a function that runs one forward and backward pass with the same weights and
returns ∂L/∂x as a NumPy array in NCHW. What a library cannot compute raises NotImplementedError.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from manual_bp import nn
from tests.benchmarks._engine_workloads import Workload

Step = Callable[[], Any]


def torch_step(work: Workload) -> Step:
    torch = importlib.import_module("torch")

    def module(description: Any) -> Any:
        hyperparameters = {field.name: getattr(description, field.name) for field in fields(description)}
        return getattr(torch.nn, type(description).__name__)(**hyperparameters)

    model = torch.nn.Sequential()
    for name, layer in work.layers.items():
        model.add_module(name, module(layer))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in work.params.items()})
    if work.x.dtype == np.float64:
        model.double()
    loss, y = module(work.network.loss), torch.from_numpy(work.y)
    x = torch.from_numpy(work.x).requires_grad_()

    def run() -> Any:
        model.zero_grad()
        x.grad = None
        loss(model(x), y).backward()
        return x.grad.numpy()

    return run


def _pure(work: Workload, xp: Any, conv: Callable[..., Any], max_pool: Callable[..., Any]) -> Callable[..., Any]:
    """The loss as a function of (parameters, x), in a NumPy-like namespace."""

    def loss(params: dict[str, Any], x: Any) -> Any:
        for name, layer in work.layers.items():
            if isinstance(layer, nn.Conv2d):
                bias = params[f"{name}.bias"].reshape(1, -1, 1, 1)
                x = conv(x, params[f"{name}.weight"], layer.window.before[0]) + bias
            elif isinstance(layer, nn.Linear):
                x = xp.dot(x, params[f"{name}.weight"].T) + params[f"{name}.bias"]
            elif isinstance(layer, nn.MaxPool2d):
                x = max_pool(x)
            elif isinstance(layer, nn.ReLU):
                x = xp.maximum(x, 0)
            elif isinstance(layer, nn.Sigmoid):
                x = 1 / (1 + xp.exp(-x))
            elif isinstance(layer, nn.Flatten):
                x = x.reshape(len(x), -1)
            else:
                raise NotImplementedError(type(layer).__name__)
        match work.network.loss:
            case nn.BCELoss():
                return -xp.mean(work.y * xp.log(x) + (1 - work.y) * xp.log(1 - x))
            case nn.MSELoss():
                return xp.mean((x - work.y) ** 2)
            case nn.CrossEntropyLoss():
                top = xp.max(x, axis=1, keepdims=True)
                logs = x - top - xp.log(xp.sum(xp.exp(x - top), axis=1, keepdims=True))
                return -xp.mean(logs[np.arange(len(x)), work.y])
        raise NotImplementedError(type(work.network.loss).__name__)

    return loss


def jax_step(work: Workload) -> Step:
    jax = importlib.import_module("jax")

    def conv(x: Any, w: Any, p: int) -> Any:
        return jax.lax.conv_general_dilated(x, w, (1, 1), [(p, p), (p, p)])

    def max_pool(x: Any) -> Any:
        return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    both = jax.jit(jax.value_and_grad(_pure(work, jax.numpy, conv, max_pool), argnums=(0, 1)))
    params, x = jax.tree_util.tree_map(jax.numpy.asarray, (work.params, work.x))

    def run() -> Any:
        _, (_, dx) = jax.block_until_ready(both(params, x))
        return np.asarray(dx)

    return run


def autograd_step(work: Workload) -> Step:
    autograd = importlib.import_module("autograd")
    xp = importlib.import_module("autograd.numpy")
    convolve = importlib.import_module("autograd.scipy.signal").convolve

    def conv(x: Any, w: Any, p: int) -> Any:
        x = xp.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), mode="constant") if p else x
        return convolve(x, w[:, :, ::-1, ::-1], axes=([2, 3], [2, 3]), dot_axes=([1], [1]), mode="valid")

    def max_pool(x: Any) -> Any:
        n, c, h, w = x.shape
        return xp.max(xp.max(x.reshape(n, c, h // 2, 2, w // 2, 2), axis=5), axis=3)

    gradient = autograd.grad(_pure(work, xp, conv, max_pool), argnum=(0, 1))
    return lambda: gradient(work.params, work.x)[1]


def dezero_step(work: Workload) -> Step:
    if not hasattr(np, "int"):
        setattr(np, "int", int)  # noqa: B010  # the library was written for an older NumPy, which had this name
    dezero = importlib.import_module("dezero")
    functions = importlib.import_module("dezero.functions")
    params = {name: dezero.Parameter(value) for name, value in work.params.items()}

    def run() -> Any:
        source = dezero.Variable(work.x)
        x = source
        for parameter in params.values():
            parameter.cleargrad()
        for name, layer in work.layers.items():
            weight, bias = params.get(f"{name}.weight"), params.get(f"{name}.bias")
            if isinstance(layer, nn.Conv2d):
                x = functions.conv2d(x, weight, bias, 1, layer.window.before[0])
            elif isinstance(layer, nn.Linear):
                x = functions.linear(x, functions.transpose(weight), bias)
            elif isinstance(layer, nn.MaxPool2d):
                x = functions.pooling(x, 2, 2)
            elif isinstance(layer, nn.Flatten):
                x = functions.reshape(x, (len(x.data), -1))
            else:
                x = {nn.ReLU: functions.relu, nn.Sigmoid: functions.sigmoid}[type(layer)](x)
        match work.network.loss:
            case nn.BCELoss():
                one = np.ones_like(work.y)
                logs = functions.log(x) * work.y + functions.log(one - x) * (one - work.y)
                loss = -functions.sum(logs) / np.float32(work.y.size)
            case nn.MSELoss():
                difference = x - work.y
                loss = functions.sum(difference * difference) / np.float32(work.y.size)
            case _:
                loss = functions.softmax_cross_entropy(x, work.y)
        loss.backward(retain_grad=True)
        return source.grad.data

    return run


def numpy_ml_step(work: Workload) -> Step:
    for name in ("Hashable", "Callable"):
        if not hasattr(collections, name):  # the library was written for an older Python
            setattr(collections, name, getattr(collections.abc, name))
    layers = importlib.import_module("numpy_ml.neural_nets.layers")
    stages: list[Any] = []
    value = work.x.transpose(0, 2, 3, 1)  # NHWC
    for name, layer in work.layers.items():
        weight, bias = work.params.get(f"{name}.weight"), work.params.get(f"{name}.bias")
        if isinstance(layer, nn.Conv2d):
            stage = layers.Conv2D(layer.out_channels, layer.window.kernel, pad=layer.window.before[0])
            own = {"W": weight.transpose(2, 3, 1, 0), "b": bias.reshape(1, 1, 1, -1)}
        elif isinstance(layer, nn.Linear):
            stage, own = layers.FullyConnected(layer.out_features), {"W": weight.T, "b": bias[None]}
        elif isinstance(layer, nn.MaxPool2d):
            stage, own = layers.Pool2D((2, 2), 2), {}
        elif isinstance(layer, nn.Flatten):
            stage, own = _ChannelsFirst(), {}
        else:
            stage, own = _Elementwise(layer), {}
        value = stage.forward(value)
        if own:
            stage.parameters.update({key: np.ascontiguousarray(array) for key, array in own.items()})
            stage.flush_gradients()
        stages.append(stage)
    y = work.y.transpose(0, 2, 3, 1) if work.y.ndim == 4 else work.y

    def run() -> Any:
        value = work.x.transpose(0, 2, 3, 1)
        for stage in stages:
            value = stage.forward(value)
        _, cache = work.network.loss.forward(value.astype(work.x.dtype), y)  # it computes in float64
        gradient = work.network.loss.backward(cache)
        for stage in reversed(stages):
            gradient = stage.backward(gradient)
            if isinstance(gradient, list):  # one for each time it ran forward
                (gradient,) = gradient
            if hasattr(stage, "flush_gradients"):
                stage.flush_gradients()
        return gradient.transpose(0, 3, 1, 2)

    return run


class _ChannelsFirst:
    """Flatten in the order of NCHW, so that the weights behind it mean the same."""

    def forward(self, x: Any) -> Any:
        self._shape = x.transpose(0, 3, 1, 2).shape
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1)

    def backward(self, gradient: Any) -> Any:
        return gradient.reshape(self._shape).transpose(0, 2, 3, 1)


class _Elementwise:
    """An activation, which this library has only inside of its other layers."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def forward(self, x: Any) -> Any:
        y, self._cache = self._layer.forward({}, np.asarray(x, np.float64))
        return y

    def backward(self, gradient: Any) -> Any:
        return self._layer.backward(self._cache, np.asarray(gradient, np.float64)).inputs[0]


PEERS: dict[str, tuple[str, Callable[[Workload], Step]]] = {
    "JAX jit": ("jax", jax_step),
    "autograd": ("autograd", autograd_step),
    "DeZero": ("dezero", dezero_step),
    "numpy-ml": ("numpy_ml", numpy_ml_step),
}


def installed(names: tuple[str, ...] = tuple(PEERS)) -> Iterator[tuple[str, Callable[[Workload], Step]]]:
    """The peers that can be imported here."""
    for name in names:
        module, adapter = PEERS[name]
        if importlib.util.find_spec(module) is not None:
            yield name, adapter
