"""``verify``: a hand-written backward pass of your own against any PyTorch program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.blind import blind_spots_of
from manual_bp.candidate import (
    CandidateError,
    Given,
    Located,
    Naming,
    call,
    mutated,
    own_traceback,
    refuse_clash,
    stays,
    to_trace,
)
from manual_bp.causes import with_causes
from manual_bp.compare import Item, compare
from manual_bp.diagnose import Case as DiagnosisCase
from manual_bp.diagnose import Evidence, place_of
from manual_bp.errors import ManualBPError
from manual_bp.findings import blame_mutation, coverage
from manual_bp.fused import fused
from manual_bp.guards import LogLoss, carried_on, fitting, guarded, recognised
from manual_bp.inputs import named, of_dtype, rebuilt
from manual_bp.kept import Kept
from manual_bp.report import Check, Finding, ProbeInfo, Report
from manual_bp.session import Session, by_name
from manual_bp.trace import GRAD, Equation, Trace
from manual_bp.variants import Variant, of_another_number, probe_info
from manual_bp.verdict import FAULTY, make_report, merge_findings, refereed

Progress = Callable[[str, int, int], None]
#: Gets numbers out of a candidate: (params, x, y) -> what it reports.
Run = Callable[[Given, Any, Any], Any]


@stays
def verify(
    candidate: Any,
    reference: Any,
    *,
    x: Any,
    y: Any = None,
    loss: Any = None,
    params: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    layouts: Mapping[str, str] | None = None,
    probes: Sequence[str | Variant] | str | None = "all",
    dtype: str | None = None,
    seed: int = 0,
    complete: bool | Collection[str] = False,
    strict_kinks: bool = False,
    equations: Mapping[str, str] | None = None,
    title: str = "",
    progress: Progress | None = None,
    keep: Kept | None = None,
) -> Report:
    """Judge a hand-written forward and backward pass.

    Parameters
    ----------
    candidate
        A function ``(params, x, y) -> {"name": array}`` that reports any subset of values and gradients under the
        reference's names (``fc1``, ``fc1.weight.grad``, ``x.grad``, ``loss``); the mapping itself; a module or a
        `torch.autograd.Function` to be held against the reference.
    reference
        A `torch.nn.Module` (its submodules' outputs are the quantities, ``q.output`` where an input is called ``q``)
        or a function of ``(params, x, y)``, or of any of these by name, that names its intermediate tensors with
        `manual_bp.tap`. It returns the output, or the loss.
    x, y
        Input and target as NumPy arrays (or tensors). Several inputs are a tuple, named ``x[0]``, ``x[1]``, or a
        dictionary by the names of a module's arguments; a function gets it as its ``x``. Without a loss ``y`` is
        dL/d(output), drawn at random if it is not given, and handed to the candidate in place of the target.
    loss
        A function or module of (output, y).
    params
        Parameters by the reference's names; the module's own if not given. Both sides get the same bits.
    names
        Candidate's name -> reference's name; ``{"W1": "fc1.weight"}`` maps ``W1.grad`` as well.
    layouts
        How an array of the candidate's is laid out, by name: "HWIO", "IO", "NHWC", "N(HWC)", "1O"; see
        `manual_bp.layouts`. Parameters and inputs are handed over in that layout, too.
    probes
        "all", or names of probes, or None for the given data alone. A mapping as candidate has the given data alone.
        A `manual_bp.variants.Variant` is a probe of your own.
    dtype
        "float32" or "float64"; x's own if it is one of them, else float64. Everything is converted to it.
    complete
        Whether a quantity that is not reported counts as missing, or the names of those that do. Otherwise it is judged
        as part of what follows it.
    strict_kinks
        Make another choice of subgradient a difference.
    equations
        By quantity, a formula to show beside it.
    keep
        Collects the whole arrays of both sides.

    Returns
    -------
    Report

    Raises
    ------
    ManualBPError
        If an argument cannot be used, or the candidate returns something that cannot be compared.
    """
    if probes is not None and not isinstance(probes, (str, list, tuple)):
        raise ManualBPError(f"probes is {probes!r}", hint='give "all", None, or a list of names')
    naming = Naming(by_name("names", names), by_name("layouts", layouts))
    formulas = {name: Equation(text=text) for name, text in (by_name("equations", equations) or {}).items()}
    session = Session(reference, x, y, loss, params, naming, dtype, seed)
    run = runner(candidate, session)
    fixed = isinstance(candidate, Mapping)
    chosen = session.probes(() if fixed or probes is None else probes)
    own = not isinstance(probes, str) and any(isinstance(p, Variant) for p in probes or ())
    judging = Judging(complete=complete, strict_kinks=strict_kinks, formulas=formulas, keep=keep)
    pairs = [(probe, run) for probe in chosen]
    report = judge_probes(session, pairs, judging, generated=not own, title=title, progress=progress)
    if session.evidence is None:
        return report
    place = place_of(candidate) if callable(candidate) and not isinstance(candidate, Located) else ""
    session.evidence.locate = candidate.locate if isinstance(candidate, Located) else lambda _: place
    session.evidence.more = None if fixed or own else _more(session, run, strict_kinks)
    return with_causes(report, session.evidence)


def judge_probes(
    session: Session,
    chosen: Sequence[tuple[Variant, Run]],
    judging: Judging,
    *,
    generated: bool = False,
    title: str = "",
    progress: Progress | None = None,
) -> Report:
    """Judge what ``run`` reports on each probe; Ctrl-C after the first one leaves a partial report.

    Of ``generated`` probes, those that the reference cannot work with (another domain than the given data's) are left
    out, and a note says so. So are those on which it has no finite numbers, where the candidate raises or has others: a
    matrix of small integers may be singular, and one of them says so where the other goes on with infinities.
    """
    checks: list[Check] = []
    findings: list[Finding] = []
    infos: list[ProbeInfo] = []
    partial = False
    for done, (probe, run) in enumerate(chosen):
        if progress:
            progress(probe.name, done, len(chosen))
        if done and not session.params_used:
            # it never looked at the weights it was given, so it has its own: others would only make it look wrong
            probe = replace(probe, params=session.params)
        try:
            drawn = replace(judging, drawn=generated and bool(done))
            found, said, blind = judge_probe(session, probe, run, drawn)
        except KeyboardInterrupt as error:
            if not checks:
                what = "interrupted before anything could be judged"
                raise CandidateError(what, traceback_text=own_traceback(error)) from error
            partial = True
            break
        except ManualBPError as error:
            if error is not session.refusal or not generated or probe is chosen[0][0]:
                raise
            lines = str(error.__cause__ or "").strip().splitlines()
            why = f"the reference cannot work with it: {lines[0]}" if lines else error.what
            session.note(f"probe {probe.name} is left out: {why}")
            continue
        checks += found
        findings += said
        infos.append(probe_info(probe, session.seed, blind))
    return make_report(
        network=title or session.name,
        title=title,
        dtype=session.dtype,
        seed=session.seed,
        checks=checks,
        steps=session.steps,
        probes=tuple(infos),
        findings=merge_findings(findings),
        notes=tuple(session.program.notes),
        strict_kinks=judging.strict_kinks,
        partial=partial,
        torch_version=_torch_side.torch_version(),
    )


def _cases(session: Session, name: str) -> list[DiagnosisCase]:
    return session.evidence.cases(name) if session.evidence is not None else []


def _more(session: Session, run: Run, strict_kinks: bool) -> Callable[[str], list[DiagnosisCase]]:
    """Further probes of a quantity, run where those of the comparison leave several mistakes possible."""

    def more(name: str) -> list[DiagnosisCase]:
        first, session.evidence = session.evidence, None
        try:
            drawn = session.probes("all", seed=session.seed + 1)[1:3]
            other = of_another_number(drawn[0], seed=session.seed, upstream=session.upstream) if drawn else None
            for probe in (other, *drawn):
                if probe is None:
                    continue
                own = probe if session.params_used else replace(probe, params=session.params)
                try:
                    judge_probe(session, own, run, Judging(strict_kinks=strict_kinks, drawn=True))
                except ManualBPError as error:
                    if probe is not other and error is not session.refusal:  # either side may be made for one number
                        raise
            found = _cases(session, name)
        finally:
            session.evidence = first
        return found

    return more


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How to judge; see `verify`."""

    complete: bool | Collection[str] = False
    strict_kinks: bool = False
    formulas: Mapping[str, Equation] = field(default_factory=dict)
    keep: Kept | None = None
    #: Whether the probe was drawn here: it may lie outside of what the reference is made for.
    drawn: bool = False


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One pass of the candidate, in torch's names and layout, and the reference's own on the same data."""

    setting: Any
    found: Any
    structure: Any
    trace: Trace
    misfits: Mapping[str, str]
    changed: tuple[str, ...]


def observe(session: Session, probe: Variant, run: Run) -> Observed:
    """Run both sides on one probe."""
    setting = session.setting(probe)
    found, structure = session.record(setting)
    expected = {name: tuple(t.shape) for name, t in {**found.values, **found.grads}.items()}
    shapes = [shape for shape in expected.values() if len(shape) > 2]
    naming = session.naming
    given = naming.params_for(probe.params, shapes)
    parts = {name: naming.to_candidate(name, part, shapes) for name, part in named(probe.x).items()}
    x, y = rebuilt(probe.x, parts), naming.to_candidate(session.y_name, probe.y, shapes)
    handed = {**dict(dict.items(given)), **parts, "y": y}
    kept = {name: np.array(a) for name, a in handed.items()}
    try:
        reported = run(given, x, y)
    except CandidateError as error:
        if not session.finite(found):  # neither side can work with it
            session.refusal = error
        raise
    session.params_used |= given.used
    trace, misfits = to_trace(reported, naming, expected, shapes, session.dtype)
    refuse_clash({*trace, *misfits}, trace, named(probe.x), structure.segments)
    for name in session.program.frozen():
        trace.pop(name + GRAD, None)  # nobody asked for it
    _statistics(session, setting, found, structure, trace)
    for name in trace.keys() & found.values.keys():
        if not found.values[name].is_floating_point():
            trace[name] = of_dtype(trace[name], found.values[name].numpy().dtype)
    changed = tuple(dict.fromkeys(naming.reference_name(n) for n in mutated(kept, handed)))
    return Observed(setting=setting, found=found, structure=structure, trace=trace, misfits=misfits, changed=changed)


def _statistics(session: Session, setting: Any, found: Any, structure: Any, trace: Trace) -> None:
    """Say which running statistics are not judged: those that are not reported, and those without a bound."""
    unjudged = session.judge.unjudged(setting, found, structure)
    for names, unless in (
        ([n for n in session.judge.changed(setting, found) if n not in trace and n not in unjudged],
         " unless they are reported"),
        (sorted(unjudged), ""),
    ):  # fmt: skip  # one case a line
        if names:
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            session.note(f"running statistics ({shown}) are not judged{unless}")
    for name in unjudged & trace.keys():
        trace.pop(name)
        if not trace:
            hint = "report a value or a gradient as well"
            raise ManualBPError(f"the candidate reports nothing that can be judged: no bound for {name!r}", hint=hint)


def judge_probe(
    session: Session, probe: Variant, run: Run, judging: Judging
) -> tuple[tuple[Check, ...], list[Finding], tuple[str, ...]]:
    """Run the candidate on one probe and judge what it reports; what the probe was blind for, too."""
    seen = observe(session, probe, run)
    checks, findings, items = judge_observed(session, probe, seen, judging)
    known = {n: a for n, a in {**probe.params, **seen.found.arrays()}.items() if n not in seen.found.zeros}
    blind = blind_spots_of(session.evidence.graph, probe.x, known, items) if session.evidence else ()
    return checks, findings, blind


def judge_observed(
    session: Session, probe: Variant, seen: Observed, judging: Judging
) -> tuple[tuple[Check, ...], list[Finding], tuple[Item, ...]]:
    """Judge what a candidate reported; and what it was held against."""
    setting, found, structure, trace = seen.setting, seen.found, seen.structure, seen.trace
    items = session.judge.items(setting, trace, found, structure, judging.formulas)
    unasked = session.judge.unasked(structure)
    items = tuple(item for item in items if item.quantity.name in trace or item.quantity.name not in unasked)
    both_have = {*probe.params, *structure.inputs}  # nobody need report what he was given
    left_out = both_have if judging.complete is True else {item.quantity.name for item in items}
    left_out -= {*seen.misfits, *(judging.complete if not isinstance(judging.complete, bool) else ())}
    wanted = tuple(item for item in items if item.quantity.name in trace or item.quantity.name not in left_out)
    unsaid = [item.quantity.name for item in items if item.quantity.name in left_out]
    held = partial(compare, candidate=trace, probe=probe.name, strict_kinks=judging.strict_kinks, left_out=unsaid)
    checks = held(wanted)
    if any(c.status in ("wrong", "nonfinite") and c.name in ("loss", f"{structure.output}{GRAD}") for c in checks):
        wanted = _with_guards(session, setting, wanted, trace, found, structure)
        checks = held(wanted)
    if off := [c.name for c in checks if c.status == "wrong" and c.name.endswith(GRAD)]:
        data, u = (probe.y, *named(probe.x).values()), session.judge.precision.u
        checks = held(wanted := fused(wanted, off, trace, found.arrays(), data, u=u))
    checks, findings = refereed(checks, session.judge.referee(setting, trace, found, structure, checks), probe.name)
    session.judge.suspects |= {c.name for c in checks if c.status == "wrong"}
    checks = tuple(
        replace(c, status="mismatch", note=seen.misfits[c.name])
        if c.status == "missing" and c.name in seen.misfits
        else c
        for c in checks
    )
    for name in seen.changed:
        text = f"the candidate changed {name!r}, which it was given, in place; work on a copy"
        findings.append(Finding(kind="mutation", name=name, step=name, text=text, probes=(probe.name,)))
        checks = blame_mutation(checks, items, name, text, probe.name)
    if judging.drawn and any(c.status in FAULTY for c in checks) and not session.finite(found):
        session.refusal = ManualBPError("the reference has gradients there that are not finite")
        raise session.refusal
    if judging.keep is not None:
        judging.keep.add(probe.name, wanted, trace, checks)
    # without a loss the candidate was given what comes back to the output
    given = session.program.upstream_given and structure.output
    upstream = {f"{structure.output}{GRAD}": setting.y.numpy()} if given else {}
    if session.evidence is None:
        known = {name: tuple(t.shape) for name, t in {**found.values, **found.grads}.items()}
        known |= {name: tuple(p.shape) for name, p in probe.params.items()}
        graph = _torch_side.describe.graph_of(session.program, structure, known, {*trace, *upstream})
        session.evidence = Evidence(graph)

    shares = partial(session.judge.shares, setting, trace, found, structure)
    session.evidence.add(probe.name, trace, probe.y, items, checks, given={**probe.params, **upstream}, shares=shares)
    if judging.complete is not True:
        findings += coverage(items, trace, probe.name)
    return checks, findings, wanted


def _with_guards(
    session: Session, setting: Any, items: tuple[Item, ...], trace: Trace, found: Any, structure: Any
) -> tuple[Item, ...]:
    """Guarded logarithms in the loss as other right answers, where the loss is made of logarithms."""
    side, output, u = _torch_side.layer_reference, structure.output, session.judge.precision.u
    if output is None or setting.y is None or found.values[output].dim() not in (1, 2):
        return items
    x, y = trace.get(output, found.values[output].numpy()), setting.y.numpy()
    if session.log_loss is None and (known := side.log_loss(session.program.loss)) is not None:
        session.log_loss = LogLoss(*known)
    segment = structure.segments.get("loss")
    if session.log_loss is None and segment and (kinds := side.log_losses_of(segment.ops)):
        session.log_loss = recognised(items, kinds, output, x, y, u=u)
    if session.log_loss is None:
        return items
    items = guarded(items, session.log_loss, output, x, y, u=u)
    if "loss" in trace and output + GRAD not in trace:  # then what follows from it is the first that shows it
        for slope, reason in fitting(session.log_loss, x, y, trace["loss"], u=u):
            claimed = {**trace, output + GRAD: slope.astype(trace["loss"].dtype)}
            items = carried_on(items, session.judge.items(setting, claimed, found, structure, {}), reason)
    return items


def runner(candidate: Any, session: Session) -> Run:
    """How to get numbers out of a candidate of any kind."""
    if isinstance(candidate, Mapping):
        return lambda _params, _x, _y: candidate
    of_torch: Run | None = _torch_side.candidates.runner(candidate, session.program)
    if of_torch is not None:
        session.params_used = True
        return of_torch
    if not callable(candidate):
        raise ManualBPError(
            f"the candidate is a {type(candidate).__name__}",
            hint="give a function (params, x, y) -> {name: array}, or a mapping",
        )
    return lambda params, x, y: call(candidate, params, x, y)
