"""Calibrated tolerances for what has no certified rule: stochastic arithmetic.

The program is run again in float64, several times, and the result of every single operation is multiplied, element by
element, by 1 + s u with random signs s, u being the unit roundoff of the dtype under judgement (the CESTAC method,
Vignes 1993). How far the results move is how far rounding moves them, cancellation inside the segment included. Where
terms cancel inside a single operation, its result shows nothing of it: so an operation that is made of others (gelu, a
norm) is taken apart first, and the terms of a sum or a matrix product are perturbed as well. A few samples show less
than the worst case, so the spread is multiplied by 17. A reduction over n terms may be off by n roundings rather than
by one: it, and its terms, are moved by (16 + n) / 17 as much. What an operation that is not known may add up is taken
to be all that it is given.

Functions of one number (ELU, mish) are computed by formulas that cancel near a zero of theirs, e^x - 1 or log(1 + e^x):
what these lose is absolute, of the size of one, or of x where that is larger, and is no mistake.

Where a function has no derivative (ReLU at 0, equal maxima) rounding shows nothing, since the operands are exact, and
yet two right implementations may differ. So what goes into a segment is moved by next to nothing, up and down, equal
numbers by different amounts. What a gradient does there is no rounding, which grows with u: the same signs with a u a
thousand times larger or smaller show as much. So it is told from rounding, and not multiplied: the samples span what a
subgradient may be, and sums that all of them agree in (one of several equal maxima gets the gradient, or all share it)
bind a candidate, too.

This estimates; it does not prove. Checks that rest on it say "calibrated".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manual_bp.trace import GRAD
from manual_bp_torch.bounds import Kinks
from manual_bp_torch.failures import TheirError
from manual_bp_torch.leaving import Leaving
from manual_bp_torch.perturbed import FACTOR, Perturbed
from manual_bp_torch.spots import Spots

#: How many perturbed passes there are, in pairs of opposite signs; the spread is the largest deviation among them.
SAMPLES = 6

#: What moves an operand off a kink, or by its rounding.
Nudge = Callable[..., Any]

#: Below it is what the smallest of pushes leaves.
FLOOR = 1e-250


@dataclass(frozen=True)
class Estimate:
    """How far rounding moves a result, one-sided; and where, and between what, it has no derivative."""

    e: Tensor
    kinks: Kinks | None = None
    sampled: Sampled | None = None


@dataclass(frozen=True)
class Sampled:
    """Between what the samples of a result that jumps lie, and how far off rounding may have put them."""

    low: Tensor
    high: Tensor
    noise: Tensor


def spread(
    run: _Run,
    *,
    u: float,
    eta: float,
    operands: Mapping[str, Tensor] | None = None,
    stored: bool = False,
    hold: Callable[[], AbstractContextManager[Any]] | None = None,
) -> dict[str, Estimate]:
    """Estimates for everything that ``run`` computes, by name.

    Parameters
    ----------
    run
        Runs the program in float64 and returns its results, its exact operands passed through the nudge it is given;
        called once plainly and SAMPLES times perturbed, and as often again where something jumps. Where it refuses
        numbers that were moved (out of a range), the other samples must do.
    operands
        By the name of a gradient, what it is the gradient of; None if nobody asks where it has no derivative.
    stored
        Also move some operands by the rounding that they were stored with: ``run`` gets what moves them as well.
    hold
        Makes what keeps the program, while it is entered, on the side of each tie that torch chose: what still moves is
        rounding.
    """
    run = run if stored else _without(run)
    with Leaving() as leaving:
        plain = run(as_it_is, as_it_is)
    deviations = {name: torch.zeros_like(value) for name, value in plain.items()}
    smooth = not leaving.left
    for mode in _modes(u):
        moved = _sample(run, mode)
        if moved is None:
            continue
        smooth &= mode.smooth
        for name, value in plain.items():
            _raise(deviations[name], moved[name] - value)
    estimates = {name: Estimate(_allowed(deviations[name], value, u) + eta) for name, value in plain.items()}
    if operands is None:
        return estimates
    # a function that jumps has its value all the same; its derivative may be one thing or another
    gradients = {name: value for name, value in plain.items() if name.endswith(GRAD) and value.numel()}
    within = _sudden({name: deviations[name] for name in gradients}, gradients, u)
    if smooth and not within:  # there is nothing in it that could choose
        return estimates
    # with operands left alone a sum that cancels is exactly zero: all kinks that such sums stand on fall to one side
    level, steady = (
        [{name: moved[name] for name in gradients} for moved in _samples(run, _modes(u, steady=True), nudged=nudged)]
        for nudged in (False, True)
    )
    loud = {n: LOUD * v.abs() + FLOOR for n, v in gradients.items()}
    jumps = within | {
        n for moved in (*level, *steady) for n in loud if bool(((moved[n] - plain[n]).abs() > loud[n]).any())
    }
    if not jumps:
        return estimates
    if hold is not None and within:
        hold()  # finds the ties, once, while nothing is perturbed
        held = {name: torch.zeros_like(plain[name]) for name in within}
        for moved in _samples(_within(hold, run), _modes(u)):
            for name, deviation in held.items():
                _raise(deviation, moved[name] - plain[name])
        calm = within - _sudden(held, gradients, u)
        deviations |= {name: held[name] for name in calm}
        within -= calm
    # in float64 nothing of the size of u can be told from the rounding of these passes themselves
    large, small = (1.0, 1 / SCALE) if u > 2.0**-40 else (SCALE**2, SCALE)
    sides: dict[str, list[Tensor]] = {name: [] for name in jumps}
    apart = {name: torch.zeros_like(plain[name]) for name in within}
    for near_mode, far_mode in zip(_modes(u, times=small), _modes(u, times=large), strict=True):
        near = _sample(run, near_mode, nudged=True)
        if near is None:
            continue
        for name in jumps:
            sides[name].append(near[name])
        far = _sample(run, far_mode, nudged=True) if within else None
        if far is not None:
            for name in within:
                _raise(apart[name], (far[name] - near[name]) / abs(large - small))
    for name in jumps:
        samples = [[plain[name], *(m[name] for m in level)], [m[name] for m in steady], sides[name]]
        still, quiet, noisy = (_without_nan(found, plain[name]) for found in samples)
        every = torch.cat([still, quiet, noisy])
        deviation = apart[name] if name in within and bool(apart[name].any()) else deviations[name]
        e = _allowed(deviation, every.abs().nan_to_num().amax(0), u) + eta
        spots = Spots.of(still, quiet, noisy, e, max(1.0, small))
        if spots is not None and name in operands:
            spots = spots.with_equals(operands[name])
        sampled = Sampled(every.amin(0), every.amax(0), e * max(1.0, small))
        estimates[name] = Estimate(e, spots.kinks() if spots is not None else None, sampled)
    return estimates


#: How much larger all that is moved is made, or smaller, for a second look.
SCALE = 2.0**10

#: A result that moves by more than so many roundings, relative to the largest, is looked at once more.
SUDDEN = 2.0**12

#: One that moves by more than that, relative to itself, where its operands were hardly moved.
LOUD = 2.0**-30

_Run = Callable[..., dict[str, Tensor]]


def _sudden(deviations: Mapping[str, Tensor], values: Mapping[str, Tensor], u: float) -> set[str]:
    """Those that move by more than rounding, and than the smallest of pushes."""
    return {n for n, d in deviations.items() if d.max() > SUDDEN * u * values[n].abs().nan_to_num().max() + FLOOR}


def as_it_is(value: Any, _error: Tensor | None = None) -> Any:
    """What moves nothing."""
    return value


def _without(run: _Run) -> _Run:
    """A run that is not handed what moves operands by their roundings."""
    return lambda nudge, _: run(nudge)


def _within(hold: Callable[[], AbstractContextManager[Any]], run: _Run) -> _Run:
    """A run, in what keeps it on torch's sides."""

    def held(nudge: Nudge, stored: Nudge) -> dict[str, Tensor]:
        with hold():
            return run(nudge, stored)

    return held


