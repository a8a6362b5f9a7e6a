"""Probes for what people bring along: the given data first, then variants that make mistakes visible."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from manual_bp.inputs import mapped, named, rebuilt
from manual_bp.report import ProbeInfo
from manual_bp.trace import Array

#: As far out as the largest of badly scaled numbers lies at the least.
FAR = 8.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One probe: parameters and buffers, input, target (or upstream gradient)."""

    name: str
    description: str
    params: Mapping[str, Array]
    x: Any
    y: Any


def probe_info(probe: Variant, seed: int, blind: tuple[str, ...] = ()) -> ProbeInfo:
    """What a report says of a probe."""
    first = next(iter(named(probe.x).values()), None)
    batch = int(first.shape[0]) if isinstance(first, np.ndarray) and first.ndim else 1
    return ProbeInfo(name=probe.name, description=probe.description, batch=batch, seed=seed, blind=blind)


def variants(
    params: Mapping[str, Array], trained: Collection[str], x: Any, y: Any, *, seed: int, upstream: bool
) -> list[Variant]:
    """The probes of one comparison.

    Parameters
    ----------
    trained
        Names of the parameters that may be redrawn; buffers stay as they are.
    upstream
        Whether ``y`` is an upstream gradient, which may be redrawn as well; a target is only shuffled.
    """
    made = [Variant(name="given", description="the data and weights as they were given", params=params, x=x, y=y)]
    floating = [part for part in named(x).values() if isinstance(part, np.ndarray) and part.dtype.kind == "f"]
    if floating:
        for name, (description, draw, draw_upstream) in _DRAWN.items():
            rng = np.random.default_rng([seed, len(made)])
            new = {n: _weights(rng, a, draw) if n in trained else a for n, a in params.items()}
            made.append(
                Variant(
                    name=name,
                    description=description,
                    params=new,
                    x=_inputs(rng, x, draw),
                    y=_target(rng, y, upstream, draw_upstream),
                )
            )
    else:
        for i in (1, 2):
            rng = np.random.default_rng([seed, i])
            new = {n: _weights(rng, a, _normal) if n in trained else a for n, a in params.items()}
            made.append(
                Variant(
                    name=f"seed-{i}", description="other weights", params=new, x=x, y=_target(rng, y, upstream, _normal)
                )
            )
    return made


def of_another_number(probe: Variant, *, seed: int, upstream: bool) -> Variant | None:
    """The probe with more examples, as many as no other axis is long; None where the first axis can be none of them.

    A mean over the examples is told from one over anything else, and from a plain factor, if nothing else has its size.
    """
    parts = [part for part in named(probe.x).values() if isinstance(part, np.ndarray)]
    arrays = [*parts, *([probe.y] if isinstance(probe.y, np.ndarray) else [])]
    lengths = {len(a) if a.ndim else 0 for a in arrays}
    if len(lengths) != 1 or not all(lengths) or not all(part.ndim > 1 for part in parts):
        return None
    (number,) = lengths
    taken = {n for a in (*arrays, *probe.params.values()) for n in a.shape}
    more = next(n for n in range(number + 1, number + len(taken) + 2) if n not in taken)
    rng = np.random.default_rng([seed, more])
    rows = np.arange(more) % number

    def longer(a: Any) -> Any:
        return a[rows] if isinstance(a, np.ndarray) else a

    y = longer(probe.y)
    return Variant(
        name="more-examples",
        description=f"{more} examples",
        params=probe.params,
        x=_inputs(rng, mapped(probe.x, longer), _normal),
        y=_normal(rng, y) if upstream and isinstance(y, np.ndarray) and y.dtype.kind == "f" else y,
    )


def within(x: Array, y: Any, *, seed: int) -> list[Variant]:
    """Probes of a loss over probabilities: other ones, also close to 0 and 1; rows that sum to one still do."""
    made: list[Variant] = []
    for name, description, low in (
        ("seed-1", "other probabilities", 0.05),
        ("seed-2", "other probabilities again: what was remembered from the run before shows", 0.05),
        ("sure", "probabilities close to 0 and 1", 1e-4),
    ):
        rng = np.random.default_rng([seed, len(made) + 1])
        drawn = np.exp(rng.uniform(np.log(low), 0, x.shape)) * (1 - low)
        drawn = np.where(rng.random(x.shape) < 0.5, drawn, 1 - drawn) if x.ndim < 2 or x.shape[-1] == 1 else drawn
        if x.ndim > 1 and np.allclose(x.sum(-1), 1):
            drawn = drawn / drawn.sum(-1, keepdims=True)
        shuffled = _target(rng, y, False, _normal)
        made.append(Variant(name=name, description=description, params={}, x=drawn.astype(x.dtype), y=shuffled))
    return made


