"""``manual-bp diff OLD NEW``: two reports, or two dumps, without torch."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from manual_bp.cli._options import Color, color_option, look
from manual_bp.errors import ManualBPError
from manual_bp.files import is_folder


@click.command("diff", short_help="What got better and worse between two reports; how two dumps differ.")
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@click.option("--atol", type=float, default=0.0, show_default=True, help="Dumps: |old - new| may be that much ...")
@click.option("--rtol", type=float, default=0.0, show_default=True, help="... plus that much of |old|.")
@color_option
def command(old: str, new: str, atol: float, rtol: float, color: Color) -> int:
    """Compare two JSON reports: what got better, what got worse, what is new.

    Or two dumps (.npz, .safetensors, a folder of a fixture): which arrays differ, where and by how much; without a
    tolerance every bit counts. Torch is not needed.

    Exit code 1 if anything got worse, or an array differs.
    """
    if _is_report(old) != _is_report(new):
        raise ManualBPError(f"{old} and {new} are a report and a dump", hint="give two of a kind")
    text, same = _reports(old, new, color) if _is_report(old) else _dumps(old, new, atol, rtol, color)
    click.echo(text, nl=False, color=True)
    sys.stdout.flush()
    return 0 if same else 1


def _is_report(path: str) -> bool:
    return Path(path).suffix.lower() not in (".npz", ".safetensors") and not is_folder(path)


def _reports(old: str, new: str, color: Color) -> tuple[str, bool]:
    from manual_bp.render import diff
    from manual_bp.report_diff import compare_reports
    from manual_bp.report_json import read

    change = compare_reports(read(old), read(new))
    return diff.render(change, look(color)), not change.worse


def _dumps(old: str, new: str, atol: float, rtol: float, color: Color) -> tuple[str, bool]:
    from manual_bp.dumps import compare_dumps, read
    from manual_bp.dumps._view import render

    found = compare_dumps(read(old), read(new), atol=atol, rtol=rtol)
    return render(found, look(color)), found.ok
