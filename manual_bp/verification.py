"""``verify``: a hand-written backward pass of your own against any PyTorch program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.candidate import Given, Naming, as_array, call, mutated, to_trace
from manual_bp.compare import Item, compare
from manual_bp.diagnose import Case as DiagnosisCase
from manual_bp.diagnose import Evidence, attach, place_of
from manual_bp.errors import ManualBPError
from manual_bp.findings import blame_mutation, coverage
from manual_bp.guards import LogLoss, guarded
from manual_bp.kept import Kept
from manual_bp.report import Check, Finding, ProbeInfo, Report
from manual_bp.trace import GRAD, Array, Equation, Trace
from manual_bp.variants import Variant, variants
from manual_bp.verdict import make_report, merge_findings

Progress = Callable[[str, int, int], None]


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
    complete: bool = False,
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
        A `torch.nn.Module` (its submodules' outputs are the quantities) or a function of ``(params, x, y)``, or of any
        of these by name, that names its intermediate tensors with `manual_bp.tap`. It returns the output, or the loss.
    x, y
        Input and target as NumPy arrays (or tensors). Without a loss ``y`` is the upstream gradient dL/d(output); it is
        drawn at random if it is not given, and handed to the candidate in place of the target.
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
        Whether a quantity that is not reported counts as missing. Otherwise it is judged as part of what follows it.
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
    session = _Session(reference, x, y, loss, params, Naming(names, layouts), dtype, seed)
    run = _runner(candidate, session)
    fixed = isinstance(candidate, Mapping)
    chosen = session.probes(() if fixed or probes is None else probes)
    checks: list[Check] = []
    findings: list[Finding] = []
    infos: list[ProbeInfo] = []
    formulas = {name: Equation(text=text) for name, text in (equations or {}).items()}
    partial = False
    for done, probe in enumerate(chosen):
        if progress:
            progress(probe.name, done, len(chosen))
        if done and not session.params_used:
            # it never looked at the weights it was given, so it has its own: others would only make it look wrong
            probe = replace(probe, params=session.params)
        try:
            found, said = _judge(session, probe, run, complete, strict_kinks, formulas, keep)
        except KeyboardInterrupt:
            if not checks:
                raise
            partial = True
            break
        checks += found
        findings += said
        infos.append(ProbeInfo(name=probe.name, description=probe.description, batch=_batch(probe.x), seed=seed))
    report = make_report(
        network=title or session.name,
        title=title,
        dtype=session.dtype,
        seed=seed,
        checks=checks,
        steps=session.steps,
        probes=tuple(infos),
        findings=merge_findings(findings),
        notes=tuple(session.program.notes),
        strict_kinks=strict_kinks,
        partial=partial,
        torch_version=_torch_side.torch_version(),
    )
    if session.evidence is None:
        return report
    session.evidence.locate = lambda _: place_of(candidate) if callable(candidate) else ""
    own = not isinstance(probes, str) and any(isinstance(p, Variant) for p in probes or ())
    session.evidence.more = None if fixed or own else _more(session, run, strict_kinks)
    return attach(report, session.evidence)


def _cases(session: _Session, name: str) -> list[DiagnosisCase]:
    return session.evidence.cases(name) if session.evidence is not None else []


def _more(
    session: _Session, run: Callable[[Given, Any, Any], Any], strict_kinks: bool
) -> Callable[[str], list[DiagnosisCase]]:
    """Further probes of a quantity, run where those of the comparison leave several mistakes possible."""

    def more(name: str) -> list[DiagnosisCase]:
        first, session.evidence = session.evidence, None
        try:
            for probe in session.probes("all", seed=session.seed + 1)[1:3]:
                own = probe if session.params_used else replace(probe, params=session.params)
                _judge(session, own, run, False, strict_kinks, {}, None)
            found = _cases(session, name)
        finally:
            session.evidence = first
        return found

    return more


def _judge(
    session: _Session,
    probe: Variant,
    run: Callable[[Given, Any, Any], Any],
    complete: bool,
    strict_kinks: bool,
    formulas: Mapping[str, Equation],
    keep: Kept | None,
) -> tuple[tuple[Check, ...], list[Finding]]:
    setting = session.setting(probe)
    found, structure = session.judge.record(setting)
    named = {"output": structure.output} if structure.output else {}
    session.naming.also({n: tap for n, tap in {**named, **structure.aliases}.items() if n not in found.values})
    session.steps = session.steps or session.judge.steps(found, structure)
    expected = {name: tuple(t.shape) for name, t in {**found.values, **found.grads}.items()}
    shapes = [shape for shape in expected.values() if len(shape) > 2]
    naming = session.naming
    given = naming.params_for(probe.params, shapes)
    x, y = naming.to_candidate("x", probe.x, shapes), naming.to_candidate(session.y_name, probe.y, shapes)
    kept = {**{n: a.copy() for n, a in dict.items(given)}, "x": np.array(x), "y": np.array(y)}
    reported = run(given, x, y)
    session.params_used |= given.used
    trace = to_trace(reported, naming, expected, shapes)
    for name in session.program.frozen():
        trace.pop(name + GRAD, None)  # nobody asked for it
    changed = list(mutated(kept, {**dict(dict.items(given)), "x": x, "y": y}))
    items = session.judge.items(setting, trace, found, structure, formulas)
    unasked = session.judge.unasked(structure)
    items = tuple(item for item in items if item.quantity.name in trace or item.quantity.name not in unasked)
    wanted = items if complete else tuple(item for item in items if item.quantity.name in trace)
    checks = compare(wanted, trace, probe=probe.name, strict_kinks=strict_kinks)
    if any(c.status in ("wrong", "nonfinite") and c.name in ("loss", f"{structure.output}{GRAD}") for c in checks):
        wanted = _with_guards(session, setting, wanted, trace, found, structure.output)
        checks = compare(wanted, trace, probe=probe.name, strict_kinks=strict_kinks)
    checks, findings = _settle_reference(session, setting, trace, found, structure, checks, probe.name)
    for name in dict.fromkeys(naming.reference_name(n) for n in changed):
        text = f"the candidate changed {name!r}, which it was given, in place; work on a copy"
        findings.append(Finding(kind="mutation", name=name, step=name, text=text, probes=(probe.name,)))
        checks = blame_mutation(checks, items, name, text, probe.name)
    if keep is not None:
        keep.add(probe.name, wanted, trace, checks)
    if session.evidence is None:
        known = expected | {name: tuple(p.shape) for name, p in probe.params.items()}
        session.evidence = Evidence(_torch_side.describe.graph_of(session.program, structure, known, trace))
    session.evidence.add(probe.name, trace, probe.y, items, checks, given=probe.params)
    if not complete:
        findings += coverage(items, trace, probe.name)
    return checks, findings


def _with_guards(
    session: _Session, setting: Any, items: tuple[Item, ...], trace: Trace, found: Any, output: str | None
) -> tuple[Item, ...]:
    """Guarded logarithms in the loss as other right answers, where the loss is made of logarithms."""
    kind = _torch_side.layer_reference.log_loss(session.program.loss)
    if kind is None or output is None or found.values[output].dim() not in (1, 2):
        return items
    x = trace.get(output, found.values[output].numpy())
    u = session.judge.precision.u
    return guarded(items, LogLoss(*kind), output, x, setting.y.numpy(), u=u)


def _settle_reference(
    session: _Session, setting: Any, trace: Trace, found: Any, structure: Any, checks: tuple[Check, ...], probe: str
) -> tuple[tuple[Check, ...], list[Finding]]:
    """Ask the referee about what differs; what is the reference's fault is not held against the candidate."""
    verdicts = session.judge.referee(setting, trace, found, structure, checks)
    findings = []
    judged = []
    for check in checks:
        verdict = verdicts.get(check.name)
        if verdict is not None:
            check = replace(check, referee=verdict)
            if verdict.fault == "reference" and check.status == "wrong":
                text = (
                    f"torch's own {check.name} is {verdict.reference:.3g} bounds from the {verdict.precision} result, "
                    f"the candidate's {verdict.candidate:.3g}: the reference is at fault here"
                )
                check = replace(check, status="pass", note=text)
                findings.append(Finding(kind="reference", name=check.name, step=check.step, text=text, probes=(probe,)))
        judged.append(check)
    return tuple(judged), findings


