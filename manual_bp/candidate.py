"""What a hand-written side hands over, made comparable: names, layouts, types.

Every complaint is one clear sentence.
"""

from __future__ import annotations

import inspect
import os
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.layouts import LayoutError, from_torch_layout, to_torch_layout
from manual_bp.trace import GRAD, Array, Trace, bit_identical

P = ParamSpec("P")
R = TypeVar("R")


class CandidateError(ManualBPError):
    """The candidate itself raised; ``traceback_text`` is its own traceback."""

    def __init__(self, what: str, *, traceback_text: str) -> None:
        super().__init__(what, hint="its own traceback is above; nothing of it is manual-bp's")
        self.traceback_text = traceback_text


@dataclass(frozen=True)
class Located:
    """A candidate made of somebody's code that says where in it a quantity is made: ``file.py:line``, or empty."""

    run: Callable[..., Any]
    locate: Callable[[str], str]

    def __call__(self, params: Any, x: Any, y: Any) -> Any:
        """Its numbers."""
        return self.run(params, x, y)


class Given(dict[str, Array]):
    """The parameters as the candidate gets them; remembers whether it looked at them at all."""

    used = False

    def __getitem__(self, name: str) -> Array:
        self.used = True
        try:
            return super().__getitem__(name)
        except KeyError:
            close = get_close_matches(name, list(self), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise KeyError(
                f"no parameter {name!r}: there are {', '.join(map(repr, self.keys_quietly()))}{hint}"
            ) from None

    def keys_quietly(self) -> list[str]:
        """The names, without counting as use."""
        return list(super().keys())

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dictionary."""
        self.used = True
        return super().get(name, default)

    def values(self) -> Any:
        """As of a dictionary."""
        self.used = True
        return super().values()

    def items(self) -> Any:
        """As of a dictionary."""
        self.used = True
        return super().items()


#: The folder of the tool's own code.
_HERE = os.path.dirname(__file__) + os.sep

_GRADIENT_SPELLINGS = tuple(
    re.compile(text)
    for text in (
        r"d_?(.+)",
        r"d_?(.+)_?",
        r"(?:grad|gradient|g|delta|dL_d|dl_d|dJ_d)_?(.+)",
        r"(.+?)[._](?:grad|gradient|d)",
    )
)


class Naming:
    """The candidate's names and layouts, both ways.

    Parameters
    ----------
    names
        Candidate's name -> reference's name. ``W1`` maps ``W1.grad`` as well.
    layouts
        By the candidate's (or the reference's) name; a gradient has its quantity's layout.
    """

    def __init__(self, names: Mapping[str, str] | None, layouts: Mapping[str, str] | None) -> None:
        self.names = dict(names or {})
        self.layouts = dict(layouts or {})
        self.back = {theirs: own for own, theirs in self.names.items()}
        self.aliases: Mapping[str, str] = {}

    def also(self, aliases: Mapping[str, str]) -> None:
        """Further names of the reference's own quantities: "output", modules that are made of others."""
        self.aliases = dict(aliases)

    def reference_name(self, own: str) -> str:
        """What the reference calls a quantity of the candidate's."""
        base = own.removesuffix(GRAD)
        name = self.names.get(own) or (self.names[base] + own[len(base) :] if base in self.names else own)
        base = name.removesuffix(GRAD)
        return self.aliases[base] + name[len(base) :] if base in self.aliases else name

    def spelled_out(self, own: str) -> Iterator[str]:
        """What a name such as dW1, d_W1, grad_W1 or W1_grad may mean: the gradient of W1."""
        for pattern in _GRADIENT_SPELLINGS:
            if match := pattern.fullmatch(own):
                yield self.reference_name(match[1]) + GRAD

    def own_name(self, reference: str) -> str:
        """What the candidate calls one of the reference's quantities."""
        return self.back.get(reference, reference)

    def layout(self, own: str, reference: str) -> str | None:
        """The layout of a quantity, by either side's name; a gradient's is its quantity's.

        A name that both sides have for different things is the candidate's.
        """
        base = reference.removesuffix(GRAD)
        for name in (own, reference, own.removesuffix(GRAD), base):
            if name in self.layouts and (name not in self.names or self.reference_name(name) in (reference, base)):
                return self.layouts[name]
        return self.layouts.get(self.own_name(base))

    def stored(
        self, reference: str, array: Array, shapes: Iterable[tuple[int, ...]], *, like: str = ""
    ) -> tuple[str, Array, str | None]:
        """The candidate's name of a quantity, a copy as it stores it (laid out as ``like`` is), and that layout."""
        base = reference.removesuffix(GRAD)
        own = self.own_name(base) + reference[len(base) :]
        text = self.layout(self.own_name(like or reference), like or reference)
        return own, from_torch_layout(array, text, shapes=shapes) if text else np.array(array, order="C"), text

    def check(self, known: Collection[str]) -> None:
        """Refuse names and layouts of what the reference does not have.

        Raises
        ------
        ManualBPError
            It names what was perhaps meant.
        """
        every = {*known, *self.aliases, *(name + GRAD for name in self.aliases)}
        for own, name in self.names.items():
            if name not in every:
                raise ManualBPError(
                    f"names maps {own!r} to {name!r}, which the reference does not have", hint=_meant(name, every)
                )
        for own in self.layouts:
            if own not in self.names and own not in every and not any(n in every for n in self.spelled_out(own)):
                raise ManualBPError(
                    f"a layout is given for {own!r}, which the reference does not have", hint=_meant(own, every)
                )

    def params_for(self, params: Mapping[str, Array], shapes: Iterable[tuple[int, ...]]) -> Given:
        """Parameters under the candidate's names and in its layouts, copies of their own; torch's names work too."""
        shapes = list(shapes)
        given: dict[str, Array] = {}
        for name, array in params.items():
            own = self.own_name(name)
            layout = self.layout(own, name)
            given[own] = from_torch_layout(array, layout, shapes=shapes) if layout else np.array(array, order="C")
            if own != name:
                given[name] = given[own]
        given |= {alias: given[name] for alias, name in self.aliases.items() if name in given and alias not in given}
        return Given(given)

    def to_candidate(self, name: str, array: Any, shapes: Iterable[tuple[int, ...]]) -> Any:
        """An input or target in the candidate's layout, a copy of its own."""
        if not isinstance(array, np.ndarray):
            return array
        layout = self.layout(self.own_name(name), name)
        return from_torch_layout(array, layout, shapes=shapes) if layout else np.array(array, order="C")


