"""``manual-bp networks``: what there is to compare."""

from __future__ import annotations

import json

import click

from manual_bp.cli._options import Color, color_option, look


@click.command("networks", short_help="List the built-in networks.")
@click.argument("name", required=False)
@click.option("--format", "format_", type=click.Choice(["full", "json"]), default="full", help="What to print.")
@color_option
def command(name: str | None, format_: str, color: Color) -> None:
    """List the built-in networks, or describe one with its steps and equations."""
    from manual_bp import networks

    if format_ == "json":
        wanted = networks.NETWORKS if name is None else {name: networks.get(name).title}
        click.echo(json.dumps(dict(wanted), indent=2, ensure_ascii=False))
        return
    if name is not None:
        network = networks.get(name)
        click.echo(f"{network.name}: {network.title}\n")
        for node in network.nodes:
            from manual_bp.runner import describe

            equation = network.equations.get(node.name)
            click.echo(f"  {node.name:12} {describe(node.layer):44} {equation.text if equation else ''}".rstrip())
        return
    shown = look(color)
    wide = max(map(len, networks.NETWORKS))
    for known, title in networks.NETWORKS.items():
        styled = click.style(known.ljust(wide), bold=True) if shown.color else known.ljust(wide)
        click.echo(f"{styled}  {title}", color=True)
