"""Judging a dump: the numbers of any program on the weights and inputs of its fixture, step by step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from manual_bp import _torch_side, networks
from manual_bp.blind import blind_spots
from manual_bp.candidate import single
from manual_bp.diagnose import Evidence, Graph, attach
from manual_bp.dumps._case import judge_case
from manual_bp.dumps._dump import Answer, Dump, read
from manual_bp.dumps._folder import MANIFEST
from manual_bp.dumps._layout import base
from manual_bp.dumps._manifest import Wanted, crc
from manual_bp.dumps._stored import stored_shape, to_torch
from manual_bp.errors import ManualBPError
from manual_bp.files import is_file, is_folder, reason
from manual_bp.network import INPUT, TARGET, Network
from manual_bp.probes import Probe
from manual_bp.report import Check, Finding, ProbeInfo, Report
from manual_bp.runner import Progress, judge_run, step_infos
from manual_bp.trace import Run, Trace
from manual_bp.verdict import make_report, merge_findings
from manual_bp.verification import Judging

_AGAIN = "write the fixture again with manual-bp export"


def judge_dump(
    path: str | os.PathLike[str],
    *,
    fixture: str | os.PathLike[str] | None = None,
    case: str | None = None,
    complete: bool = True,
    strict_kinks: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> Report:
    """Judge the numbers that a program wrote, every step isolated on the program's own numbers.

    Parameters
    ----------
    path
        A fixture whose ``candidate/`` part was filled in (.npz, .safetensors or a folder); a file with the program's
        numbers alone, under the quantities' names; or a folder of several of either, one a probe.
    fixture
        The fixture that a file with numbers alone answers, unless the file names it itself (an array ``fixture``).
    case
        ``FILE.py`` or ``FILE.py:NAME``, for fixtures of a case: the case itself, if it is not the file that they name.
    complete
        Whether a wanted quantity that is not there counts as missing; otherwise it is judged as part of what follows.
    strict_kinks
        Make another choice of subgradient a difference.
    progress
        Called with (probe name, probes done, probes in all).

    Raises
    ------
    ManualBPError
        A file that cannot be read, is damaged, hostile or of a newer version; a fixture that is not the one that was
        exported; no numbers at all. What the program got wrong or left out is a status in the report.
    """
    answers = [_answer(read(part), fixture) for part in _parts(Path(path))]
    first = answers[0].manifest
    settings = {f"{a.manifest.case or a.manifest.network} in {a.manifest.dtype}": None for a in answers}
    if len(settings) > 1:
        raise ManualBPError(f"{path} mixes {' and '.join(settings)}", hint="compare one network in one dtype at a time")
    if first.case:
        judging = Judging(complete=complete, strict_kinks=strict_kinks)
        report = judge_case(answers, case=case, judging=judging, progress=progress)
        return replace(report, notes=(*report.notes, f"the numbers are those of {path}"), command=command)
    if case is not None:
        raise ManualBPError(
            f"{path} is no fixture of a case, but of network {first.network!r}", hint="leave --case away"
        )
    network = networks.get(first.network)
    judge = _torch_side.judge.Judge(network, first.dtype)
    # what a program left out is written out, in a diagnosis, from what it did write
    written = frozenset.intersection(*(frozenset(a.candidate) for a in answers))
    evidence = Evidence(replace(Graph.of(network), reported=written))
    checks: list[Check] = []
    findings: list[Finding] = []
    infos: list[ProbeInfo] = []
    probes: list[Probe] = []
    for done, answer in enumerate(answers):
        if progress:
            progress(answer.manifest.probe, done, len(answers))
        probe = _probe(answer, network)
        trace, misfits = _trace(answer, probe)
        found, said = judge_run(judge, probe, Run(trace), strict_kinks=strict_kinks, evidence=evidence)
        found = tuple(_misfit(check, misfits) for check in found)
        evidence.misshapen(probe.name, {name: answer.candidate[name] for name in misfits})
        if not complete:
            found, said = _reported(found, said, probe.name)
        checks += found
        findings += said
        probes.append(probe)
        blind = blind_spots(network, probe, trace)
        infos.append(
            ProbeInfo(name=probe.name, description=probe.description, batch=probe.batch, seed=probe.seed, blind=blind)
        )
    if progress:
        progress("", len(answers), len(answers))
    report = make_report(
        network=network.name,
        title=network.title,
        dtype=first.dtype,
        seed=first.seed,
        checks=checks,
        steps=step_infos(network, probes[0]),
        probes=tuple(infos),
        findings=merge_findings(findings),
        notes=(f"the numbers are those of {path}",),
        command=command,
        strict_kinks=strict_kinks,
        torch_version=_torch_side.torch_version(),
    )
    return attach(report, evidence)


def _parts(path: Path) -> Sequence[Path]:
    """The dumps that a path stands for: itself, or what lies in the folder."""
    if not is_folder(path) or is_file(path / MANIFEST):
        return (path,)
    try:
        inside = sorted(p for p in path.iterdir() if is_file(p / MANIFEST) or p.suffix in (".npz", ".safetensors"))
    except OSError as error:
        raise ManualBPError(f"cannot read {path}: {reason(error)}", hint="give a folder that can be read") from error
    if not inside:
        raise ManualBPError(f"{path} holds no fixture", hint=f"write one with: manual-bp export three-layer -o {path}")
    return inside


def _answer(dump: Dump, fixture: str | os.PathLike[str] | None) -> Answer:
    source = dump
    if dump.manifest is None:
        if fixture is None and not dump.fixture:
            raise ManualBPError(
                f"{dump.path} does not say which fixture it answers",
                hint="fill in the fixture itself, or put the fixture's path into an array of text named 'fixture'",
            )
        source = read(fixture if fixture is not None else dump.path.parent / dump.fixture)
    if source.manifest is None:
        raise ManualBPError(f"{source.path} is no fixture: it has no manifest", hint=_AGAIN)
    candidate = dump.candidate()
    if not candidate:
        names = ", ".join(w.fill_in for w in source.manifest.wanted[:3])
        raise ManualBPError(f"{dump.path} holds no numbers of a program yet", hint=f"let it write {names}, ...")
    known = {base(w.name) for w in source.manifest.wanted}
    if strange := [name for name in dump.layouts if base(name) not in known]:
        raise ManualBPError(f"{dump.path} gives a layout for {strange[0]}, which is not wanted", hint="check its name")
    return Answer(
        path=dump.path,
        fixture=source.path,
        manifest=source.manifest,
        given=_given(source),
        candidate=candidate,
        layouts=dict(dump.layouts),
    )


def _given(source: Dump) -> Trace:
    """What both sides start from, in torch's layout, with the bits that were exported."""
    assert source.manifest is not None
    found: Trace = {}
    for entry in source.manifest.given:
        array = source.arrays.get(entry.at)
        if array is None:
            raise ManualBPError(
                f"{source.path} has no {entry.at} any more", hint="keep what was exported, and add to it"
            )
        if array.shape != entry.shape or str(array.dtype) != entry.dtype or crc(array) != entry.crc32:
            raise ManualBPError(
                f"{source.path}: {entry.at} is not what was exported",
                hint="a program must not change what it is given; export again, and let it work on copies",
            )
        try:
            found[entry.name] = to_torch(array, entry, source.manifest, entry.layout)
        except (ManualBPError, ValueError) as error:
            raise ManualBPError(
                f"{source.path}: the layout of {entry.at} does not fit: {_what(error)}", hint=_AGAIN
            ) from error
    return found


