"""Random networks from the engine's layers, numbers for them, and the search for one that torch disagrees with."""

from __future__ import annotations

from ._draw import Source, draw_network
from ._numbers import REGIMES, draw_probe
from ._search import Candidate, Found, Outcome, search, wrong_checks
from .case import load, save

__all__ = [
    "REGIMES",
    "Candidate",
    "Found",
    "Outcome",
    "Source",
    "draw_network",
    "draw_probe",
    "load",
    "save",
    "search",
    "wrong_checks",
]
