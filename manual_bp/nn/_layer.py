"""What a layer, a loss and an optimiser are in this engine.

A layer is a frozen description of an operation (its hyperparameters), with two pure functions
side by side::

    forward(params, x)       -> (output, cache)
    backward(cache, upstream) -> Gradients(inputs=(dL/dx,), params={"weight": dL/dw, ...})

Nothing is remembered between the calls: whatever the backward pass needs stands in the explicit
``cache`` that the forward pass returned. Nothing is mutated, arguments included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Params = Mapping[str, Array]
Cache = Any


class NNError(ValueError):
    """A layer was given something it refuses; the message says what, where and what it takes."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """What one backward step produces.

    Attributes
    ----------
    inputs
        dL/d(input) for every input of the forward call, in its order; each has its input's shape and dtype.
    params
        dL/d(parameter) by the parameter's name; each has its parameter's shape and dtype.
    """

    inputs: tuple[Array, ...]
    params: dict[str, Array] = field(default_factory=dict)


class _Frozen:
    """What a frozen dataclass hands on to a subclass that is not decorated itself: nothing can be set on it."""

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")


@dataclass(frozen=True)
class Layer(_Frozen):
    """Base of all layers: torch.nn's class names and hyperparameters, no state.

    Subclasses are frozen dataclasses; one without a hyperparameter of its own inherits that, undecorated (to make a
    dataclass takes a good part of a millisecond). ``forward`` takes as many arrays as the operation has inputs (one,
    but for Add and the like).
    """

    #: how many arrays ``forward`` takes
    n_inputs: ClassVar[int] = 1

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the trained parameters by torch's names, in torch's order; empty if there are none."""
        return {}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is stored with the parameters but not trained (running statistics, a given mask)."""
        return {}

    def initial(self, rng: np.random.Generator, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
        """Draw parameters (and default buffers) from torch's default distribution for this layer."""
        return {}

    def forward(self, params: Params, /, *inputs: Array) -> tuple[Array, Cache]:
        """Output of the operation and all that its backward pass needs."""
        raise NotImplementedError

    def backward(self, cache: Cache, upstream: Array, /) -> Gradients:
        """Gradients of every input and parameter, given ``upstream`` = dL/d(output)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Loss(_Frozen):
    """Base of all losses: ``forward(prediction, target)``; ``backward(cache, upstream)`` gives dL/d(prediction).

    ``upstream`` is dL/d(loss): a scalar (default 1) for ``reduction`` 'mean' and 'sum', an array of
    the loss's shape for 'none'.
    """

    reduction: str = "mean"

    def forward(self, prediction: Array, target: Array, /) -> tuple[Array, Cache]:
        """The loss (a 0-d array, or the elementwise losses for reduction 'none') and the cache."""
        raise NotImplementedError

    def backward(self, cache: Cache, upstream: Array | float = 1.0, /) -> Array:
        """dL/d(prediction), of the prediction's shape and dtype."""
        raise NotImplementedError


State = dict[str, dict[str, Array]]


@dataclass(frozen=True)
class Optimizer:
    """Base of all optimisers: pure update steps with torch.optim's names and formulas.

    ``state`` maps a parameter's name to its state by torch's names (``momentum_buffer``; ``step``,
    ``exp_avg``, ``exp_avg_sq``).
    """

    def initial_state(self, params: Params) -> State:
        """The state before the first step."""
        return {name: {} for name in params}

    def step(self, params: Params, grads: Params, state: State) -> tuple[dict[str, Array], State]:
        """New parameters and new state; nothing that was passed in is changed."""
        raise NotImplementedError
