"""`kernel-gradient`: the example of seed 001, whose kernel gradient is printed with all its digits.

::

    x (m,1,5,5) → x1 = conv 2x2 → p1 = max pooling 2x2 → flat → out = dense 4→1 → E = ½ Σ (t − out)²

The seed prints a 5x5 input o⁽⁰⁾, the corner w[0,0] = −0.13 of the 2x2 kernel, the corner x[0,0] = 0.25 of its output,
the delta that comes back from the pooling layer, and the gradient of the kernel; it ends with one step of gradient
descent. What it does not print was chosen so that the network produces the printed delta by itself:

- the other three weights, so that x[0,0] is 0.2491, which rounds to 0.25, and so that the windows' winners are the four
  places where the delta is not 0;
- the dense weights, ten times those four deltas, and the target, 0.1 below the output: (out − t) w is the delta;
- the learning rate 0.1.

Remarks on the seed. Its bias has the indices of an output, b[i,j]; a convolution has one for each filter. Its
output size must read (H−k₁+1) x (K−k₂+1), both for the image H x K. Its program convolves with the delta rotated,
which undoes the rotation of the convolution: a cross-correlation of input and delta, as the formula says.
"""

from __future__ import annotations

import numpy as np

from manual_bp import nn
from manual_bp.network import Network, chain
from manual_bp.nn import Array

from ._write import CHAIN_RULE, CONVOLUTION, eq, given

#: The printed input.
INPUT = (
    (0.51, 0.90, 0.88, 0.84, 0.05),
    (0.40, 0.62, 0.22, 0.59, 0.10),
    (0.11, 0.20, 0.74, 0.33, 0.14),
    (0.47, 0.01, 0.85, 0.70, 0.09),
    (0.76, 0.19, 0.72, 0.17, 0.57),
)
#: The printed delta, dE/d(output of the convolution).
DELTA = ((0, 0, 0.0686, 0), (0, 0.0364, 0, 0), (0, 0.0467, 0, 0), (0, 0, 0, -0.0681))
#: The printed gradient of the kernel.
GRADIENT = ((0.044606, 0.094061), (0.011262, 0.068288))
#: w[0,0] is printed, the others are chosen.
KERNEL = ((-0.13, 0.15), (-0.51, 0.62))
#: Chosen: ten times the delta of the four windows, in reading order of the windows.
DENSE = (0.364, 0.686, 0.467, -0.681)
#: Chosen: how far the output lies above the target.
ERROR = 0.1

SYMBOLS = {
    "x": "o⁽⁰⁾",
    "x1.weight": "w⁽¹⁾",
    "x1.bias": "b⁽¹⁾",
    "x1": "x⁽¹⁾",
    "p1": "p⁽¹⁾",
    "flat": "vec p⁽¹⁾",
    "out.weight": "w⁽²⁾",
    "out.bias": "b⁽²⁾",
    "out": "y",
    "loss": "E",
    "x1.grad": "δ⁽¹⁾",
}

