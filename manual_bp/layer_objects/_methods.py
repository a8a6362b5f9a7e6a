"""What a layer's methods are called, and what their arguments are: found by name, never by whether a gradient agrees.

That is the rule for everything in this package: conventions are read off names, shapes and the forward pass. If the
gradient had a say, a wrong one could be excused by some other convention under which it would be right.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from manual_bp.errors import ManualBPError

FORWARD = (
    "forward", "forward_pass", "forward_propagation", "forward_prop", "fprop", "feedforward", "feed_forward",
    "propagate", "forwardpass", "__call__",
    "fn", "function", "func", "activate", "activation", "apply", "f", "compute", "predict",
)  # fmt: skip
BACKWARD = (
    "backward", "backward_pass", "backward_propagation", "backward_prop", "back_propagation", "back_propagate",
    "backpropagation", "backpropagate", "backprop", "bprop", "backwardpass", "vjp",
)  # fmt: skip
#: A function's own derivative f'(x), to be multiplied by the upstream gradient.
DERIVATIVE = ("derivative", "deriv", "gradient", "grad", "prime", "df", "dfn", "f_prime", "d", "backward_activation")

_UPSTREAM = re.compile(
    r"grad|^d[A-Z_]|^d(out|val|y|z|a|l|x$|h)|delta|upstream|err|deriv|loss|top|^g$|^d$", re.IGNORECASE
)
_RATE = re.compile(r"^(lr|learn\w*|\w*_?rate|eta|alpha|step\w*)$", re.IGNORECASE)
_INPUT = re.compile(r"^(x|z|input\w*|in_\w+|layer_input|\w*_prev|prev_\w+|data|bottom)$", re.IGNORECASE)
_OUTPUT = re.compile(r"^(y|out|output\w*|a|activation\w*)$", re.IGNORECASE)
CACHE = re.compile(r"^(cache\w*|ctx|context|memory|saved)$", re.IGNORECASE)
_TRAINING = re.compile(r"^(is_?)?train\w*$", re.IGNORECASE)


@dataclass(frozen=True)
class Argument:
    """One parameter of somebody's method."""

    name: str
    keyword: bool
    required: bool


def method(layer: Any, names: tuple[str, ...]) -> str | None:
    """The first of these methods that the layer has."""
    return next((name for name in names if callable(getattr(layer, name, None))), None)


