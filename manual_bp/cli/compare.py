"""``manual-bp compare``: the main job."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from manual_bp.cli._options import Color, check_outputs, deliver, output_options, progress
from manual_bp.cli._target import kind_of, read_by, refuse_useless

if TYPE_CHECKING:
    from manual_bp.kept import Kept
    from manual_bp.network import Network
    from manual_bp.probes import Probe
    from manual_bp.report import Report


@click.command("compare", short_help="Compare every value and gradient with PyTorch's.")
@click.argument("target", default="three-layer", metavar="[NETWORK | FILE.py[:NAME] | DUMP]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float64", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of weights and data.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Examples in the first probe.")
@click.option(
    "--probe", "names", multiple=True, default=("all",), metavar="NAME|all", help="Only this probe; may be repeated."
)
@click.option("--weights", type=click.Path(), metavar="FILE.npz", help="Use these weights in the first probe.")
@click.option(
    "--fixture", type=click.Path(), metavar="FILE", help="What a dump answers, if it holds numbers alone (see: export)."
)
@click.option(
    "--case", type=click.Path(), metavar="FILE.py[:NAME]", help="The case that a dump belongs to, if it has moved."
)
@click.option("--partial", is_flag=True, help="What a dump leaves out is judged as part of what follows, not missing.")
@click.option("--strict-kinks", is_flag=True, help="Make another subgradient at a kink a difference.")
@click.option("--power", is_flag=True, help="Plant mistakes, and count which of them these very probes reveal.")
@click.option(
    "--keep-arrays", type=click.Path(), metavar="FILE.npz", help="Write both sides' whole arrays of what differs."
)
@click.option(
    "--reference",
    type=click.Path(),
    metavar="FILE.npz",
    help="Torch's numbers: read where they still fit, else written.",
)
@click.option("--keep-all", is_flag=True, help="With --keep-arrays: those of what is right, too.")
@output_options
@click.pass_context
def command(
    context: click.Context,
    target: str,
    dtype: str,
    seed: int,
    batch: int,
    names: tuple[str, ...],
    weights: str | None,
    fixture: str | None,
    case: str | None,
    partial: bool,
    strict_kinks: bool,
    power: bool,
    keep_arrays: str | None,
    reference: str | None,
    keep_all: bool,
    format_: str | None,
    outputs: tuple[str, ...],
    color: Color,
) -> int:
    """Compare every value and gradient of a hand-written pass with PyTorch's.

    NETWORK is a built-in network (see: manual-bp networks); without it, the three-layer network on real digits.
    FILE.py is a case of your own (see: manual-bp new). DUMP is a .npz or .safetensors file, or a folder, that another
    program filled in (see: manual-bp export).
    """
    kind = kind_of(target)
    refuse_useless(context, kind)
    keep = _keeper(keep_arrays, keep_all)
    inputs = read_by(kind, target, weights, fixture, case)
    check_outputs(outputs, format_, inputs=inputs, others=(keep_arrays, reference))
    if kind == "case":
        report = _case(target, context, dtype, seed, names, strict_kinks, keep)
    elif kind == "saved":
        report = _saved(target, strict_kinks, keep)
    elif kind == "dump":
        report = _dump(target, fixture, case, strict_kinks, partial=partial)
    else:
        lesson = _shows_lesson(format_, outputs)
        report = _network(
            target,
            dtype,
            seed,
            batch,
            names,
            weights,
            strict_kinks,
            power=power,
            keep=keep,
            lesson=lesson,
            reference=reference,
        )
    deliver(report, format_=format_, outputs=outputs, color=color)
    if keep is not None and keep_arrays is not None:
        if keep.arrays:
            click.echo(f"wrote {keep.write(keep_arrays)}", err=True)
        else:
            click.echo(f"did not write {keep_arrays}: nothing differs (--keep-all keeps what is right, too)", err=True)
    if report.partial:
        click.echo("interrupted: the report holds what was done until then", err=True)
        return 130
    return 0 if report.ok else 1


def _network(
    target: str,
    dtype: str,
    seed: int,
    batch: int,
    names: tuple[str, ...],
    weights: str | None,
    strict_kinks: bool,
    *,
    power: bool,
    keep: Kept | None,
    lesson: bool,
    reference: str | None,
) -> Report:
    """A built-in network over its probes, with its derivation if an output has a chapter for it."""
    from manual_bp import _torch_side

    if reference is None:
        _torch_side.prepare()
        import_module("manual_bp.render.terminal")  # needed at the end, and made ready meanwhile
    from manual_bp import networks, probes
    from manual_bp.power import lookup, measure_power
    from manual_bp.reference_file import ReferenceFile
    from manual_bp.runner import judge_network
    from manual_bp.weights import load_weights

    network = networks.get(target)
    answers = ReferenceFile(reference) if reference is not None else None
    wanted = probes.probe_names(network) if "all" in names else tuple(dict.fromkeys(names))
    chosen = [probes.probe(network, name, seed=seed, dtype=dtype, batch=batch) for name in wanted]
    if weights is not None:
        chosen[0] = replace(chosen[0], params=load_weights(weights, network, dtype))
    known = None
    if weights is None and not power:
        # the engine is what is judged: where it is broken, the mistakes planted in it are, too
        with contextlib.suppress(Exception):
            known = lookup(network, chosen, seed=seed, batch=batch)
    with progress(len(chosen), what=f"comparing {network.name}") as tick:
        report = judge_network(
            network,
            chosen,
            seed=seed,
            strict_kinks=strict_kinks,
            power=measure_power(network, chosen) if power else known,
            progress=tick,
            command=_command(network.name, dtype, seed, batch, names, weights, strict_kinks, power=power),
            keep=keep,
            reference=answers,
        )
    return _with_lesson(report, network, chosen[0]) if lesson else report


def _shows_lesson(format_: str | None, outputs: tuple[str, ...]) -> bool:
    """Whether an output has room for the derivation: the page, and the record that a page can be made of."""
    from manual_bp.render import format_for

    formats = {format_} if format_ else {format_for(path) for path in outputs}
    return bool(formats & {"html", "json"})


def _with_lesson(report: Report, network: Network, probe: Probe) -> Report:
    from manual_bp.lesson import chapter

    whole = network.run(probe.params, probe.x, probe.y).failure is None
    return replace(report, lesson=chapter(network, probe)) if whole else report


def _keeper(path: str | None, everything: bool) -> Kept | None:
    """What collects whole arrays, if they are asked for."""
    if path is None:
        if everything:
            raise click.UsageError("--keep-all needs --keep-arrays FILE.npz")
        return None
    if not path.endswith(".npz"):
        raise click.BadParameter(f"{path} does not end in .npz", param_hint="--keep-arrays")
    from manual_bp.kept import Kept

    return Kept(everything=everything)


def _case(
    target: str,
    context: click.Context,
    dtype: str,
    seed: int,
    names: tuple[str, ...],
    strict_kinks: bool,
    keep: Kept | None,
) -> Report:
    """A user's case; what the command line says beats what the file says."""
    from manual_bp.case import load_case

    case = load_case(target)
    told = {"dtype": dtype, "seed": seed, "strict_kinks": strict_kinks or case.strict_kinks}
    given = {n: v for n, v in told.items() if context.get_parameter_source(n) is not ParameterSource.DEFAULT}
    again = [word for n in ("dtype", "seed") if n in given for word in (f"--{n}", str(given[n]))]
    again += ["--strict-kinks"] if strict_kinks else []
    if "all" not in names:
        given["probes"] = names
        again += [word for name in names for word in ("--probe", name)]
    case = replace(case, **given)  # type: ignore[arg-type]  # the fields of the same names
    with progress(5, what=f"comparing {case.title}") as tick:
        report = case.verify(progress=tick, keep=keep)
    return replace(report, command=shlex.join(["manual-bp", "compare", target, *again]))


