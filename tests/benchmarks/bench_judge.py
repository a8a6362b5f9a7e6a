"""What a fully judged comparison costs, in torch training steps of the same network.

    python -m tests.benchmarks.bench_judge [--threads N] [--dtype float64] [--rounds N] [--cpu]

Judged is the whole of it: the hand-written pass, torch's own, the replay on the candidate's numbers, all bounds, both
comparisons of every quantity. A step is forward, backward and an SGD update.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

from click import echo

#: Network, batch, most steps (None: reported only; Python's own overhead is all there is to a network so little).
WORK = (
    ("three-layer", 1, None),
    ("three-layer", 256, None),
    ("lenet", 64, 8.0),
    ("vgg-block", 32, 8.0),
    ("vgg11", 8, None),
)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something is over its limit."""
    parser = argparse.ArgumentParser(prog="bench_judge", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu", action="store_true", help="processor time in place of wall time, on a busy machine")
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu else time.perf_counter
    echo(
        f"judged comparison beside a torch training step, {options.dtype}, {options.threads} threads, {clock.__name__}"
    )
    over = False
    for name, batch, limit in WORK:
        step, judged = both(name, batch, options.dtype)
        times: list[list[float]] = [[], []]
        for _ in range(options.rounds + 1):
            for taken, work in zip(times, (step, judged), strict=True):
                start = clock()
                work()
                taken.append(clock() - start)
        one, all_of_it = (statistics.median(taken[1:]) for taken in times)
        ratio = all_of_it / one
        over |= limit is not None and ratio > limit
        said = "" if limit is None else f"  limit {limit}{'  OVER' if ratio > limit else ''}"
        echo(f"{name:12} batch {batch:<4}{1e3 * one:9.2f} ms{1e3 * all_of_it:10.2f} ms{ratio:8.1f} steps{said}")
    return int(over)


def both(name: str, batch: int, dtype: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A training step of torch, and a judged comparison."""
    import torch

    from manual_bp import networks, probes
    from manual_bp.runner import judge_run
    from manual_bp_torch.build import build, loss_for
    from manual_bp_torch.judge import Judge

    network = networks.get(name)
    probe = probes.probe(network, "seed-1", dtype=dtype, batch=batch)
    module, loss = build(network, getattr(torch, dtype)), loss_for(network.loss, getattr(torch, dtype))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    x, y = torch.tensor(probe.x), torch.tensor(probe.y)
    judge = Judge(network, dtype)

    def step() -> None:
        optimizer.zero_grad()
        loss(module(x), y).backward()
        optimizer.step()

    def judged() -> None:
        run = network.run(probe.params, probe.x, probe.y)
        checks, _ = judge_run(judge, probe, run, strict_kinks=False)
        assert all(check.status in ("pass", "kink") for check in checks), [c.name for c in checks if c.status != "pass"]

    return step, judged


if __name__ == "__main__":
    sys.exit(main())
