"""A comparison in a file: ``manual-bp compare case.py`` runs the `Case` that the file defines."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from manual_bp.candidate import Naming
from manual_bp.errors import ManualBPError
from manual_bp.files import is_file
from manual_bp.kept import Kept
from manual_bp.report import Report
from manual_bp.session import Session
from manual_bp.variants import Variant
from manual_bp.verification import verify


@dataclass(frozen=True, kw_only=True)
class Case:
    """What `manual_bp.verify` takes, to be run from the command line; see there for every field but the last two.

    Attributes
    ----------
    optimizer
        How ``manual-bp train`` updates the weights on both sides: a description such as ``manual_bp.nn.SGD(lr=0.1,
        momentum=0.9, weight_decay=1e-4)`` or ``manual_bp.nn.Adam(lr=0.01)``.
    update
        An optimiser's step of your own, to be judged against it: ``update(params, grads, state)`` returns new
        parameters and new state, both by your names, or changes what it is given. ``state`` is empty at first, and has
        torch's own entries for each parameter (``momentum_buffer`` of SGD; ``step``, ``exp_avg`` and ``exp_avg_sq`` of
        Adam).
    """

    candidate: Any
    reference: Any
    x: Any
    y: Any = None
    loss: Any = None
    params: Mapping[str, Any] | None = None
    names: Mapping[str, str] | None = None
    layouts: Mapping[str, str] | None = None
    probes: Sequence[str | Variant] | str | None = "all"
    dtype: str | None = None
    seed: int = 0
    complete: bool = False
    strict_kinks: bool = False
    equations: Mapping[str, str] | None = None
    title: str = ""
    optimizer: Any = None
    update: Callable[..., Any] | None = None

    def verify(self, *, progress: Callable[[str, int, int], None] | None = None, keep: Kept | None = None) -> Report:
        """Run the comparison."""
        training = ("optimizer", "update")
        arguments = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in training}
        return verify(arguments.pop("candidate"), arguments.pop("reference"), **arguments, progress=progress, keep=keep)

    def session(self) -> Session:
        """What stays the same over everything that is done with the case."""
        naming = Naming(self.names, self.layouts)
        return Session(self.reference, self.x, self.y, self.loss, self.params, naming, self.dtype, self.seed)


class CaseError(ManualBPError):
    """A case file that fails by itself; ``traceback_text`` is its own traceback."""

    def __init__(self, what: str, *, traceback_text: str) -> None:
        super().__init__(what, hint="its own traceback is above")
        self.traceback_text = traceback_text


def load_case(target: str) -> Case:
    """Load ``FILE.py`` or ``FILE.py:NAME``.

    Without a name it is the file's ``case``, or its only `Case`. A function without arguments that returns one
    will do.

    Raises
    ------
    ManualBPError
        If the file cannot be read, fails by itself (`CaseError`), or defines no such case.
    """
    path, name = split_target(target)
    found = bool(name)
    if not is_file(path):
        raise ManualBPError(f"there is no file {path}", hint="manual-bp new case.py writes a starting point")
    module = _execute(path)
    cases = {key: value for key, value in vars(module).items() if isinstance(value, Case)}
    value = vars(module).get(name) if found else cases.get("case") or vars(module).get("case")
    if not found and value is None and len(cases) == 1:
        value = next(iter(cases.values()))
    if callable(value) and not isinstance(value, Case):
        value = _guarded(value, f"{path}: {name or 'case'}()")
    if not isinstance(value, Case):
        known = ", ".join(cases) or "none"
        close = get_close_matches(name, cases, n=1) if found else []
        what = f"{path} defines {len(cases) or 'no'} cases and none named 'case'"
        if found or value is not None:
            what = f"{path} defines no case {name or 'case'!r}" + ("" if value is None else f": it is {_a(value)}")
        hint = f"did you mean {path}:{close[0]}" if close else f"its cases are: {known}; name one as FILE.py:NAME"
        raise ManualBPError(
            what, hint=hint if cases else "write: case = manual_bp.Case(candidate=..., reference=..., x=...)"
        )
    return value if value.title else replace(value, title=path.stem)


def _a(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def is_case(target: str) -> bool:
    """Whether a target of the command line is ``FILE.py`` or ``FILE.py:NAME``."""
    return target.endswith(".py") or ".py:" in target


def split_target(target: str) -> tuple[Path, str]:
    """File and name of a case; the name is empty if none is given."""
    head, found, name = target.rpartition(".py:")
    return (Path(head + ".py"), name) if found else (Path(target), "")


def _execute(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_manual_bp_case_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles of the file's own look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    loader = spec.loader
    try:
        _guarded(lambda: loader.exec_module(module), str(path))
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _guarded(function: Callable[[], Any], what: str) -> Any:
    """Run the user's code; what it raises is shown as its own."""
    try:
        return function()
    except ManualBPError:
        raise
    except (Exception, SystemExit) as error:
        ours = (__file__, "<frozen importlib")  # who read the file; without its own frames it was not even begun
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
        head = ["Traceback (most recent call last):\n"] if frames else []
        text = "".join([*head, *traceback.format_list(frames), *traceback.format_exception_only(error)])
        raise CaseError(f"{what} raised {type(error).__name__}: {error}", traceback_text=text) from error


