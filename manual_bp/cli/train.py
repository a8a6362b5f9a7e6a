"""``manual-bp train``: train by hand beside torch, every update judged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from manual_bp.cli._options import Color, check_outputs, color_option, look
from manual_bp.errors import ManualBPError

if TYPE_CHECKING:
    from manual_bp.nn import Optimizer
    from manual_bp.training import Step


@click.command("train", short_help="Train by hand beside PyTorch, every update judged.")
@click.argument("target", default="three-layer", metavar="[NETWORK]")
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True, help="Steps of the optimiser.")
@click.option("--optimizer", "kind", type=click.Choice(["sgd", "adam", "adamw"]), default="adam", show_default=True)
@click.option("--lr", type=click.FloatRange(min=0), help="Learning rate.  [default: 0.1 for sgd, 0.02 for adam, adamw]")
@click.option("--momentum", type=click.FloatRange(min=0), help="Of sgd.  [default: 0.9]")
@click.option("--weight-decay", type=click.FloatRange(min=0), help="[default: 0, for adamw 0.01]")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Digits a step.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float64", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of weights and order.")
@click.option("--judge-every", type=click.IntRange(min=1), default=1, show_default=True, metavar="K",
              help="Judge the whole pass at every K-th step; every update is judged anyway.")  # fmt: skip  # one option
@click.option("--format", "format_", type=click.Choice(["full", "json"]), default="full", help="What to print.")
@click.option("-o", "--output", type=click.Path(), metavar="FILE.json", help="Write the record of all steps there.")
@color_option
def command(
    target: str,
    steps: int,
    kind: str,
    lr: float | None,
    momentum: float | None,
    weight_decay: float | None,
    batch: int,
    dtype: str,
    seed: int,
    judge_every: int,
    format_: str,
    output: str | None,
    color: Color,
) -> int:
    """Train a network by hand and in PyTorch, on the same digits, and judge the hand-written side at every step.

    Every update is judged isolated, from the hand-written side's own weights, gradients and optimiser state; the whole
    pass as well. The first wrong step ends it, with the full report. Exit code 1 then.
    """
    # networks this small are slower on several threads, and the order of a sum must not depend on their number
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from manual_bp import networks
    from manual_bp.files import write_text
    from manual_bp.render import render
    from manual_bp.training import train
    from manual_bp.training._view import closing, opening

    check_outputs((output,) if output else (), "json")
    if target.endswith(".py") or ".py:" in target:
        raise ManualBPError(
            f"{target} is a case of your own; only built-in networks can be trained", hint="see: manual-bp networks"
        )
    network = networks.get(target)
    with _watching(steps, network.name, rows=format_ == "full") as observe:
        found = train(
            network,
            steps=steps,
            optimizer=_optimizer(kind, lr, momentum, weight_decay),
            batch=batch,
            dtype=dtype,
            seed=seed,
            judge_every=judge_every,
            observe=observe,
        )
    if output:
        click.echo(f"wrote {write_text(output, found.to_json())}", err=True)
    if format_ == "json":
        if not output:
            click.echo(found.to_json(), nl=False)
    else:
        if found.report:
            shown = look(color)
            text = render(found.report, "full", width=shown.width, color=shown.color, unicode=shown.unicode)
            click.echo("\n" + text, color=True)
        click.echo(f"\n  {opening(found)}\n{closing(found)}")
    if found.diverged is not None:
        raise ManualBPError(f"the training diverged at step {found.diverged}", hint="choose a smaller --lr")
    return 130 if found.interrupted else 0 if found.ok else 1


def _optimizer(kind: str, lr: float | None, momentum: float | None, weight_decay: float | None) -> Optimizer:
    """The optimiser that the options name, with defaults that suit the digits."""
    from manual_bp import nn

    if momentum is not None and kind != "sgd":
        raise ManualBPError(f"{kind} has no momentum", hint="leave --momentum away, or choose --optimizer sgd")
    if kind == "sgd":
        return nn.SGD(
            lr=0.1 if lr is None else lr,
            momentum=0.9 if momentum is None else momentum,
            weight_decay=weight_decay or 0.0,
        )
    lr = 0.02 if lr is None else lr
    if kind == "adam":
        return nn.Adam(lr=lr, weight_decay=weight_decay or 0.0)
    return nn.AdamW(lr=lr, weight_decay=0.01 if weight_decay is None else weight_decay)


@contextmanager
def _watching(steps: int, name: str, *, rows: bool) -> Iterator[Callable[[Step], None]]:
    """Rows on stdout as they come, a progress bar on stderr where somebody looks at it."""
    from manual_bp.training._view import HEAD, row

    def tell(step: Step, echo: Callable[[str], None]) -> None:
        if rows and (step.accuracy is not None or step.reference_accuracy is not None or step.step in marks):
            if step.step == 0:
                echo(HEAD)
            echo(row(step))

    marks = {round(steps * part / 10) for part in range(11)}
    if not sys.stderr.isatty():
        yield lambda step: tell(step, click.echo)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(f"training {name}", total=steps)
        # on one terminal the rows must go above the bar, which belongs to stderr
        echo: Callable[[str], None] = console.print if sys.stdout.isatty() else click.echo

        def watch(step: Step) -> None:
            tell(step, echo)
            bar.update(task, completed=step.step, description=f"training {name}  loss {step.loss:.4f}")

        yield watch
