"""``manual-bp new case.py``: a commented, runnable starting point."""

from __future__ import annotations

from pathlib import Path

import click

from manual_bp.errors import ManualBPError


@click.command("new", short_help="Write a commented, runnable case file.")
@click.argument("path", type=click.Path(), metavar="FILE.py")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def command(path: str, force: bool) -> None:
    """Write a starting point for a comparison of your own code; run it with: manual-bp compare FILE.py."""
    from manual_bp.case import TEMPLATE
    from manual_bp.files import exists, write_text

    target = Path(path)
    if target.suffix != ".py":
        raise ManualBPError(f"{path} is no Python file", hint="give it a name that ends in .py")
    if exists(target) and not force:
        raise ManualBPError(f"{path} exists", hint="choose another name, or overwrite it with --force")
    write_text(target, TEMPLATE.format(name=target.name))
    click.echo(f"wrote {path}; run it: manual-bp compare {path}", err=True)
