"""``manual-bp fuzz``: random networks beside torch, until one disagrees or the time is up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from manual_bp.cli._options import Number, check_outputs


@click.command("fuzz", short_help="Random networks; a failure is made as small as it can be.")
@click.option("--time", "seconds", type=Number(min=0, min_open=True), help="Budget in seconds.  [default: 60]")
@click.option("--networks", type=click.IntRange(min=1), help="Budget in networks, instead of seconds.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides everything drawn.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Only this one.  [default: both]")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option(
    "--save",
    "folder",
    type=click.Path(),
    default="reports",
    show_default=True,
    metavar="DIR",
    help="Where a case goes.",
)
def command(
    seconds: float | None, networks: int | None, seed: int, dtype: str | None, workers: int, folder: str
) -> int:
    """Draw networks from every layer, loss and optimiser of the engine, and hold each of them beside PyTorch.

    What disagrees is made smaller for as long as it disagrees, and saved as a file that manual-bp compare runs again.
    """
    from manual_bp import fuzz

    check_outputs((), None, others=(os.path.join(folder, "case.npz"),))
    live = sys.stderr.isatty()

    def progress(tried: int, passed: float) -> None:
        if live:
            click.echo(f"\rfuzz: {tried} networks in {passed:.0f} s", err=True, nl=False)

    outcome = fuzz.search(
        seed=seed,
        dtypes=(dtype,) if dtype else ("float32", "float64"),
        seconds=seconds if seconds is not None else (float("inf") if networks else 60.0),
        networks=networks if networks is not None else float("inf"),
        workers=workers,
        progress=progress,
    )
    if live:
        click.echo("\r" + " " * 50 + "\r", err=True, nl=False)
    if outcome.found is None:
        click.echo(f"all right: {outcome.networks} networks agree with torch (seed {seed}, {outcome.seconds:.0f} s)")
        return 0
    found = outcome.found
    path = fuzz.save(Path(folder) / f"fuzz-{seed}-{found.wrong[0]}.case.npz", found.network, found.probe)
    layers = " -> ".join(type(node.layer).__name__ for node in found.network.nodes)
    click.echo(f"differs: {', '.join(found.wrong)} of {layers} -> {type(found.network.loss).__name__}", err=False)
    click.echo(f"  {outcome.networks} networks tried (seed {seed}); input of shape {found.probe.x.shape}")
    click.echo(f"  wrote {path}; run it again with: manual-bp compare {path}")
    return 1
