"""``manual-bp explain``: the derivation of a network in a run's own numbers; torch is not needed."""

from __future__ import annotations

from pathlib import Path

import click

from manual_bp.cli._options import Color, check_outputs, color_option, look
from manual_bp.errors import ManualBPError

FORMATS = ("full", "json")

#: The format that a file's name asks for.
_SUFFIXES = {".json": "json", ".txt": "full"}


@click.command("explain", short_help="The derivation of a network, in its own numbers.")
@click.argument("network", metavar="NETWORK")
@click.argument("quantity", required=False, metavar="[QUANTITY]")
@click.option("--probe", "name", metavar="NAME", help="Whose numbers to use.  [default: the network's first probe]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float64", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of weights and data.")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="What to write.  [default: full]")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    help="Write to FILE instead of stdout; without --format its name says the format (.txt .json).",
)
@color_option
def command(
    network: str,
    quantity: str | None,
    name: str | None,
    dtype: str,
    seed: int,
    format_: str | None,
    output: str | None,
    color: Color,
) -> None:
    """Derive a built-in network step by step: each equation, then the same equation in a run's own numbers.

    With QUANTITY (z1.weight.grad, a1.grad, loss, ...) only this step of the derivation. As a page with heatmaps it is
    a chapter of the report: manual-bp compare NETWORK -o report.html.
    """
    from manual_bp import networks, probes
    from manual_bp.files import write_text
    from manual_bp.lesson import explain

    described = networks.get(network)
    check_outputs((output,) if output else (), "any")
    format_ = format_ or _format_for(output, network)
    chosen = probes.probe(described, name or probes.probe_names(described)[0], seed=seed, dtype=dtype)
    lesson = explain(described, quantity, probe=chosen)
    shown = look(color)
    if format_ == "json":
        from manual_bp.report_json import records

        text = records(lesson)
    else:
        from dataclasses import replace

        from manual_bp.render.lesson import render

        text = render(lesson, replace(shown, color=shown.color and output is None))
    if output is not None:
        click.echo(f"wrote {write_text(output, text)}", err=True)
    else:
        click.echo(text, nl=False, color=True)


def _format_for(output: str | None, network: str) -> str:
    """The format that the name of the output asks for; a page is the other command's."""
    suffix = Path(output).suffix.lower() if output else ""
    if suffix in (".html", ".htm", ".md", ".markdown", ".xml"):
        raise ManualBPError(
            f"the derivation by itself is text or JSON, and {output} is neither",
            hint=f"end it in .txt or .json; a page with the derivation in it: manual-bp compare {network} -o page.html",
        )
    return _SUFFIXES.get(suffix, "full")