TEMPLATE = '''"""A backward pass of your own beside PyTorch's.   Run it:   manual-bp compare {name}

The example is a dense network for three classes. Replace `candidate` by your code and `reference` by the same network
in torch.nn; everything that both sides name alike is compared, step by step.
"""

import numpy as np
import torch
from torch import nn

from manual_bp import Case

torch.manual_seed(0)
rng = np.random.default_rng(0)

# The reference: any torch.nn.Module. The names of its submodules are the names of the quantities.
reference = nn.Sequential()
reference.add_module("z1", nn.Linear(4, 5))
reference.add_module("a1", nn.ReLU())
reference.add_module("z2", nn.Linear(5, 3))


def candidate(params, x, y):
    """Your forward and backward pass. `params` holds the reference's own weights, as NumPy arrays."""
    w1, b1 = params["z1.weight"], params["z1.bias"]  # (5, 4), (5,): torch stores (out, in)
    w2, b2 = params["z2.weight"], params["z2.bias"]

    # forward
    z1 = x @ w1.T + b1
    a1 = np.maximum(z1, 0)
    z2 = a1 @ w2.T + b2
    shifted = z2 - z2.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    n = np.arange(len(x))
    loss = -np.log(p[n, y]).mean()

    # backward
    dz2 = p.copy()
    dz2[n, y] -= 1
    dz2 /= len(x)
    da1 = dz2 @ w2
    dz1 = da1 * (z1 > 0)

    # Report what you like under the reference's names; ".grad" is dLoss/d that. More names, finer blame.
    return {{
        "z1": z1, "a1": a1, "z2": z2, "loss": loss,
        "z2.grad": dz2, "z2.weight.grad": dz2.T @ a1, "z2.bias.grad": dz2.sum(axis=0),
        "a1.grad": da1, "z1.grad": dz1, "z1.weight.grad": dz1.T @ x, "z1.bias.grad": dz1.sum(axis=0),
        "x.grad": dz1 @ w1,
    }}  # fmt: skip


case = Case(
    candidate=candidate,
    reference=reference,
    x=rng.standard_normal((6, 4)),  # float64: the finest comparison
    y=np.array([0, 1, 2, 0, 1, 2]),
    loss=nn.CrossEntropyLoss(),
    # names={{"W1": "z1.weight"}},    your name -> the reference's
    # layouts={{"W1": "IO"}},         your weights are (in, out): they are handed over, and compared, that way
    # optimizer=SGD(lr=0.1, momentum=0.9),   from manual_bp.nn; then: manual-bp train {name}
)
'''
