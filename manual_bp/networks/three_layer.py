"""`three-layer`: the network of seed 000, from convolution to binary cross-entropy, with its whole backward pass.

::

    x (m,1,8,8) → z1 = conv 3x3 → a1 = ReLU → a2 = max pooling 2x2 → flat → z3 = dense 9→1 → a3 = σ → L

The seed derives equations (1) to (11): the forward pass and the way back as far as ∂L/∂a2. Its question is how to go
on. The window's winner gets the whole error and the other three get exactly 0; from there the rest follows. What the
seed lacks is marked "derived here".

Notation. The seed counts from 1 and has m = 1 example; here the loss is the mean over m examples, so the 1/m enters
with (5) and is carried along. Indices in the equations count from 1 as the seed's do, arrays count from 0. The seed
writes images channels-last, (m, 8, 8, 1); inside, they are channels-first: see `from_nhwc`.

Remarks on the seed. Its guess for ∂L/∂a1[1,1] is right if a1[1,1] is the winner. Its `*` is a cross-correlation, as
everywhere in deep learning, so the forward kernel is not rotated, and the rotated one appears in ∂L/∂x. In (8) the
product is a row of nine numbers that must be put back into the 3x3 shape of a2: the flatten step's backward pass.
"""

from __future__ import annotations

from manual_bp import nn
from manual_bp.network import Network, chain

from ._write import CHAIN_RULE, CONVOLUTION, eq, given

SYMBOLS = {
    "x": "x",
    "z1.weight": "w⁽¹⁾",
    "z1.bias": "b⁽¹⁾",
    "z1": "z⁽¹⁾",
    "a1": "a⁽¹⁾",
    "a2": "a⁽²⁾",
    "flat": "vec a⁽²⁾",
    "z3.weight": "w⁽³⁾",
    "z3.bias": "b⁽³⁾",
    "z3": "z⁽³⁾",
    "a3": "a⁽³⁾",
    "loss": "L",
}
GRADIENTS = ("a3", "z3", "z3.weight", "z3.bias", "flat", "a2", "a1", "z1", "z1.weight", "z1.bias", "x")

_TIES = "subgradient at ties as torch chooses it: the first in reading order"

FORWARD = {
    "x": given("x", "x", "the image, 8x8, one channel"),
    "z1.weight": given("w⁽¹⁾", "w^{(1)}", "the kernel, 3x3"),
    "z1.bias": given("b⁽¹⁾", "b^{(1)}", "one number"),
    "z1": eq(
        "z⁽¹⁾[i,j] = Σₚ Σᵣ w⁽¹⁾[p,r] x[i+p−1, j+r−1] + b⁽¹⁾,   p, r = 1..3",
        r"z^{(1)}_{i,j} = \sum_{p=1}^{3} \sum_{r=1}^{3} w^{(1)}_{p,r}\, x_{i+p-1,\,j+r-1} + b^{(1)}",
        "seed 000, eq. (1), written out",
    ),
    "a1": eq("a⁽¹⁾ = max(z⁽¹⁾, 0)", r"a^{(1)} = \max(z^{(1)}, 0)", "seed 000, eq. (1)"),
    "a2": eq(
        "a⁽²⁾[p,r] = max(a⁽¹⁾[2p−1,2r−1], a⁽¹⁾[2p−1,2r], a⁽¹⁾[2p,2r−1], a⁽¹⁾[2p,2r])",
        r"a^{(2)}_{p,r} = \max(a^{(1)}_{2p-1,2r-1}, a^{(1)}_{2p-1,2r}, a^{(1)}_{2p,2r-1}, a^{(1)}_{2p,2r})",
        "seed 000, eq. (11); eq. (10) is its case p = r = 1",
    ),
    "flat": eq(
        "vec a⁽²⁾ = (a⁽²⁾[1,1], a⁽²⁾[1,2], a⁽²⁾[1,3], a⁽²⁾[2,1], ..., a⁽²⁾[3,3])",
        r"\operatorname{vec} a^{(2)}"
        r" = (a^{(2)}_{1,1}, a^{(2)}_{1,2}, a^{(2)}_{1,3}, a^{(2)}_{2,1}, \dots, a^{(2)}_{3,3})",
        "seed 000, eq. (9): the order of its terms",
    ),
    "z3.weight": given("w⁽³⁾", "w^{(3)}", "nine numbers"),
    "z3.bias": given("b⁽³⁾", "b^{(3)}", "one number"),
    "z3": eq(
        "z⁽³⁾ = vec a⁽²⁾ · w⁽³⁾ + b⁽³⁾ = Σₖ (vec a⁽²⁾)[k] w⁽³⁾[k] + b⁽³⁾,   k = 1..9",
        r"z^{(3)} = \operatorname{vec} a^{(2)} \cdot w^{(3)} + b^{(3)}"
        r" = \sum_{k=1}^{9} (\operatorname{vec} a^{(2)})_k\, w^{(3)}_k + b^{(3)}",
        "seed 000, eqs. (3) and (9)",
    ),
    "a3": eq(
        "a⁽³⁾ = σ(z⁽³⁾) = 1 / (1 + exp(−z⁽³⁾))",
        r"a^{(3)} = \sigma(z^{(3)}) = \frac{1}{1 + e^{-z^{(3)}}}",
        "seed 000, eq. (2)",
    ),
    "loss": eq(
        "L = −(1/m) Σₘ [y log a⁽³⁾ + (1−y) log(1−a⁽³⁾)]",
        r"\mathcal{L} = -\frac{1}{m} \sum_{m} \left[ y \log a^{(3)} + (1-y) \log(1-a^{(3)}) \right]",
        "seed 000, eq. (4), averaged over m examples",
    ),
}

