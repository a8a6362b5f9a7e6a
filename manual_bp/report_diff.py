"""Two reports held against each other: what got better, what worse, what is new. Needs neither torch nor rich."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from manual_bp.report import SEVERITY, Check, Comparison, Report, worst_per_quantity

#: "still" is wrong as before; "same" right as before; "gone" was compared and is no more.
Change = Literal["worse", "new", "better", "still", "gone", "same"]

#: An error that shrinks or grows by less than this factor is the same error.
FACTOR = 2.0


@dataclass(frozen=True, kw_only=True)
class QuantityChange:
    """One quantity in both reports, each time its worst check over the probes; None where it was not compared."""

    name: str
    change: Change
    why: str
    old: Check | None
    new: Check | None


@dataclass(frozen=True, kw_only=True)
class ReportDiff:
    """Both reports, every quantity of either in execution order, and what makes them hard to compare."""

    old: Report
    new: Report
    changes: tuple[QuantityChange, ...]
    differences: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether a quantity got worse, a wrong one is new, or the verdict turned to fail."""
        return (self.old.ok and not self.new.ok) or any(
            c.change == "worse" or (c.change == "new" and c.new is not None and c.new.status not in ("pass", "kink"))
            for c in self.changes
        )

    def of(self, change: Change) -> tuple[QuantityChange, ...]:
        """The quantities that changed in this way."""
        return tuple(c for c in self.changes if c.change == change)


def compare_reports(old: Report, new: Report) -> ReportDiff:
    """What changed from ``old`` to ``new``; quantities are matched by name."""
    before = {check.name: check for check in worst_per_quantity(old)}
    after = {check.name: check for check in worst_per_quantity(new)}
    names = [*after, *(name for name in before if name not in after)]
    shown_by = _counts(old), _counts(new)
    return ReportDiff(
        old=old,
        new=new,
        changes=tuple(_change(name, before.get(name), after.get(name), shown_by) for name in names),
        differences=tuple(_differences(old, new)),
    )


def _change(
    name: str, old: Check | None, new: Check | None, shown_by: tuple[Mapping[str, int], Mapping[str, int]]
) -> QuantityChange:
    change, why = _judge(old, new, shown_by[0].get(name, 0), shown_by[1].get(name, 0))
    return QuantityChange(name=name, change=change, why=why, old=old, new=new)


def _judge(old: Check | None, new: Check | None, old_probes: int, new_probes: int) -> tuple[Change, str]:
    if old is None:
        return "new", ""
    if new is None:
        return "gone", "no longer compared"
    if old.status != new.status:
        better = SEVERITY.index(new.status) > SEVERITY.index(old.status)
        return ("better" if better else "worse"), f"{_word(old)} → {_word(new)}"
    if new.status in ("pass", "kink"):
        return "same", ""
    if old_probes != new_probes:
        return ("better" if new_probes < old_probes else "worse"), f"shown by {old_probes} → {new_probes} probes"
    was, now = _off(old), _off(new)
    if now * FACTOR < was or was * FACTOR < now:
        return ("better" if now < was else "worse"), "the error shrank" if now < was else "the error grew"
    reasons = [check.diagnosis.name if check.diagnosis else "" for check in (old, new)]
    return "still", f"now explained by: {reasons[1]}" if reasons[1] and reasons[0] != reasons[1] else ""


def _word(check: Check) -> str:
    return "right" if check.status == "pass" else check.status


def _off(check: Check) -> float:
    """How far off a quantity is, as a multiple of what is allowed; infinite where that cannot be said."""
    found: Comparison | None = check.isolated if check.isolated and check.isolated.mismatched else check.end_to_end
    return found.used if found and found.used == found.used else float("inf")


def _counts(report: Report) -> Mapping[str, int]:
    """On how many probes each quantity is not right."""
    counts: dict[str, int] = {}
    for check in report.checks:
        counts[check.name] = counts.get(check.name, 0) + (check.status not in ("pass", "kink"))
    return counts


def _differences(old: Report, new: Report) -> list[str]:
    """Settings that differ, so that a change may come from them and not from the code."""
    settings = [(key, getattr(old, key), getattr(new, key)) for key in ("network", "dtype", "seed", "strict_kinks")]
    settings.append(("probes", _probes(old), _probes(new)))
    settings += [(key, old.environment.get(key), new.environment.get(key)) for key in ("torch", "numpy", "manual_bp")]
    return [f"{key}: {before} → {after}" for key, before, after in settings if before != after]


def _probes(report: Report) -> str:
    names = [probe.name for probe in report.probes] or list(dict.fromkeys(check.probe for check in report.checks))
    return ", ".join(names)