def call(candidate: Callable[..., Any], params: Given, x: Any, y: Any) -> Any:
    """Call the candidate with as many of (params, x, y) as it takes.

    Raises
    ------
    CandidateError
        If it raises; with its own traceback.
    """
    offered: list[Any] = [params, x, y]
    by_name = {"params": params, "x": x, "y": y, "upstream": y}
    try:
        wanted = [
            p
            for p in inspect.signature(candidate).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
        ]
        arguments = (
            [by_name[p.name] for p in wanted] if all(p.name in by_name for p in wanted) else offered[: len(wanted)]
        )
        if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(candidate).parameters.values()):
            arguments = offered
    except (TypeError, ValueError):  # a builtin without a signature
        arguments = offered
    try:
        with np.errstate(all="ignore"):
            return candidate(*arguments)
    except ManualBPError:
        raise
    except (Exception, SystemExit) as error:
        raise CandidateError(f"the candidate raised {_named(error)}", traceback_text=own_traceback(error)) from error


def stays(function: Callable[P, R]) -> Callable[P, R]:
    """Let ``sys.exit()`` in somebody's code end no comparison: the exit code would say that all is right.

    Raises
    ------
    CandidateError
        In place of the SystemExit; with its own traceback.
    """

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except SystemExit as error:
            raise CandidateError(f"it raised {_named(error)}", traceback_text=own_traceback(error)) from error

    return guarded


def _named(error: BaseException) -> str:
    said = str(error).strip()
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def own_traceback(error: BaseException) -> str:
    """The traceback of what somebody's code raised, without what lies between it and the caller here."""
    every = traceback.extract_tb(error.__traceback__)[1:]
    frames = [frame for frame in every if not frame.filename.startswith(_HERE)] or every
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join([*lines, *traceback.format_exception_only(error)])


