"""Pooling with a run's numbers: who won the window and what the others get, or everybody's equal share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from manual_bp.nn import Array
from manual_bp.report_lesson import Grid, Worked

from ._number import Index, as_plane, at, grid, largest, num, sum_of_products
from ._view import View


def _windows(view: View) -> Iterator[tuple[Index, list[Index]]]:
    """Every output position with the input elements that its window covers, in reading order."""
    window = view.options.window
    axes = len(window.kernel)
    lengths = view.x[0].shape[-axes:]
    for position in itertools.product(*map(range, view.y.shape[-axes:])):
        covered = [
            [
                i
                for t in range(window.kernel[a])
                if 0 <= (i := position[a] * window.stride[a] + t * window.dilation[a] - window.before[a]) < lengths[a]
            ]
            for a in range(axes)
        ]
        yield position, list(itertools.product(*covered))


def _window_at(view: View, position: Index) -> list[Index]:
    return next(elements for where, elements in _windows(view) if where == position)


def _table(plane: Array, elements: list[Index]) -> Array | None:
    """The window's elements as rows and columns, None in three dimensions."""
    if plane.ndim == 1:
        return as_plane(plane[[i for (i,) in elements]])
    if plane.ndim > 2:
        return None
    rows, columns = (sorted({element[a] for element in elements}) for a in range(2))
    return plane[np.ix_(rows, columns)]


def _winner(plane: Array, elements: list[Index]) -> int:
    """The first of the largest, in reading order."""
    return int(np.argmax([plane[element] for element in elements]))


def _grids(view: View, n: int, c: int, elements: list[Index], marks: list[int], back: str) -> tuple[Grid, ...]:
    table = _table(view.x[0][n, c], elements)
    if table is None:
        return ()
    marked = [divmod(k, table.shape[1]) for k in marks]
    found = [grid(f"the window of {view.symbols['x0']}", table, marked=marked)]
    if back:
        gradient = _table(view.dx[0][n, c], elements)
        assert gradient is not None, "the same elements as above"
        found.append(grid(f"its {back}", gradient, marked=marked))
    return tuple(found)


def max_value(view: View) -> tuple[Worked, ...]:
    """The window with the largest error, so that value and gradient show the same one."""
    index = largest(view.dy)
    n, c, elements = index[0], index[1], _window_at(view, index[2:])
    plane = view.x[0][n, c]
    winner = _winner(plane, elements)
    numbers = ", ".join(num(plane[element]) for element in elements)
    return (
        Worked(
            label=at(view.symbols["y"], index),
            expression=f"max({numbers})" if len(elements) > 1 else numbers,
            result=float(view.y[index]),
            grids=_grids(view, n, c, elements, [winner], ""),
            note=f"the winner is {at(view.symbols['x0'], (n, c, *elements[winner]))}",
        ),
    )


def max_gradient(view: View, index: Index) -> tuple[Worked, ...]:
    """A window of the element, and, if its winner stands alone, one of the same plane where several tie."""
    n, c, element = index[0], index[1], index[2:]
    of_it = [p for p, covered in _windows(view) if element in covered]
    if not of_it:
        return (Worked(label=at(view.symbols["dx0"], index), expression="0", result=0.0, note="no window covers it"),)
    shown = [max(of_it, key=lambda p: abs(float(view.dy[(n, c, *p)])))]
    if not _ties(view, n, c, _window_at(view, shown[0])):
        tied = (p for p, covered in _windows(view) if view.dy[(n, c, *p)] != 0 and _ties(view, n, c, covered))
        shown += [where] if (where := next(tied, None)) is not None else []
    return tuple(worked for where in shown for worked in _shares(view, n, c, where))


def _ties(view: View, n: int, c: int, elements: list[Index]) -> int:
    """How many others are as large as the winner."""
    plane = view.x[0][n, c]
    best = plane[elements[_winner(plane, elements)]]
    return sum(bool(plane[element] == best) for element in elements) - 1


def _shares(view: View, n: int, c: int, position: Index) -> Iterator[Worked]:
    """What the winner of a window collects from all windows that it wins, and what the others get."""
    plane, elements = view.x[0][n, c], _window_at(view, position)
    winner = elements[_winner(plane, elements)]
    won = [
        (float(view.dy[(n, c, *where)]),)
        for where, covered in _windows(view)
        if winner in covered and covered[_winner(plane, covered)] == winner
    ]
    note = f"the winner gets the whole error; {_losers(len(elements) - 1)}"
    if ties := _ties(view, n, c, elements):
        tying = "one of them ties" if ties == 1 else f"{ties} of them tie"
        note += f"; {tying} with it at {num(plane[winner])}, and the first in reading order takes all"
    if len(won) > 1:
        note += f"; it wins {len(won)} windows, whose errors add up"
    grids = _grids(view, n, c, elements, [elements.index(winner)], f"part of {view.symbols['dx0']}")
    index, result = (n, c, *winner), view.dx[0][(n, c, *winner)]
    yield sum_of_products(at(view.symbols["dx0"], index), won, result, grids=grids, note=note)
    losers = [(n, c, *element) for element in elements if view.dx[0][(n, c, *element)] == 0]
    for index in losers[:3]:
        yield Worked(label=at(view.symbols["dx0"], index), expression="0", result=0.0)


def _losers(count: int) -> str:
    names = {0: "there is no other", 1: "the other one gets exactly 0 from this window"}
    words = {2: "two", 3: "three"}
    return names.get(count, f"the other {words.get(count, count)} get exactly 0 from this window")


def _divisors(view: View) -> Array:
    """D of every window: a mean of ones is (elements inside) / D."""
    mean, _ = view.layer.forward({}, np.ones_like(view.x[0]))
    axes = len(view.options.window.kernel)
    found = np.ones(mean.shape[-axes:])
    for position, elements in _windows(view):
        one = mean[(0, 0, *position)]
        found[position] = len(elements) / one if one else np.inf
    return found


def mean_value(view: View) -> tuple[Worked, ...]:
    """One window's mean."""
    index = largest(view.dy)
    n, c, position = index[0], index[1], index[2:]
    elements, share = _window_at(view, position), float(1 / _divisors(view)[position])
    terms = [(share, float(view.x[0][(n, c, *element)])) for element in elements]
    grids = _grids(view, n, c, elements, [], "")
    return (sum_of_products(at(view.symbols["y"], index), terms, view.y[index], grids=grids),)


def mean_gradient(view: View, index: Index) -> tuple[Worked, ...]:
    """One element's shares of the errors of all windows that cover it."""
    n, c, element = index[0], index[1], index[2:]
    divisors = _divisors(view)
    covering = [(position, elements) for position, elements in _windows(view) if element in elements]
    terms = [(float(view.dy[(n, c, *position)]), float(1 / divisors[position])) for position, _ in covering]
    grids = _grids(view, n, c, covering[0][1], [], f"part of {view.symbols['dx0']}") if covering else ()
    note = "every element of a window gets the same share of its error"
    return (sum_of_products(at(view.symbols["dx0"], index), terms, view.dx[0][index], grids=grids, note=note),)
