"""How images are read where their pixels move: matrices, borders, filters; pure.

Matrices take points (x, y, 1) of the result to points of the image before. Coordinates are
continuous: the pixel in row i and column j covers i to i + 1 and j to j + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
"""(height, width) in pixels."""
Filter = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
"""PIL's filters, which average where they shrink."""
FillMode = Literal["constant", "nearest", "reflect", "wrap"]
Interpolation = Literal["nearest", "bilinear"]
Matrix = NDArray[np.float64]
"""(3, 3)."""
Point = tuple[float, float]
"""(x, y) in pixels."""

_FIRST_CENTER = (0.5, 0.5)
"""The centre of the first pixel, where Keras's coordinates begin."""


class WarpStyle(NamedTuple):
    """How a warp reads the image.

    Attributes:
        interpolation: ``nearest`` or ``bilinear``.
        fill_mode: how points outside of the image are filled: ``constant``, ``nearest`` (the
            nearest pixel: aa|abcd|dd), ``reflect`` (ba|abcd|dc), or ``wrap`` (cd|abcd|ab).
        fill_value: the grey level for ``constant``.
    """

    interpolation: Interpolation = "bilinear"
    fill_mode: FillMode = "reflect"
    fill_value: float = 0.0


def rotation(degrees: float, size: Size) -> Matrix:
    """Turns an image of (height, width) about its centre; counter-clockwise if positive."""
    across, down = cos(radians(degrees)), sin(radians(degrees))
    return _about(_center(size), ((across, -down), (down, across)))


def translation(x: float, y: float) -> Matrix:
    """Moves an image right by x and down by y pixels."""
    return np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])


def zoom(x: float, y: float, size: Size) -> Matrix:
    """Shows x times the width, y times the height: below 1 an image grows about its centre."""
    return _about(_center(size), ((x, 0.0), (0.0, y)))


def shear(x: float, y: float, center: Point = _FIRST_CENTER) -> Matrix:
    """Moves rows left by x times their distance below a point, columns up by y times theirs."""
    return _about(center, ((1.0, x), (y, 1.0)))


def perspective(start: Sequence[Point], end: Sequence[Point]) -> Matrix:
    """Moves four points, no three in a line, to four others."""
    rows = []
    for (x, y), (to_x, to_y) in zip(start, end, strict=True):
        rows.append((to_x, to_y, 1.0, 0.0, 0.0, 0.0, -x * to_x, -x * to_y))
        rows.append((0.0, 0.0, 0.0, to_x, to_y, 1.0, -y * to_x, -y * to_y))
    solution = np.linalg.solve(np.array(rows), np.ravel(start))
    return np.append(solution, 1.0).reshape(3, 3)


def _about(center: Point, matrix: tuple[Point, Point]) -> Matrix:
    """A linear map that keeps a point in its place."""
    (x, y), ((a, b), (c, d)) = center, matrix
    return np.array([[a, b, x - a * x - b * y], [c, d, y - c * x - d * y], [0.0, 0.0, 1.0]])


def _center(size: Size) -> Point:
    return size[1] / 2, size[0] / 2
