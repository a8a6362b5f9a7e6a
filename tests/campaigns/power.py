"""``python -m tests.campaigns power``: what the built-in networks' default probes reveal, for data/power.json."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from manual_bp import mutants, networks, power, probes
from manual_bp.files import write_text
from tests.campaigns._networks import LARGE
from tests.campaigns._pool import ROOT, run

DTYPES = ("float64", "float32")
FILE = ROOT / "manual_bp" / "data" / "power.json"
#: vgg11 and the VGG block would take hours; lenet takes half a minute.
NAMES = tuple(name for name in networks.NETWORKS if name not in LARGE or name == "lenet")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns power", description=__doc__)
    parser.add_argument("--workers", type=int, default=None, help="processes (default: all cores)")
    parser.add_argument("--fresh", action="store_true", help="take over nothing from a run that was killed")
    parser.add_argument("--output", type=Path, default=FILE, metavar="FILE")
    options = parser.parse_args(arguments)
    tasks = [{"network": name, "dtype": dtype} for name in NAMES for dtype in DTYPES]
    results = run(tasks, count, name="power", workers=options.workers, resume=not options.fresh)
    found: dict[str, Any] = {}
    for task, result in zip(tasks, results, strict=True):
        found.setdefault(task["network"], {})[task["dtype"]] = result
    write_text(options.output, as_text(found))
    planted = sum(result["planted"] for result in results)
    sys.stdout.write(f"{len(mutants.CATALOGUE)} kinds of mistakes, planted {planted} times; wrote {options.output}\n")
    return 0


def count(task: dict[str, str]) -> dict[str, Any]:
    """Which planted mistakes each default probe of one network reveals."""
    network = networks.get(task["network"])
    sites = mutants.sites(network, dtype=task["dtype"])
    found = power.count_revealed(network, probes.probe_set(network, dtype=task["dtype"]), sites)
    return {
        "planted": found.planted,
        "revealed": {name: power.pack(flags) for name, flags in found.by_probe.items()},
    }


def as_text(found: dict[str, Any]) -> str:
    """One line a probe, so that a change can be read."""
    about = (
        "Which planted mistakes each default probe (seed 0, batch 1) reveals: the bits of a hexadecimal number, in the "
        "order of manual_bp.mutants.sites, the first site the lowest bit. Made by: python -m tests.campaigns power"
    )
    return json.dumps({"about": about, "networks": found}, indent=1) + "\n"
