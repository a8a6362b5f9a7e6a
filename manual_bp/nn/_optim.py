"""Optimisers: SGD, Adam and AdamW as pure functions of parameters, gradients and state.

Formulas, defaults and names of the state are torch.optim's. Every array keeps the dtype of its parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._check import check_input, check_match, ieee
from ._layer import Array, NNError, Optimizer, Params, State


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, θ ← θ - lr d, optionally with momentum.

    Parameters
    ----------
    lr
        Learning rate.
    momentum
        μ, how much of the last direction is kept.
    dampening
        τ, how much of the new gradient is left out of the buffer (from the second step on).
    weight_decay
        λ, of the penalty ½ λ ‖θ‖².
    nesterov
        Whether the direction looks one momentum step ahead.

    With the gradient g of a step::

        g ← g + λ θ
        b ← g in the first step, μ b + (1 - τ) g later       state: momentum_buffer, only if μ ≠ 0
        d = g without momentum, b with it, g + μ b with Nesterov's

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in
    the form of torch.optim.SGD, where lr stands outside of the buffer.
    """

    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        not_negative(self, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise NNError("SGD: nesterov needs a momentum above 0 and a dampening of 0")

    @ieee
    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        new_params: dict[str, Array] = {}
        new_state: State = {}
        for name, theta, g in aligned(self, params, grads):
            if self.weight_decay:
                g = g + self.weight_decay * theta
            direction, new_state[name] = g, {}
            if self.momentum:
                last = state.get(name, {}).get("momentum_buffer")
                buffer = g if last is None else self.momentum * last + (1 - self.dampening) * g
                direction = g + self.momentum * buffer if self.nesterov else buffer
                new_state[name] = {"momentum_buffer": buffer}
            new_params[name] = theta - self.lr * direction
        return new_params, new_state


def aligned(owner: Optimizer, params: Params, grads: Params) -> list[tuple[str, Array, Array]]:
    """(name, parameter, gradient) for every parameter.

    Raises
    ------
    NNError
        A gradient is missing, surplus, or not of its parameter's shape and dtype.
    """
    if missing := params.keys() - grads.keys():
        raise NNError(f"{type(owner).__name__}: no gradient for {', '.join(sorted(missing))}")
    if surplus := grads.keys() - params.keys():
        raise NNError(f"{type(owner).__name__}: a gradient but no parameter named {', '.join(sorted(surplus))}")
    for name, theta in params.items():
        check_input(owner, theta, name)
        check_match(owner, f"gradient of {name}", grads[name], theta.shape, theta.dtype)
    return [(name, theta, grads[name]) for name, theta in params.items()]


def not_negative(owner: Optimizer, **values: float) -> None:
    """Refuse a hyperparameter below 0, or NaN."""
    for name, value in values.items():
        if not value >= 0:
            raise NNError(f"{type(owner).__name__}: {name}={value}; it must not be negative")
