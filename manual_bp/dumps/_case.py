"""Fixtures of a case of one's own: written from it, and, filled in by a program, judged against its reference.

The reference is Python, and stays in its file: the manifest names the file, as a path from the fixture's own folder,
with its sha256. Only the very file that was exported is run on a dump's say-so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from manual_bp import __version__, _torch_side
from manual_bp.case import Case, load_case, split_target
from manual_bp.causes import with_causes
from manual_bp.dumps._dump import Answer
from manual_bp.dumps._manifest import EXPECTED, Given, Manifest, Role, Wanted, crc
from manual_bp.errors import ManualBPError
from manual_bp.files import is_file
from manual_bp.inputs import named, rebuilt
from manual_bp.report import Report
from manual_bp.session import Session
from manual_bp.trace import Array, Equation, Trace
from manual_bp.variants import Variant
from manual_bp.verification import Judging, Progress, judge_probes

_TARGET = "y"

# ---------------------------------------------------------------------- export


def case_fixture(
    case: Case, session: Session, probe: Variant, *, target: str, folder: Path, expected: bool = True
) -> tuple[Manifest, dict[str, Array]]:
    """The manifest of a fixture of one probe of a case, and its arrays by place; names and layouts are the candidate's.

    Parameters
    ----------
    session
        The case's own, over whose probes fixtures are written.
    target
        The case as it was named on the command line, ``FILE.py`` or ``FILE.py:NAME``.
    folder
        Where the fixture goes.
    expected
        Whether what PyTorch has for every quantity stands beside.

    Raises
    ------
    ManualBPError
        A layout that does not fit; the reference's own complaints.
    """
    setting = session.setting(probe)
    found, structure = session.record(setting)
    numbers = _torch_side.program_judge.numpy_pass(found)
    nearby = [a.shape for a in numbers.values() if a.ndim > 2]
    unasked = session.judge.unasked(structure)
    arrays: dict[str, Array] = {}
    entries: list[Given] = []
    for name, role, array in _given(session, probe):
        called, own, text = session.naming.stored(name, array, nearby, like=session.y_name if name == _TARGET else "")
        entry = Given(role=role, crc32=crc(own), **_entry(called, own, text, array))
        arrays[entry.at] = own
        entries.append(entry)
    answers: list[Wanted] = []
    formulas = case.equations or {}
    for quantity in session.judge.quantities(setting, found, structure):
        name = quantity.name
        if name in unasked or name in structure.inputs or quantity.kind == "parameter":
            continue
        called, own, text = session.naming.stored(name, numbers[name], nearby)
        entry_of = _entry(called, own, text, numbers[name])
        answers.append(Wanted(kind=quantity.kind, equation=formulas.get(name, ""), **entry_of))
        if expected:
            arrays[EXPECTED + answers[-1].name] = own
    path, chosen = split_target(target)
    manifest = Manifest(
        network=case.title,
        probe=probe.name,
        description=probe.description,
        dtype=session.dtype,
        seed=session.seed,
        batch=_batch(probe),
        given=tuple(entries),
        wanted=tuple(answers),
        written_by=f"manual-bp {__version__} with torch {_torch_side.torch_version()}",
        case=Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix() + (f":{chosen}" if chosen else ""),
        digest=_digest(path),
    )
    return manifest, arrays


def _entry(name: str, own: Array, layout: str | None, array: Array) -> dict[str, Any]:
    shapes = {"shape": own.shape, "torch_shape": array.shape}
    return {"name": name, "dtype": str(own.dtype), "layout": layout, **shapes}


def _given(session: Session, probe: Variant) -> Iterator[tuple[str, Role, Array]]:
    """Everything that both sides start from."""
    trained = session.program.trained(session.setting(probe).params)
    for name, array in probe.params.items():
        yield name, "parameter" if name in trained or name in session.program.frozen() else "buffer", array
    for name, part in named(probe.x).items():
        yield name, "input", part
    if isinstance(probe.y, np.ndarray):
        yield _TARGET, "upstream" if session.upstream else "target", probe.y


def _batch(probe: Variant) -> int:
    first = next(iter(named(probe.x).values()))
    return len(first) if first.ndim else 1


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ManualBPError(f"cannot read {path}: {error.strerror}", hint="give the path of a case") from error


# ---------------------------------------------------------------------- judging


def judge_case(
    answers: Sequence[Answer],
    *,
    case: str | None,
    judging: Judging,
    progress: Progress | None = None,
) -> Report:
    """Judge what a program made of fixtures of a case.

    Parameters
    ----------
    case
        The case, ``FILE.py`` or ``FILE.py:NAME``; if None, the one that the manifest names.

    Raises
    ------
    ManualBPError
        The case is not there, or no longer the one that was exported.
    """
    first = answers[0]
    loaded = load_case(case if case is not None else _named_case(first))
    stored = {e.name: e.layout for e in (*first.manifest.given, *first.manifest.wanted) if e.layout}
    layouts = {**(loaded.layouts or {}), **stored, **first.layouts}
    own = replace(loaded, layouts=layouts, dtype=first.manifest.dtype, seed=first.manifest.seed)
    session = own.session()
    session.params_used = True
    formulas = {name: Equation(text=text) for name, text in (own.equations or {}).items()}
    judging = replace(judging, formulas=formulas, strict_kinks=judging.strict_kinks or own.strict_kinks)
    chosen = [(_probe(answer, session), _reports(answer.candidate)) for answer in answers]
    report = judge_probes(session, chosen, judging, title=own.title, progress=progress)
    return with_causes(report, session.evidence)


def _reports(numbers: Trace) -> Any:
    return lambda _params, _x, _y: numbers


def _named_case(answer: Answer) -> str:
    """The case that the manifest names: the very file that was exported, or none."""
    manifest = answer.manifest
    written, name = split_target(manifest.case)
    path = answer.fixture.resolve().parent / written
    if not is_file(path):
        raise ManualBPError(
            f"{answer.fixture} belongs to the case {written}, which is not there",
            hint="say where it is with --case FILE.py",
        )
    if _digest(path) != manifest.digest:
        raise ManualBPError(
            f"{path} has changed since {answer.fixture} was exported from it",
            hint=f"export again, or say that it still fits with --case {os.path.relpath(path)}",
        )
    return os.path.relpath(path) + (f":{name}" if name else "")


def _probe(answer: Answer, session: Session) -> Variant:
    """The exported arrays in place of the case's own."""
    given = dict(answer.given)

    def take(reference: str, like: Any) -> Any:
        name = session.naming.own_name(reference)
        if not isinstance(like, np.ndarray):
            return like
        array = given.pop(name, None)
        if array is None:
            raise ManualBPError(f"{answer.path}: the fixture lacks {name} of the case", hint="export it again")
        return array

    params = {name: take(name, array) for name, array in session.params.items()}
    for name, array in params.items():
        if array.shape != session.params[name].shape or array.dtype != session.params[name].dtype:
            own = session.params[name]
            raise ManualBPError(
                f"{answer.path}: {name} is {array.dtype} {array.shape}, the case's is {own.dtype} {own.shape}",
                hint="export it again",
            )
    x = rebuilt(session.x, {name: take(name, part) for name, part in named(session.x).items()})
    y = take(_TARGET, session.y)
    if given:
        raise ManualBPError(
            f"{answer.path}: {next(iter(given))} belongs to nothing in the case", hint="export it again"
        )
    manifest = answer.manifest
    return Variant(name=manifest.probe, description=manifest.description, params=params, x=x, y=y)
