"""How fast the engine is: one forward and backward pass beside torch and beside the peers that are installed.

    python -m tests.benchmarks.bench_engine [--threads N] [--dtype float64] [--only cd] [--peers] [--growth] [--memory]

Medians of interleaved runs in one process, all with the same number of threads. "layers" are the engine's layers
called one after the other, "run" is ``Network.run``, which also watches over what the layers do. Every library's
∂L/∂x is compared with torch's before anything is timed.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from click import echo


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; the exit code is 1 if a workload is over its limit."""
    options = parse(arguments)
    # OpenBLAS reads its number of threads when it is loaded. Threads of its own would spin beside torch's and the
    # engine's, so it gets one; the engine shares its work between threads itself.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["MANUAL_BP_THREADS"] = str(options.threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if "numpy" in sys.modules:
        echo("note: NumPy was loaded before; its BLAS may use another number of threads", err=True)
    warnings.simplefilter("ignore")  # of the peers, which were written for older versions of what they use

    import torch

    torch.set_num_threads(options.threads)
    over = speed(options)
    if options.growth:
        growth(options)
    if options.memory:
        memory(options)
    return int(over)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_engine", description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--only", default="abcde", metavar="KEYS", help="workloads to run, for instance cd")
    parser.add_argument("--rounds", type=float, default=1.0, help="times the usual number of repetitions")
    parser.add_argument("--peers", action="store_true", help="the other libraries that are installed, too")
    parser.add_argument("--growth", action="store_true", help="how time grows with batch, channels and area")
    parser.add_argument("--memory", action="store_true", help="peak memory of one pass")
    parser.add_argument("--cpu", action="store_true", help="processor time in place of wall time, on a busy machine")
    return parser.parse_args(arguments)


# ---------------------------------------------------------------------------------------------- speed


def speed(options: argparse.Namespace) -> bool:
    """The table of all workloads; whether one of them is over its limit."""
    import numpy as np

    from tests.benchmarks._engine_peers import installed, torch_step
    from tests.benchmarks._engine_workloads import workloads

    clock = time.process_time if options.cpu else time.perf_counter
    peers = list(installed()) if options.peers else []
    echo(f"one forward and backward pass, {options.dtype}, {options.threads} threads, {clock.__name__}, times torch")
    head = f"{'':31}{'torch ms':>9}{'layers':>8}{'run':>8}{'limit':>7}{'goal':>6}"
    echo(head + "".join(f"{name:>10}" for name, _ in peers))
    over = False
    for work in workloads(options.only, getattr(np, options.dtype)):
        steps = {"torch": torch_step(work), "layers": work.step()}
        steps["run"] = lambda w=work: w.network.run(w.params, w.x, w.y).trace["x.grad"]  # type: ignore[misc]  # mypy infers no type for the bound default
        reasons = {}
        for name, adapter in peers:
            try:
                steps[name] = adapter(work)
                if error := difference(steps[name](), steps["torch"]()):
                    reasons[name] = error
            except Exception as error:  # noqa: BLE001  # a peer that fails is a line in the table
                steps.pop(name, None)
                reasons[name] = f"{type(error).__name__}: {error}"
        for name in ("layers", "run"):
            if error := difference(steps[name](), steps["torch"]()):
                raise ValueError(f"{name} of {work.title}: {error}")
        times = interleaved(steps, int(work.repeats * options.rounds) or 1, clock)
        ratio = {name: taken / times["torch"] for name, taken in times.items()}
        over |= ratio["layers"] > work.limit
        row = f"{work.key} {work.title:29}{1e3 * times['torch']:9.2f}{ratio['layers']:8.2f}{ratio['run']:8.2f}"
        row += f"{work.limit:7.2f}{work.goal:6.2f}"
        echo(row + "".join(f"{ratio[n]:10.2f}" if n in ratio else f"{'-':>10}" for n, _ in peers))
        for name, reason in reasons.items():
            echo(f"  {name}: {reason[:110]}")
    return over


def difference(actual: Any, wanted: Any) -> str:
    """What is wrong with a gradient of the input; empty if it is torch's."""
    import numpy as np

    error, largest = abs(np.asarray(actual, np.float64) - wanted).max(), abs(wanted).max()
    return "" if error <= 1e-3 * largest else f"its gradient is off by {error:.2g}, the largest being {largest:.2g}"