def _inputs(rng: np.random.Generator, x: Any, draw: _Draw) -> Any:
    """All inputs, redrawn; whole numbers stay, they are indices, and so do masks and labels beside other inputs."""
    floating = {n: part for n, part in named(x).items() if isinstance(part, np.ndarray) and part.dtype.kind == "f"}
    masks = {n for n, part in floating.items() if _is_mask(part)} if len(floating) > 1 else set()
    drawn = floating.keys() - (masks if len(masks) < len(floating) else set())
    return rebuilt(x, {n: draw(rng, part) if n in drawn else part for n, part in named(x).items()})


def _is_mask(part: Array) -> bool:
    """Whether it holds two different numbers: a mask, scaled or not, an adjacency, labels of -1 and 1."""
    others = part[part != part.flat[0]] if part.size else part
    return bool(others.size and (others == others[0]).all())


def _normal(rng: np.random.Generator, like: Array) -> Array:
    return np.asarray(rng.standard_normal(like.shape), like.dtype)


def _sided(rng: np.random.Generator, like: Array) -> Array:
    """Of images and sequences one half negative: windows whose largest number is, show where a search for it starts."""
    drawn = _normal(rng, like)
    if drawn.ndim > 2:
        half = drawn[..., drawn.shape[-1] // 2 :]
        half[...] = -np.abs(half)
    return drawn


def _shifted(rng: np.random.Generator, like: Array) -> Array:
    """Around 1: what a normalisation takes off its gradient is as large as the gradient, however many are averaged."""
    return np.asarray(1 + rng.standard_normal(like.shape), like.dtype)


def _integers(rng: np.random.Generator, like: Array) -> Array:
    """Few different values, so that maxima tie and sums cancel to exactly zero."""
    return np.asarray(rng.integers(-2, 3, like.shape), like.dtype)


def _scaled(rng: np.random.Generator, like: Array) -> Array:
    """Every slice along the last axis of another size, from 0.1 to 10: exp of it stays finite, in float32 as well.

    Where a textbook form overflows it is no mistake in the derivation, and most from-scratch code has such a form. The
    largest and the smallest number lie far out, so that a function that is cut off somewhere shows it (ReLU6).
    """
    size = 10.0 ** rng.uniform(-1, 1, like.shape[-1:] if like.ndim else ())
    drawn = np.asarray(rng.standard_normal(like.shape) * size, like.dtype)
    if drawn.size > 1:
        flat = drawn.reshape(-1)
        ends = flat.argmax(), flat.argmin()
        flat[[*ends]] = max(flat[ends[0]], FAR), min(flat[ends[1]], -FAR)
    return drawn


def _faint(rng: np.random.Generator, like: Array) -> Array:
    """Small enough for the ε of a normalisation to count beside the variance, wherever it is added."""
    return np.asarray(1e-3 * rng.standard_normal(like.shape), like.dtype)


_Draw = Callable[[np.random.Generator, Array], Array]

#: By probe: its description, how inputs and weights are drawn, and an upstream gradient.
_DRAWN: Mapping[str, tuple[str, _Draw, _Draw]] = {
    "seed-1": ("other random numbers, input and weights", _normal, _normal),
    "ties": ("small integers: equal maxima in a window, exact zeros at a ReLU", _integers, _integers),
    "scales": ("columns of different size, from 0.1 to 10", _scaled, _scaled),
    "seed-2": ("other random numbers again: what was remembered from the run before shows", _sided, _shifted),
    "faint": ("inputs around 1e-3: where an epsilon is added shows", _faint, _normal),
}


def _weights(rng: np.random.Generator, like: Array, draw: _Draw) -> Array:
    """Weights around zero of the size that keeps activations of order one; vectors around the given ones."""
    if like.ndim < 2:
        # a bias, or the scale of a normalisation, which must not vanish
        if draw is _integers:  # whole as well, or no sum is exactly zero
            return np.asarray(np.round(like + draw(rng, like)), like.dtype)
        return np.asarray(like + 0.3 * rng.standard_normal(like.shape), like.dtype)
    if draw is _integers:
        return np.asarray(rng.integers(-1, 2, like.shape), like.dtype)
    fan_in = max(1, int(np.prod(like.shape[1:])))
    scaled: Array = (rng.standard_normal(like.shape) / np.sqrt(fan_in)).astype(like.dtype)
    return scaled


def _target(rng: np.random.Generator, y: Any, upstream: bool, draw: _Draw) -> Any:
    if not isinstance(y, np.ndarray):
        return y
    if upstream:
        return draw(rng, y)
    return y[rng.permutation(len(y))] if y.ndim else y
