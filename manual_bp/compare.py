"""Two traces and the allowed errors in, every check out, in execution order.

Pure NumPy, no torch; never raises on a difference: what is missing, foreign, of another shape or dtype, or not finite
is a status. How the allowed errors come about is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np

from manual_bp.measure import measure, outside, survey
from manual_bp.picture import Against, picture
from manual_bp.report import Check, Kink, Status
from manual_bp.trace import GRAD, Array, Quantity

#: Of a quantity that is at fault itself, as far as can be told.
WRONG = ("wrong", "missing", "mismatch", "nonfinite")

#: By so many times what the sum itself may round its terms' own roundings may exceed it, where all else cancels.
ROUNDINGS = 64


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A right answer: the value, how far from it a right candidate may be, and the rule that says so.

    ``wider`` is given where what is allowed is only what was at hand: it makes the answer that decides over what is not
    within that.
    """

    value: Array
    allowed: Array
    rule: str = ""
    wider: Callable[[], Expected] | None = None

    @property
    def limit(self) -> tuple[Array, float]:
        """An array and a number whose product is what is allowed: where it is long, that need not be made."""
        return self.allowed, 1.0


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another right answer, element by element (NaN where it is none); ``kink`` if only for want of a derivative.

    It explains all that differs or nothing, unless it may be chosen for ``each`` element by itself.
    """

    value: Array
    allowed: Array
    reason: str
    kink: bool = False
    each: bool = False


@dataclass(frozen=True, kw_only=True)
class KinkSet:
    """Elements without a derivative: the mask, the valid range, torch's convention, and the test of a whole array.

    ``valid(candidate)`` gives the mask of the elements whose reported value is part of a valid subgradient.
    """

    mask: Array
    convention: str
    valid: Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One quantity and all that is known of what it should be.

    ``isolated`` is what the step makes of the candidate's own operands, ``end_to_end`` what the reference's own pass
    gives; either may be absent. ``refused`` names an operand of the candidate's that the reference cannot work with: a
    loss, given what is no probability. Then there is no isolated answer.
    """

    quantity: Quantity
    isolated: Expected | None
    end_to_end: Expected | None
    alternatives: Sequence[Alternative] = ()
    kinks: KinkSet | None = None
    refused: str = ""

    @property
    def shown(self) -> Expected | None:
        """The answer beside which a right quantity is pictured."""
        return self.end_to_end or self.isolated


def compare(
    items: Iterable[Item],
    candidate: Mapping[str, Array],
    *,
    probe: str,
    strict_kinks: bool = False,
    left_out: Iterable[str] = (),
) -> tuple[Check, ...]:
    """Judge every quantity of one pass.

    Parameters
    ----------
    items
        The expected quantities in execution order; each is looked at once and let go of.
    candidate
        What the hand-written side reports, by name.
    strict_kinks
        Make another choice of subgradient a difference.
    left_out
        Names of the reference that need not be reported: an unknown name may be meant for one of them.
    """
    checks: list[Check] = []
    known: list[str] = []
    for item in items:
        known.append(item.quantity.name)
        check = _judge(item, candidate.get(known[-1]), probe, strict_kinks)
        if item.refused and check.status in ("wrong", "nonfinite") and any(c.status in WRONG for c in checks):
            note = f"cannot be judged in itself: the reference refuses the candidate's {item.refused}"
            check = replace(check, status="inherited", note=note)
        checks.append(check)
        del item  # the next one is made while this name still holds it
    names = [*known, *left_out]
    unknown = {name: array for name, array in candidate.items() if name not in set(known)}
    extra = [_extra(name, array, names, candidate, probe) for name, array in unknown.items()]
    return tuple(settle([*checks, *extra]))


