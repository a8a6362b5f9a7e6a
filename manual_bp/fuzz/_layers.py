"""Every layer with every hyperparameter, drawn to fit an input of a given shape (if it does not, it is left out).

Each function takes the source and the shape of one example, channels first. The first choice is always the simplest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from manual_bp import nn

if TYPE_CHECKING:
    from ._draw import Source

Shape = tuple[int, ...]
Kind = Callable[["Source", Shape], nn.Layer | None]


def layer_kinds(shape: Shape) -> tuple[Kind, ...]:
    """What may come after a tensor of this shape; the simplest first."""
    spatial = (_convolution, _max_pool, _convolution, _mean_pool, _batch_norm, _flatten)
    dense = (_linear, _linear, _batch_norm)
    common = (_rectifier, _curve, _softmax, _layer_norm, _identity)
    return (*dense, *common) if len(shape) == 1 else (*spatial, *common, _linear)


def _linear(s: Source, shape: Shape) -> nn.Layer:
    return nn.Linear(shape[-1], s.integer(1, 6), bias=s.flag())


def _convolution(s: Source, shape: Shape) -> nn.Layer | None:
    channels, axes = shape[0], len(shape) - 1
    groups = s.choice([g for g in range(1, channels + 1) if channels % g == 0])
    mode = s.choice(("zeros", "zeros", "reflect", "replicate", "circular"))
    padding: Any = tuple(s.integer(0, 2) for _ in range(axes))
    stride = tuple(s.integer(1, 3) for _ in range(axes))
    if s.integer(0, 5) == 5:
        padding, stride = "same", (1,) * axes
    make = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    try:
        return make(
            channels,
            groups * s.integer(1, 3),
            tuple(s.integer(1, 3) for _ in range(axes)),
            stride=stride,
            padding=padding,
            dilation=tuple(s.integer(1, 2) for _ in range(axes)),
            groups=groups,
            bias=s.flag(),
            padding_mode=mode,
        )
    except nn.NNError:
        return None


def _window(s: Source, axes: int) -> dict[str, Any]:
    kernel = tuple(s.integer(1, 3) for _ in range(axes))
    return {
        "kernel_size": kernel,
        "stride": None if s.flag() else tuple(s.integer(1, 3) for _ in range(axes)),
        "padding": tuple(s.integer(0, k // 2) for k in kernel),
        "ceil_mode": s.flag(),
    }


def _max_pool(s: Source, shape: Shape) -> nn.Layer:
    axes = len(shape) - 1
    make = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
    return make(**_window(s, axes), dilation=tuple(s.integer(1, 2) for _ in range(axes)))


def _mean_pool(s: Source, shape: Shape) -> nn.Layer:
    axes = len(shape) - 1
    options = {**_window(s, axes), "count_include_pad": not s.flag()}
    if axes == 1:
        return nn.AvgPool1d(**options)
    make = nn.AvgPool2d if axes == 2 else nn.AvgPool3d
    return make(**options, divisor_override=s.choice((None, None, 3, -2)))


def _rectifier(s: Source, _: Shape) -> nn.Layer:
    slope = s.choice((0.0, 0.0, 0.01, 0.3, 1.5, -0.2))
    return nn.ReLU() if slope == 0 else nn.LeakyReLU(slope)


def _curve(s: Source, _: Shape) -> nn.Layer:
    return s.choice(
        (
            nn.Sigmoid(),
            nn.Tanh(),
            nn.SiLU(),
            nn.GELU(),
            nn.GELU(approximate="tanh"),
            nn.Softplus(),
            nn.Softplus(beta=2.5),
            nn.Softplus(beta=0.5, threshold=3.0),
        )
    )


def _softmax(s: Source, shape: Shape) -> nn.Layer:
    make = nn.LogSoftmax if s.flag() else nn.Softmax
    return make(dim=s.choice((-1, 1, len(shape), 0)))


def _batch_norm(s: Source, shape: Shape) -> nn.Layer | None:
    make = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}.get(len(shape))
    if make is None:
        return None
    return make(
        shape[0],
        eps=s.choice((1e-5, 1e-3, 0.1)),
        affine=not s.flag(),
        track_running_stats=not s.flag(),
        training=not s.flag(),
    )


def _layer_norm(s: Source, shape: Shape) -> nn.Layer:
    axes = s.integer(1, len(shape))
    affine = not s.flag()
    return nn.LayerNorm(shape[-axes:], eps=s.choice((1e-5, 0.1)), elementwise_affine=affine, bias=not s.flag())


def _flatten(s: Source, shape: Shape) -> nn.Layer:
    start = s.integer(1, len(shape))
    return nn.Flatten(start, s.choice((-1, *range(start, len(shape) + 1))))


def _identity(_s: Source, _: Shape) -> nn.Layer:
    return nn.Identity()
