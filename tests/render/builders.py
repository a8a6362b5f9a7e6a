"""Example reports with real numbers: a small network run in NumPy, with mistakes planted on purpose.

The engine is not used here, nor the judge: a view is tested against what a report says, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from manual_bp.report import (
    HARMLESS,
    Check,
    Comparison,
    Diagnosis,
    Element,
    Finding,
    Kind,
    Kink,
    Picture,
    Plane,
    Power,
    ProbeInfo,
    Referee,
    Report,
    Status,
    StepInfo,
    count_statuses,
)

Array = NDArray[np.float64]
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
    ("a1.grad", "gradient", "a2", "∂L/∂a⁽¹⁾", "∂L/∂a⁽¹⁾[i, j] = ∂L/∂a⁽²⁾[p, r] where a⁽¹⁾[i, j] won its window, else 0"),
    ("z1.grad", "gradient", "a1", "∂L/∂z⁽¹⁾", "∂L/∂z⁽¹⁾ = ∂L/∂a⁽¹⁾ where z⁽¹⁾ > 0, else 0"),
    ("x.grad", "gradient", "z1", "∂L/∂x", "∂L/∂x = ∂L/∂z⁽¹⁾ (full) ∗ w⁽¹⁾ rotated by 180°"),
    ("z1.weight.grad", "parameter_gradient", "z1", "∂L/∂w⁽¹⁾", "∂L/∂w⁽¹⁾[m, n] = Σᵢⱼ ∂L/∂z⁽¹⁾[i, j] · x[i+m, j+n]"),
    ("z1.bias.grad", "parameter_gradient", "z1", "∂L/∂b⁽¹⁾", "∂L/∂b⁽¹⁾ = Σᵢⱼ ∂L/∂z⁽¹⁾[i, j]"),
]

PROBES = (
    ProbeInfo(
        name="digits", description="8x8 handwritten digits, two of them", batch=2, seed=0, blind=("no exact zero at a ReLU",)
    ),
    ProbeInfo(name="ties", description="equal maxima in pooling windows, exact zeros at the ReLU", batch=2, seed=1),
)


# ------------------------------------------------------------------------------------ the network, by hand


def _windows(x: Array, size: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))


def three_layer(seed: int, mistake: str = "", *, integers: bool = False) -> dict[str, Array]:
    """Every quantity of the seed network on two 8x8 images; ``mistake`` names what is done wrong."""
    rng = np.random.default_rng(seed)
    draw: Callable[..., Array] = (
        (lambda *s: rng.integers(-2, 3, s).astype(float)) if integers else (lambda *s: rng.normal(size=s))
    )
    x, w1, b1, w3, b3 = draw(2, 1, 8, 8), draw(1, 1, 3, 3), draw(1), draw(1, 9) / 8, draw(1)
    y = np.array([[1.0], [0.0]])
    z1 = np.einsum("ncijuv,ocuv->noij", _windows(x, 3), w1) + b1[:, None, None]
    a1 = np.maximum(z1, 0)
    blocks = a1.reshape(2, 1, 3, 2, 3, 2).swapaxes(3, 4).reshape(2, 1, 3, 3, 4)
    a2 = blocks.max(-1)
    z3 = a2.reshape(2, 9) @ w3.T + b3
    a3 = 1 / (1 + np.exp(-z3))
    da3 = (-y / a3 + (1 - y) / (1 - a3)) / 2
    dz3 = da3 * a3 * (1 - a3)
    da2 = (dz3 @ w3).reshape(a2.shape)
    winner = blocks.argmax(-1) if mistake != "last tie" else 3 - blocks[..., ::-1].argmax(-1)
    route = np.eye(4)[winner] if mistake != "all tied" else (blocks == a2[..., None]) * 1.0
    da1 = (route * da2[..., None]).reshape(2, 1, 3, 3, 2, 2).swapaxes(3, 4).reshape(a1.shape)
    dz1 = da1 if mistake == "no mask" else da1 * (z1 > 0)
    kernel = w1 if mistake == "not rotated" else w1[..., ::-1, ::-1]
    padded = np.pad(dz1, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return {
        "z1": z1, "a1": a1, "a2": a2, "z3": z3, "a3": a3,
        "loss": np.asarray(-np.mean(y * np.log(a3) + (1 - y) * np.log(1 - a3))),
        "a3.grad": da3, "z3.grad": dz3, "a2.grad": da2,
        "z3.weight.grad": dz3.T @ a2.reshape(2, 9), "z3.bias.grad": dz3.sum(0),
        "a1.grad": da1, "z1.grad": dz1,
        "x.grad": np.einsum("noijuv,ocuv->ncij", _windows(padded, 3), kernel),
        "z1.weight.grad": np.einsum("ncuvij,noij->ocuv", _windows(x, 6), dz1),
        "z1.bias.grad": dz1.sum((0, 2, 3)),
    }  # fmt: skip  # one line a step of the network reads better


# ------------------------------------------------------------------------------------ numbers to records


def comparison(candidate: Array, reference: Array, *, bound: float = 64 * 2.0**-53) -> Comparison:
    """What the judge writes down of two arrays; allowed is ``bound`` times the reference's magnitude."""
    candidate, reference = np.asarray(candidate, float), np.asarray(reference, float)
    allowed = bound * (np.abs(reference) + np.abs(reference).mean() + 1e-300)
    with np.errstate(invalid="ignore"):
        error = np.abs(candidate - reference)
    used = np.where(np.isfinite(error), error / allowed, np.inf)
    wrong = used > 1
    order = np.argsort(-used, axis=None, kind="stable")
    places = [tuple(int(i) for i in np.unravel_index(flat, used.shape)) for flat in order[:5]]
    elements = [
        Element(index=at, candidate=float(candidate[at]), reference=float(reference[at]), allowed=float(allowed[at]))
        for at in places
    ]
    worst = elements[0]
    finite = error[np.isfinite(error)]
    ratio = error[wrong] / np.abs(reference[wrong]) if wrong.any() and (reference[wrong] != 0).all() else np.array([])
    return Comparison(
        max_abs_error=float(finite.max()) if finite.size == error.size else float("nan"),
        used=float(used.max()),
        mismatched=int(wrong.sum()),
        elements=error.size,
        worst_index=worst.index,
        candidate=worst.candidate,
        reference=worst.reference,
        allowed=worst.allowed,
        passing_atol=float(error.max()) if wrong.any() and np.isfinite(error).all() else float("inf") * bool(wrong.any()),
        passing_rtol=float(ratio.max()) if ratio.size else float("inf") * bool(wrong.any()),
        worst=tuple(element for at, element in zip(places, elements, strict=True) if wrong[at]),
    )


