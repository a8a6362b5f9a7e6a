"""A reference verifier for hand-written backpropagation.

Importing this package is cheap: each public name loads its module when it is first used, and torch is loaded only
when the reference side runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers and editors see; _HOME below is what runs, and a test holds the two together
    from manual_bp.adapters import Adapter
    from manual_bp.case import Case
    from manual_bp.errors import ManualBPError
    from manual_bp.layer_objects import verify_layer
    from manual_bp.network import Network, Node, chain
    from manual_bp.report import Check, Report
    from manual_bp.tapping import tap
    from manual_bp.verification import verify

#: Public name -> the module that it comes from.
_HOME = {
    "Adapter": "manual_bp.adapters",
    "Case": "manual_bp.case",
    "Check": "manual_bp.report",
    "ManualBPError": "manual_bp.errors",
    "Network": "manual_bp.network",
    "Node": "manual_bp.network",
    "Report": "manual_bp.report",
    "chain": "manual_bp.network",
    "tap": "manual_bp.tapping",
    "verify": "manual_bp.verification",
    "verify_layer": "manual_bp.layer_objects",
}

__all__ = [
    "Adapter",
    "Case",
    "Check",
    "ManualBPError",
    "Network",
    "Node",
    "Report",
    "__version__",
    "chain",
    "tap",
    "verify",
    "verify_layer",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