def arguments(function: Callable[..., Any]) -> list[Argument]:
    """The parameters of a function; one positional one if they cannot be told."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return [Argument("x", False, True)]
    named = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named and any(p.kind is p.VAR_POSITIONAL for p in found):
        return [Argument("x", False, True)]
    return [Argument(p.name, p.kind is p.KEYWORD_ONLY, p.default is p.empty) for p in named]


def call_forward(function: Callable[..., Any], x: Any, *, training: bool) -> Any:
    """Call a forward method with its input or inputs, and with whether it is in training where it asks."""
    given: list[Any] = []
    named: dict[str, Any] = {}
    several = isinstance(x, tuple)
    left = list(reversed(x)) if several else [x]
    for argument in arguments(function):
        if _TRAINING.match(argument.name):
            named[argument.name] = training
        elif left and (argument.required or several or not given):
            if argument.keyword or named:
                named[argument.name] = left.pop()
            else:
                given.append(left.pop())
        elif argument.required:
            raise ManualBPError(
                f"its forward method wants {argument.name!r} as well",
                hint="say how it is called: Adapter(forward=lambda layer, x: layer.forward(x, ...))",
            )
    return function(*given, *reversed(left), **named)


def call_backward(
    function: Callable[..., Any], upstream: Any, *, x: Any, output: Any, cache: Any, rate: float
) -> tuple[Any, bool]:
    """Call a backward method with the upstream gradient and whatever else its parameters' names ask for.

    Returns
    -------
    returned, rated
        What it returned, and whether it asked for a learning rate, and so applied its gradient.
    """
    wanted = [a for a in arguments(function) if a.required]
    rated = [a for a in wanted if _RATE.match(a.name)]
    others = [a for a in wanted if a not in rated]
    meaning: dict[str, Any] = {a.name: rate for a in rated}
    if len(others) == 1:
        meaning[others[0].name] = upstream
    elif others:
        known = {a.name: _meaning(a.name, x, output, cache) for a in others if not _UPSTREAM.search(a.name)}
        meaning |= {name: value[0] for name, value in known.items() if value is not None}
        open_ = [a.name for a in others if a.name not in meaning]
        if open_:
            meaning[open_.pop(0)] = upstream
        if open_:
            raise ManualBPError(
                f"its backward method wants {', '.join(map(repr, open_))} as well",
                hint="say how it is called: Adapter(backward=lambda layer, upstream: layer.backward(upstream, ...))",
            )
    given = [meaning[a.name] for a in wanted if not a.keyword]
    return function(*given, **{a.name: meaning[a.name] for a in wanted if a.keyword}), bool(rated)


def _meaning(name: str, x: Any, output: Any, cache: Any) -> tuple[Any] | None:
    for pattern, value in ((CACHE, cache), (_INPUT, x), (_OUTPUT, output)):
        if pattern.match(name):
            return (value,)
    return None


def reset(layer: Any) -> None:
    """Let a layer forget the gradients, and where it says so the inputs and states, of earlier passes."""
    for name in (
        "flush_gradients", "zero_grad", "zero_grads", "zero_gradients", "zero_gradient", "clear_grad", "clear_grads",
        "cleargrad", "cleargrads", "clear_gradients", "reset_grad", "reset_grads", "reset_gradients", "reset_state",
        "reset_states",
    ):  # fmt: skip
        function = getattr(layer, name, None)
        if callable(function) and not any(a.required for a in arguments(function)):
            function()


def set_mode(layer: Any, training: bool) -> None:
    """Set the attributes that say whether a layer is in training; a method of that name is called."""
    for name in ("training", "is_training", "train_mode", "trainable_mode", "_training", "_is_training", "_train"):
        if isinstance(getattr(layer, name, None), bool):
            with contextlib.suppress(AttributeError):  # a property without a setter; what it reads has its own name
                setattr(layer, name, training)
    if (
        not training
        and callable(function := getattr(layer, "eval", None))
        and not any(a.required for a in arguments(function))
    ):
        function()


class Applying:
    """An optimiser that shows the gradient it was given: ``w - rate * gradient``."""

    def __init__(self, rate: float) -> None:
        self.rate = self.learning_rate = self.lr = rate

    def update(self, w: Any, gradient: Any, *_more: Any) -> Any:
        """The parameter after one step."""
        return w - self.rate * gradient

    __call__ = update


def prepare(layer: Any, shape: tuple[int, ...], optimizer: Applying) -> None:
    """Do what a library's own model does before the first pass: tell the layer its input shape, have it initialised.

    Steps that the layer does not have, or that do not work, are left out; what is still missing is said later.
    """
    steps: Mapping[str, tuple[Any, ...]] = {
        "set_input_shape": (shape[1:],),
        "build": (shape[1:],),
        "initialize": (),
        "init_params": (),
        "init_weights": (),
    }
    for name, given in steps.items():
        function = getattr(layer, name, None)
        if not callable(function):
            continue
        wanted = [a for a in arguments(function) if a.required]
        if any("optim" in a.name for a in wanted):
            given = (optimizer,)
        if len(wanted) == len(given) or (name == "build" and len(wanted) <= 1):
            try:
                function(*given)
            except Exception:  # noqa: BLE001  # not how it wants to be called; the first forward pass may do it
                continue


def attribute(layer: Any, names: tuple[str, ...]) -> Any:
    """The first of these attributes that holds an array or a number."""
    for name in names:
        value = getattr(layer, name, None)
        if isinstance(value, (np.ndarray, np.generic, float)):
            return value
    return None