def _modes(u: float, *, times: float = 1.0, steady: bool = False) -> Iterator[Perturbed]:
    """In pairs of opposite signs; a pair is all there is where every sign is the same."""
    for which in range(2 if steady else SAMPLES):
        yield Perturbed(u, which // 2, flip=bool(which % 2), times=times, steady=steady)


def _samples(run: _Run, modes: Iterable[Perturbed], *, nudged: bool = False) -> Iterator[dict[str, Tensor]]:
    """One at a time; those that the program refuses are left out."""
    for mode in modes:
        found = _sample(run, mode, nudged=nudged)
        if found is not None:
            yield found


def _sample(run: _Run, mode: Perturbed, *, nudged: bool = False) -> dict[str, Tensor] | None:
    try:
        with mode:
            return run(mode.nudge if nudged else as_it_is, mode.stored)
    except TheirError:
        return None


def _raise(largest: Tensor, deviation: Tensor) -> None:
    """Take in another deviation, in place."""
    torch.maximum(largest, torch.nan_to_num(deviation.abs()), out=largest)


def _allowed(deviation: Tensor, size: Tensor, u: float) -> Tensor:
    return FACTOR * (_smooth(deviation) + u * size.abs().nan_to_num())


def _smooth(deviation: Tensor) -> Tensor:
    """A few samples may agree by chance at some element: never less than a tenth of what its row shows."""
    row = deviation.square().mean(-1, keepdim=True).sqrt() if deviation.dim() else deviation
    return deviation + 0.1 * row


def _without_nan(samples: list[Tensor], plain: Tensor) -> Tensor:
    """Stacked; 0 / 0 beside a number says nothing."""
    if not samples:
        return plain.new_empty((0, *plain.shape))
    return torch.stack([torch.where(sample.isnan(), plain, sample) for sample in samples])
