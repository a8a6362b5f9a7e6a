"""Channels-last images at the border, channels-first ones inside."""

from __future__ import annotations

import numpy as np

from manual_bp.errors import ManualBPError
from manual_bp.nn import Array


def from_nhwc(images: Array) -> Array:
    """(m, H, W, C) → (m, C, H, W), contiguous."""
    if np.ndim(images) != 4:
        raise ManualBPError(f"images have shape {np.shape(images)}", hint="give (m, height, width, channels)")
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def to_nhwc(images: Array) -> Array:
    """(m, C, H, W) → (m, H, W, C), contiguous."""
    if np.ndim(images) != 4:
        raise ManualBPError(f"images have shape {np.shape(images)}", hint="give (m, channels, height, width)")
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))