def settle(
    checks: list[Check], *, because: str = "every step is right in itself; rounding alone sets the two sides apart"
) -> list[Check]:
    """Let nothing be inherited from nothing.

    By induction a pass whose every isolated step holds is right. What still differs end to end then differs because
    a subgradient was chosen otherwise upstream, or because rounding put the two sides on different sides of a kink:
    ``because`` says so.
    """
    if any(c.status in WRONG for c in checks):
        return checks
    kinks = [c for c in checks if c.status == "kink"]
    if kinks:
        note = f"differs from the reference only because of the subgradient chosen at {kinks[0].name}"
        return [replace(c, status="kink", note=note) if c.status == "inherited" else c for c in checks]
    return [replace(c, status="pass", note=because) if c.status == "inherited" else c for c in checks]


def _judge(item: Item, got: Array | None, probe: str, strict_kinks: bool) -> Check:
    quantity = item.quantity
    expected = item.isolated or item.end_to_end
    shape = expected.value.shape if expected is not None else ()
    dtype = _name_of(expected.value.dtype) if expected is not None else ""

    def check(status: Status, note: str = "", **fields: Any) -> Check:
        equation = quantity.equation
        return Check(
            probe=probe,
            name=quantity.name,
            kind=quantity.kind,
            step=quantity.step,
            shape=tuple(int(n) for n in shape),
            dtype=dtype,
            status=status,
            note=note,
            rule=expected.rule if expected else "",
            symbol=quantity.symbol,
            equation=equation.text if equation else "",
            equation_latex=equation.latex if equation else "",
            source=equation.source if equation else "",
            **fields,
        )

    if got is None:
        return check("missing", "the candidate did not report it")
    if got.shape != shape:
        return check("mismatch", f"has shape {_shape(got.shape)}, expected {_shape(shape)}{_hint(got.shape, shape)}")
    if _name_of(got.dtype) != dtype:
        return check("mismatch", f"is {got.dtype}, expected {dtype}")
    seen = {id(a): survey(got, a.value, *a.limit, planes=a is item.shown) for a in _answers(item)}
    whole = item.end_to_end
    if whole is not None and whole.wider is not None and seen[id(whole)].comparison.mismatched:
        whole = whole.wider()
        item = replace(item, end_to_end=whole)
        expected = item.isolated or whole
        seen[id(whole)] = survey(got, whole.value, *whole.limit)
    isolated, end_to_end = (seen[id(e)].comparison if e else None for e in (item.isolated, item.end_to_end))
    decisive = isolated or end_to_end
    assert decisive is not None, f"{quantity.name}: nothing to compare with"
    fields: dict[str, Any] = {"isolated": isolated, "end_to_end": end_to_end}
    if decisive.mismatched:
        assert expected is not None
        wrong = outside(got, expected.value, expected.allowed)
        left, kink, reason = _excuse(item, got, wrong)
        if not left.any():
            accepted = measure(got, np.where(wrong, got, expected.value), expected.allowed)
            fields["isolated" if item.isolated else "end_to_end"] = accepted
            if kink is None:
                return check("pass", reason, **fields)
            return check("wrong" if strict_kinks else "kink", reason, kink=kink, **fields)
        against: Against = "isolated" if item.isolated else "end_to_end"
        fields["picture"] = picture(got, expected.value, expected.allowed, against=against)
        if kink is not None:
            fields["kink"] = kink
        if bool((~np.isfinite(got) & np.isfinite(expected.value) & left).any()):
            return check("nonfinite", _nonfinite(got, expected.value), **fields)
        return check("wrong", **fields)
    shown = item.shown
    assert shown is not None
    right = seen[id(shown)] if not seen[id(shown)].comparison.mismatched else None
    limit, times = shown.limit if right else (shown.allowed, 1.0)
    fields["picture"] = picture(got, shown.value, limit, seen=right, times=times)
    if end_to_end is not None and end_to_end.mismatched:
        return check("inherited", "right in itself; off because something before it is", **fields)
    return check("pass", **fields)


@cache
def _name_of(dtype: np.dtype[Any]) -> str:
    return str(dtype)


