"""``manual-bp render REPORT.json``: another view of a saved report, without torch."""

from __future__ import annotations

import click

from manual_bp.cli._options import Color, check_outputs, deliver, output_options


@click.command("render", short_help="Show a saved JSON report in another format.")
@click.argument("report", type=click.Path())
@output_options
def command(report: str, format_: str | None, outputs: tuple[str, ...], color: Color) -> None:
    """Show a saved JSON report in another format; torch is not needed."""
    from manual_bp.report_json import read

    check_outputs(outputs, format_, inputs=(report,))
    deliver(read(report), format_=format_, outputs=outputs, color=color)
