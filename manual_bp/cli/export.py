"""``manual-bp export``: weights, inputs and targets for a program in another language."""

from __future__ import annotations

from pathlib import Path

import click

from manual_bp.errors import ManualBPError


@click.command("export", short_help="Write a fixture for a program in any language.")
@click.argument("target", metavar="NETWORK")
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="FILE.npz|FILE.safetensors|FOLDER",
    help="Where to; a folder gets one raw file an array, a manifest.json and a C header.",
)  # fmt: skip  # the option and its help below one another
@click.option(
    "--probe", "names", multiple=True, metavar="NAME|all",
    help="Which weights and inputs; several go into a folder, a fixture each.  [default: the first]",
)  # fmt: skip  # as above
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float64", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of weights and data.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Examples, at least.")
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
def command(
    target: str,
    output: str,
    names: tuple[str, ...],
    dtype: str,
    seed: int,
    batch: int,
    no_expected: bool,
    channels_last: bool,
    layouts: tuple[str, ...],
    form: str | None,
) -> None:
    """Write weights, inputs, targets and what PyTorch makes of them, for a program in any language.

    The program reads given/NAME and writes its own numbers to candidate/NAME, for every NAME that the manifest wants
    (as many as it has). Then: manual-bp compare on the same file or folder.
    """
    from manual_bp import dumps, networks, probes

    if target.endswith(".py") or ".py:" in target:
        raise ManualBPError(
            f"{target} is a case of your own; only built-in networks can be exported", hint="see: manual-bp networks"
        )
    network = networks.get(target)
    wanted = probes.probe_names(network) if "all" in names else tuple(dict.fromkeys(names))
    wanted = wanted or probes.probe_names(network)[:1]
    chosen = dumps.form_of(output) if form is None else form
    folder = dumps.form_of(output) == "bin"
    if not folder and (len(wanted) > 1 or chosen != dumps.form_of(output)):
        hint = "give a folder with -o, or one --probe and no other --form"
        raise ManualBPError(f"{output} is one {dumps.form_of(output)} file", hint=hint)
    several = len(wanted) > 1 or (folder and chosen != "bin")
    found = [probes.probe(network, name, seed=seed, dtype=dtype, batch=batch) for name in wanted]
    for probe in found:
        manifest, arrays = dumps.fixture(
            network, probe, expected=not no_expected, layouts=_layouts(layouts), last=channels_last
        )
        suffix = "" if chosen == "bin" else f".{chosen}"
        path = Path(output) / f"{probe.name}{suffix}" if several else Path(output)
        dumps.write(path, chosen, manifest, arrays)  # type: ignore[arg-type]  # one of the three words
        click.echo(f"wrote {path}: {len(manifest.given)} arrays given, {len(manifest.wanted)} wanted", err=True)
    click.echo(f"let your program fill in candidate/NAME, then: manual-bp compare {output}", err=True)


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
