"""`two-conv-two-hidden` and `two-conv-pooled`: two convolutions and two hidden layers, the question of seed 002.

::

    x → zc1 → c1 → zc2 → c2 → flat → zh1 → h1 → zh2 → h2 → out → cross-entropy over ten digits

z.. is a layer before its activation, c1, c2, h1, h2 after it (sigmoids). The seed asks how the delta of c1 follows
from the delta of c2; a delta is ∂L/∂z, an array (N, filters, height, width). In `two-conv-pooled` a subsampling step
follows each convolution: s1 takes the maximum of each window, s2 the mean.

Remarks on the seed.

- Question: it calls both pairs of layers (c1, c2); the second is (h1, h2). The weights of c2 have no axis for
  the input's feature maps there; each filter sees all of them, so the weights are (filters, maps, height, width).
- In delta(l) = (w(l+1)' · delta(l+1)) · f' the second product is elementwise, and between two convolutions the first
  one is the full convolution with the rotated kernels, summed over the filters.
- Answer, vector notation: it writes (w^l)ᵀ; it must be (w^{l+1})ᵀ, as in the question.
- Answer, upsample(...): for max pooling the winner gets everything, for the mean each element its equal share.
"""

from __future__ import annotations

from manual_bp import nn
from manual_bp.network import Network, chain
from manual_bp.trace import Equation

from ._write import CONVOLUTION, eq, given

#: By step: its superscript in text and in LaTeX.
_UP = {"c1": "ᶜ¹", "c2": "ᶜ²", "h1": "ʰ¹", "h2": "ʰ²"}


def _symbols() -> dict[str, str]:
    found = {"x": "x", "loss": "L", "out": "z⁽ᵒ⁾", "out.weight": "w⁽ᵒ⁾", "out.bias": "b⁽ᵒ⁾", "out.grad": "δ⁽ᵒ⁾"}
    for layer, up in _UP.items():
        found |= {layer: f"a⁽{up}⁾", f"z{layer}": f"z⁽{up}⁾", f"z{layer}.grad": f"δ⁽{up}⁾"}
        found |= {f"z{layer}.weight": f"w⁽{up}⁾", f"z{layer}.bias": f"b⁽{up}⁾"}
    return found | {"s1": "s⁽¹⁾", "s2": "s⁽²⁾"}


def _slope(layer: str) -> Equation:
    """δ = ∂L/∂a ⊙ f'(z) for the sigmoid."""
    up = _UP[layer]
    return eq(
        f"δ⁽{up}⁾ = ∂L/∂a⁽{up}⁾ ⊙ f'(z⁽{up}⁾) = ∂L/∂a⁽{up}⁾ ⊙ a⁽{up}⁾ (1 − a⁽{up}⁾)",
        rf"\delta^{{({layer})}} = \frac{{\partial L}}{{\partial a^{{({layer})}}}} \odot f'(z^{{({layer})}})"
        rf" = \frac{{\partial L}}{{\partial a^{{({layer})}}}} \odot a^{{({layer})}} (1 - a^{{({layer})}})",
        "seed 002, the factor grad_f_a of the question",
    )


def _dense_back(to: str, symbol: str, latex: str, after: str) -> dict[str, Equation]:
    """∂L/∂a = wᵀ δ of the dense layer behind it."""
    up = {"out": "ᵒ"}.get(after, _UP.get(after, ""))
    name = {"out": "o"}.get(after, after)
    return {
        f"{to}.grad": eq(
            f"∂L/∂{symbol} = w⁽{up}⁾ᵀ δ⁽{up}⁾",
            rf"\frac{{\partial L}}{{\partial {latex}}} = w^{{({name})T}} \delta^{{({name})}}",
            "seed 002, the factor w(l+1)' delta(l+1) of the question",
        )
    }


def _conv_back(to: str, symbol: str, latex: str, shift: str = "") -> dict[str, Equation]:
    """From the delta of c2 to what c2 read: the answer to the seed's question."""
    return {
        f"{to}.grad": eq(
            f"∂L/∂{symbol}[c,i,j] = Σ_o Σ_(p,q) δ⁽ᶜ²⁾[o, i−p{shift}, j−q{shift}] w⁽ᶜ²⁾[o,c,p,q]:"
            " full convolution with the rotated kernels, summed over the filters",
            rf"\frac{{\partial L}}{{\partial {latex}_{{c,i,j}}}} = \sum_{{o}} \sum_{{p,q}}"
            rf" \delta^{{(c2)}}_{{o,\,i-p{shift},\,j-q{shift}}}\, w^{{(c2)}}_{{o,c,p,q}}",
            CONVOLUTION.replace("derived here", "seed 002, carried over from one dimension, index corrected"),
        )
    }


