"""The real images: 1,797 handwritten digits of 8x8 pixels (see SOURCE.md beside this file)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt

from manual_bp.errors import ManualBPError

Pixels = npt.NDArray[np.uint8]
Part = Literal["all", "train", "held-back"]

#: Pixels count the dark points of a 4x4 block of the scan: 0 is paper, 16 is ink.
FULL = 16

#: The last fifth is held back from training. The writers come one after the other in the data set, so that these
#: images are mostly by hands that the training part does not hold.
HELD_BACK = 360


def digits(*, part: Part = "all") -> tuple[Pixels, Pixels]:
    """Images (n, 8, 8) with pixels 0..16 and labels (n,) 0..9, both uint8 and read-only.

    ``n`` is 1797 for "all", 1437 for "train" and 360 for "held-back".

    Raises
    ------
    ManualBPError
        When the installed package lacks the file, or it is damaged.
    """
    images, labels = _load()
    cut = len(images) - HELD_BACK
    chosen = {"all": slice(None), "train": slice(cut), "held-back": slice(cut, None)}[part]
    return images[chosen], labels[chosen]


@cache
def _load() -> tuple[Pixels, Pixels]:
    try:
        with files(__name__).joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
    except Exception as error:
        # a damaged zip raises BadZipFile, zlib.error, EOFError, ValueError or KeyError, depending on the place
        raise ManualBPError(
            "the digits that belong to the package cannot be read", hint="install manual-bp again"
        ) from error
    for array in (images, labels):
        array.setflags(write=False)
    return images, labels
