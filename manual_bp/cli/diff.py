"""``manual-bp diff OLD NEW``: two reports, or two dumps, without torch."""

from __future__ import annotations

import sys

import click

from manual_bp.cli._options import Color, color_option, look


@click.command("diff", short_help="What got better and worse between two reports; how two dumps differ.")
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@color_option
def command(old: str, new: str, color: Color) -> int:
    """Compare two JSON reports: what got better, what got worse, what is new.

    Exit code 1 if anything got worse.
    """
    from manual_bp.render import diff
    from manual_bp.report_diff import compare_reports
    from manual_bp.report_json import read

    change = compare_reports(read(old), read(new))
    click.echo(diff.render(change, look(color)), nl=False, color=True)
    sys.stdout.flush()
    return 1 if change.worse else 0
