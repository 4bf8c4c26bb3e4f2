"""Draws masks from polygons and run lengths, as files in COCO's format hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
_BITS = 6
"""Bits of a pixel's fraction that OpenCV is given."""
_MAX = 2.0**30 / 2**_BITS


def draw_polygons(mask: Mask, rings: Sequence[NDArray[Any]], value: int) -> None:
    """Sets the pixels of polygons.

    Args:
        mask: uint8 (height, width); changed.
        rings: (n, 2) each: x and y, continuous: the pixel in row i and column j covers i to i + 1
            and j to j + 1.
        value: of the pixels whose centres are inside, and of those on the edge.
    """
    # OpenCV counts from the centres of pixels.
    placed = [np.clip((ring - 0.5) * 2**_BITS, -_MAX, _MAX).round() for ring in rings]
    for ring in placed:
        cv2.fillPoly(mask, [ring.astype(np.int32)], (value,), shift=_BITS)


def draw_runs(mask: Mask, lengths: NDArray[np.int64], value: int) -> None:
    """Sets the pixels of runs: outside and inside in turn, column by column; none for no runs.

    Raises:
        ValueError: they are not as many pixels as the mask has.
    """
    if not len(lengths):
        return
    if lengths.min() < 0 or lengths.max() > mask.size:
        raise ValueError("runs of impossible length")
    if lengths.sum() != mask.size:
        raise ValueError(f"runs of {lengths.sum()} pixels")
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask[inside.reshape(mask.shape[::-1]).T] = value