def interleaved(
    steps: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float], budget: float = 30
) -> dict[str, float]:
    """Median seconds of each step, all of them in turn; a step that alone takes its budget is run less often."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    gc.disable()
    try:
        for name, step in steps.items():
            for _ in range(2):
                start = clock()
                step()
                times[name] = [clock() - start]  # of the second run: the first one may compile
        shuffled = random.Random(0)
        for _ in range(repeats):
            # none always comes after the same one: what a library's threads are still at disturbs whoever follows
            for name, step in shuffled.sample([*steps.items()], len(steps)):
                if sum(times[name]) < budget:
                    start = clock()
                    step()
                    times[name].append(clock() - start)
            if sum(taken[-1] for taken in times.values()) > 0.05:
                gc.collect()  # not between little steps: it would leave the caches cold for the next one
    finally:
        gc.enable()
    return {name: statistics.median(taken) for name, taken in times.items()}


# ---------------------------------------------------------------------------------------------- growth


def growth(options: argparse.Namespace) -> None:
    """Exponents of time in batch, channel pairs and area: 1 is linear."""
    import numpy as np

    clock = time.process_time if options.cpu else time.perf_counter
    echo("\nhow time grows (exponent of a straight line through the logarithms; 1 is linear)")
    for title, scales, make in growing():
        steps = {str(scale): make(scale) for scale in scales}
        times = interleaved(steps, max(1, int(7 * options.rounds)), clock)
        sizes = np.log([float(scale) for scale in scales])
        exponent = np.polyfit(sizes, np.log([times[str(scale)] for scale in scales]), 1)[0]
        line = "  ".join(f"{scale}: {1e3 * times[str(scale)]:.1f} ms" for scale in scales)
        echo(f"{title:16} {exponent:5.2f}   {line}")


def growing() -> Iterator[tuple[str, tuple[int, ...], Callable[[int], Callable[[], Any]]]]:
    """A 3x3 convolution of 32 -> 32 channels, 32x32, batch 4, with one of its sizes multiplied."""
    import numpy as np

    from manual_bp import nn

    def convolution(batch: int, channels: int, out_channels: int, side: int) -> Callable[[], Any]:
        rng = np.random.default_rng(0)
        layer = nn.Conv2d(channels, out_channels, 3, padding=1)
        params = layer.initial(rng, np.float32)
        x = rng.standard_normal((batch, channels, side, side)).astype(np.float32)
        upstream = rng.standard_normal((batch, out_channels, side, side)).astype(np.float32)
        return lambda: layer.backward(layer.forward(params, x)[1], upstream)

    yield "batch", (1, 2, 4, 8, 16), lambda s: convolution(4 * s, 32, 32, 32)
    yield "channel pairs", (1, 4, 16, 64), lambda s: convolution(4, 16 * int(s**0.5), 16 * int(s**0.5), 32)
    yield "area", (1, 4, 16), lambda s: convolution(4, 32, 32, 32 * int(s**0.5))


# ---------------------------------------------------------------------------------------------- memory


def memory(options: argparse.Namespace) -> None:
    """Peak of one pass over what was there before it, by the kernel's count, each in a process of its own (Linux)."""
    import subprocess

    echo("\npeak memory of one pass, MiB")
    for key in options.only:
        peaks = {}
        for name in ("torch", "layers"):
            command = [sys.executable, "-c", PEAK, key, name, options.dtype]
            peaks[name] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        ratio = peaks["layers"] / peaks["torch"] if peaks["torch"] else float("nan")
        echo(f"{key}   torch {peaks['torch']:7.1f}   engine {peaks['layers']:7.1f}   times torch {ratio:.2f}")


PEAK = """
import ctypes, pathlib, sys
import numpy as np
from tests.benchmarks._engine_peers import torch_step
from tests.benchmarks._engine_workloads import Workload, workloads

def resident(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

key, name, dtype = sys.argv[1:]
make = torch_step if name == "torch" else Workload.step
little, work = (next(workloads(k, getattr(np, dtype))) for k in ("a", key))
make(little)()  # what a first pass loads is not what a pass needs
step = make(work)
ctypes.CDLL(None).malloc_trim(0)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
before = resident("VmRSS")
step()
print(resident("VmHWM") - before)
"""


if __name__ == "__main__":
    raise SystemExit(main())
