"""What is kept of judging one step: two numbers while all goes well, every check once something is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from manual_bp import _torch_side
from manual_bp.compare import Item, compare
from manual_bp.errors import ManualBPError
from manual_bp.measure import excess
from manual_bp.nn import Optimizer, Params, State
from manual_bp.report import HARMLESS, Check, Finding
from manual_bp.trace import GRAD, NEW, Array, Trace


@dataclass(frozen=True)
class Judged:
    """How many quantities were judged and how much they used; ``checks`` only where something is to be shown."""

    judged: int = 0
    used: float = 0.0
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, checks: tuple[Check, ...], findings: Iterable[Finding] = ()) -> Judged:
        """What checks add up to."""
        used = max((check.isolated.used for check in checks if check.isolated), default=0.0)
        return cls(len(checks), used, checks, tuple(findings))

    def __add__(self, other: Judged) -> Judged:
        return Judged(
            self.judged + other.judged,
            max(self.used, other.used),
            self.checks + other.checks,
            self.findings + other.findings,
        )

    @property
    def wrong(self) -> bool:
        """Whether any check is neither right nor a kink."""
        return any(check.status not in HARMLESS for check in self.checks)


def largest_share(items: Iterable[Item], trace: Mapping[str, Array]) -> float | None:
    """The largest share of what is allowed, or None if a quantity is not plainly right and must be looked at closely.

    A training step judges as much as a whole comparison; this is what of it is needed while all goes well.
    """
    items = tuple(items)
    worst = 0.0
    if trace.keys() - {item.quantity.name for item in items}:
        return None
    for item in items:
        got = trace.get(item.quantity.name)
        for expected in (item.isolated, item.end_to_end):
            if expected is None:
                continue
            if got is None or got.shape != expected.value.shape or got.dtype != expected.value.dtype:
                return None
            used = float(excess(got, expected.value, expected.allowed)[1].max(initial=0.0))
            if not used <= 1.0:
                return None
            worst = max(worst, used) if expected is item.isolated else worst
    return worst


def unusable(items: tuple[Item, ...], probe: str, why: str) -> Judged:
    """An update of which nothing can be used, and why."""
    checks = tuple(replace(check, note=why) for check in compare(items, {}, probe=probe))
    finding = Finding(kind="wrong", name=items[0].quantity.name, step="update", text=why, probes=(probe,))
    return Judged.of(checks, (finding,))


def judged_update(
    optimizer: Optimizer,
    step: Callable[[Params, Params, State], tuple[Mapping[str, Array], State]],
    params: dict[str, Array],
    grads: dict[str, Array],
    state: State,
    *,
    probe: str,
) -> tuple[Judged, Mapping[str, Array], State]:
    """One update by hand, judged from the very parameters, gradients and state that it started from.

    Parameters
    ----------
    optimizer
        What is right.
    step
        The update by hand: new parameters and new state.

    Returns
    -------
    The judgement, and what ``step`` returned.
    """
    items = _torch_side.lockstep.update_items(optimizer, params, grads, state)
    given = {**params, **{name + GRAD: g for name, g in grads.items()}}
    kept = {name: array.tobytes() for name, array in given.items()}
    try:
        new, after = step(params, grads, state)
    except ManualBPError:
        raise
    except Exception as error:  # noqa: BLE001  # hand-written code under judgement: what it raises is a finding
        return unusable(items, probe, f"the optimiser raised {type(error).__name__}: {error}"), {}, {}
    if changed := [name for name, array in given.items() if array.tobytes() != kept[name]]:
        return unusable(items, probe, f"the optimiser changed {changed[0]}, which it was given, in place"), {}, {}
    trace: Trace = {name + NEW: np.asarray(array) for name, array in new.items()}
    trace |= {f"{n}.{key}{NEW}": np.asarray(a) for n, own in after.items() for key, a in own.items()}
    used = largest_share(items, trace)
    if used is not None:
        return Judged(len(items), used), new, after
    apart = _torch_side.lockstep.told_apart(items, optimizer, params, grads, state, trace)
    return Judged.of(compare(apart, trace, probe=probe)), new, after