_COMMON = {
    "x": given("x", "x", "the image, 8x8, one channel"),
    "out.grad": eq(
        "δ⁽ᵒ⁾[n,k] = (softmax(z⁽ᵒ⁾)[n,k] − [k = t]) / N",
        r"\delta^{(o)}_{n,k} = \frac{1}{N} \left( \operatorname{softmax}(z^{(o)})_{n,k} - [k = t] \right)",
        "derived here; cf. Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.4",
    ),
    **_dense_back("h2", "a⁽ʰ²⁾", "a^{(h2)}", "out"),
    **_dense_back("h1", "a⁽ʰ¹⁾", "a^{(h1)}", "h2"),
    **_dense_back("flat", "flat", r"\mathrm{flat}", "h1"),
    **{f"z{layer}.grad": _slope(layer) for layer in _UP},
}


def plain() -> Network:
    """Two convolutions without subsampling."""
    return chain(
        "two-conv-two-hidden",
        {
            "zc1": nn.Conv2d(1, 4, 3),  # (N, 4, 6, 6)
            "c1": nn.Sigmoid(),
            "zc2": nn.Conv2d(4, 6, 3),  # (N, 6, 4, 4)
            "c2": nn.Sigmoid(),
            "flat": nn.Flatten(),  # (N, 96)
            "zh1": nn.Linear(96, 16),  # (N, 16)
            "h1": nn.Sigmoid(),
            "zh2": nn.Linear(16, 12),  # (N, 12)
            "h2": nn.Sigmoid(),
            "out": nn.Linear(12, 10),  # (N, 10)
        },
        nn.CrossEntropyLoss(),
        (1, 8, 8),
        symbols=_symbols(),
        equations=_COMMON | _conv_back("c1", "a⁽ᶜ¹⁾", "a^{(c1)}"),
    )


def pooled() -> Network:
    """Each convolution followed by subsampling, by the maximum and by the mean."""
    upsample = {
        "c1.grad": eq(
            "∂L/∂a⁽ᶜ¹⁾ = upsample(∂L/∂s⁽¹⁾): the winner of each window gets its error, the other three 0",
            r"\frac{\partial L}{\partial a^{(c1)}} = \operatorname{upsample}"
            r"\left( \frac{\partial L}{\partial s^{(1)}} \right)"
            r" \quad \text{(all to the winner of the window)}",
            "seed 002, the upsample step; at ties the first wins, as in torch",
        ),
        "c2.grad": eq(
            "∂L/∂a⁽ᶜ²⁾ = upsample(∂L/∂s⁽²⁾): each of the window's four elements gets a quarter",
            r"\frac{\partial L}{\partial a^{(c2)}} = \operatorname{upsample}"
            r"\left( \frac{\partial L}{\partial s^{(2)}} \right)"
            r" \quad \text{(a quarter to each of the four)}",
            "seed 002, the upsample step, for the mean",
        ),
    }
    return chain(
        "two-conv-pooled",
        {
            "zc1": nn.Conv2d(1, 4, 3, padding=1),  # (N, 4, 8, 8)
            "c1": nn.Sigmoid(),
            "s1": nn.MaxPool2d(2),  # (N, 4, 4, 4)
            "zc2": nn.Conv2d(4, 6, 3, padding=1),  # (N, 6, 4, 4)
            "c2": nn.Sigmoid(),
            "s2": nn.AvgPool2d(2),  # (N, 6, 2, 2)
            "flat": nn.Flatten(),  # (N, 24)
            "zh1": nn.Linear(24, 16),  # (N, 16)
            "h1": nn.Sigmoid(),
            "zh2": nn.Linear(16, 12),  # (N, 12)
            "h2": nn.Sigmoid(),
            "out": nn.Linear(12, 10),  # (N, 10)
        },
        nn.CrossEntropyLoss(),
        (1, 8, 8),
        symbols=_symbols(),
        equations=_COMMON | upsample | _conv_back("s1", "s⁽¹⁾", "s^{(1)}", "+1"),
    )


BUILDERS = (plain, pooled)
