"""What a layer object does not show by itself: an `Adapter` says where it keeps what is to be compared.

From-scratch libraries differ in what the methods are called, where parameters live (``layer.W``,
``layer.params["W"]``), where gradients go (``layer.dW``, ``layer.grads["W"]``, returned with dx, applied at once), and
how arrays are laid out. Most of it is found by looking (`manual_bp.layer_objects`); an adapter fills in the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: The rate with which a layer that applies its gradient at once is told to do so: a power of two, so large that the
#: parameter's own rounding vanishes in the difference.
UPDATE_RATE = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Where a layer keeps what is to be compared; whatever is left out is found by looking.

    A *path* is ``"W"``, ``"params.W"`` (a dot goes into attributes and mappings alike), ``"layers[0].W"``, or
    ``"W[:-1]"`` for a part of an array.

    Attributes
    ----------
    forward, backward
        Method names, or functions: ``forward(layer, x) -> output`` and ``backward(layer, upstream) -> dx``. A
        ``backward`` may also return ``(dx, dweight, dbias)``, gradients in torch's order of parameters, or a mapping.
    params
        torch's parameter name -> the path at which the layer keeps it. Several paths mean that their arrays follow one
        another along torch's first axis (the gates of an LSTM); None, that the layer has no such parameter: it is zero
        in the reference then, and not compared.
    grads
        torch's parameter name -> the path, or paths, of its gradient after ``backward``; or a function of the layer; or
        None if it computes none. So ``{"x": None}`` for a layer whose ``backward`` returns nothing. What a function
        hands over is laid out as the layer's parameter is; if it has torch's shape and not that one, as torch's.
    layouts
        By torch's parameter name, ``x`` or ``output``: how the layer lays it out, such as "IO" or "NHWC".
    applied
        The layer applies its gradient at once, ``w -= rate * dw``, and takes the rate as the second argument of
        ``backward``; the gradient is read off the difference. Found by itself where that argument is called a rate.
    averaged
        The layer divides the gradients of its parameters by the number of examples, ``dW = dZ @ x.T / m``, and the loss
        leaves that to it, ``dA = A - Y``. So are the courses that keep samples in columns. Upstream gradients and dx
        are then m times dLoss.
    """

    forward: str | Callable[..., Any] = ""
    backward: str | Callable[..., Any] = ""
    params: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)
    grads: Mapping[str, str | Sequence[str] | Callable[[Any], Any] | None] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    applied: bool = False
    averaged: bool = False
