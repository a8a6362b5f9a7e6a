"""``manual-bp compare``: the main job."""

from __future__ import annotations

import shlex

import click

from manual_bp.cli._options import Color, check_outputs, deliver, output_options, progress


@click.command("compare", short_help="Compare every value and gradient with PyTorch's.")
@click.argument("target", default="three-layer", metavar="[NETWORK]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float64", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of weights and data.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Examples in the first probe.")
@click.option(
    "--probe", "names", multiple=True, default=("all",), metavar="NAME|all", help="Only this probe; may be repeated."
)
@click.option("--weights", type=click.Path(), metavar="FILE.npz", help="Use these weights in the first probe.")
@click.option("--strict-kinks", is_flag=True, help="Make another subgradient at a kink a difference.")
@output_options
def command(
    target: str,
    dtype: str,
    seed: int,
    batch: int,
    names: tuple[str, ...],
    weights: str | None,
    strict_kinks: bool,
    format_: str | None,
    outputs: tuple[str, ...],
    color: Color,
) -> int:
    """Compare every value and gradient of a hand-written pass with PyTorch's.

    NETWORK is a built-in network (see: manual-bp networks); without it, the three-layer network on real digits.
    """
    from manual_bp import networks, probes
    from manual_bp.runner import judge_network

    check_outputs(outputs, format_)
    network = networks.get(target)
    wanted = probes.probe_names(network) if "all" in names else tuple(dict.fromkeys(names))
    chosen = [probes.probe(network, name, seed=seed, dtype=dtype, batch=batch) for name in wanted]
    if weights is not None:
        chosen[0] = probes.with_weights(network, chosen[0], weights)
    with progress(len(chosen), what=f"comparing {network.name}") as tick:
        report = judge_network(
            network,
            chosen,
            seed=seed,
            strict_kinks=strict_kinks,
            progress=tick,
            command=_command(network.name, dtype, seed, batch, names, weights, strict_kinks),
        )
    deliver(report, format_=format_, outputs=outputs, color=color)
    return 0 if report.ok else 1


def _command(
    network: str, dtype: str, seed: int, batch: int, names: tuple[str, ...], weights: str | None, strict: bool
) -> str:
    """The command that runs the same comparison again."""
    parts = ["manual-bp", "compare", network, "--dtype", dtype, "--seed", str(seed), "--batch", str(batch)]
    for name in names if "all" not in names else ():
        parts += ["--probe", name]
    parts += ["--weights", weights] if weights else []
    parts += ["--strict-kinks"] if strict else []
    return shlex.join(parts)
