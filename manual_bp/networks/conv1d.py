"""`conv1d`: the derivation of seed 002 in one dimension.

::

    y0 (input, length 8) → x1 = convolution with 3 weights → y1 = f → x2 = convolution with 3 weights → y2 = f → E

The seed derives x[i] = Σ_a w[a] y[i+a], y = f(x), and the way back. Here two such layers follow each other, so that
the error really passes from one convolution to the previous one. f is the sigmoid and E = ½ Σ (t − y2)²; the target is
the middle of the input. The seed has no bias.

Errors in the seed's formulas, corrected in the equations below:

- The gradient of w[a] is summed over a, from 0 to N−m. It must be summed over i: a is the index that stands on
  the left. The sum has N−m+1 terms, not N−m.
- Its last expression there repeats ∂E/∂w[a] where ∂E/∂x[i] must stand.
- δ[a] on the left of the propagation formula must be δ[i], and ∂E/∂y[i] is not yet the delta of that layer: the factor
  f'(x[i]) is missing, which the vector notation below it does have.
- The terms of that sum exist only where 0 ≤ i−a ≤ N−m; the others are 0 (a *full* convolution).
- w[a] does not stand flipped there: the flip is already in the index i−a. Either x[i−a] with w[a], or
  x[i−m+1+a] with w flipped. It is a reversal, for an image a rotation by 180°, and no transposition.
- The last formula takes the weights of layer l; it must be those of layer l+1.
"""

from __future__ import annotations

from manual_bp import nn
from manual_bp.network import Network, chain
from manual_bp.trace import Equation

from ._write import eq, given

SYMBOLS = {
    "x": "y⁽⁰⁾",
    "x1.weight": "w⁽¹⁾",
    "x1": "x⁽¹⁾",
    "y1": "y⁽¹⁾",
    "x2.weight": "w⁽²⁾",
    "x2": "x⁽²⁾",
    "y2": "y⁽²⁾",
    "loss": "E",
    "x1.grad": "δ⁽¹⁾",
    "x2.grad": "δ⁽²⁾",
}

_RAISED = {0: "⁽⁰⁾", 1: "⁽¹⁾", 2: "⁽²⁾"}


def _layer(layer: int, positions: int) -> dict[str, Equation]:
    """Forward and backward equations of one convolution and its activation."""
    up, low = _RAISED[layer], _RAISED[layer - 1]
    below = "x" if layer == 1 else f"y{layer - 1}"
    return {
        f"x{layer}": eq(
            f"x{up}[i] = Σ_a w{up}[a] y{low}[i+a],   a = 0..2",
            rf"x^{{({layer})}}_i = \sum_{{a=0}}^{{m-1}} w^{{({layer})}}_a\, y^{{({layer - 1})}}_{{i+a}}",
            "seed 002, its first formula",
        ),
        f"y{layer}": eq(
            f"y{up} = f(x{up}) = σ(x{up})",
            rf"y^{{({layer})}} = f(x^{{({layer})}}) = \sigma(x^{{({layer})}})",
            "seed 002",
        ),
        f"x{layer}.grad": eq(
            f"δ{up}[i] = ∂E/∂x{up}[i] = ∂E/∂y{up}[i] f'(x{up}[i]) = ∂E/∂y{up}[i] y{up}[i] (1 − y{up}[i])",
            rf"\delta^{{({layer})}}_i = \frac{{\partial E}}{{\partial y^{{({layer})}}_i}} f'(x^{{({layer})}}_i)"
            rf" = \frac{{\partial E}}{{\partial y^{{({layer})}}_i}} y^{{({layer})}}_i (1 - y^{{({layer})}}_i)",
            "seed 002, its formula for the error before the activation",
        ),
        f"x{layer}.weight.grad": eq(
            f"∂E/∂w{up}[a] = Σ_i δ{up}[i] y{low}[i+a],   i = 0..{positions - 1}",
            rf"\frac{{\partial E}}{{\partial w^{{({layer})}}_a}}"
            rf" = \sum_{{i=0}}^{{N-m}} \delta^{{({layer})}}_i\, y^{{({layer - 1})}}_{{i+a}}",
            "seed 002, corrected: summed over i, and with the error of x, not of w",
        ),
        f"{below}.grad": eq(
            f"∂E/∂y{low}[i] = Σ_a δ{up}[i−a] w{up}[a],   0 ≤ i−a ≤ {positions - 1}",
            rf"\frac{{\partial E}}{{\partial y^{{({layer - 1})}}_i}}"
            rf" = \sum_{{a=0}}^{{m-1}} \delta^{{({layer})}}_{{i-a}}\, w^{{({layer})}}_a"
            r" \quad (0 \le i-a \le N-m)",
            "seed 002, corrected: with i on the left, within the limits, w not flipped once more",
        ),
    }


EQUATIONS = {
    "x": given("y⁽⁰⁾", "y^{(0)}", "the ink in each column of the image, 8 numbers"),
    **_layer(1, 6),
    **_layer(2, 4),
    "loss": eq(
        "E = ½ Σᵢ (t[i] − y⁽²⁾[i])²", r"E = \frac{1}{2} \sum_i (t_i - y^{(2)}_i)^2", "chosen; the seed leaves E open"
    ),
    "y2.grad": eq(
        "∂E/∂y⁽²⁾[i] = y⁽²⁾[i] − t[i]",
        r"\frac{\partial E}{\partial y^{(2)}_i} = y^{(2)}_i - t_i",
        "derived here from E",
    ),
}


def build() -> Network:
    """The network, 6 parameters."""
    return chain(
        "conv1d",
        {
            "x1": nn.Conv1d(1, 1, 3, bias=False),  # (N, 1, 6)
            "y1": nn.Sigmoid(),
            "x2": nn.Conv1d(1, 1, 3, bias=False),  # (N, 1, 4)
            "y2": nn.Sigmoid(),
        },
        nn.HalfSquaredError(),
        (1, 8),
        symbols=SYMBOLS,
        equations=EQUATIONS,
    )


BUILDERS = (build,)
