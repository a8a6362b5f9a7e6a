"""Example reports with real numbers; ``EXAMPLES`` has them by name, each made by a function without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from example_numbers import Array, comparison, picture, three_layer

from manual_bp.report import (
    HARMLESS,
    Check,
    Diagnosis,
    Finding,
    Kind,
    Kink,
    Power,
    ProbeInfo,
    Referee,
    Report,
    Status,
    StepInfo,
    count_statuses,
)

ENVIRONMENT = {"python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0", "manual_bp": "0.1.0"}
SOURCE = "question 1, eq. "

# name, op, inputs, symbol, params, equation
STEPS = [
    ("z1", "Conv2d(1, 1, kernel_size=3)", "x", "z⁽¹⁾", ("z1.weight", "z1.bias"), "z⁽¹⁾ = x ⋆ w⁽¹⁾ + b⁽¹⁾"),
    ("a1", "ReLU()", "z1", "a⁽¹⁾", (), "a⁽¹⁾ = max(z⁽¹⁾, 0)"),
    ("a2", "MaxPool2d(kernel_size=2)", "a1", "a⁽²⁾", (), "a⁽²⁾[p, r] = max over the 2x2 window of a⁽¹⁾"),
    ("z3", "Linear(9, 1)", "a2", "z⁽³⁾", ("z3.weight", "z3.bias"), "z⁽³⁾ = w⁽³⁾ · vec(a⁽²⁾) + b⁽³⁾"),
    ("a3", "Sigmoid()", "z3", "a⁽³⁾", (), "a⁽³⁾ = 1 / (1 + exp(−z⁽³⁾))"),
    ("loss", "BCELoss()", "a3", "L", (), "L = −[y log a⁽³⁾ + (1 − y) log(1 − a⁽³⁾)]"),
]

# name, kind, step that produces it, symbol, equation
QUANTITIES: list[tuple[str, Kind, str, str, str]] = [
    *((name, "value", name, symbol, equation) for name, _, _, symbol, _, equation in STEPS),
    ("a3.grad", "gradient", "loss", "∂L/∂a⁽³⁾", "∂L/∂a⁽³⁾ = −y / a⁽³⁾ + (1 − y) / (1 − a⁽³⁾)"),
    ("z3.grad", "gradient", "a3", "∂L/∂z⁽³⁾", "∂L/∂z⁽³⁾ = ∂L/∂a⁽³⁾ · a⁽³⁾ (1 − a⁽³⁾) = a⁽³⁾ − y"),
    ("a2.grad", "gradient", "z3", "∂L/∂a⁽²⁾", "∂L/∂a⁽²⁾ = ∂L/∂z⁽³⁾ · w⁽³⁾ᵀ"),
    ("z3.weight.grad", "parameter_gradient", "z3", "∂L/∂w⁽³⁾", "∂L/∂w⁽³⁾ = ∂L/∂z⁽³⁾ · vec(a⁽²⁾)"),
    ("z3.bias.grad", "parameter_gradient", "z3", "∂L/∂b⁽³⁾", "∂L/∂b⁽³⁾ = ∂L/∂z⁽³⁾"),
    (
        "a1.grad",
        "gradient",
        "a2",
        "∂L/∂a⁽¹⁾",
        "∂L/∂a⁽¹⁾[i, j] = ∂L/∂a⁽²⁾[p, r] where a⁽¹⁾[i, j] won its window, else 0",
    ),
    ("z1.grad", "gradient", "a1", "∂L/∂z⁽¹⁾", "∂L/∂z⁽¹⁾ = ∂L/∂a⁽¹⁾ where z⁽¹⁾ > 0, else 0"),
    ("x.grad", "gradient", "z1", "∂L/∂x", "∂L/∂x = ∂L/∂z⁽¹⁾ (full) ∗ w⁽¹⁾ rotated by 180°"),
    ("z1.weight.grad", "parameter_gradient", "z1", "∂L/∂w⁽¹⁾", "∂L/∂w⁽¹⁾[m, n] = Σᵢⱼ ∂L/∂z⁽¹⁾[i, j] · x[i+m, j+n]"),
    ("z1.bias.grad", "parameter_gradient", "z1", "∂L/∂b⁽¹⁾", "∂L/∂b⁽¹⁾ = Σᵢⱼ ∂L/∂z⁽¹⁾[i, j]"),
]

PROBES = (
    ProbeInfo(
        name="digits",
        description="8x8 handwritten digits, two of them",
        batch=2,
        seed=0,
        blind=("no exact zero at a ReLU",),
    ),
    ProbeInfo(name="ties", description="equal maxima in pooling windows, exact zeros at the ReLU", batch=2, seed=1),
)


def checks_of(probe: str, candidate: dict[str, Array], reference: dict[str, Array], wrong: set[str]) -> list[Check]:
    """One check a quantity; those named in ``wrong`` are wrong themselves, others that differ inherited it."""
    checks = []
    for number, (name, kind, step, symbol, equation) in enumerate(QUANTITIES, 1):
        overall = comparison(candidate[name], reference[name])
        status: Status = "pass" if not overall.mismatched else "wrong" if name in wrong else "inherited"
        noise = np.nextafter(candidate[name], np.inf) if number % 3 else candidate[name]
        alone = overall if status == "wrong" else comparison(noise, candidate[name])
        checks.append(
            Check(
                probe=probe, name=name, kind=kind, step=step, shape=candidate[name].shape, dtype="float64",
                status=status, rule="certified: rounding-error bound of one operation, γ₁₀", symbol=symbol,
                equation=equation, source=f"{SOURCE}{number}", isolated=alone, end_to_end=overall,
                picture=picture(candidate[name], reference[name]) if status == "wrong" else None,
            )
        )  # fmt: skip  # the record's own order
    return checks


def steps() -> tuple[StepInfo, ...]:
    """The chain x, z1, ..., loss."""
    layers = (
        StepInfo(name=n, op=op, inputs=(i,), params=p, symbol=s, equation=e, role="loss" if n == "loss" else "layer")
        for n, op, i, s, p, e in STEPS
    )
    return (StepInfo(name="x", op="input", inputs=(), role="input", shape=(2, 1, 8, 8), symbol="x"), *layers)


def report(checks: list[Check], **changes: object) -> Report:
    """A report around checks; verdict and first wrong quantity follow from them."""
    bad = [check for check in checks if check.status not in HARMLESS]
    first = next((check.name for check in bad if check.status != "inherited"), None)
    built = Report(
        network="three-layer", dtype="float64", seed=0, verdict="fail" if bad else "pass", first_wrong=first,
        environment=ENVIRONMENT, counts=count_statuses(tuple(checks)), checks=tuple(checks), steps=steps(),
        probes=PROBES, command="manual-bp compare three-layer --dtype float64 --seed 0",
        power=Power(
            planted=47, revealed=46, by_probe={"digits": 31, "ties": 40}, unseen=("a wrong dilation",),
            origin="planted in this network", text="",
        ),
    )  # fmt: skip  # the record's own order
    return replace(built, **changes)  # type: ignore[arg-type]  # the callers name fields of Report


# ------------------------------------------------------------------------------------ the examples


def _with_mistake(mistake: str, wrong: set[str], *, integers: bool = False) -> list[Check]:
    checks: list[Check] = []
    for seed, probe in enumerate(PROBES):
        reference = three_layer(seed, integers=integers and seed == 1)
        candidate = three_layer(seed, mistake, integers=integers and seed == 1)
        checks += checks_of(probe.name, candidate, reference, wrong)
    return checks


def diagnosed(checks: list[Check], name: str, diagnosis: Diagnosis, note: str = "") -> list[Check]:
    return [replace(c, diagnosis=diagnosis, note=note) if c.name == name and c.status == "wrong" else c for c in checks]


@cache
def all_right() -> Report:
    return report(_with_mistake("", set()))


@cache
def unrotated_kernel() -> Report:
    diagnosis = Diagnosis(
        name="the kernel is not rotated by 180° in the backward pass",
        identifier="kernel-not-rotated",
        evidence="with the kernel rotated, all 128 elements agree on both probes",
        confidence="certain",
        leftover=0.21,
        hint="correlate the padded upstream gradient with w[..., ::-1, ::-1]",
        location="my_network.py:41",
    )
    return report(diagnosed(_with_mistake("not rotated", {"x.grad"}), "x.grad", diagnosis))


@cache
def forgotten_mask() -> Report:
    diagnosis = Diagnosis(
        name="the ReLU mask is missing: the upstream gradient is passed on unchanged",
        identifier="relu-mask-missing",
        evidence="candidate equals the upstream gradient exactly, on both probes",
        confidence="certain",
        leftover=0.0,
        hint="multiply by (z > 0)",
    )
    finding = Finding(
        kind="wrong", name="z1.grad", step="a1", text="z1.grad is wrong on 2 of 2 probes", probes=("digits", "ties")
    )
    checks = diagnosed(_with_mistake("no mask", {"z1.grad"}), "z1.grad", diagnosis)
    return report(checks, findings=(finding,))


@cache
def tie() -> Report:
    """All right but for a pooling tie, where the candidate gave the gradient to another maximum."""
    reference, candidate = three_layer(1, integers=True), three_layer(1, "last tie", integers=True)
    checks = checks_of("digits", three_layer(0), three_layer(0), set())
    different = np.argwhere(candidate["a1.grad"] != reference["a1.grad"])
    kink = Kink(
        elements=len(different),
        indices=tuple(tuple(int(i) for i in at) for at in different[:6]),
        convention="torch gives the whole gradient to the first maximum of the window",
    )
    for check in checks_of("ties", candidate, reference, set()):
        if check.name == "a1.grad":
            check = replace(
                check, status="kink", kink=kink, picture=picture(candidate["a1.grad"], reference["a1.grad"])
            )
        elif check.status == "inherited":
            check = replace(check, status="pass", note="differs end to end only through the tie in a1.grad")
        checks.append(check)
    return report(checks)


@cache
def nan() -> Report:
    reference = three_layer(0)
    candidate = {name: array.copy() for name, array in reference.items()}
    candidate["a3.grad"][1, 0] = np.nan
    candidate["z3.grad"][1, 0] = np.nan
    candidate["a2.grad"][1] = np.inf
    checks = checks_of("digits", candidate, reference, {"a3.grad"})
    for i, check in enumerate(checks):
        if check.name == "a3.grad":
            checks[i] = replace(check, status="nonfinite", note="1 of 2 elements is NaN where torch's is finite")
    return report(checks, power=None, probes=PROBES[:1])


@cache
def untidy() -> Report:
    """Missing, extra and of another shape, with findings of every kind and a referee who blames the reference."""
    checks = checks_of("digits", three_layer(0), three_layer(0), set())
    by_name = {check.name: check for check in checks}
    none = {"isolated": None, "end_to_end": None}
    by_name["z3.bias.grad"] = replace(
        by_name["z3.bias.grad"], status="missing", note="the candidate did not report it", **none
    )
    by_name["x.grad"] = replace(
        by_name["x.grad"], status="mismatch", note="shape (2, 8, 8, 1) where (2, 1, 8, 8) is expected", **none
    )
    by_name["momentum"] = replace(
        by_name["z1"],
        name="momentum",
        step="",
        status="extra",
        note="no quantity of this name is known",
        equation="",
        **none,
    )
    by_name["a3"] = replace(
        by_name["a3"], referee=Referee(precision="float128", candidate=0.4, reference=5.1, fault="reference"),
        note="torch left its own bound here",
    )  # fmt: skip  # short
    findings = (
        Finding(
            kind="plumbing",
            name="a2",
            step="a2",
            text="a2 is right for its input, but that is not a1",
            probes=("digits",),
        ),
        Finding(kind="mutation", name="x", step="z1", text="x was changed in place during the backward pass"),
        Finding(kind="reference", name="a3", step="a3", text="torch is 5.1 times further off than its bound allows"),
        Finding(kind="coverage", name="z3.bias.grad", step="z3", text="not reported: z3.bias.grad"),
    )
    return report(list(by_name.values()), findings=findings, notes=("float32 is not the dtype torch defaults to",))


HOSTILE = "</script><b>[red]bold[/red]`|&\x1b[31m\x07\u202e\n'\""


#: Fields with a vocabulary of their own; everything else that is text may come from a user.
CLOSED = {"status", "kind", "confidence", "role", "verdict", "against", "fault"}


@cache
def hostile() -> Report:
    """Every text that a user may choose is an attack on some view."""
    good = forgotten_mask()
    spoiled = _spoiled(replace(good, title="title", notes=("note",), environment={}))
    return replace(spoiled, environment=dict.fromkeys(good.environment, HOSTILE))


def _spoiled(value: Any) -> Any:
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, tuple):
        return tuple(map(_spoiled, value))
    if is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: getattr(value, f.name) for f in fields(value)}
        return replace(value, **{name: _spoiled(text) for name, text in kept.items() if name not in CLOSED})
    return value


def _check(name: str, kind: Kind, step: str, candidate: Array, reference: Array, status: Status) -> Check:
    """A check of a network whose numbers mean nothing."""
    found = comparison(candidate, reference)
    return Check(
        probe="gaussian", name=name, kind=kind, step=step, shape=reference.shape, dtype="float32", status=status,
        rule="certified: float32", isolated=found, end_to_end=found,
        picture=picture(candidate, reference) if status == "wrong" else None,
    )  # fmt: skip  # the record's own order


@cache
def residual() -> Report:
    """A graph with branches: a skip connection, two parallel convolutions, a concatenation; one gradient is wrong."""
    graph: list[tuple[str, str, tuple[str, ...]]] = [
        ("x", "input", ()),
        ("stem", "Conv2d(3, 8, kernel_size=3, padding=1)", ("x",)),
        ("layer1.0.conv1", "Conv2d(8, 8, kernel_size=3, padding=1)", ("stem",)),
        ("layer1.0.relu", "ReLU()", ("layer1.0.conv1",)),
        ("layer1.0.conv2", "Conv2d(8, 8, kernel_size=3, padding=1)", ("layer1.0.relu",)),
        ("layer1.0.add", "add", ("layer1.0.conv2", "stem")),
        ("branch_a", "Conv2d(8, 4, kernel_size=1)", ("layer1.0.add",)),
        ("branch_b", "Conv2d(8, 4, kernel_size=1)", ("layer1.0.add",)),
        ("cat", "cat(dim=1)", ("branch_a", "branch_b", "stem")),
        ("fc", "Linear(4096, 10)", ("cat",)),
        ("loss", "CrossEntropyLoss()", ("fc",)),
    ]
    rng = np.random.default_rng(3)
    quantities: list[tuple[str, Kind, str]] = [(name, "value", name) for name, _, inputs in graph if inputs]
    quantities += [(f"{inputs[0]}.grad", "gradient", name) for name, _, inputs in reversed(graph) if inputs]
    checks: list[Check] = []
    for name, kind, step in quantities:
        reference = rng.normal(size=(4, 8, 20, 24))
        wrong = name == "stem.grad"
        candidate = reference * (1 + 0.5 * (rng.random(reference.shape) < 0.02)) if wrong else reference
        status: Status = "wrong" if wrong else "inherited" if name == "x.grad" else "pass"
        checks.append(_check(name, kind, step, candidate, reference, status))
    infos = tuple(
        StepInfo(name=name, op=op, inputs=i, role="input" if not i else "loss" if name == "loss" else "layer")
        for name, op, i in graph
    )
    probe = ProbeInfo(name="gaussian", description="independent normal numbers", batch=4, seed=3)
    name = "my_net.py:Residual"
    return report(checks, network=name, steps=infos, dtype="float32", seed=3, probes=(probe,), power=None)


@cache
def large(layers: int = 60) -> Report:
    """More than a hundred quantities, every seventeenth wrong, names as long as modules nest."""
    rng = np.random.default_rng(5)
    names = [f"features.encoder.block{i // 6}.sublayer{i % 6}.projection" for i in range(layers)]
    links = list(pairwise(["x", *names]))
    infos = [StepInfo(name=name, op="Linear(512, 512)", inputs=(before,)) for before, name in links]
    quantities: list[tuple[str, Kind, str]] = [(name, "value", name) for name in names]
    for before, name in reversed(links):
        quantities += [(f"{before}.grad", "gradient", name), (f"{name}.weight.grad", "parameter_gradient", name)]
    checks: list[Check] = []
    for number, (name, kind, step) in enumerate(quantities):
        reference = rng.normal(size=(64, 48))
        wrong = number % 17 == 3
        candidate = reference * 1.0001 if wrong else np.nextafter(reference, 9)
        checks.append(_check(name, kind, step, candidate, reference, "wrong" if wrong else "pass"))
    start = StepInfo(name="x", op="input", inputs=(), role="input")
    command = "manual-bp compare large.py"
    return report(
        checks, network="large", command=command, steps=(start, *infos), dtype="float32", power=None, probes=()
    )


EXAMPLES: dict[str, Callable[[], Report]] = {
    "all right": all_right,
    "unrotated kernel": unrotated_kernel,
    "forgotten mask": forgotten_mask,
    "tie": tie,
    "nan": nan,
    "untidy": untidy,
    "hostile": hostile,
    "residual": residual,
    "large": large,
}
