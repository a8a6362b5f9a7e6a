"""Many independent tasks over the cores of one machine, or over a Dask or Ray cluster, through joblib.

The result does not depend on the number of workers: a task must be a function of its arguments alone, and results come
back in the order of the tasks. What is done is saved task by task, so that a campaign that was killed goes on where it
stopped; a changed program starts anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from manual_bp.errors import ManualBPError
from manual_bp.files import read_text, write_text

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
#: What is saved between the start of a campaign and its end.
SAVED = ROOT / "reports" / "campaigns"
#: "dask" or "ray": hand the tasks to a cluster. Dask finds it by DASK_SCHEDULER_ADDRESS, Ray by RAY_ADDRESS.
BACKEND = "MANUAL_BP_BACKEND"


def run(
    tasks: Sequence[T],
    function: Callable[[T], Any],
    *,
    name: str,
    workers: int | None = None,
    resume: bool = True,
    saved: Path = SAVED,
) -> list[Any]:
    """``[function(task) for task in tasks]``, in parallel, with progress on stderr.

    Parameters
    ----------
    tasks
        Each of them, and each result, made of what JSON has: numbers, strings, lists, dicts with strings as keys.
    function
        Of a module's top level, so that other processes can import it.
    name
        Of the campaign; its saved results lie in a folder of that name.
    workers
        Processes: 1 runs in this one, None leaves it to joblib (all cores, or what ``joblib.parallel_config`` says).
    resume
        Take over what an earlier run of the same program has saved.

    Raises
    ------
    ManualBPError
        If joblib, or the cluster's client, is not installed.
    """
    folder = saved / f"{name}-{_fingerprint()}"
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    files = [folder / f"{hashlib.sha256(json.dumps(task).encode()).hexdigest()[:24]}.json" for task in tasks]
    results: dict[int, Any] = {}
    for i, path in enumerate(files):
        if path.exists():
            with contextlib.suppress(ValueError):  # not one of ours: do it again
                results[i] = json.loads(read_text(path))
    tick = _Progress(name, len(tasks), len(results))
    for i, result in _work(function, [(i, task) for i, task in enumerate(tasks) if i not in results], workers):
        # what is returned is what was saved: a resumed campaign gives the same result to the bit
        text = json.dumps(result)
        write_text(files[i], text)
        results[i] = json.loads(text)
        tick(len(results))
    shutil.rmtree(folder, ignore_errors=True)
    return [results[i] for i in range(len(tasks))]


def _work(function: Callable[[T], Any], todo: list[tuple[int, T]], workers: int | None) -> Iterator[tuple[int, Any]]:
    if workers == 1 or not todo:
        for i, task in todo:
            yield i, function(task)
        return
    joblib = _joblib()
    with _backend(joblib):
        backend, _ = joblib.parallel.get_active_backend()
        count = workers if workers is not None else (-1 if _is_local(backend) else None)
        if backend.supports_return_generator:
            pool = joblib.Parallel(n_jobs=count, return_as="generator_unordered")
            yield from pool(joblib.delayed(_numbered)(function, i, task) for i, task in todo)
            return
        size = 4 * max(1, joblib.effective_n_jobs(count))
        for start in range(0, len(todo), size):
            part = todo[start : start + size]
            yield from joblib.Parallel(n_jobs=count)(joblib.delayed(_numbered)(function, i, task) for i, task in part)


def _numbered(function: Callable[[T], Any], i: int, task: T) -> tuple[int, Any]:
    return i, function(task)


def _is_local(backend: Any) -> bool:
    return type(backend).__name__ in ("LokyBackend", "MultiprocessingBackend", "ThreadingBackend")


def _joblib() -> Any:
    try:
        return importlib.import_module("joblib")
    except ImportError:
        hint = "install it with: pip install 'manual-bp[campaigns]', or use --workers 1"
        raise ManualBPError("several workers need joblib, which is not installed", hint=hint) from None


@contextlib.contextmanager
def _backend(joblib: Any) -> Iterator[None]:
    """The cluster that the environment names; else whatever ``joblib.parallel_config`` the caller is in."""
    wanted = os.environ.get(BACKEND, "")
    if not wanted:
        yield
        return
    modules = {"dask": "distributed", "ray": "ray.util.joblib"}
    try:
        client = importlib.import_module(modules[wanted])
    except (KeyError, ImportError):
        what = f"{BACKEND}={wanted} asks for a cluster that cannot be reached"
        raise ManualBPError(what, hint="give dask or ray, and install 'manual-bp[cluster]' or ray") from None
    if wanted == "ray":
        client.register_ray()
        with joblib.parallel_config(backend="ray"):
            yield
        return
    with client.Client(), joblib.parallel_config(backend="dask"):
        yield


def _fingerprint() -> str:
    """Of every line of the program that decides a result."""
    digest = hashlib.sha256()
    for folder in ("manual_bp", "reference", "tests/campaigns"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class _Progress:
    """One line that is rewritten where somebody looks at it, else a line a minute."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self.name, self.total, self.first = name, total, done
        self.begin = self.last = time.monotonic()
        self.live = sys.stderr.isatty()
        if done:
            sys.stderr.write(f"{name}: {done} of {total} tasks were done before\n")

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if done < self.total and now - self.last < (0.2 if self.live else 60):
            return
        self.last = now
        left = (now - self.begin) / max(1, done - self.first) * (self.total - done)
        line = f"{self.name}: {done} of {self.total}, about {left:.0f} s left"
        end = "" if self.live and done < self.total else "\n"
        sys.stderr.write((f"\r{line:<60}" if self.live else line) + end)
        sys.stderr.flush()