def _probe(answer: Answer, network: Network) -> Probe:
    manifest, given = answer.manifest, dict(answer.given)
    needed = {**network.parameter_shapes(), **network.buffer_shapes()}
    for name in (INPUT, TARGET, *needed):
        if name not in given:
            raise ManualBPError(f"{answer.path}: the fixture lacks {name} of network {network.name!r}", hint=_AGAIN)
    x, y = given.pop(INPUT), given.pop(TARGET)
    for name, array in given.items():
        if name not in needed or array.shape != needed[name]:
            raise ManualBPError(
                f"{answer.path}: {name} of shape {array.shape} does not belong to network {network.name!r}", hint=_AGAIN
            )
    if x.shape != (manifest.batch, *network.input_shape):
        raise ManualBPError(
            f"{answer.path}: x has shape {x.shape}, which network {network.name!r} does not take", hint=_AGAIN
        )
    return Probe(
        name=manifest.probe,
        description=manifest.description,
        params=MappingProxyType(given),
        x=x,
        y=y,
        seed=manifest.seed,
    )


def _trace(answer: Answer, probe: Probe) -> tuple[Trace, dict[str, str]]:
    """The program's quantities in torch's layout, and by name what does not have the shape that was asked for."""
    wanted = {entry.name: entry for entry in answer.manifest.wanted}
    trace: Trace = {INPUT: probe.x, **probe.params}
    misfits: dict[str, str] = {}
    for name, array in answer.candidate.items():
        entry = wanted.get(name)
        if entry is None:
            trace[name] = array
            continue
        layout = answer.layouts.get(name, answer.layouts.get(base(name), entry.layout))
        shape = _stored_shape(entry, layout, answer)
        if shape == () and array.size == 1:
            array = single(array, answer.manifest.dtype)
        if array.shape == shape:
            trace[name] = to_torch(array, entry, answer.manifest, layout)
        else:
            inside = f" ({layout})" if layout else ""
            misfits[name] = f"has shape {_sizes(array.shape)}, expected {_sizes(shape)}{inside}"
    return trace, misfits


def _stored_shape(entry: Wanted, layout: str | None, answer: Answer) -> tuple[int, ...]:
    try:
        return stored_shape(entry, answer.manifest, layout)
    except (ManualBPError, ValueError) as error:
        raise ManualBPError(
            f"{answer.path}: the layout of {entry.name} does not fit: {_what(error)}",
            hint="name every axis as it is stored",
        ) from error


def _misfit(check: Check, misfits: dict[str, str]) -> Check:
    if check.status == "missing" and check.name in misfits:
        return replace(check, status="mismatch", note=misfits[check.name])
    return check


def _reported(
    checks: tuple[Check, ...], findings: list[Finding], probe: str
) -> tuple[tuple[Check, ...], list[Finding]]:
    """Without what the program did not report; that it did not is said."""
    missing = [check.name for check in checks if check.status == "missing"]
    if not missing:
        return checks, findings
    text = f"not reported, judged as part of what follows: {', '.join(missing)}"
    said = Finding(kind="coverage", name=missing[0], step="", text=text, probes=(probe,))
    return tuple(check for check in checks if check.status != "missing"), [*findings, said]


def _what(error: Exception) -> str:
    return error.what if isinstance(error, ManualBPError) else str(error)


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
