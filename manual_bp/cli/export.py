"""``manual-bp export``: weights, inputs and targets for a program in another language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manual_bp.errors import ManualBPError

if TYPE_CHECKING:
    from manual_bp.dumps import Form, Manifest
    from manual_bp.trace import Array

    Fixture = tuple[Manifest, dict[str, Array]]


@click.command("export", short_help="Write a fixture for a program in any language.")
@click.argument("target", metavar="NETWORK | FILE.py[:NAME]")
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="FILE.npz|FILE.safetensors|FOLDER",
    help="Where to; a folder gets one raw file an array, a manifest.json and a C header.",
)  # fmt: skip  # the option and its help below one another
@click.option(
    "--probe", "names", multiple=True, metavar="NAME|all",
    help="Which weights and inputs; several go into a folder, a fixture each.  [default: the first]",
)  # fmt: skip  # as above
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="[default: float64, or the case's own]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and data.  [default: 0, or the case's own]")
@click.option("--batch", type=click.IntRange(min=1), help="Examples, at least.  [default: 1; a case has its own]")
@click.option(
    "--no-expected", is_flag=True, help="Leave out what PyTorch has for every quantity (torch is not needed)."
)
@click.option("--channels-last", is_flag=True, help="Store images as NHWC, kernels as HWIO, dense weights as IO.")
@click.option(
    "--layout", "layouts", multiple=True, metavar="NAME=AXES", help="Store one array so, such as z1.weight=HWIO."
)
@click.option(
    "--form", type=click.Choice(["bin", "npz", "safetensors"]), help="Of the files in the folder.  [default: by name]"
)
@click.option(
    "--force", is_flag=True, help="Write over what a program has filled in, and over files that are no fixture."
)
def command(
    target: str,
    output: str,
    names: tuple[str, ...],
    dtype: str | None,
    seed: int | None,
    batch: int | None,
    no_expected: bool,
    channels_last: bool,
    layouts: tuple[str, ...],
    form: Form | None,
    force: bool,
) -> None:
    """Write weights, inputs, targets and what PyTorch makes of them, for a program in any language.

    The program reads given/NAME and writes its own numbers to candidate/NAME, for every NAME that the manifest wants.
    Then: manual-bp compare on the same file or folder.

    FILE.py is a case of your own (see: manual-bp new); its names and layouts are those of the fixture. Its reference
    stays in FILE.py, where manual-bp compare finds it again (or is told: --case FILE.py).
    """
    from manual_bp import dumps
    from manual_bp.case import is_case

    given = {"dtype": dtype, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    if is_case(target):
        if batch is not None or channels_last:
            what = "--batch" if batch is not None else "--channels-last"
            raise ManualBPError(f"{what} is for the built-in networks", hint="say it in the case: x, layouts")
        made = _case(target, output, names, options, expected=not no_expected, layouts=_layouts(layouts))
    else:
        made = _network(
            target,
            names,
            {"dtype": "float64", "seed": 0, "batch": 1 if batch is None else batch, **options},
            {"expected": not no_expected, "layouts": _layouts(layouts), "last": channels_last},
        )
    chosen = dumps.form_of(output) if form is None else form
    folder = dumps.form_of(output) == "bin"
    if not folder and (len(made) > 1 or chosen != dumps.form_of(output)):
        hint = "give a folder with -o, or one --probe and no other --form"
        raise ManualBPError(f"{output} is one {dumps.form_of(output)} file", hint=hint)
    several = len(made) > 1 or (folder and chosen != "bin")
    for manifest, arrays in made:
        suffix = "" if chosen == "bin" else f".{chosen}"
        path = Path(output) / f"{manifest.probe}{suffix}" if several else Path(output)
        dumps.write(path, chosen, manifest, arrays, force=force)
        click.echo(f"wrote {path}: {len(manifest.given)} arrays given, {len(manifest.wanted)} wanted", err=True)
    click.echo(f"let your program fill in candidate/NAME, then: manual-bp compare {output}", err=True)


def _network(
    target: str, names: tuple[str, ...], options: Mapping[str, Any], stored: Mapping[str, Any]
) -> list[Fixture]:
    """Fixtures of a built-in network, one a probe."""
    from manual_bp import dumps, networks, probes

    network = networks.get(target)
    wanted = probes.probe_names(network) if "all" in names else tuple(dict.fromkeys(names))
    found = [probes.probe(network, name, **options) for name in wanted or probes.probe_names(network)[:1]]
    return [dumps.fixture(network, probe, **stored) for probe in found]


def _case(
    target: str,
    output: str,
    names: tuple[str, ...],
    options: Mapping[str, Any],
    *,
    expected: bool,
    layouts: Mapping[str, str],
) -> list[Fixture]:
    """Fixtures of a case, one a probe."""
    from manual_bp import dumps
    from manual_bp.case import load_case

    case = load_case(target)
    case = replace(case, **options, layouts={**(case.layouts or {}), **layouts})
    session = case.session()
    probes = session.probes("all" if "all" in names else names or ["given"])
    # the manifest names the case by the way from the fixture's own folder, wherever both are moved
    several = dumps.form_of(output) == "bin" and len(probes) > 1
    folder = Path(output) if several else Path(output).parent
    made = []
    for probe in probes:
        try:
            made.append(dumps.case_fixture(case, session, probe, target=target, folder=folder, expected=expected))
        except ManualBPError as error:
            if error is not session.refusal or "all" not in names or probe is probes[0]:
                raise
            click.echo(f"left out probe {probe.name}: the reference cannot work with it", err=True)
    return made


def _layouts(texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, axes = text.partition("=")
        if not equals or not name or not axes:
            raise ManualBPError(
                f"--layout {text} names no array and its axes", hint="write such as --layout z1.weight=HWIO"
            )
        found[name] = axes
    return found
