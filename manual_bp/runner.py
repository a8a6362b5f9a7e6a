"""Judge a described network over a set of probes: the built-in networks' way to a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from manual_bp import _torch_side, diagnose
from manual_bp.blind import blind_spots
from manual_bp.compare import Item, compare
from manual_bp.network import INPUT, Network
from manual_bp.nn import Layer, Loss, Optimizer
from manual_bp.probes import Probe, probe_names
from manual_bp.probes import probe as make_probe
from manual_bp.reference_file import ReferenceFile, answers
from manual_bp.report import Check, Finding, Power, ProbeInfo, Report, StepInfo
from manual_bp.trace import Run, Trace
from manual_bp.verdict import (
    FAULTY,
    failure_finding,
    make_report,
    merge_findings,
    mutation_findings,
    refereed,
    with_mutations,
)

if TYPE_CHECKING:
    from manual_bp.diagnose import Case, Effort, Evidence
    from manual_bp.kept import Kept
    from manual_bp_torch.judge import Judge

Progress = Callable[[str, int, int], None]

#: Bytes of a trace up to which all that it is held against is kept at once, right or wrong.
LITTLE = 1 << 25

#: Probes that are run once more, with another seed, to tell explanations of a mistake apart.
FURTHER = 3


def judge_network(
    network: Network,
    probes: Sequence[Probe],
    *,
    seed: int = 0,
    candidate: Network | None = None,
    strict_kinks: bool = False,
    power: Power | None = None,
    command: str = "",
    progress: Progress | None = None,
    judge: Judge | None = None,
    effort: Effort | None = None,
    keep: Kept | None = None,
    reference: ReferenceFile | None = None,
) -> Report:
    """Run the hand-written pass on every probe and judge each of its quantities.

    Parameters
    ----------
    network
        What is right: the reference is built from it.
    probes
        All of one dtype.
    candidate
        The hand-written side, if it is not ``network`` itself: the same steps, another implementation.
    progress
        Called with (probe name, probes done, probes in all).
    judge
        The torch side, if the caller has built it already.
    effort
        How long to search for the mistake behind a wrong quantity.
    keep
        Collects the whole arrays of both sides.
    reference
        Torch's numbers in a file: torch is not imported where they still fit, else they are written anew.
    """
    dtype = (
        str(probes[0].x.dtype) if probes[0].x.dtype.kind == "f" else str(next(iter(probes[0].params.values())).dtype)
    )
    own = candidate or network

    def report(
        checks: Sequence[Check], findings: Sequence[Finding], infos: Sequence[ProbeInfo], torch_version: str
    ) -> Report:
        return make_report(
            network=network.name,
            title=network.title,
            dtype=dtype,
            seed=seed,
            checks=checks,
            steps=step_infos(network, probes[0]),
            probes=tuple(infos),
            findings=merge_findings(findings),
            power=power,
            command=command,
            strict_kinks=strict_kinks,
            torch_version=torch_version,
        )

    infos: list[ProbeInfo] = []
    checks: list[Check] = []
    findings: list[Finding] = []
    if reference is not None:
        reference.setting(network, dtype)
        known = answers(reference, network, probes) if own is network and keep is None else None
        for probe, run, found in known or ():
            checks += found
            infos.append(_info(network, probe, run.trace))
        if known:
            return report(checks, findings, infos, reference.torch_version)
    judge = judge or _torch_side.judge.Judge(network, dtype)

    def locate(name: str) -> str:
        return diagnose.in_network(own)(name)

    more = _more(judge, network, own, dtype, seed)
    evidence = diagnose.Evidence(lambda: diagnose.Graph.of(network), locate=locate, more=more)
    for done, probe in enumerate(probes):
        if progress:
            progress(probe.name, done, len(probes))
        run = own.run(probe.params, probe.x, probe.y)
        found, said = judge_run(
            judge, probe, run, strict_kinks=strict_kinks, evidence=evidence, keep=keep, reference=reference
        )
        checks += found
        findings += said
        infos.append(_info(network, probe, run.trace))
    if progress:
        progress("", len(probes), len(probes))
    version = _torch_side.torch_version()
    if reference is not None:
        reference.write(version)
    return diagnose.attach(report(checks, findings, infos, version), evidence, effort=effort)


def _info(network: Network, probe: Probe, trace: Trace) -> ProbeInfo:
    return ProbeInfo(
        name=probe.name,
        description=probe.description,
        batch=probe.batch,
        seed=probe.seed,
        blind=blind_spots(network, probe, trace),
    )


def _more(judge: Judge, network: Network, candidate: Network, dtype: str, seed: int) -> Callable[[str], Iterator[Case]]:
    """Further probes of a quantity, run where those of the comparison leave several mistakes possible."""
    known: list[Evidence] = []

    def more(name: str) -> Iterator[Case]:
        if not known:
            known.append(diagnose.Evidence(diagnose.Graph.of(network)))
            for which in probe_names(network)[-FURTHER:]:
                probe = make_probe(network, which, seed=seed + 1, dtype=dtype, batch=3)
                run = candidate.run(probe.params, probe.x, probe.y)
                judge_run(judge, probe, run, strict_kinks=False, evidence=known[0])
        yield from known[0].cases(name)

    return more


def judge_run(
    judge: Judge,
    probe: Probe,
    run: Run,
    *,
    strict_kinks: bool,
    evidence: Evidence | None = None,
    keep: Kept | None = None,
    reference: ReferenceFile | None = None,
) -> tuple[tuple[Check, ...], list[Finding]]:
    """The checks of one probe, and what is to be said besides them; ``evidence`` remembers it."""
    # layers may hand out transposed views; each is looked at several times
    trace = {name: np.asarray(array, order="C") for name, array in run.trace.items()}
    items: list[Item] = []
    little = sum(array.nbytes for array in trace.values()) <= LITTLE
    wanted = keep is not None or reference is not None or (evidence is not None and little)
    given = (probe.params, probe.x, probe.y, trace)
    each = judge.each(*given, lean=not (little or wanted))
    checks = compare(_kept(each, items) if wanted else each, trace, probe=probe.name, strict_kinks=strict_kinks)
    if evidence is not None and not wanted and any(check.status in FAULTY for check in checks):
        items.extend(judge.each(*given))
    findings = mutation_findings(run.mutations, probe.name)
    if run.failure:
        findings.append(failure_finding(run.failure, probe.name))
    verdicts = judge.referee(probe.params, probe.x, probe.y, trace, checks)
    judged, faults = refereed(checks, verdicts, probe.name)
    findings += faults
    if evidence is not None:
        evidence.add(probe.name, trace, probe.y, items, judged)
    if reference is not None and not findings and not run.mutations:
        reference.keep(probe, trace, items, judged)
    if keep is not None:
        keep.add(probe.name, items, trace, judged)
    return with_mutations(judged, run.mutations), findings


def _kept(each: Iterable[Item], items: list[Item]) -> Iterator[Item]:
    """The items as they come, and all of them afterwards."""
    for item in each:
        items.append(item)
        yield item


def step_infos(network: Network, probe: Probe) -> tuple[StepInfo, ...]:
    """The network's graph as a report shows it."""
    infos = [
        StepInfo(
            name=INPUT,
            op="input",
            inputs=(),
            role="input",
            shape=probe.x.shape,
            symbol=network.symbols.get(INPUT, INPUT),
        )
    ]
    for node in network.nodes:
        equation = network.equations.get(node.name)
        infos.append(
            StepInfo(
                name=node.name,
                op=describe(node.layer),
                inputs=node.inputs,
                params=tuple(node.layer.parameter_shapes()),
                symbol=network.symbols.get(node.name, ""),
                equation=equation.text if equation else "",
                equation_latex=equation.latex if equation else "",
                source=equation.source if equation else "",
            )
        )
    equation = network.equations.get(network.loss_name)
    infos.append(
        StepInfo(
            name=network.loss_name,
            op=describe(network.loss),
            inputs=(network.output,),
            role="loss",
            symbol=network.symbols.get(network.loss_name, ""),
            equation=equation.text if equation else "",
            equation_latex=equation.latex if equation else "",
            source=equation.source if equation else "",
        )
    )
    if network.optimizer is not None:
        infos.append(
            StepInfo(name="update", op=describe(network.optimizer), inputs=(network.loss_name,), role="update")
        )
    return tuple(infos)


def describe(described: Layer | Loss | Optimizer) -> str:
    """A layer the way torch prints it: its name, and the hyperparameters that are not torch's defaults."""
    parts: list[str] = []
    for f in fields(described):
        value = getattr(described, f.name)
        default = f.default if f.default is not f.default_factory else None
        if isinstance(value, (int, float, str, bool, tuple)) and value != default:
            parts.append(f"{value!r}" if not parts and f.name.startswith("in_") else f"{f.name}={value!r}")
    return f"{type(described).__name__}({', '.join(parts)})"
