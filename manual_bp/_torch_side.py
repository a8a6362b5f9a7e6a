"""The one door from here to the torch side, opened only when something goes through it.

``from manual_bp import _torch_side`` costs nothing; ``_torch_side.record`` imports ``manual_bp_torch.record``, and with
it torch. Type checkers see the modules themselves.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING

from manual_bp.errors import ManualBPError

if TYPE_CHECKING:
    from manual_bp_torch import bounds as bounds
    from manual_bp_torch import build as build
    from manual_bp_torch import judge as judge
    from manual_bp_torch import lockstep as lockstep
    from manual_bp_torch import tapping as tapping
    from manual_bp_torch import weights as weights


def prepare() -> None:
    """Have torch's shared libraries loaded by a thread, while Python imports and makes what else is needed.

    It takes a sixth of ``import torch`` and does not need Python's lock. Nothing depends on it: where the libraries are
    not found, or are others, the import loads what it wants.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return
    found = find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return
    import ctypes

    for name in ("numpy.random", "heapq", "json", "unicodedata"):  # the loader serves one at a time; these come first
        import_module(name)
    folder = Path(found.submodule_search_locations[0], "lib")
    # called like this, not as a CDLL of its own, it runs without Python's lock
    dlopen = getattr(ctypes.CDLL(None), "dlopen", None)
    if dlopen is None:
        return
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p

    def load() -> None:
        # as torch does it: what many libraries share first, for all to see
        if dlopen(os.fsencode(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL):
            dlopen(os.fsencode(folder / "libtorch_python.so"), os.RTLD_NOW)

    Thread(target=load, name="torch's libraries", daemon=True).start()


def torch_version() -> str:
    """torch's version; imports torch."""
    return str(_torch().__version__)


def __getattr__(name: str) -> ModuleType:
    """The module ``manual_bp_torch.NAME``.

    Raises
    ------
    ManualBPError
        When torch is missing or broken.
    """
    if name.startswith("_"):  # __path__ and its kind, which the import system asks every module for
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _torch()
    return import_module(f"manual_bp_torch.{name}")


def _torch() -> ModuleType:
    if (loaded := sys.modules.get("torch")) is not None:
        return loaded
    collecting = gc.isenabled()
    gc.disable()  # the import makes a million objects that stay; searching them again and again takes a tenth of it
    try:
        torch = import_module("torch")
        gc.freeze()  # and none of them is looked at later on
        return torch
    except (ImportError, OSError) as error:  # OSError: one of its shared libraries does not load
        raise ManualBPError(
            f"the reference needs torch, which cannot be imported: {error}",
            hint="install it with: pip install torch",
        ) from error
    finally:
        if collecting:
            gc.enable()