def to_trace(
    reported: Any,
    naming: Naming,
    expected: Mapping[str, tuple[int, ...]],
    shapes: Iterable[tuple[int, ...]],
    dtype: str,
) -> tuple[Trace, dict[str, str]]:
    """What the candidate reports under the reference's names and in torch's layout; what is not laid out as it is said.

    The second is by the reference's names, and says why.

    Parameters
    ----------
    expected
        Shape of every quantity of the reference, by name.
    dtype
        What is judged in. Python's own numbers have one precision only, and are taken as numbers of this dtype; so is
        a single number of more precision, such as a loss that is summed in float64.

    Raises
    ------
    ManualBPError
        If it is no mapping of names to arrays, reports nothing, one quantity twice, or nothing that matches.
    """
    shapes = list(shapes)
    if not isinstance(reported, Mapping):
        what = "nothing (None)" if reported is None else f"a {type(reported).__name__}"
        raise ManualBPError(
            f"the candidate returned {what}",
            hint='return a dictionary of arrays by name, such as {"z1": z1, "z1.grad": dz1}',
        )
    if not reported:
        raise ManualBPError("the candidate returned an empty dictionary", hint="report at least one value or gradient")
    trace: Trace = {}
    misfits: dict[str, str] = {}
    origin: dict[str, str] = {}
    for own, value in reported.items():
        if not isinstance(own, str):
            raise ManualBPError(f"the candidate reported a quantity named {own!r}", hint="names are strings")
        name = naming.reference_name(own)
        if name not in expected:
            name = next((n for n in naming.spelled_out(own) if n in expected), name)
        if name in origin and name != own and own in naming.aliases:
            continue  # the output, by its own name as well
        if name in origin:
            raise ManualBPError(
                f"the candidate reports {name!r} twice, as {origin[name]!r} and {own!r}",
                hint="report it once, or map the names apart",
            )
        origin[name] = own
        array = as_array(own, value)
        if array.dtype.kind == "f" and _without_dtype(value):
            array = array.astype(dtype)
        layout = naming.layout(own, name)
        if layout and name in expected:
            try:
                array = to_torch_layout(array, layout, target=expected[name], shapes=shapes, name=own)
            except LayoutError as error:
                misfits[name] = f"{error.what}; {error.hint}"
                continue
        if name in expected and expected[name] == () and array.size == 1:
            array = single(array, dtype)
        trace[name] = np.array(array, order="C")  # a copy: what the candidate does later changes nothing
    if not misfits and not any(name in expected for name in trace):
        first = next(iter(trace))
        close = get_close_matches(first, list(expected), n=3, cutoff=0.3)
        raise ManualBPError(
            f"none of the candidate's {len(trace)} names ({_some(trace)}) is a quantity of the reference",
            hint=(f"did you mean {' or '.join(close)}; " if close else "") + f"the reference has {_some(expected)}",
        )
    return trace, misfits


def as_array(name: str, value: Any, *, whose: str = "the candidate's") -> Array:
    """A value as an array; tensors and numbers are welcome, anything else is one clear error."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ManualBPError(
            f"{whose} {name!r} is no array: {str(error).rstrip('.')}", hint="give a NumPy array of numbers"
        ) from None
    if array.dtype == object and not isinstance(value, (np.ndarray, list, tuple)):
        what = "None" if value is None else f"a {type(value).__name__}"
        raise ManualBPError(f"{whose} {name!r} is {what}", hint="give a NumPy array of float32 or float64")
    if array.dtype.kind not in "fiub":
        raise ManualBPError(
            f"{whose} {name!r} is an array of {array.dtype}", hint="give a NumPy array of float32 or float64"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))  # read from a file, say


def single(array: Array, dtype: str) -> Array:
    """An array of one element as a number without axes; one of more precision than ``dtype`` is rounded to it."""
    number = array.reshape(())  # a loss of shape (1,) or (1, 1) is the same number
    if number.dtype.kind == "f" and number.dtype.itemsize > np.dtype(dtype).itemsize:
        with np.errstate(over="ignore"):
            return number.astype(dtype)
    return number


def refuse_clash(reported: Collection[str], trace: Trace, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise if a value has the name of an input and is not it, where a submodule is named so, too."""
    for name, own in given.items():
        other = f"{name}.output"
        if other in known and name in reported and not (name in trace and bit_identical(trace[name], np.asarray(own))):
            raise ManualBPError(
                f"the candidate reports {name!r}, the name of an input and of a submodule of the reference",
                hint=f"report what the submodule returns as {other!r}, its gradient as '{other}.grad'",
            )


def _without_dtype(value: Any) -> bool:
    """Whether it is a number of Python's own, or a list of such."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, float) and not isinstance(value, np.generic)  # np.float64 is a float, too


def mutated(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Names of the arrays whose bits are not what they were."""
    for name, old in before.items():
        new = after.get(name)
        if isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and not bit_identical(old, new):
            yield name


def _meant(name: str, known: Iterable[str]) -> str:
    plain = [n for n in known if not n.endswith(GRAD)]
    close = get_close_matches(name, plain, n=2)
    return f"did you mean {' or '.join(close)}" if close else f"it has {_some(plain)}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
