"""``manual-bp train``: train by hand beside torch, every update judged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from manual_bp.cli._options import Color, Number, check_outputs, color_option, look
from manual_bp.cli._target import case_file
from manual_bp.errors import ManualBPError

if TYPE_CHECKING:
    from manual_bp.nn import Optimizer
    from manual_bp.training import Step, Training


@click.command("train", short_help="Train by hand beside PyTorch, every update judged.")
@click.argument("target", default="three-layer", metavar="[NETWORK | FILE.py[:NAME]]")
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True, help="Steps of the optimiser.")
@click.option(
    "--optimizer", "kind", type=click.Choice(["sgd", "adam", "adamw"]), help="[default: adam, or the case's own]"
)
@click.option("--lr", type=Number(min=0), help="Learning rate.  [default: 0.1 for sgd, 0.02 for adam, adamw]")
@click.option("--momentum", type=Number(min=0), help="Of sgd.  [default: 0.9]")
@click.option("--weight-decay", type=Number(min=0), help="[default: 0, for adamw 0.01]")
@click.option("--batch", type=click.IntRange(min=1), help="Digits a step.  [default: 32; all examples of a case]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="[default: float64, or the case's own]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and order.  [default: 0, or the case's own]")
@click.option("--judge-every", type=click.IntRange(min=1), default=1, show_default=True, metavar="K",
              help="Judge the whole pass at every K-th step; every update is judged anyway.")  # fmt: skip  # one option
@click.option("--format", "format_", type=click.Choice(["full", "json"]), default="full", help="What to print.")
@click.option("-o", "--output", type=click.Path(), metavar="FILE.json", help="Write the record of all steps there.")
@color_option
def command(
    target: str,
    steps: int,
    kind: str | None,
    lr: float | None,
    momentum: float | None,
    weight_decay: float | None,
    batch: int | None,
    dtype: str | None,
    seed: int | None,
    judge_every: int,
    format_: str,
    output: str | None,
    color: Color,
) -> int:
    """Train a network by hand and in PyTorch, on the same digits, and judge the hand-written side at every step.

    Every update is judged isolated, from the hand-written side's own weights, gradients and optimiser state; the whole
    pass as well. The first wrong step ends it, with the full report. Exit code 1 then.

    FILE.py is a case of your own (see: manual-bp new), trained on its own x and y. Its candidate reports the gradient
    of every parameter; its optimizer is such as manual_bp.nn.SGD(lr=0.1, momentum=0.9, weight_decay=1e-4) or
    manual_bp.nn.Adam(lr=0.01); its update(params, grads, state), if it has one, is an optimiser's step of your own.
    """
    # networks this small are slower on several threads, and the order of a sum must not depend on their number
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from manual_bp.case import is_case
    from manual_bp.files import write_text
    from manual_bp.render import render
    from manual_bp.training._view import closing, opening

    check_outputs((output,) if output else (), "json", inputs=[case_file(target)] if is_case(target) else ())
    said = {"dtype": dtype, "seed": seed}
    options = {name: value for name, value in said.items() if value is not None}
    rows = format_ == "full"
    if is_case(target):
        found = _case(target, steps, (kind, lr, momentum, weight_decay), batch, judge_every, options, rows=rows)
    else:
        optimizer = _optimizer(kind or "adam", lr, momentum, weight_decay)
        found = _network(target, steps, optimizer, 32 if batch is None else batch, judge_every, options, rows=rows)
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


def _network(
    target: str,
    steps: int,
    optimizer: Optimizer,
    batch: int,
    judge_every: int,
    options: Mapping[str, Any],
    *,
    rows: bool,
) -> Training:
    """A built-in network on the digits."""
    from manual_bp import networks
    from manual_bp.training import train

    network = networks.get(target)
    with _watching(steps, network.name, rows=rows) as observe:
        return train(
            network,
            steps=steps,
            optimizer=optimizer,
            batch=batch,
            judge_every=judge_every,
            observe=observe,
            **options,
        )


def _case(
    target: str,
    steps: int,
    asked: tuple[str | None, float | None, float | None, float | None],
    batch: int | None,
    judge_every: int,
    options: Mapping[str, Any],
    *,
    rows: bool,
) -> Training:
    """A case of the user's on its own data."""
    from manual_bp.case import load_case
    from manual_bp.training import train_case

    case = replace(load_case(target), **options)
    kind, *numbers = asked
    optimizer = None
    if kind is not None or (case.optimizer is None and any(n is not None for n in numbers)):
        optimizer = _optimizer(kind or "adam", *numbers)
    elif any(n is not None for n in numbers):
        optimizer = _changed(case.optimizer, *numbers)
    with _watching(steps, case.title, rows=rows) as observe:
        return train_case(case, steps=steps, optimizer=optimizer, batch=batch, judge_every=judge_every, watch=observe)


def _changed(own: Any, lr: float | None, momentum: float | None, weight_decay: float | None) -> Optimizer:
    """A case's optimiser with what the command line says otherwise."""
    from manual_bp import _torch_side

    described: Any = _torch_side.lockstep.described(own)
    numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    if momentum is not None and not hasattr(described, "momentum"):
        raise ManualBPError("the case's optimizer has no momentum", hint="leave --momentum away")
    changed: Optimizer = replace(described, **{name: n for name, n in numbers.items() if n is not None})
    return changed


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
            if step.step or step.accuracy is not None:
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