def picture(candidate: Array, reference: Array, *, against: str = "isolated", bound: float = 64 * 2.0**-53) -> Picture:
    """The planes over the last two axes, worst first, pooled to at most 16 x 16 cells by the worst element."""
    candidate, reference = np.atleast_2d(candidate), np.atleast_2d(reference)
    with np.errstate(invalid="ignore"):
        error = np.abs(candidate - reference)
    used = error / (bound * (np.abs(reference) + np.abs(reference).mean() + 1e-300))
    used = np.where(np.isnan(used), np.inf, used)
    lead = used.shape[:-2]
    planes = sorted(np.ndindex(*lead), key=lambda at: -used[at].max())
    return Picture(
        against=against,  # type: ignore[arg-type]  # the builder's callers pass one of the two words
        planes_total=len(planes),
        planes=tuple(_plane(at, candidate[at], reference[at], used[at]) for at in planes[:2]),
    )


def _plane(at: tuple[int, ...], candidate: Array, reference: Array, used: Array) -> Plane:
    block = tuple(-(-size // 16) for size in used.shape)
    rows, cols = (-(-size // b) for size, b in zip(used.shape, block, strict=True))
    cells: list[tuple[float, float, float]] = []
    for r, c in np.ndindex(rows, cols):
        part = (slice(r * block[0], (r + 1) * block[0]), slice(c * block[1], (c + 1) * block[1]))
        flat = int(np.argmax(used[part]))
        cells.append(tuple(float(array[part].flat[flat]) for array in (candidate, reference, used)))  # type: ignore[arg-type]  # three arrays, three numbers
    label = ", ".join(f"{axis} {i}" for axis, i in zip(("batch", "channel"), at, strict=False))
    c, r, u = zip(*cells, strict=True)
    return Plane(label=label, index=at, rows=rows, cols=cols, block=(block[0], block[1]), candidate=c, reference=r, used=u)


def checks_of(probe: str, candidate: dict[str, Array], reference: dict[str, Array], wrong: set[str]) -> list[Check]:
    """One check a quantity; those named in ``wrong`` are wrong themselves, others that differ inherited it."""
    checks = []
    for number, (name, kind, step, symbol, equation) in enumerate(QUANTITIES, 1):
        overall = comparison(candidate[name], reference[name])
        status: Status = "wrong" if name in wrong else "inherited" if overall.mismatched else "pass"
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


def all_right() -> Report:
    return report(_with_mistake("", set()))


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


def forgotten_mask() -> Report:
    diagnosis = Diagnosis(
        name="the ReLU mask is missing: the upstream gradient is passed on unchanged",
        identifier="relu-mask-missing",
        evidence="candidate equals the upstream gradient exactly, on both probes",
        confidence="certain",
        leftover=0.0,
        hint="multiply by (z > 0)",
    )
    finding = Finding(kind="wrong", name="z1.grad", step="a1", text="z1.grad is wrong on 2 of 2 probes", probes=("digits", "ties"))
    checks = diagnosed(_with_mistake("no mask", {"z1.grad"}), "z1.grad", diagnosis)
    return report(checks, findings=(finding,))


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
            check = replace(check, status="kink", kink=kink, picture=picture(candidate["a1.grad"], reference["a1.grad"]))
        elif check.status == "inherited":
            check = replace(check, status="pass", note="differs end to end only through the tie in a1.grad")
        checks.append(check)
    return report(checks)


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


def untidy() -> Report:
    """Missing, extra and of another shape, with findings of every kind and a referee who blames the reference."""
    checks = checks_of("digits", three_layer(0), three_layer(0), set())
    by_name = {check.name: check for check in checks}
    none = {"isolated": None, "end_to_end": None}
    by_name["z3.bias.grad"] = replace(by_name["z3.bias.grad"], status="missing", note="the candidate did not report it", **none)
    by_name["x.grad"] = replace(
        by_name["x.grad"], status="mismatch", note="shape (2, 8, 8, 1) where (2, 1, 8, 8) is expected", **none
    )
    by_name["momentum"] = replace(by_name["z1"], name="momentum", status="extra", note="no quantity of this name is known", equation="", **none)
    by_name["a3"] = replace(
        by_name["a3"], referee=Referee(precision="float128", candidate=0.4, reference=5.1, fault="reference"),
        note="torch left its own bound here",
    )  # fmt: skip  # short
    findings = (
        Finding(kind="plumbing", name="a2", step="a2", text="a2 is right for its input, but that is not a1", probes=("digits",)),
        Finding(kind="mutation", name="x", step="z1", text="x was changed in place during the backward pass"),
        Finding(kind="reference", name="a3", step="a3", text="torch is 5.1 times further off than its bound allows"),
        Finding(kind="coverage", name="z3.bias.grad", step="z3", text="not reported: z3.bias.grad"),
    )
    return report(list(by_name.values()), findings=findings, notes=("float32 is not the dtype torch defaults to",))


HOSTILE = "</script><b>[red]bold[/red]`|&\x1b[31m\x07\u202e\n'\""


def hostile() -> Report:
    """Every text that a user may choose is an attack on some view."""
    good = unrotated_kernel()
    bad: Callable[[str], str] = lambda text: HOSTILE + text  # noqa: E731  # shorter than a nested def
    checks = tuple(
        replace(
            c, probe=bad(c.probe), name=bad(c.name), step=bad(c.step), symbol=bad(""), equation=bad(c.equation), note=bad(""),
            source=bad(""), rule=bad(""), dtype=bad(""),
            diagnosis=c.diagnosis and replace(c.diagnosis, name=bad(""), evidence=bad(""), hint=bad(""), location=bad("")),
            picture=c.picture and replace(c.picture, planes=tuple(replace(p, label=bad("")) for p in c.picture.planes)),
        )
        for c in good.checks
    )  # fmt: skip  # one field after the other
    return replace(
        good, network=bad(""), title=bad(""), checks=checks, first_wrong=bad("x.grad"), command=bad(""), notes=(bad(""),),
        steps=tuple(replace(s, name=bad(s.name), op=bad(s.op), inputs=tuple(map(bad, s.inputs))) for s in good.steps),
        probes=tuple(replace(p, name=bad(p.name), description=bad(""), blind=(bad(""),)) for p in good.probes),
        findings=(Finding(kind="wrong", name=bad("x.grad"), step=bad("z1"), text=bad(""), probes=(bad("digits"),)),),
    )  # fmt: skip  # one field after the other


def residual() -> Report:
    """A graph with branches: two blocks with skip connections and a concatenation, the skip's gradient forgotten."""
    graph = [
        ("x", "input", ()), ("stem", "Conv2d(3, 8, kernel_size=3, padding=1)", ("x",)),
        ("layer1.0.conv1", "Conv2d(8, 8, kernel_size=3, padding=1)", ("stem",)), ("layer1.0.relu", "ReLU()", ("layer1.0.conv1",)),
        ("layer1.0.conv2", "Conv2d(8, 8, kernel_size=3, padding=1)", ("layer1.0.relu",)),
        ("layer1.0.add", "add", ("layer1.0.conv2", "stem")), ("branch_a", "Conv2d(8, 4, kernel_size=1)", ("layer1.0.add",)),
        ("branch_b", "Conv2d(8, 4, kernel_size=1)", ("layer1.0.add",)), ("cat", "cat(dim=1)", ("branch_a", "branch_b", "stem")),
        ("fc", "Linear(4096, 10)", ("cat",)), ("loss", "CrossEntropyLoss()", ("fc",)),
    ]  # fmt: skip  # a table
    rng = np.random.default_rng(3)
    checks: list[Check] = []
    names = [(n, "value", n) for n, _, i in graph if i]
    names += [(f"{i}.grad", "gradient", n) for n, _, inputs in reversed(graph) for i in inputs[:1]]
    for name, kind, step in names:
        array = rng.normal(size=(4, 8, 20, 24))
        off = array * (1 + 0.5 * (rng.random(array.shape) < 0.02)) if name == "stem.grad" else array
        alone = comparison(off, array)
        late = name in ("stem.grad", "x.grad")
        checks.append(
            Check(
                probe="gaussian", name=name, kind=kind, step=step, shape=array.shape, dtype="float32",  # type: ignore[arg-type]  # built from the table above
                status="wrong" if name == "stem.grad" else "inherited" if late else "pass", isolated=alone, end_to_end=alone,
                rule="certified: float32", picture=picture(off, array) if name == "stem.grad" else None,
            )
        )  # fmt: skip  # the record's own order
    infos = tuple(
        StepInfo(name=n, op=op, inputs=i, role="input" if not i else "loss" if n == "loss" else "layer") for n, op, i in graph
    )
    probe = ProbeInfo(name="gaussian", description="independent normal numbers", batch=4, seed=3)
    return report(checks, network="my_net.py:Residual", steps=infos, dtype="float32", seed=3, probes=(probe,), power=None)


def large(layers: int = 60) -> Report:
    """More than a hundred quantities, eight of them wrong, names as long as modules nest."""
    rng = np.random.default_rng(5)
    names = [f"features.encoder.block{i // 6}.sublayer{i % 6}.projection" for i in range(layers)]
    infos = [StepInfo(name="x", op="input", inputs=(), role="input")]
    infos += [StepInfo(name=n, op="Linear(512, 512)", inputs=(p,)) for p, n in zip(["x", *names], names, strict=False)]
    checks: list[Check] = []
    quantities = [(n, "value", n) for n in names]
    for before, n in reversed(list(zip(["x", *names], names, strict=False))):
        quantities += [(f"{before}.grad", "gradient", n), (f"{n}.weight.grad", "parameter_gradient", n)]
    for number, (name, kind, step) in enumerate(quantities):
        reference = rng.normal(size=(64, 48))
        wrong = number % 17 == 3
        candidate = reference * 1.0001 if wrong else np.nextafter(reference, 9)
        alone = comparison(candidate, reference)
        checks.append(
            Check(
                probe="gaussian", name=name, kind=kind, step=step, shape=(64, 512), dtype="float32",  # type: ignore[arg-type]  # built from the table above
                status="wrong" if wrong else "pass", isolated=alone, end_to_end=alone, rule="certified: float32",
                picture=picture(candidate, reference) if wrong else None,
            )
        )  # fmt: skip  # the record's own order
    return report(checks, network="large", steps=tuple(infos), dtype="float32", power=None, probes=())


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
