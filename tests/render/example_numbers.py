"""The numbers behind the example reports: a small network in NumPy, with mistakes on demand, and its comparisons.

The engine is not used here, nor the judge: a view is tested against what a report says, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manual_bp.report import Comparison, Element, Picture, Plane

Array = NDArray[np.float64]


def _windows(x: Array, size: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))


def three_layer(seed: int, mistake: str = "", *, integers: bool = False) -> dict[str, Array]:
    """Every quantity of the seed network on two 8x8 images; ``mistake`` names what is done wrong."""
    rng = np.random.default_rng(seed)
    draw: Callable[..., Array] = (
        (lambda *s: rng.integers(-2, 3, s).astype(float)) if integers else (lambda *s: rng.normal(size=s))
    )
    x, w1, b1, w3, b3 = draw(2, 1, 8, 8), draw(1, 1, 3, 3), draw(1), draw(1, 9) / 8, draw(1)
    y = np.array([[1.0], [0.0]])
    z1 = np.einsum("ncijuv,ocuv->noij", _windows(x, 3), w1) + b1[:, None, None]
    a1 = np.maximum(z1, 0)
    blocks = a1.reshape(2, 1, 3, 2, 3, 2).swapaxes(3, 4).reshape(2, 1, 3, 3, 4)
    a2 = blocks.max(-1)
    z3 = a2.reshape(2, 9) @ w3.T + b3
    a3 = 1 / (1 + np.exp(-z3))
    da3 = (-y / a3 + (1 - y) / (1 - a3)) / 2
    dz3 = da3 * a3 * (1 - a3)
    da2 = (dz3 @ w3).reshape(a2.shape)
    winner = blocks.argmax(-1) if mistake != "last tie" else 3 - blocks[..., ::-1].argmax(-1)
    route = np.eye(4)[winner] if mistake != "all tied" else (blocks == a2[..., None]) * 1.0
    da1 = (route * da2[..., None]).reshape(2, 1, 3, 3, 2, 2).swapaxes(3, 4).reshape(a1.shape)
    dz1 = da1 if mistake == "no mask" else da1 * (z1 > 0)
    kernel = w1 if mistake == "not rotated" else w1[..., ::-1, ::-1]
    padded = np.pad(dz1, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return {
        "z1": z1, "a1": a1, "a2": a2, "z3": z3, "a3": a3,
        "loss": np.asarray(-np.mean(y * np.log(a3) + (1 - y) * np.log(1 - a3))),
        "a3.grad": da3, "z3.grad": dz3, "a2.grad": da2,
        "z3.weight.grad": dz3.T @ a2.reshape(2, 9), "z3.bias.grad": dz3.sum(0),
        "a1.grad": da1, "z1.grad": dz1,
        "x.grad": np.einsum("noijuv,ocuv->ncij", _windows(padded, 3), kernel),
        "z1.weight.grad": np.einsum("ncuvij,noij->ocuv", _windows(x, 6), dz1),
        "z1.bias.grad": dz1.sum((0, 2, 3)),
    }  # fmt: skip  # one line a step of the network reads better


def comparison(candidate: Array, reference: Array, *, bound: float = 64 * 2.0**-53) -> Comparison:
    """What the judge writes down of two arrays; allowed is ``bound`` times the reference's magnitude."""
    candidate, reference = np.asarray(candidate, float), np.asarray(reference, float)
    allowed = bound * (np.abs(reference) + np.abs(reference).mean() + 1e-300)
    with np.errstate(invalid="ignore"):
        error = np.abs(candidate - reference)
    used = np.where(np.isfinite(error), error / allowed, np.inf)
    wrong = used > 1
    order = np.argsort(-used, axis=None, kind="stable")
    places = [tuple(int(i) for i in np.unravel_index(flat, used.shape)) for flat in order[:5]]
    elements = [
        Element(index=at, candidate=float(candidate[at]), reference=float(reference[at]), allowed=float(allowed[at]))
        for at in places
    ]
    worst = elements[0]
    finite = error[np.isfinite(error)]
    ratio = error[wrong] / np.abs(reference[wrong]) if wrong.any() and (reference[wrong] != 0).all() else np.array([])
    return Comparison(
        max_abs_error=float(finite.max()) if finite.size == error.size else float("nan"),
        used=float(used.max()),
        mismatched=int(wrong.sum()),
        elements=error.size,
        worst_index=worst.index,
        candidate=worst.candidate,
        reference=worst.reference,
        allowed=worst.allowed,
        passing_atol=float(error.max())
        if wrong.any() and np.isfinite(error).all()
        else float("inf") * bool(wrong.any()),
        passing_rtol=float(ratio.max()) if ratio.size else float("inf") * bool(wrong.any()),
        worst=tuple(element for at, element in zip(places, elements, strict=True) if wrong[at]),
    )


def picture(
    candidate: Array,
    reference: Array,
    *,
    against: Literal["isolated", "end_to_end"] = "isolated",
    bound: float = 64 * 2.0**-53,
) -> Picture:
    """The planes over the last two axes, worst first, pooled to at most 16 x 16 cells by the worst element."""
    candidate, reference = np.atleast_2d(candidate), np.atleast_2d(reference)
    with np.errstate(invalid="ignore"):
        error = np.abs(candidate - reference)
    used = error / (bound * (np.abs(reference) + np.abs(reference).mean() + 1e-300))
    used = np.where(np.isnan(used), np.inf, used)
    lead = used.shape[:-2]
    planes = sorted(np.ndindex(*lead), key=lambda at: -used[at].max())
    return Picture(
        against=against,
        planes_total=len(planes),
        planes=tuple(_plane(at, candidate[at], reference[at], used[at]) for at in planes[:2]),
    )


def _plane(at: tuple[int, ...], candidate: Array, reference: Array, used: Array) -> Plane:
    block = tuple(-(-size // 16) for size in used.shape)
    rows, cols = (-(-size // b) for size, b in zip(used.shape, block, strict=True))
    cells: list[tuple[float, float, float]] = []
    for r, c in np.ndindex(rows, cols):
        part = (slice(r * block[0], (r + 1) * block[0]), slice(c * block[1], (c + 1) * block[1]))
        flat = int(np.argmax(used[part]))
        cells.append(tuple(float(array[part].flat[flat]) for array in (candidate, reference, used)))  # type: ignore[arg-type]  # three arrays, three numbers
    label = ", ".join(f"{axis} {i}" for axis, i in zip(("batch", "channel"), at, strict=False))
    c, r, u = zip(*cells, strict=True)
    return Plane(
        label=label, index=at, rows=rows, cols=cols, block=(block[0], block[1]), candidate=c, reference=r, used=u
    )