BACKWARD = {
    "a3.grad": eq(
        "∂L/∂a⁽³⁾ = (1/m) [−y/a⁽³⁾ + (1−y)/(1−a⁽³⁾)]",
        r"\frac{\partial \mathcal{L}}{\partial a^{(3)}}"
        r" = \frac{1}{m} \left[ -\frac{y}{a^{(3)}} + \frac{1-y}{1-a^{(3)}} \right]",
        "seed 000, eq. (5)",
    ),
    "z3.grad": eq(
        "∂L/∂z⁽³⁾ = ∂L/∂a⁽³⁾ · a⁽³⁾ (1−a⁽³⁾) = (a⁽³⁾ − y) / m",
        r"\frac{\partial \mathcal{L}}{\partial z^{(3)}}"
        r" = \frac{\partial \mathcal{L}}{\partial a^{(3)}}\, a^{(3)} (1-a^{(3)}) = \frac{a^{(3)} - y}{m}",
        "seed 000, eqs. (5) times (6), which is eq. (7)",
    ),
    "z3.weight.grad": eq(
        "∂L/∂w⁽³⁾[k] = Σₘ ∂L/∂z⁽³⁾ (vec a⁽²⁾)[k]",
        r"\frac{\partial \mathcal{L}}{\partial w^{(3)}_k}"
        r" = \sum_{m} \frac{\partial \mathcal{L}}{\partial z^{(3)}} (\operatorname{vec} a^{(2)})_k",
        CHAIN_RULE,
    ),
    "z3.bias.grad": eq(
        "∂L/∂b⁽³⁾ = Σₘ ∂L/∂z⁽³⁾",
        r"\frac{\partial \mathcal{L}}{\partial b^{(3)}} = \sum_{m} \frac{\partial \mathcal{L}}{\partial z^{(3)}}",
        CHAIN_RULE,
    ),
    "flat.grad": eq(
        "∂L/∂(vec a⁽²⁾) = ∂L/∂z⁽³⁾ · w⁽³⁾ᵀ",
        r"\frac{\partial \mathcal{L}}{\partial \operatorname{vec} a^{(2)}}"
        r" = \frac{\partial \mathcal{L}}{\partial z^{(3)}}\, w^{(3)T}",
        "seed 000, eq. (8)",
    ),
    "a2.grad": eq(
        "∂L/∂a⁽²⁾[p,r] = ∂L/∂z⁽³⁾ · w⁽³⁾[3(p−1)+r]",
        r"\frac{\partial \mathcal{L}}{\partial a^{(2)}_{p,r}}"
        r" = \frac{\partial \mathcal{L}}{\partial z^{(3)}}\, w^{(3)}_{3(p-1)+r}",
        "seed 000, eq. (8), put back into 3x3 by the order of eq. (9)",
    ),
    "a1.grad": eq(
        "∂L/∂a⁽¹⁾[i,j] = ∂L/∂a⁽²⁾[⌈i/2⌉,⌈j/2⌉] if (i,j) is the winner of its window, else 0",
        r"\frac{\partial \mathcal{L}}{\partial a^{(1)}_{i,j}} = \begin{cases}"
        r" \frac{\partial \mathcal{L}}{\partial a^{(2)}_{\lceil i/2 \rceil, \lceil j/2 \rceil}}"
        r" & \text{if } (i,j) \text{ is the winner of its window} \\ 0 & \text{else} \end{cases}",
        f"derived here from seed 000, eq. (11); {_TIES}",
    ),
    "z1.grad": eq(
        "∂L/∂z⁽¹⁾[i,j] = ∂L/∂a⁽¹⁾[i,j] if z⁽¹⁾[i,j] > 0, else 0",
        r"\frac{\partial \mathcal{L}}{\partial z^{(1)}_{i,j}} = \begin{cases}"
        r" \frac{\partial \mathcal{L}}{\partial a^{(1)}_{i,j}} & \text{if } z^{(1)}_{i,j} > 0"
        r" \\ 0 & \text{else} \end{cases}",
        "derived here from seed 000, eq. (1); subgradient at z = 0 as torch chooses it: 0",
    ),
    "z1.weight.grad": eq(
        "∂L/∂w⁽¹⁾[p,r] = Σₘ Σᵢⱼ ∂L/∂z⁽¹⁾[i,j] x[i+p−1, j+r−1],   i, j = 1..6",
        r"\frac{\partial \mathcal{L}}{\partial w^{(1)}_{p,r}} = \sum_{m} \sum_{i=1}^{6} \sum_{j=1}^{6}"
        r" \frac{\partial \mathcal{L}}{\partial z^{(1)}_{i,j}}\, x_{i+p-1,\,j+r-1}",
        CONVOLUTION,
    ),
    "z1.bias.grad": eq(
        "∂L/∂b⁽¹⁾ = Σₘ Σᵢⱼ ∂L/∂z⁽¹⁾[i,j],   i, j = 1..6",
        r"\frac{\partial \mathcal{L}}{\partial b^{(1)}} = \sum_{m} \sum_{i=1}^{6} \sum_{j=1}^{6}"
        r" \frac{\partial \mathcal{L}}{\partial z^{(1)}_{i,j}}",
        CONVOLUTION,
    ),
    "x.grad": eq(
        "∂L/∂x[i,j] = Σₚᵣ ∂L/∂z⁽¹⁾[i−p+1, j−r+1] w⁽¹⁾[p,r]: full convolution with w⁽¹⁾ rotated by 180°",
        r"\frac{\partial \mathcal{L}}{\partial x_{i,j}} = \sum_{p=1}^{3} \sum_{r=1}^{3}"
        r" \frac{\partial \mathcal{L}}{\partial z^{(1)}_{i-p+1,\,j-r+1}}\, w^{(1)}_{p,r}"
        r" \quad (0 \text{ outside of } 1..6)",
        CONVOLUTION,
    ),
}


def build() -> Network:
    """The network, 20 parameters."""
    return chain(
        "three-layer",
        {
            "z1": nn.Conv2d(1, 1, 3),  # (m, 1, 6, 6)
            "a1": nn.ReLU(),
            "a2": nn.MaxPool2d(2),  # (m, 1, 3, 3)
            "flat": nn.Flatten(),  # (m, 9)
            "z3": nn.Linear(9, 1),  # (m, 1)
            "a3": nn.Sigmoid(),
        },
        nn.BCELoss(),
        (1, 8, 8),
        symbols=SYMBOLS | {f"{name}.grad": f"∂L/∂{_part(SYMBOLS[name])}" for name in GRADIENTS},
        equations=FORWARD | BACKWARD,
    )


def _part(symbol: str) -> str:
    return f"({symbol})" if " " in symbol else symbol


BUILDERS = (build,)
