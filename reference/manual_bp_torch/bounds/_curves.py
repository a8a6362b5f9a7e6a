"""Smooth functions of one variable as the bounds see them: derivative, steepness, curvature, and what rounding does.

Rounding is counted in units of u, for any usual formula of the function, on top of libraries whose exp, tanh, erf and
log are good to ``LIBRARY`` roundings of their result (NumPy's float32 exp was seen at 2.35 ulp, and an ulp is 2 u).
Where a common formula cancels, its error is absolute: 0.5 (1 + tanh(z/2)) loses all relative accuracy of a sigmoid far
left, (e^z - e^-z) / (e^z + e^-z) that of a tanh near 0; both are right all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Relative error of a library's exp, tanh, erf or log, in units of u.
LIBRARY = 5.0

#: Beyond this |z| every formula of a sigmoid or tanh gives exactly 0 or 1, in float64 too: e^-750 is 0.
FAR = 750.0
#: The same for the tanh inside GELU, whose argument grows with z^3: 0.8 (13 + 0.0447 13^3) > 80, e^-160 < 2^-200.
FAR_CUBIC = 13.0


@dataclass(frozen=True)
class Curve:
    """A smooth function of one variable, for the bounds.

    Attributes
    ----------
    derivative
        f'(z), given the module and z.
    lipschitz, curvature
        Bounds of |f'| and |f''| everywhere.
    value_error, derivative_error
        Rounding of f and of f' in units of u, any usual formula, from (module, z).
    from_output
        f' in terms of the output, where people write it so.
    cancelling
        Another usual formula of f', whose terms may be far larger than it, and its rounding in units of u.
    """

    name: str
    derivative: Callable[[nn.Module, Tensor], Tensor]
    lipschitz: float
    curvature: float
    value_error: Callable[[nn.Module, Tensor], Tensor]
    derivative_error: Callable[[nn.Module, Tensor], Tensor]
    from_output: Callable[[nn.Module, Tensor], Tensor] | None = None
    cancelling: tuple[str, Callable[[nn.Module, Tensor], Tensor]] | None = None


# ------------------------------------------------------------------ sigmoid


def sigmoid_slope(z: Tensor) -> Tensor:
    """σ(z) σ(-z)."""
    return torch.sigmoid(z) * torch.sigmoid(-z)


def sigmoid_error(z: Tensor) -> Tensor:
    """1 / (1 + e^-z) or e^z / (1 + e^z): exp enters with weight 1 - σ, and two roundings.

    ½ (1 + tanh(z/2)): half of tanh's error, and one rounding.
    """
    a = torch.sigmoid(z)
    return a * (3 + LIBRARY * (1 - a)) + LIBRARY / 2 * (1 - 2 * a).abs()


def sigmoid_slope_error(z: Tensor) -> Tensor:
    """a (1 - a) with a off: |1 - 2a| times that, and two roundings; e^-z / (1 + e^-z)²: exp and four roundings."""
    return (1 - 2 * torch.sigmoid(z)).abs() * sigmoid_error(z) + (LIBRARY + 5) * sigmoid_slope(z)


# ------------------------------------------------------------------ tanh


def _tanh_slope(z: Tensor) -> Tensor:
    return 4 * sigmoid_slope(2 * z)  # 1 - tanh² would cancel here as well


def tanh_error(z: Tensor) -> Tensor:
    """tanh itself, three roundings, or 2 σ(2z) - 1: relative; quotients of e^z and e^-z: half of 1 - t² for each."""
    return (LIBRARY + 3) * torch.tanh(z).abs() + LIBRARY * _tanh_slope(z)


def _tanh_slope_error(z: Tensor) -> Tensor:
    """1 - t² with t off: 2 |t| times that, and two roundings; 1 / cosh²: exp twice, and four roundings."""
    t = torch.tanh(z).abs()
    return 2 * t * tanh_error(z) + 2 * t * t + (2 * LIBRARY + 4) * _tanh_slope(z)


# ------------------------------------------------------------------ GELU


def _gelu_slope(module: nn.Module, z: Tensor) -> Tensor:
    if getattr(module, "approximate", "none") == "none":
        density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return 0.5 * torch.erfc(-z / math.sqrt(2)) + torch.where(z.isinf(), 0.0, z) * density
    near = z.clamp(-FAR_CUBIC, FAR_CUBIC)
    inner, growth = _gelu_inner(near)
    return 0.5 * (1 + torch.tanh(inner)) + 0.5 * near * _tanh_slope(inner) * growth


def _gelu_inner(z: Tensor) -> tuple[Tensor, Tensor]:
    """The tanh's argument k (z + 0.044715 z³), and its derivative."""
    k = math.sqrt(2 / math.pi)
    return k * (z + 0.044715 * z**3), k * (1 + 3 * 0.044715 * z * z)


