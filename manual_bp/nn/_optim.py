"""Optimisers: SGD, Adam and AdamW as pure functions of parameters, gradients and state.

Formulas, defaults and names of the state are torch.optim's. Every array keeps the dtype of its parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._check import check_input, check_match, check_numbers, ieee, name_of
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
        check_numbers(self, dampening=self.dampening)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise NNError("SGD: nesterov needs a momentum above 0 and a dampening of 0")

    @ieee
    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        new_params: dict[str, Array] = {}
        new_state: State = {}
        for name, theta, g in aligned(self, params, grads):
            if self.weight_decay:
                g = np.asarray(g + self.weight_decay * theta)
            direction, new_state[name] = g, {}
            if self.momentum:
                buffer = g.copy()
                if state.get(name):
                    old = stored(self, name, state, {"momentum_buffer": theta})
                    buffer = np.asarray(self.momentum * old["momentum_buffer"] + (1 - self.dampening) * g)
                direction = g + self.momentum * buffer if self.nesterov else buffer
                new_state[name] = {"momentum_buffer": buffer}
            new_params[name] = np.asarray(theta - self.lr * direction)
        return new_params, new_state


@dataclass(frozen=True)
class Adam(Optimizer):
    """Gradient descent in units of the gradient's own recent size.

    Parameters
    ----------
    lr
        Learning rate.
    betas
        β₁, β₂: how much of the running averages m of g and v of g² is kept.
    eps
        ε, keeps the denominator from 0.
    weight_decay
        λ, of the penalty ½ λ ‖θ‖², whose gradient is added to g (in AdamW θ itself shrinks instead).
    amsgrad
        Whether the largest v so far stands in the denominator.

    With the gradient g of step t = 1, 2, ...::

        g ← g + λ θ                                   AdamW instead: θ ← θ - lr λ θ
        m ← β₁ m + (1 - β₁) g                         state: exp_avg, 0 at first
        v ← β₂ v + (1 - β₂) g²                        state: exp_avg_sq, 0 at first
        v̂ = v, or with amsgrad the largest v so far   state: max_exp_avg_sq
        θ ← θ - lr / (1 - β₁ᵗ) · m / (√v̂ / √(1 - β₂ᵗ) + ε)

    t is the state's ``step``, which torch keeps as a float32 scalar, and so does this.

    Sources: Kingma and Ba, "Adam", ICLR 2015; Reddi, Kale and Kumar, "On the convergence of Adam and beyond", ICLR 2018
    (amsgrad, in torch's form: the maximum is taken before the correction by 1 - β₂ᵗ).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        not_negative(self, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)
        try:
            beta1, beta2 = self.betas
        except (TypeError, ValueError):
            raise NNError(f"{name_of(self)}: betas={self.betas!r}; it takes two numbers, (beta1, beta2)") from None
        check_numbers(self, **{"betas[0]": beta1, "betas[1]": beta2})
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise NNError(f"{name_of(self)}: betas={self.betas}; both must lie in [0, 1)")

    @ieee
    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        beta1, beta2 = self.betas
        new_params: dict[str, Array] = {}
        new_state: State = {}
        for name, theta, g in aligned(self, params, grads):
            if self.decoupled:
                theta = theta * (1 - self.lr * self.weight_decay)
            elif self.weight_decay:
                g = np.asarray(g + self.weight_decay * theta)

            start = self._start(theta)
            old = stored(self, name, state, start) if state.get(name) else start
            t = float(old["step"]) + 1
            m = np.asarray(beta1 * old["exp_avg"] + (1 - beta1) * g)
            v = np.asarray(beta2 * old["exp_avg_sq"] + (1 - beta2) * (g * g))
            new_state[name] = {"step": np.asarray(t, np.float32), "exp_avg": m, "exp_avg_sq": v}
            if self.amsgrad:
                v = new_state[name]["max_exp_avg_sq"] = np.asarray(np.maximum(old["max_exp_avg_sq"], v))

            size = np.sqrt(v) / math.sqrt(1 - beta2**t) + self.eps
            new_params[name] = np.asarray(theta - self.lr / (1 - beta1**t) * (m / size))
        return new_params, new_state

    def _start(self, theta: Array) -> dict[str, Array]:
        """The state before the first step."""
        averages = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if self.amsgrad else ("exp_avg", "exp_avg_sq")
        return {"step": np.asarray(0, np.float32)} | {name: np.zeros_like(theta) for name in averages}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: θ ← θ - lr λ θ, untouched by the running averages; else as `Adam`.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    weight_decay: float = 1e-2

    decoupled: ClassVar[bool] = True


def aligned(owner: Optimizer, params: Params, grads: Params) -> list[tuple[str, Array, Array]]:
    """(name, parameter, gradient) for every parameter.

    Raises
    ------
    NNError
        A gradient is missing, surplus, or not of its parameter's shape and dtype.
    """
    if missing := params.keys() - grads.keys():
        raise NNError(f"{name_of(owner)}: no gradient for {', '.join(sorted(missing))}")
    if surplus := grads.keys() - params.keys():
        raise NNError(f"{name_of(owner)}: a gradient but no parameter named {', '.join(sorted(surplus))}")
    for name, theta in params.items():
        check_input(owner, theta, name)
        check_match(owner, f"gradient of {name}", grads[name], theta.shape, theta.dtype)
    return [(name, theta, grads[name]) for name, theta in params.items()]


def stored(owner: Optimizer, name: str, state: State, like: Params) -> Params:
    """The state of a parameter, refused unless it has every entry of ``like`` in that shape and dtype."""
    for key, model in like.items():
        if key not in state[name]:
            raise NNError(f"{name_of(owner)}: state of {name} lacks {key}; given: {', '.join(state[name])}")
        check_match(owner, f"{key} of {name}", state[name][key], model.shape, model.dtype)
    return state[name]


def not_negative(owner: Optimizer, **values: float) -> None:
    """Refuse a hyperparameter that is no real number, is below 0, or NaN."""
    check_numbers(owner, **values)
    for name, value in values.items():
        if value != value:
            raise NNError(f"{name_of(owner)}: {name}={value}; it is not a number")
        if not value >= 0:
            raise NNError(f"{name_of(owner)}: {name}={value}; it must not be negative")
