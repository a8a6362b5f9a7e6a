"""Whether what a candidate claims is the gradient of some valid choice wherever there is no derivative.

The gradients of a program are functions of the choices at its ties (`ties`), linear in each. So all claims together are
right if one set of choices, each between the slopes to either side, gives all of them. Where no two choices are in a
row, which one reported gradient between them rules out, that is a linear problem, and what has no solution is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial

import numpy as np
import torch
from torch import Tensor

from manual_bp.trace import Array
from manual_bp_torch.bounded import components, least_squares
from manual_bp_torch.bounds import INFLATION, Kinks
from manual_bp_torch.bounds._model import LaterKinks
from manual_bp_torch.numbering import MANY
from manual_bp_torch.perturbed import FACTOR
from manual_bp_torch.spots import CONVENTION
from manual_bp_torch.stochastic import FLOOR, Estimate, Sampled
from manual_bp_torch.ties import Ties

#: So many numbers are computed at most, for all choices together: some seconds, and some hundred megabytes. A run of a
#: program counts as that many at least.
_MOST, _RUN = 1 << 25, 1 << 14

#: Linear up to here: float64 rounding, relative to the largest terms.
_LINEAR = 1e-9

#: Rounding of what choices move, in float64.
_EXACT = 2.0**-50

#: How often choices in a row are looked at anew, from how many places.
_ROUNDS, _STARTS = 8, 4

_Run = Callable[[], dict[str, Tensor]]


@dataclass
class Choices:
    """The choices of a program, and what claims they explain.

    Parameters
    ----------
    run
        The program in float64 on the candidate's claims; what it computes by name.
    claims
        By name, gradients that a candidate claims.
    errors
        By name, how far a right one may be from the exact one, one-sided.
    ties
        What was active during one such run.
    size
        How many numbers such a run computes.
    suspects
        What is known to be wrong from elsewhere: where claims do not fit together, it is these that do not.
    """

    run: _Run
    claims: Mapping[str, Tensor]
    errors: Mapping[str, Tensor]
    ties: Ties
    size: int = 0
    suspects: Collection[str] = ()
    spent: int = field(default=0, init=False)

    @cached_property
    def names(self) -> list[str]:
        """What was claimed, that which tells most first."""
        return sorted(self.claims, key=lambda name: -self.claims[name].numel())

    @property
    def count(self) -> int:
        """How many choices there are."""
        return self.ties.count

    @cached_property
    def _runs(self) -> int:
        """How many runs of the program may be made."""
        return _MOST // max(self.size, len(self._claimed), _RUN)

    @property
    def few(self) -> bool:
        """Whether there are any, and so few that each can be looked at."""
        return 0 < self.count <= min(MANY, self._runs)

    def made(self, choices: Array) -> dict[str, Tensor]:
        """All gradients with these choices."""
        self.spent += 1
        with Ties(self.ties.u, self.ties.known, torch.from_numpy(choices)):
            return self.run()

    def _stacked(self, found: Mapping[str, Tensor]) -> Array:
        return np.concatenate([found[name].detach().reshape(-1).numpy() for name in self.names])

    @cached_property
    def _rows(self) -> dict[str, slice]:
        ends = np.cumsum([self.claims[name].numel() for name in self.names])
        return {
            name: slice(int(end) - self.claims[name].numel(), int(end))
            for name, end in zip(self.names, ends, strict=True)
        }

    @cached_property
    def _claimed(self) -> Array:
        return self._stacked(self.claims)

    @cached_property
    def _allowed(self) -> Array:
        """How far a right claim may be off: that of torch's own choice, and what a larger one is rounded by."""
        more = (np.abs(self._claimed) - np.abs(self._first[0])).clip(0.0)
        return np.asarray(2 * INFLATION * (self._stacked(self.errors) + FACTOR * self.ties.u * more))

    @cached_property
    def _range(self) -> tuple[Array, Array]:
        blocks = [b for b in self.ties.known.values() if b.count]
        ends = [[(getattr(b.found, end) - b.found.own).numpy() for b in blocks] for end in ("least", "most")]
        return np.concatenate(ends[0]), np.concatenate(ends[1])

    @cached_property
    def _sums(self) -> tuple[Array, Array, Array]:
        """Which choices add up, to what at least and at most: a row each."""
        sums = [s for b in self.ties.known.values() for s in b.sums()]
        rows = np.zeros((len(sums), self.count))
        for row, s in zip(rows, sums, strict=True):
            row[s.places.numpy()] = 1.0
        return rows, np.array([s.low for s in sums]), np.array([s.high for s in sums])

    def _slopes(self, at: Array, together: Sequence[Array], moves: Array | None = None) -> tuple[Array, Array]:
        """All gradients at these choices, and by how much each choice moves them.

        Those that are looked at ``together`` move nothing in common; ``moves`` says what each does.
        """
        base = self._stacked(self.made(at))
        low, high = self._range
        ends = np.where(high - at >= at - low, high, low)
        steps = np.where(ends == at, 1.0, ends - at)
        slopes = np.zeros((len(base), self.count))
        for some in together:
            moved = at.copy()
            moved[some] = ends[some]
            by = (self._stacked(self.made(moved)) - base)[:, None] / steps[some]
            slopes[:, some] = by if moves is None else np.where(moves[:, some], by, 0.0)
        slopes[np.abs(slopes) * (high - low) <= 1e-3 * self.ties.u * np.abs(base)[:, None].clip(1e-290)] = 0.0
        return base, np.where(np.isfinite(slopes), slopes, 0.0)

    @cached_property
    def _one_by_one(self) -> list[Array]:
        return list(np.arange(self.count)[:, None])

    @cached_property
    def _first(self) -> tuple[Array, Array]:
        return self._slopes(np.zeros(self.count), self._one_by_one)

    @cached_property
    def _apart(self) -> tuple[list[Array], Array]:
        """Choices that move nothing in common, in as few groups as are found at once (Curtis, Powell and Reid 1974).

        What each moves shows where all others are between their ends: none is multiplied by 0.
        """
        low, high = self._range
        share = 0.25 + 0.5 * np.random.default_rng(0).random(self.count)
        moves = (self._slopes(low + (high - low) * share, self._one_by_one)[1] != 0) | (self._first[1] != 0)
        groups: list[tuple[list[int], Array]] = []
        for i in range(self.count):
            mine = moves[:, i]
            fit = next((group for group in groups if not (group[1] & mine).any()), None)
            if fit is None:
                groups.append(([i], mine.copy()))
            else:
                fit[0].append(i)
                fit[1][:] |= mine
        return [np.array(columns) for columns, _ in groups], moves

    @cached_property
    def linear(self) -> frozenset[str]:
        """Names of the claims that no two choices in a row make."""
        base, slopes = self._first
        low, high = self._range
        bent = np.zeros(len(base), dtype=bool)
        for seed in (0, 1):
            at = low + (high - low) * np.random.default_rng(seed).random(self.count)
            off = np.abs(self._stacked(self.made(at)) - base - slopes @ at)
            bent |= off > _LINEAR * (np.abs(base) + np.abs(slopes) @ np.abs(at)) + 1e-290
        return frozenset(name for name in self.names if not bent[self._rows[name]].any())

    def only(self, names: Collection[str]) -> Choices:
        """The same for some of the claims, which are linear."""
        kept = [name for name in self.names if name in names]
        if kept == self.names:
            return self
        found = replace(self, claims={n: self.claims[n] for n in kept}, errors={n: self.errors[n] for n in kept})
        rows = np.concatenate([np.arange(self._rows[n].start, self._rows[n].stop) for n in kept])
        # what is cached stands in the instance's own dictionary
        found.__dict__ |= {"_first": tuple(a[rows] for a in self._first), "linear": frozenset(kept)}
        return found

    def reach(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By name, between what all choices together move each element."""
        base, slopes = self._first
        low, high = (slopes * end for end in self._range)
        ends = base + np.minimum(low, high).sum(1), base + np.maximum(low, high).sum(1)
        shapes = {name: self.claims[name].shape for name in self.names}
        return {n: tuple(torch.from_numpy(e[self._rows[n]]).reshape(shapes[n]) for e in ends) for n in self.names}  # type: ignore[misc]  # two

    def _explained(self, rows: Array, base: Array, slopes: Array, at: Array) -> tuple[Array, Array]:
        """Which of some elements choices can explain, all at once, and those that do."""
        target = self._claimed[rows] - base[rows]
        low, high = self._range
        # what choices move is itself no more exact than this
        least_seen = _EXACT * (np.abs(slopes[rows]) @ (high - low))
        scale = np.maximum(np.maximum(self._allowed[rows], least_seen), 1e-290)
        a, r = slopes[rows] / scale[:, None], target / scale
        sums, least, most = self._sums
        loose = most > least
        # a sum that is not given is one with a number of its own
        whole = np.block([[a, np.zeros((len(a), loose.sum()))], [sums, -np.eye(len(sums))[:, loose]]])
        wanted = np.concatenate([r, -sums @ at])
        start, end = np.concatenate([low - at, least[loose]]), np.concatenate([high - at, most[loose]])
        ok, best = np.abs(r) <= 1.0, np.zeros(self.count)
        for these, columns in components(whole):
            own, added = columns < self.count, these >= len(a)
            part, goal = whole[np.ix_(these, columns)], wanted[these]
            weight = np.where(added, np.abs(part[~added]).max(initial=1.0), 1.0)
            part, goal = part * weight[:, None], goal * weight
            x = least_squares(part, goal, start[columns], end[columns])
            best[columns[own]] = x[own]
            ok[these[~added]] = bool((np.abs(part @ x - goal) <= 1.0).all())
        return ok, best + at

    def _tried(self, names: list[str]) -> Array:
        """The elements of these names that some choices explain, all at once."""
        if not names:
            return np.ones(0, dtype=bool)
        rows = np.concatenate([np.arange(self._rows[n].start, self._rows[n].stop) for n in names])
        ok, best = self._explained(rows, *self._first, np.zeros(self.count))
        if len(self.linear) == len(self.names):
            return ok
        found = np.zeros(len(rows), dtype=bool)  # in a row: looked for as long as there are runs left, beside samples
        for start in self._starts():
            at = best if start is None else start
            for turn in range(_ROUNDS):
                if turn or start is not None:
                    if self.spent + len(self._apart[0]) > self._runs // 8:
                        return found
                    before = at
                    _, at = self._explained(rows, *self._slopes(at, *self._apart), at)
                    if np.array_equal(at, before):
                        break
                now = np.abs(self._stacked(self.made(at)) - self._claimed)[rows] <= self._allowed[rows]
                found = now if now.sum() > found.sum() else found
                if found.all():
                    return found
        return found

    def _starts(self) -> Iterator[Array | None]:
        """Where to begin looking for choices in a row: from torch's own, from the middle, from anywhere."""
        yield None
        low, high = self._range
        rows, _, _ = self._sums
        size = np.where(rows.any(0), (rows.sum(1)[:, None] * rows).max(0, initial=1.0), 2.0)
        for seed in range(_STARTS):
            share = np.random.default_rng(seed).random(self.count) if seed else np.full(self.count, 0.5)
            # those of a sum have equal shares
            yield low + (high - low) * np.where(rows.any(0), 1 / size, share)

    @cached_property
    def wrong(self) -> dict[str, Array]:
        """By name, the mask of the elements that no choices explain, beside those of what is not named."""
        off = np.abs(self._claimed - self._first[0]) > self._allowed
        given = [name for name in self.names if not off[self._rows[name]].any() and name not in self.suspects]
        others = [name for name in self.names if name not in given]
        others.sort(key=lambda name: name in self.suspects)  # what is trusted comes first
        if not others or bool(self._tried(self.names).all()):
            return {}
        for name in reversed(others):  # one alone
            rest = [n for n in self.names if n != name]
            if bool(self._tried(rest).all()):
                mask = self._unexplained(rest, name)
                # what is as torch has it is not looked at, and must be somebody's fault all the same
                if name in self.suspects or (mask & off[self._rows[name]].reshape(mask.shape)).any():
                    return {name: mask}
        found: dict[str, Array] = {}
        for name in others:
            mask = self._unexplained(given, name)
            if not mask.any():
                given.append(name)
                continue
            seen = off[self._rows[name]].reshape(mask.shape)
            found[name] = mask if (mask & seen).any() else mask | seen
        return found

    def _unexplained(self, given: list[str], name: str) -> Array:
        ok = self._tried([*given, name])[-self.claims[name].numel() :]
        return ~ok.reshape(self.claims[name].shape)

    def strict(self, seen: Mapping[str, Sampled]) -> frozenset[str]:
        """Names of the claims that are wrong where no choices explain them.

        They are linear in the choices, and no sample is beyond what the choices reach.
        """
        if not self.few:
            return frozenset()
        reach = {name: ends for name, ends in self.reach().items() if name in seen}
        beyond = {
            name
            for name, (low, high) in reach.items()
            if bool((seen[name].low < low - seen[name].noise - FLOOR).any())
            or bool((seen[name].high > high + seen[name].noise + FLOOR).any())
        }
        return self.linear - beyond


def kinks_of(
    choices: Callable[[], Choices], claims: Mapping[str, Tensor], told: Mapping[str, Estimate]
) -> dict[str, Kinks]:
    """By the name of each claim, what it is held against where there is no derivative; made when somebody asks.

    Parameters
    ----------
    told
        What samples say of them, which must do where there are too many choices, or functions that are not known.
    """
    the = cache(choices)

    @cache
    def strict() -> Choices | None:
        names = the().strict({name: t.sampled for name, t in told.items() if t.sampled is not None})
        return the().only(names) if names else None

    def made(name: str) -> Kinks:
        own, like = told[name].kinks, claims[name]
        if not the().few:
            return own or Kinks(torch.zeros_like(like, dtype=torch.bool), like, like, CONVENTION)
        everything = torch.ones_like(like, dtype=torch.bool)

        def valid(candidate: Tensor, e: Tensor) -> Tensor:
            held = strict()
            decides = held is not None and name in held.claims
            wrong = (held if held is not None and decides else the()).wrong.get(name)
            if wrong is None:
                return everything
            right = ~torch.from_numpy(wrong)
            return right if own is None or decides else right | (own.mask & own.holds(candidate, e))

        any_number = torch.full_like(like, torch.inf)
        return Kinks(everything, -any_number, any_number, CONVENTION, valid)

    return {name: LaterKinks(partial(made, name), CONVENTION) for name in claims}