EQUATIONS = {
    "x": given("o⁽⁰⁾", "o^{(0)}", "the image, 5x5, one channel"),
    "x1": eq(
        "x⁽¹⁾[i,j] = Σₘ Σₙ w⁽¹⁾[m,n] o⁽⁰⁾[i+m, j+n] + b⁽¹⁾,   m, n = 0..1",
        r"x^{(1)}_{i,j} = \sum_{m=0}^{1} \sum_{n=0}^{1} w^{(1)}_{m,n}\, o^{(0)}_{i+m,\,j+n} + b^{(1)}",
        "seed 001; its bias has indices i, j too many",
    ),
    "loss": eq("E = ½ Σₚ (t[p] − y[p])²", r"E = \frac{1}{2} \sum_{p} (t_p - y_p)^2", "seed 001"),
    "out.grad": eq(
        "∂E/∂y[p] = −(t[p] − y[p]) = y[p] − t[p]",
        r"\frac{\partial E}{\partial y_p} = y_p - t_p",
        "derived here from the seed's E",
    ),
    "x1.grad": eq(
        "δ⁽¹⁾[i,j] = ∂E/∂x⁽¹⁾[i,j] = ∂E/∂p⁽¹⁾ of its window if (i,j) is the winner there, else 0",
        r"\delta^{(1)}_{i,j} = \frac{\partial E}{\partial x^{(1)}_{i,j}} = \begin{cases}"
        r" \frac{\partial E}{\partial p^{(1)}_{\lfloor i/2 \rfloor, \lfloor j/2 \rfloor}}"
        r" & \text{if } (i,j) \text{ is the winner of its window} \\ 0 & \text{else} \end{cases}",
        "seed 001, in words",
    ),
    "x1.weight.grad": eq(
        "∂E/∂w⁽¹⁾[m,n] = Σᵢ Σⱼ δ⁽¹⁾[i,j] o⁽⁰⁾[i+m, j+n],   i, j = 0..3",
        r"\frac{\partial E}{\partial w^{(1)}_{m,n}}"
        r" = \sum_{i=0}^{H-k_1} \sum_{j=0}^{K-k_2} \delta^{(1)}_{i,j}\, o^{(0)}_{i+m,\,j+n}",
        "seed 001, its last formula for the gradient",
    ),
    "x1.bias.grad": eq(
        "∂E/∂b⁽¹⁾ = Σᵢ Σⱼ δ⁽¹⁾[i,j],   i, j = 0..3",
        r"\frac{\partial E}{\partial b^{(1)}} = \sum_{i=0}^{3} \sum_{j=0}^{3} \delta^{(1)}_{i,j}",
        CONVOLUTION,
    ),
    "x.grad": eq(
        "∂E/∂o⁽⁰⁾[i,j] = Σₘ Σₙ δ⁽¹⁾[i−m, j−n] w⁽¹⁾[m,n]: full convolution with w⁽¹⁾ rotated by 180°",
        r"\frac{\partial E}{\partial o^{(0)}_{i,j}}"
        r" = \sum_{m=0}^{1} \sum_{n=0}^{1} \delta^{(1)}_{i-m,\,j-n}\, w^{(1)}_{m,n} \quad (0 \text{ outside of } 0..3)",
        CONVOLUTION,
    ),
    "flat.grad": eq(
        "∂E/∂(vec p⁽¹⁾) = (y − t) w⁽²⁾",
        r"\frac{\partial E}{\partial \operatorname{vec} p^{(1)}} = (y - t)\, w^{(2)}",
        CHAIN_RULE,
    ),
    "x1.weight.new": eq(
        "w⁽¹⁾ (new) = w⁽¹⁾ − η ∂E/∂w⁽¹⁾,   η = 0.1",
        r"w^{(1)(t+1)} = w^{(1)(t)} - \eta \frac{\partial E}{\partial w^{(1)}}, \quad \eta = 0.1",
        "seed 001, the update; η is chosen",
    ),
}


def build() -> Network:
    """The network with one step of gradient descent, 10 parameters."""
    return chain(
        "kernel-gradient",
        {
            "x1": nn.Conv2d(1, 1, 2),  # (m, 1, 4, 4)
            "p1": nn.MaxPool2d(2),  # (m, 1, 2, 2)
            "flat": nn.Flatten(),  # (m, 4)
            "out": nn.Linear(4, 1),  # (m, 1)
        },
        nn.HalfSquaredError(),
        (1, 5, 5),
        optimizer=nn.SGD(lr=0.1),
        symbols=SYMBOLS,
        equations=EQUATIONS,
    )


def printed() -> tuple[dict[str, Array], Array, Array]:
    """Parameters, input and target with which the network reproduces the seed's numbers, in float64."""
    params = {
        "x1.weight": np.array(KERNEL).reshape(1, 1, 2, 2),
        "x1.bias": np.zeros(1),
        "out.weight": np.array([DENSE]),
        "out.bias": np.zeros(1),
    }
    # the winners are 0.3092, 0.2652, 0.6069 and 0.1892, so the output is this:
    output = 0.3092 * 0.364 + 0.2652 * 0.686 + 0.6069 * 0.467 - 0.1892 * 0.681
    return params, np.array(INPUT).reshape(1, 1, 5, 5), np.array([[output - ERROR]])


BUILDERS = (build,)
