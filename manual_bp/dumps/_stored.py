"""From an array as a program stores it to torch's order of axes."""

from __future__ import annotations

import numpy as np

from manual_bp.dumps._manifest import Entry, Manifest, Shape
from manual_bp.layouts import from_torch_layout, to_torch_layout
from manual_bp.trace import Array


def to_torch(array: Array, entry: Entry, manifest: Manifest, layout: str | None) -> Array:
    """The array in torch's axes; ValueError or ManualBPError if it is not stored so."""
    if layout is None:
        return array.reshape(entry.torch_shape)
    return to_torch_layout(array, layout, target=entry.torch_shape, shapes=manifest.torch_shapes())


def stored_shape(entry: Entry, manifest: Manifest, layout: str | None) -> Shape:
    """The shape that the array has in a layout; ValueError or ManualBPError if it cannot have it."""
    if layout == entry.layout:
        return entry.shape
    if layout is None:
        return entry.torch_shape
    like = np.broadcast_to(np.zeros((), np.bool_), entry.torch_shape)
    return from_torch_layout(like, layout, shapes=manifest.torch_shapes()).shape