def _saved(target: str, strict_kinks: bool, keep: Kept | None) -> Report:
    """A network and its numbers as ``manual-bp fuzz`` saved them."""
    from manual_bp.equations import describe
    from manual_bp.fuzz.case import load
    from manual_bp.runner import judge_network

    network, probe = load(target)
    command = shlex.join(["manual-bp", "compare", target, *(["--strict-kinks"] if strict_kinks else [])])
    return judge_network(describe(network), [probe], strict_kinks=strict_kinks, command=command, keep=keep)


def _dump(target: str, fixture: str | None, case: str | None, strict_kinks: bool, *, partial: bool) -> Report:
    """Numbers that another program wrote."""
    from manual_bp.dumps import judge_dump

    answered = [*(["--fixture", fixture] if fixture else []), *(["--case", case] if case else [])]
    flags = [*(["--partial"] if partial else []), *(["--strict-kinks"] if strict_kinks else [])]
    again = shlex.join(["manual-bp", "compare", target, *answered, *flags])
    options: dict[str, Any] = {"fixture": fixture, "case": case, "complete": not partial, "strict_kinks": strict_kinks}
    with progress(2, what=f"comparing {target}") as tick:
        return judge_dump(target, **options, progress=tick, command=again)


def _command(
    network: str,
    dtype: str,
    seed: int,
    batch: int,
    names: tuple[str, ...],
    weights: str | None,
    strict: bool,
    *,
    power: bool,
) -> str:
    """The command that runs the same comparison again."""
    parts = ["manual-bp", "compare", network, "--dtype", dtype, "--seed", str(seed), "--batch", str(batch)]
    for name in names if "all" not in names else ():
        parts += ["--probe", name]
    parts += ["--weights", weights] if weights else []
    parts += ["--strict-kinks"] if strict else []
    parts += ["--power"] if power else []
    return shlex.join(parts)