class _Session:
    """Everything that stays the same over the probes."""

    def __init__(
        self,
        reference: Any,
        x: Any,
        y: Any,
        loss: Any,
        params: Mapping[str, Any] | None,
        naming: Naming,
        dtype: str | None,
        seed: int,
    ) -> None:
        self.naming = naming
        self.seed = seed
        data = as_array("x", x)
        # without a loss y is dL/d(output), and laid out like it
        self.y_name = "output" if loss is None and "y" not in naming.layouts else "y"
        self.dtype = dtype or (str(data.dtype) if str(data.dtype) in ("float32", "float64") else "float64")
        if self.dtype not in ("float32", "float64"):
            raise ManualBPError(f"there is no dtype {dtype!r} to compare in", hint="choose float32 or float64")
        torch_dtype = _torch_side.build.TORCH_DTYPES[self.dtype]
        self.program = _torch_side.program.Program(reference, loss, torch_dtype)
        self.judge = _torch_side.program_judge.ProgramJudge(self.program)
        self.name = getattr(reference, "__name__", type(reference).__name__)
        self.x = self._from_candidate("x", data)
        self.params = self._own_params(params)
        self.y = None if y is None else self._from_candidate(self.y_name, as_array("y", y))
        if self.y is None and loss is None:
            self.y = self._random_upstream()
        self.steps: tuple[Any, ...] = ()
        self.params_used = False
        self.evidence: Evidence | None = None

    def _from_candidate(self, name: str, array: Array) -> Array:
        """x and y may be given as the candidate stores them."""
        from manual_bp.layouts import parse

        layout = self.naming.layout(name, name)
        if layout is not None:
            order = parse(layout)
            from manual_bp.layouts import TORCH_ORDER

            if all(len(axis) == 1 for axis in order.axes) and "1" not in order.axes:
                axes = [order.letters.index(c) for c in sorted(order.letters, key=TORCH_ORDER.index)]
                array = array.transpose(axes)
        return self._convert(array)

    def _convert(self, array: Array) -> Array:
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        if array.dtype.kind in "iu":
            array = array.astype(np.int64)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ManualBPError("the given data has elements that are not finite", hint="give finite numbers")
        return np.array(array, order="C")

    def _own_params(self, params: Mapping[str, Any] | None) -> dict[str, Array]:
        module = self.program.module
        if params is None:
            if module is None:
                return {}
            return {n: self._convert_param(a) for n, a in _torch_side.weights.from_torch(module).items()}
        given = {self.naming.reference_name(n): (n, as_array(n, a)) for n, a in params.items()}
        if module is None:
            return {
                name: self._convert_param(self._param_layout(own, name, a, None)) for name, (own, a) in given.items()
            }
        known = {n: tuple(t.shape) for n, t in module.state_dict().items()}
        for name, (own, _) in given.items():
            if name not in known:
                raise ManualBPError(f"the reference has no parameter {own!r}", hint=f"it has {', '.join(known)}")
        whole = {n: self._convert_param(a) for n, a in _torch_side.weights.from_torch(module).items()}
        for name, (own, a) in given.items():
            value = self._convert_param(self._param_layout(own, name, a, known[name]))
            if value.shape != known[name]:
                raise ManualBPError(
                    f"parameter {own!r} has shape {value.shape}, the reference's has {known[name]}",
                    hint="give it in torch's layout, or say its own with layouts={...}",
                )
            whole[name] = value
        return whole

    def _param_layout(self, own: str, name: str, array: Array, shape: tuple[int, ...] | None) -> Array:
        from manual_bp.layouts import to_torch_layout

        layout = self.naming.layout(own, name)
        return to_torch_layout(array, layout, target=shape or array.shape) if layout and shape else array

    def _convert_param(self, array: Array) -> Array:
        return np.array(array.astype(self.dtype) if array.dtype.kind == "f" else array, order="C")

    def _random_upstream(self) -> Array | None:
        """dL/d(output) of random numbers, never ones: ones hide whole classes of mistakes."""
        shape = self.program.output_shape(self._tensors(self.params), self._tensor(self.x))
        if shape == ():
            return None
        drawn: Array = np.random.default_rng([self.seed, 1]).standard_normal(shape).astype(self.dtype)
        return drawn

    def _tensor(self, array: Any) -> Any:
        return _torch_side.weights.to_torch(array) if isinstance(array, np.ndarray) else array

    def _tensors(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        return {name: self._tensor(a) for name, a in arrays.items()}

    def setting(self, probe: Variant) -> Any:
        """One probe, for torch."""
        return _torch_side.program_judge.Setting(
            self._tensors(probe.params), self._tensor(probe.x), self._tensor(probe.y)
        )

    def probes(self, wanted: Sequence[str | Variant] | str, *, seed: int | None = None) -> list[Variant]:
        """The given data first, then variants of it."""
        seed = self.seed if seed is None else seed
        trained = self.program.trained(self._tensors(self.params))
        upstream = self.program.loss is None and isinstance(self.y, np.ndarray)
        every = variants(self.params, trained, self.x, self.y, seed=seed, upstream=upstream)
        if wanted == "all":
            return every
        if own := [probe for probe in wanted if isinstance(probe, Variant)]:
            return [every[0], *(replace(p, params=self.params) if not p.params else p for p in own)]
        names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
        known = {probe.name: probe for probe in every}
        for name in names:
            if name not in known:
                raise ManualBPError(f"there is no probe {name!r}", hint=f"choose from {', '.join(known)}")
        return [known[name] for name in names] or [every[0]]


def _runner(candidate: Any, session: _Session) -> Callable[[Given, Any, Any], Any]:
    """How to get numbers out of a candidate of any kind."""
    if isinstance(candidate, Mapping):
        return lambda _params, _x, _y: candidate
    of_torch = _torch_side.candidates.runner(candidate, session.program)
    if of_torch is not None:
        session.params_used = True

        def run(params: Given, x: Any, y: Any) -> Any:
            return of_torch(params, x, y)

        return run
    if not callable(candidate):
        raise ManualBPError(
            f"the candidate is a {type(candidate).__name__}",
            hint="give a function (params, x, y) -> {name: array}, or a mapping",
        )
    return lambda params, x, y: call(candidate, params, x, y)


def _batch(x: Any) -> int:
    return int(x.shape[0]) if isinstance(x, np.ndarray) and x.ndim else 1
