"""Random rotation, shift, shear, zoom and flips as one affine warp.

Coordinates are (x, y) = (column, row), as in OpenCV. A matrix maps a pixel of the
output to the place in the source where its value is read, with linear interpolation.
"""

from __future__ import annotations

from math import cos, radians, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.spec.spec import Compat, FillMode
from loaderd.spec.transform import Transform

_BORDERS: dict[FillMode, int] = {
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
}
_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


def keras_matrix(transform: Transform, size: tuple[int, int]) -> Matrix:
    """Where Keras reads each output pixel, flips left out.

    This is ``apply_affine_transform`` of ``keras/src/legacy/preprocessing/image.py``,
    multiplied out: rotation · shift · shear · zoom about the centre. What Keras calls
    x are the columns (it swaps the axes at the end), so its first shift, drawn from the
    height's range, moves columns; and its centre is that of the swapped size, which is
    off for images that are not square.

    Args:
        transform: the parameters of the sample.
        size: (height, width) of the image.

    Returns:
        The first two rows of the matrix that maps (x, y, 1) to the source (x, y).
    """
    height, width = size
    return _about(transform, transform.tx, transform.ty, height / 2 - 0.5, width / 2 - 0.5)


def fixed_matrix(transform: Transform, size: tuple[int, int]) -> Matrix:
    """What Keras's names promise: as ``keras_matrix``, with two things put right.

    The shift drawn from the width's range moves columns, that from the height's range
    rows, and the rest turns about the true centre.
    """
    height, width = size
    return _about(transform, transform.ty, transform.tx, width / 2 - 0.5, height / 2 - 0.5)


def _about(transform: Transform, x: float, y: float, center_x: float, center_y: float) -> Matrix:
    """Rotation · shift by (x, y) · shear · zoom, with the origin moved to the centre."""
    theta = radians(transform.theta)
    sheared = theta + radians(transform.shear)
    cos_theta, sin_theta = cos(theta), sin(theta)
    xx, xy = cos_theta * transform.zx, -sin(sheared) * transform.zy
    yx, yy = sin_theta * transform.zx, cos(sheared) * transform.zy
    return (
        (xx, xy, cos_theta * x - sin_theta * y + center_x - xx * center_x - xy * center_y),
        (yx, yy, sin_theta * x + cos_theta * y + center_y - yx * center_x - yy * center_y),
    )


def flipped(matrix: Matrix, transform: Transform, size: tuple[int, int]) -> Matrix:
    """The matrix of the warp followed by the transform's flips: reads from the far end."""
    (xx, xy, x), (yx, yy, y) = matrix
    if transform.flip_horizontal:
        right = size[1] - 1
        xx, x, yx, y = -xx, x + xx * right, -yx, y + yx * right
    if transform.flip_vertical:
        bottom = size[0] - 1
        xy, x, yy, y = -xy, x + xy * bottom, -yy, y + yy * bottom
    return (xx, xy, x), (yx, yy, y)


class Warp:
    """Warps float32 images of one size.

    ``nearest`` and ``reflect`` give what ``scipy.ndimage.affine_transform`` gives, to
    float32's precision. ``constant`` and ``wrap`` differ from it where the source
    lies within one pixel of the border (``wrap``: of a seam): there scipy takes the
    constant at once, and has the last pixel of a period twice, while OpenCV
    interpolates.

    Args:
        size: (height, width) of source and output, in pixels.
        fill_mode: what lies outside the source.
        cval: the value outside for ``constant``, in the unit of the source.
        compat: which matrix to use.
    """

    def __init__(
        self, size: tuple[int, int], fill_mode: FillMode, cval: float, compat: Compat
    ) -> None:
        height, width = size
        self._size = size
        self._dsize = (width, height)
        self._matrix = keras_matrix if compat == "keras" else fixed_matrix
        self._border = _BORDERS[fill_mode]
        self._cval = (cval,) * 4
        # scipy repeats after size - 1 pixels, OpenCV after as many as it is given.
        last = 1 if fill_mode == "wrap" else 0
        self._rows, self._columns = max(1, height - last), max(1, width - last)

    def __call__(
        self, source: NDArray[np.float32], transform: Transform, out: NDArray[np.float32]
    ) -> None:
        """Writes the warped and flipped source in ``out``.

        Args:
            source: (height, width, channels).
            transform: the parameters of the sample.
            out: as source, C-contiguous; another array than source.
        """
        matrix = flipped(self._matrix(transform, self._size), transform, self._size)
        result: NDArray[Any] = cv2.warpAffine(
            source[: self._rows, : self._columns],
            np.array(matrix),
            self._dsize,
            dst=out,
            flags=_FLAGS,
            borderMode=self._border,
            borderValue=self._cval,
        )
        if result is not out:  # OpenCV made an array of its own: it will not fill this one
            np.copyto(out, result.reshape(out.shape))
