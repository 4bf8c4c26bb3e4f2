"""The formats of boxes; pure."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

BoxFormat = Literal[
    "xyxy",
    "yxyx",
    "xywh",
    "center_xywh",
    "rel_xyxy",
    "rel_yxyx",
    "rel_xywh",
    "rel_center_xywh",
]
"""Keras's names: ``keras/src/layers/preprocessing/image_preprocessing/bounding_boxes``."""


_ROUNDED = 1.0
"""Pixels by which a box may be outside of its image."""


def from_corners(boxes: Floats, form: BoxFormat, size: tuple[int, int]) -> Floats:
    """Boxes of left, top, right, bottom in another of Keras's formats.

    Args:
        boxes: (n, 4), in pixels.
        form: the format.
        size: (height, width) of the image, of which ``rel_`` formats are fractions.
    """
    left, top, right, bottom = boxes.T
    if form.startswith("rel_"):
        left, right = left / size[1], right / size[1]
        top, bottom = top / size[0], bottom / size[0]
    match form.removeprefix("rel_"):
        case "xyxy":
            columns = [left, top, right, bottom]
        case "yxyx":
            columns = [top, left, bottom, right]
        case "xywh":
            columns = [left, top, right - left, bottom - top]
        case _:
            columns = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return np.stack(columns, axis=1)


def to_corners(boxes: Floats, form: BoxFormat, size: tuple[int, int]) -> Floats:
    """Boxes (n, 4) of a format as left, top, right, bottom in pixels.

    Args:
        boxes: in that format.
        form: one of Keras's.
        size: (height, width) of the image.
    """
    first, second, third, fourth = boxes.T
    match form.removeprefix("rel_"):
        case "xyxy":
            columns = [first, second, third, fourth]
        case "yxyx":
            columns = [second, first, fourth, third]
        case "xywh":
            columns = [first, second, first + third, second + fourth]
        case _:
            half_x, half_y = third / 2, fourth / 2
            columns = [first - half_x, second - half_y, first + half_x, second + half_y]
    scale = [size[1], size[0], size[1], size[0]] if form.startswith("rel_") else [1] * 4
    found: Floats = np.stack(columns, axis=1) * np.array(scale, np.float32)
    return found


def clipped_to(boxes: Floats, size: tuple[int, int]) -> tuple[Floats, NDArray[np.intp]]:
    """Boxes clipped to their image, and the numbers of those that are no boxes of it.

    These are further than a pixel outside, which rounded numbers are not, or of a negative size.

    Args:
        boxes: (n, 4): left, top, right, bottom, in pixels.
        size: (height, width) of the image.
    """
    height, width = size
    clipped = np.clip(boxes, 0, (width, height, width, height))
    wrong = np.abs(clipped - boxes).max(axis=1, initial=0) > _ROUNDED
    wrong |= (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    return clipped, np.flatnonzero(wrong)
