"""What there is to compare, by the word that stands for it, and which options make sense for it."""

from __future__ import annotations

from typing import Literal

import click
from click.core import ParameterSource

from manual_bp.errors import ManualBPError
from manual_bp.files import is_file, is_folder

#: A built-in network; a file of the user's that defines a case; a case that ``fuzz`` saved; numbers of a program.
Kind = Literal["network", "case", "saved", "dump"]

#: Parameter -> its option, what it works on, and why not on the others.
_WORKS_ON: dict[str, tuple[str, tuple[Kind, ...], str]] = {
    "dtype": ("--dtype", ("network", "case"), "the numbers in the file have their own"),
    "seed": ("--seed", ("network", "case"), "the numbers are in the file"),
    "batch": ("--batch", ("network",), "the examples are those of the file"),
    "names": ("--probe", ("network", "case"), "a dump is one probe, a folder of dumps one of each"),
    "weights": ("--weights", ("network",), "the weights are those of the file"),
    "fixture": ("--fixture", ("dump",), "it belongs to a dump"),
    "case": ("--case", ("dump",), "it belongs to a dump"),
    "partial": ("--partial", ("dump",), "it belongs to a dump"),
    "power": ("--power", ("network",), "it plants mistakes in the layers of the built-in networks"),
    "keep_arrays": ("--keep-arrays", ("network", "case", "saved"), "a dump holds the whole arrays already"),
    "reference": ("--reference", ("network",), "it is for the built-in networks"),
}


def kind_of(target: str) -> Kind:
    """What a target of the command line is; a network, if it looks like nothing else.

    Raises
    ------
    ManualBPError
        If it is a file of another kind.
    """
    if target.endswith(".py") or ".py:" in target:
        return "case"
    if target.endswith(".case.npz"):
        return "saved"
    if target.endswith((".npz", ".safetensors")) or is_folder(target):
        return "dump"
    if "." in target and is_file(target):  # a file may be called like a network
        what = f"{target} is neither a case (.py) nor a dump (.npz, .safetensors, a folder)"
        shown = f"a report is shown by manual-bp render {target}, and compared again by manual-bp diagnose {target}"
        raise ManualBPError(what, hint=shown if target.endswith(".json") else "manual-bp new case.py writes a case")
    return "network"


def refuse_useless(context: click.Context, kind: Kind) -> None:
    """A usage error for what the command line says and this kind of target would not heed.

    Settings of a project are for all that it compares, and are heeded where they can be.
    """
    for name, (option, kinds, why) in _WORKS_ON.items():
        said = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if kind not in kinds and said and context.params[name] != ("all",):
            raise click.UsageError(f"{option} is of no use here: {why}")


def read_by(kind: Kind, target: str, weights: str | None, fixture: str | None, case: str | None) -> list[str]:
    """The files that a comparison reads, and that none of its outputs may take the place of."""
    own = [] if kind == "network" else [case_file(target) if kind == "case" else target]
    return [*own, *([case_file(case)] if case else []), *(path for path in (weights, fixture) if path)]


def case_file(target: str) -> str:
    """The file of ``FILE.py`` or ``FILE.py:NAME``."""
    from manual_bp.case import split_target

    return str(split_target(target)[0])
