"""Options and habits that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from manual_bp.errors import ManualBPError
from manual_bp.files import exists, is_file, is_folder, reason, same_file

if TYPE_CHECKING:
    from manual_bp.render import Look
    from manual_bp.report import Report

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("full", "concise", "json", "markdown", "junit", "html")

Color = Literal["auto", "always", "never"]


class Number(click.FloatRange):
    """A real number in a range. NaN lies neither in it nor outside of it, so click itself takes it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The float; a usage error for anything that is none."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def color_option(function: F) -> F:
    """``--color``."""
    return click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Colour; auto heeds NO_COLOR and FORCE_COLOR.",
    )(function)


def output_options(function: F) -> F:
    """``--format``, ``-o`` and ``--color``."""
    function = color_option(function)
    function = click.option(
        "-o",
        "--output",
        "outputs",
        multiple=True,
        type=click.Path(),
        metavar="FILE",
        help="Write the report there as well; the name says the format (.json .html .md .xml .txt). May be repeated.",
    )(function)
    return click.option("--format", "format_", type=click.Choice(FORMATS), help="What to print.  [default: full]")(
        function
    )


def look(color: Color) -> Look:
    """What stdout can show."""
    from manual_bp.render import look_for

    return look_for(sys.stdout, color=color)


def check_outputs(
    outputs: Sequence[str], format_: str | None, *, inputs: Sequence[str] = (), others: Iterable[str | None] = ()
) -> None:
    """Refuse a path that cannot be written before the work is done, not after; and one that is read, or twice written.

    ``inputs`` are the files that the command reads (a case, a dump, a report); ``others`` what it writes besides.
    """
    from manual_bp.render import format_for

    for path in outputs if format_ is None else ():
        format_for(path)
    written = [*outputs, *filter(None, others)]
    for position, path in enumerate(written):
        if is_folder(path):
            raise ManualBPError(f"cannot write {path}: it is a folder", hint="give the name of a file")
        if obstacle := _obstacle(path):
            raise ManualBPError(f"cannot write {path}: {obstacle}", hint="choose another path")
        if any(same_file(path, other) for other in inputs):
            raise ManualBPError(f"cannot write {path}: it is what is read here", hint="choose another name")
        if any(same_file(path, other) for other in written[:position]):
            raise ManualBPError(f"cannot write {path} twice", hint="give each output a name of its own")


def _obstacle(path: str) -> str:
    """Why a file cannot be made at a path; empty where that is not to be seen yet."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # it may be made; or the folder is none, which is said better below
    except (OSError, ValueError) as error:
        return reason(error)
    if exists(path) and not is_file(path):  # a device, a pipe
        return ""
    parent = next((p for p in Path(path).absolute().parents if exists(p)), Path("/"))
    if not is_folder(parent):
        return f"{parent} is not a folder"
    return "" if os.access(parent, os.W_OK | os.X_OK) else f"nothing may be written into {parent}"


def deliver(report: Report, *, format_: str | None, outputs: tuple[str, ...], color: Color) -> None:
    """Print a report, and write it to the files asked for.

    ``--format F -o FILE`` writes format F to FILE only; ``-o FILE`` alone writes what FILE's name says, besides the
    terminal report on stdout.
    """
    from manual_bp.render import render, save

    for path in outputs:
        written = save(report, path, format=format_)
        click.echo(f"wrote {written}", err=True)
    if not (format_ and outputs):
        shown = look(color)
        text = render(report, format_ or "full", width=shown.width, color=shown.color, unicode=shown.unicode)
        click.echo(text, nl=not text.endswith("\n"), color=True)


@contextmanager
def progress(total: int, *, what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, where somebody looks at it and it lasts."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda _name, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda name, done, _total: bar.update(task, completed=done, description=f"{what} {name}")
