"""Masks, boxes and keypoints, and how boxes and keypoints move with the pixels.

Coordinates are continuous: the pixel in row i and column j covers i to i + 1 and j to j + 1.
"""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.warps import Size

Floats = NDArray[np.floating[Any]]

_NEAR = 1.5
"""Pixels between a point and one that is shown in its place: neighbours may be stretched apart."""


class Targets(NamedTuple):
    """What belongs to an image, and moves with it.

    Attributes:
        masks: integer arrays (height, width), of the image's size.
        boxes: float64 (n, 4): left, top, right, bottom.
        keypoints: float64 (n, k, 3): x, y, and 0 if it is invisible; x and y are then 0 too.
        visibility: float64 (n,): the share of each box's area that is still in the image, by boxes
            alone; 0 for a box that is gone. ``Canvas.begin`` sets it to 1 where
            it is missing.
        labels: int32 (n,), of the boxes.
    """

    masks: tuple[NDArray[Any], ...] = ()
    boxes: Floats = np.empty((0, 4))
    keypoints: Floats = np.empty((0, 0, 3))
    visibility: Floats = np.empty(0)
    labels: NDArray[np.int32] = np.empty(0, np.int32)

    def moved(self, matrix: Floats, size: Size) -> Targets:
        """Boxes and keypoints after a warp: boxes are those around their moved corners, clipped.

        Args:
            matrix: (3, 3): takes points of the result to points of the image before.
            size: of the result.
        """
        if not (self.boxes.size or self.keypoints.size):
            return self
        try:
            inverse = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:  # the whole image shows the points of one line
            inverse = np.full((3, 3), np.nan)
        corners, depths = _projected(_corners(self.boxes), inverse)
        boxes = np.hstack([corners.min(axis=1), corners.max(axis=1)])
        clipped = np.nan_to_num(np.clip(boxes, 0, (*size[::-1], *size[::-1])))
        shares = _ratios(_areas(clipped), _areas(boxes))
        for index in np.flatnonzero((depths > 0).any(axis=1) & (depths < 0).any(axis=1)):
            # The horizon crosses the box: its image is no quadrilateral.
            clipped[index], shares[index] = _seen(self.boxes[index], *_places(matrix, size))
        points, _ = _projected(self.keypoints[..., :2], inverse)
        return self._replace(
            boxes=clipped,
            visibility=self.visibility * shares,
            keypoints=with_places(self.keypoints, points, size),
        )

    def displaced(self, x: Floats, y: Floats) -> Targets:
        """Boxes and keypoints where the result shows what is in them, after a displacement.

        Args:
            x: (height, width): how far to the right of itself each pixel was read.
            y: the same, below.
        """
        height, width = x.shape
        reach = ceil(max(np.abs(x).max(), np.abs(y).max())) + 1
        x, y = x + (np.arange(width) + 0.5), y + (np.arange(height)[:, np.newaxis] + 0.5)
        seen = [_seen(box, x, y) for box in self.boxes]
        points = [_shown(point, x, y, reach) for point in self.keypoints[..., :2].reshape(-1, 2)]
        places = np.array(points).reshape(*self.keypoints.shape[:2], 2)
        return self._replace(
            boxes=np.array([box for box, _ in seen]).reshape(-1, 4),
            visibility=self.visibility * [share for _, share in seen],
            keypoints=with_places(self.keypoints, places, (height, width)),
        )


def _corners(boxes: Floats) -> Floats:
    """(n, 4, 2)."""
    return boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)


def _projected(points: Floats, matrix: Floats) -> tuple[Floats, Floats]:
    """Points (…, 2) moved by a matrix, and their third coordinates before the division by them."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return moved[..., :2] / moved[..., 2:], moved[..., 2]


def with_places(keypoints: Floats, places: Floats, size: Size) -> Floats:
    """Keypoints at other places, (n, k, 2); those that are outside of the image are invisible."""
    inside = ((places >= 0) & (places <= size[::-1])).all(axis=-1)
    visible = inside & (keypoints[..., 2] > 0)
    return np.where(visible[..., np.newaxis], np.dstack([places, keypoints[..., 2]]), 0.0)


def _areas(boxes: Floats) -> Floats:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _ratios(parts: Floats, wholes: Floats) -> Floats:
    return np.divide(parts, wholes, out=np.zeros_like(wholes), where=wholes > 0)


def _places(matrix: Floats, size: Size) -> tuple[Floats, Floats]:
    """Where the pixels of the result are read: x and y, each (height, width)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    places, _ = _projected(np.dstack([columns, rows]), matrix)
    return places[..., 0], places[..., 1]


def _seen(box: Floats, x: Floats, y: Floats) -> tuple[Floats, float]:
    """The box around all pixels that show a part of a box, and which share of its area they have.

    The share is that of pixels in the result, at most 1: an estimate where sizes change.
    """
    left, top, right, bottom = box
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return np.zeros(4), 0.0
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    return found, min(1.0, inside.sum() / ((right - left) * (bottom - top)))


def _shown(point: Floats, x: Floats, y: Floats, reach: int) -> Floats:
    """Where the result shows a point: within the pixel that shows the nearest; nan if none is near.

    Pixels further than ``reach`` from the point do not show it.
    """
    left, top = (max(int(place) - reach, 0) for place in point)
    right, bottom = (max(int(place) + reach + 1, 0) for place in point)
    x, y = x[top:bottom, left:right], y[top:bottom, left:right]
    distances = np.hypot(x - point[0], y - point[1])
    if distances.min(initial=np.inf) > _NEAR:
        return np.full(2, np.nan)
    row, column = np.unravel_index(distances.argmin(), distances.shape)
    here = np.array([left + column + 0.5, top + row + 0.5])
    return here + np.clip(point - (x[row, column], y[row, column]), -0.5, 0.5)