def _answers(item: Item) -> list[Expected]:
    """The one or two different things to compare with."""
    found = [answer for answer in (item.isolated, item.end_to_end) if answer is not None]
    return found[:1] if len(found) == 2 and found[0] is found[1] else found


def _excuse(item: Item, got: Array, wrong: Array) -> tuple[Array, Kink | None, str]:
    """Take away the differing elements that another right answer explains.

    Returns the mask of what is left, the kink if one was needed, and the reason.
    """
    left = wrong.copy()
    kink: Kink | None = None
    reason = ""
    for other in item.alternatives:
        explained = left & ~outside(got, other.value, other.allowed) & ~(np.isnan(other.value) & ~np.isnan(got))
        if other.kink and explained.any():
            kink, reason = _kink(explained, other.reason), other.reason
            left &= ~explained
        elif other.each and explained.any():
            left, reason = left & ~explained, f"accepted: {other.reason}"
        elif not (other.kink or other.each) and not (left & ~explained).any():
            return np.zeros_like(left), kink, f"accepted: {other.reason}"
    if item.kinks is not None and left.any():
        explained = left & item.kinks.mask & item.kinks.valid(got)
        if explained.any():
            kink, reason = (
                _kink(explained, item.kinks.convention),
                f"another valid subgradient: {item.kinks.convention}",
            )
            left &= ~explained
    zero = left & _nothing(item, got)
    if zero.any():
        left &= ~zero
        reason = reason or "accepted: exactly zero, which over the whole pass it is but for rounding"
    return left, kink, reason


def _nothing(item: Item, got: Array) -> Array:
    """Where a candidate says exactly zero, and the sum of its own rounded operands, which is another one, may be it.

    The gradient of a key's bias in attention is zero by derivation; the sum that torch forms is a rounding.
    """
    whole = item.end_to_end
    if whole is None or item.isolated is None:
        return np.zeros(got.shape, dtype=bool)
    sum_of_roundings = np.abs(item.isolated.value) <= ROUNDINGS * item.isolated.allowed
    return np.asarray((got == 0) & sum_of_roundings & (np.abs(whole.value) <= whole.allowed))


def _kink(mask: Array, convention: str) -> Kink:
    where = np.argwhere(mask)[:8]
    return Kink(
        elements=int(mask.sum()), indices=tuple(tuple(int(i) for i in index) for index in where), convention=convention
    )


def _extra(name: str, array: Array, names: list[str], candidate: Mapping[str, Array], probe: str) -> Check:
    # rather one that is not reported yet
    meant = _meant(name, [known for known in names if known not in candidate]) or _meant(name, names)
    note = "the reference has no such quantity" + (f"; did you mean {meant!r}?" if meant else "")
    return Check(
        probe=probe,
        name=name,
        kind="value",
        step="",
        shape=array.shape,
        dtype=str(array.dtype),
        status="extra",
        note=note,
    )


def _meant(name: str, names: list[str]) -> str:
    """The one of some names that an unknown one looks like, as people write them: dZ1 is z1.grad."""
    spelled = {known.lower(): known for known in names}
    spelled |= {f"d{known.removesuffix(GRAD)}".lower(): known for known in names if known.endswith(GRAD)}
    close = get_close_matches(name.lower(), spelled, n=1)
    return spelled[close[0]] if close else ""


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _hint(got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What a difference in shape usually means."""
    if got == expected[::-1]:
        return " (transposed?)"
    if sorted(got) == sorted(expected):
        return " (axes in another order?)"
    if int(np.prod(got)) == int(np.prod(expected)):
        return " (same number of elements: flattened or reshaped?)"
    return ""


def _nonfinite(got: Array, expected: Array) -> str:
    bad = ~np.isfinite(got) & np.isfinite(expected)
    if got.ndim == 0:
        return f"it is {got}, which is not finite"
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    verb = "is" if bad.sum() == 1 else "are"
    return f"{int(bad.sum())} of {bad.size} elements {verb} not finite, first at {list(index)}: {got[index]}"
