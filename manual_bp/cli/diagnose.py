"""``manual-bp diagnose``: a comparison once more, with a longer search for the mistake."""

from __future__ import annotations

import shlex

import click

from manual_bp.cli._options import Number, progress
from manual_bp.errors import ManualBPError
from manual_bp.files import is_file


@click.command(
    "diagnose",
    short_help="Search longer for the mistake behind what is wrong.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("target", metavar="NETWORK | FILE.py[:NAME] | DUMP | REPORT.json")
@click.option("--seconds", type=Number(min=1), default=120.0, show_default=True, help="For each wrong quantity.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(target: str, seconds: float, options: tuple[str, ...]) -> int:
    """Compare as `manual-bp compare` does, and search longer for the mistake: for two of them at once, too.

    All OPTIONS of `compare` can be given. A REPORT.json is compared again by the command that it was made with.
    """
    from manual_bp.cli.compare import command as compare
    from manual_bp.diagnose import Effort, searching

    arguments = [*(_command_of(target) if target.endswith(".json") and is_file(target) else [target]), *options]
    with progress(2, what="searching") as tick:
        shown = {"name": ""}

        def advance(name: str, done: int, total: int) -> None:
            shown["name"] = name or shown["name"]
            tick(shown["name"], done, total)

        with searching(Effort(seconds=seconds, pairs=True), advance):
            settings = (click.get_current_context().find_root().default_map or {}).get("compare")
            result = compare.main(arguments, prog_name="manual-bp compare", standalone_mode=False, default_map=settings)
    return int(result or 0)


def _command_of(path: str) -> list[str]:
    """The arguments of the comparison that wrote a report."""
    from manual_bp.report_json import read

    words = shlex.split(read(path).command)
    if words[:2] != ["manual-bp", "compare"]:
        raise ManualBPError(
            f"{path} does not say by which command it was made",
            hint="name the network or the file that was compared: manual-bp diagnose FILE.py",
        )
    return words[2:]
