"""The command line: ``manual-bp COMMAND``, one file a command, each imported only when it is called.

Data goes to stdout, progress and notes to stderr. Exit code 0: all right; 1: differences; 2: usage or tool error.
"""

from __future__ import annotations

from manual_bp.cli import _start as _start  # before click and NumPy are imported

# isort: split
import atexit
import contextlib
import errno
import gc
import io
import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from manual_bp import __version__
from manual_bp.cli._settings import default_map
from manual_bp.errors import ManualBPError

#: Command -> the module that holds it, as ``command``.
_COMMANDS = {
    "compare": "compare",
    "new": "new",
    "networks": "networks",
    "explain": "explain",
    "diagnose": "diagnose",
    "render": "render",
    "diff": "diff",
    "fuzz": "fuzz",
    "export": "export",
    "train": "train",
}


class _Lazy(click.Group):
    """Imports a command's module when the command is called, or when its help line is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found = import_module(f"manual_bp.cli.{_COMMANDS[cmd_name]}").command
        assert isinstance(found, click.Command)
        return found


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="manual-bp")
@click.pass_context
def cli(context: click.Context) -> None:
    """Hold a hand-written backward pass beside PyTorch's, every value and gradient of it.

    Exit code 0: all right; 1: differences; 2: something else went wrong.
    """
    # settings that cannot be read keep nobody from the help, nor from a command that has none
    if context.invoked_subcommand in ("compare", "diagnose") and not {"-h", "--help"}.intersection(sys.argv[1:]):
        context.default_map = default_map()


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    _start.open_closed_streams()
    _prefer_utf8()
    try:
        code = cli.main(prog_name="manual-bp", standalone_mode=False)
        code = code if isinstance(code, int) else 0
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = 130
        _tell("interrupted")
    except click.ClickException as error:
        code = error.exit_code
        with _heard_or_not():
            error.show()
    except BrokenPipeError:
        # the reader has gone (| head): not an error, and nothing may be written any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:  # noqa: BLE001  # exit code 1 means differences, so a bug of ours must not leave with it
        code = 2
        if said := _sentence(error):
            _tell(getattr(error, "traceback_text", "") + f"error: {' '.join(said.split())}")
        else:
            import traceback

            bug = "error: this is a bug in manual-bp, not in your code; please report the lines above."
            _tell(traceback.format_exc() + bug)
    _leave(code)


def _tell(said: str) -> None:
    """Say the last words, on stderr."""
    with _heard_or_not():
        click.echo(said, err=True)


def _heard_or_not() -> contextlib.AbstractContextManager[None]:
    """Last words need not be heard (a full disk, a reader that has gone): the exit code stands."""
    return contextlib.suppress(OSError, ValueError)


def _sentence(error: Exception) -> str:
    """What an error says to the user; empty if it is a bug of ours.

    Ours and the engine's, which nobody raises unless it is loaded, are sentences, and so is that there is no room left.
    """
    engine = sys.modules.get("manual_bp.nn")
    if isinstance(error, ManualBPError) or (engine is not None and isinstance(error, engine.NNError)):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return f"cannot write {error.filename or 'the output'}: {error.strerror}; write it to another place"
    return ""


def _prefer_utf8() -> None:
    """Never fail on a character that the terminal lacks; the views ask what it can show."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _leave(code: int) -> NoReturn:
    """Leave at once, with everything written: taking down what was imported takes longer than many a comparison.

    And where torch's libraries are still being loaded (see `_torch_side.prepare`) it ends in a crash: so whatever
    happens, `main` ends here. A case file is somebody's program: what it wants done at the end is done, and what it
    wrote is in its files.
    """
    # those who watch a program write what they saw when all is over
    watched = "coverage" in sys.modules or sys.getprofile() or sys.gettrace()
    streams = [sys.stdout, sys.stderr]
    if "manual_bp.case" in sys.modules and not watched:
        atexit._run_exitfuncs()
        written = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
        streams += [found for found in gc.get_objects() if type(found) in written and not found.closed]
    for stream in filter(None, streams):  # a case file may have set one to None
        try:
            stream.flush()
        except (OSError, ValueError):  # the reader has gone, or the disk is full
            code = code or 2
    if watched:
        sys.exit(code)
    os._exit(code)