def _gelu_error(module: nn.Module, z: Tensor) -> Tensor:
    """z Φ(z): half of erf's or tanh's error, that of its argument (at most 2), the sum, and two products."""
    value: Tensor = module(z)
    return (LIBRARY / 2 + 5.5) * z.abs() + 4 * value.abs()


def _gelu_slope_error(module: nn.Module, z: Tensor) -> Tensor:
    """Φ + z φ: Φ as above; z² roundings come into φ through its argument. By tanh: ½ z (1 - t²) u' likewise."""
    if getattr(module, "approximate", "none") == "none":
        density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        size = z.abs().clamp(max=FAR)
        return 8 + density * size * (LIBRARY + 6 + 2 * size * size)
    near = z.clamp(-FAR_CUBIC, FAR_CUBIC)
    inner, growth = _gelu_inner(near)
    t, slope = torch.tanh(inner).abs(), _tanh_slope(inner)
    # 1 - t² moves by 2 |t| (1 - t²) times the 6 roundings of the tanh's argument
    moved = _tanh_slope_error(inner) + 12 * t * slope * inner.abs()
    return 8 + 0.5 * near.abs() * growth * (moved + 8 * slope)


# ------------------------------------------------------------------ SiLU


def _silu_slope(_: nn.Module, z: Tensor) -> Tensor:
    return torch.sigmoid(z) + z.clamp(-FAR, FAR) * sigmoid_slope(z)


def _silu_slope_error(_: nn.Module, z: Tensor) -> Tensor:
    """σ + z σ (1 - σ): both of them off, and four roundings."""
    size = z.abs().clamp(max=FAR)
    return sigmoid_error(z) + size * sigmoid_slope_error(z) + 4 * (torch.sigmoid(z) + size * sigmoid_slope(z))


SIGMOID = Curve(
    "sigmoid",
    lambda _, z: sigmoid_slope(z),
    lipschitz=0.25,
    curvature=0.0963,  # sqrt(3) / 18
    value_error=lambda _, z: sigmoid_error(z),
    derivative_error=lambda _, z: sigmoid_slope_error(z),
    from_output=lambda _, a: a * (1 - a),
)
TANH = Curve(
    "tanh",
    lambda _, z: _tanh_slope(z),
    lipschitz=1.0,
    curvature=0.77,  # 4 / (3 sqrt(3))
    value_error=lambda _, z: tanh_error(z),
    derivative_error=lambda _, z: _tanh_slope_error(z),
    from_output=lambda _, a: 1 - a * a,
)
GELU = Curve(
    "gelu",
    _gelu_slope,
    lipschitz=1.13,
    curvature=0.8,  # 2 φ(0), for both forms
    value_error=_gelu_error,
    derivative_error=_gelu_slope_error,
)
SILU = Curve(
    "silu",
    _silu_slope,
    lipschitz=1.1,
    curvature=0.5,
    value_error=lambda m, z: z.abs().clamp(max=FAR) * sigmoid_error(z) + 2 * m(z).abs(),
    derivative_error=_silu_slope_error,
    # y is left over from 1 - y where σ is 1
    cancelling=("y + σ (1 - y)", lambda m, z: _silu_slope_error(m, z) + 3 * (1 + m(z).abs())),
)
