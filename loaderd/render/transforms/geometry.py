"""Random rotation, shift, shear, zoom and flips as one affine warp.

Coordinates are (x, y) = (column, row), as in OpenCV. A matrix maps a pixel of the
output to the point of the source whose value, linearly interpolated, it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, radians, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.render.transforms import augment
from loaderd.spec.base import Compat, FillMode
from loaderd.spec.operations import RandomAffine, RandomFlip
from loaderd.spec.transform import Affine, Flip

_BORDERS: dict[FillMode, int] = {
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
}
_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

MAX_CHANNELS = 4
"""OpenCV's limit of channels for one warp."""

STILL = Affine()
UPRIGHT = Flip()

Array = NDArray[Any]
Shift = Callable[[float, float], float]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


def keras_matrix(affine: Affine, size: tuple[int, int]) -> Matrix:
    """The matrix of Keras's warp, without flips.

    This is ``apply_affine_transform`` of ``keras/src/legacy/preprocessing/image.py``,
    multiplied out: rotation · shift · shear · zoom about the centre. What Keras calls
    x are the columns (it swaps the axes at the end), so its first shift, drawn from the
    height's range, moves columns; and its centre is that of the swapped size, which is
    off for images that are not square.

    Args:
        affine: the parameters of the sample.
        size: (height, width) of the image.

    Returns:
        The first two rows of the matrix that maps (x, y, 1) to the source (x, y).
    """
    height, width = size
    return _about(affine, affine.tx, affine.ty, height / 2 - 0.5, width / 2 - 0.5)


def fixed_matrix(affine: Affine, size: tuple[int, int]) -> Matrix:
    """:func:`keras_matrix` with two corrections.

    The shift drawn from the width's range moves columns, that from the height's range
    rows, and the rotation is about the true centre.
    """
    height, width = size
    return _about(affine, affine.ty, affine.tx, width / 2 - 0.5, height / 2 - 0.5)


def _about(affine: Affine, x: float, y: float, center_x: float, center_y: float) -> Matrix:
    """Rotation · shift by (x, y) · shear · zoom, with the origin moved to the centre."""
    theta = radians(affine.theta)
    sheared = theta + radians(affine.shear)
    cos_theta, sin_theta = cos(theta), sin(theta)
    xx, xy = cos_theta * affine.zx, -sin(sheared) * affine.zy
    yx, yy = sin_theta * affine.zx, cos(sheared) * affine.zy
    return (
        (xx, xy, cos_theta * x - sin_theta * y + center_x - xx * center_x - xy * center_y),
        (yx, yy, sin_theta * x + cos_theta * y + center_y - yx * center_x - yy * center_y),
    )


def flipped(matrix: Matrix, flip: Flip, size: tuple[int, int]) -> Matrix:
    """The matrix of the warp followed by a flip."""
    (xx, xy, x), (yx, yy, y) = matrix
    if flip.horizontal:
        right = size[1] - 1
        xx, x, yx, y = -xx, x + xx * right, -yx, y + yx * right
    if flip.vertical:
        bottom = size[0] - 1
        xy, x, yy, y = -xy, x + xy * bottom, -yy, y + yy * bottom
    return (xx, xy, x), (yx, yy, y)


class Warp:
    """Warps float32 images of one size.

    ``nearest`` and ``reflect`` equal ``scipy.ndimage.affine_transform`` to float32
    precision. ``constant`` and ``wrap`` differ from it within one pixel of the border
    (``wrap``: of a seam): there scipy takes the constant, or repeats the last pixel of a
    period, while OpenCV interpolates.

    Args:
        size: (height, width) of source and output, in pixels.
        fill_mode: how to fill points outside the source.
        cval: the value outside for ``constant``, in the unit of the source.
        compat: selects the matrix.
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
        # scipy repeats after size - 1 pixels, OpenCV after all pixels of the source.
        last = 1 if fill_mode == "wrap" else 0
        self._rows, self._columns = max(1, height - last), max(1, width - last)

    def __call__(
        self, source: NDArray[np.float32], affine: Affine, flip: Flip, out: NDArray[np.float32]
    ) -> None:
        """Writes the warped, then flipped source to ``out``.

        Args:
            source: (height, width, channels).
            affine: the parameters of the sample.
            flip: applied after the warp.
            out: as source, C-contiguous; not the source itself.
        """
        matrix = flipped(self._matrix(affine, self._size), flip, self._size)
        result: NDArray[Any] = cv2.warpAffine(
            source[: self._rows, : self._columns],
            np.array(matrix),
            self._dsize,
            dst=out,
            flags=_FLAGS,
            borderMode=self._border,
            borderValue=self._cval,
        )
        if result is not out:  # OpenCV returned a new array instead of filling ``out``
            np.copyto(out, result.reshape(out.shape))


class AffineOperation:
    """Random rotation, shift, shear and zoom of one image, as in Keras.

    The warp is OpenCV's where it can be, else scipy's: OpenCV has no splines, and computes in
    float32. The distributions are those of ``ImageDataGenerator.get_random_transform`` in
    ``keras/src/legacy/preprocessing/image.py``.

    Args:
        spec: holds the ranges, and how the warp interpolates.
        shape: (height, width, channels) of the images.
        compute: the dtype to compute in.
    """

    def __init__(self, spec: RandomAffine, shape: tuple[int, int, int], compute: str) -> None:
        height, width = size = shape[:2]
        self._spec = spec
        self._shift_x = _shift(spec.height_shift_range, height)
        self._shift_y = _shift(spec.width_shift_range, width)
        self._zoom_from, zoom_to = spec.zoom_range
        self._zoom_by = zoom_to - self._zoom_from
        self._by_scipy = needs_scipy(spec, shape[2], compute)
        self._warp = Warp(size, spec.fill_mode, spec.cval, spec.compat)
        self._how = augment.Resampling(
            spec.fill_mode, spec.cval, spec.interpolation_order, spec.compat == "fixed"
        )
        self._warped = np.empty(shape, np.float32)

    def draw(self, uniforms: Sequence[float]) -> Affine:
        """Draws from uniform numbers 0 to 7."""
        turn, x, x_sign, y, y_sign, shear, zx, zy = uniforms[:8]
        return Affine(
            (2 * turn - 1) * self._spec.rotation_range,
            self._shift_x(x, x_sign),
            self._shift_y(y, y_sign),
            (2 * shear - 1) * self._spec.shear_range,
            self._zoom_from + zx * self._zoom_by,
            self._zoom_from + zy * self._zoom_by,
        )

    def image(self, x: Array, parameters: Affine) -> Array:
        """The warped image; valid until the next call."""
        if parameters == STILL:
            return x
        if self._by_scipy:
            return augment.apply_affine(x, parameters, augment.LAST, self._how)
        self._warp(np.ascontiguousarray(x), parameters, UPRIGHT, self._warped)
        return self._warped


class FlipOperation:
    """Mirrors each image with probability 1/2, as a view.

    Args:
        spec: the directions.
    """

    def __init__(self, spec: RandomFlip) -> None:
        self._horizontal = 0.5 if spec.horizontal else 0.0
        self._vertical = 0.5 if spec.vertical else 0.0

    def draw(self, uniforms: Sequence[float]) -> Flip:
        """Draws from uniform numbers 8 and 9."""
        return Flip(uniforms[8] < self._horizontal, uniforms[9] < self._vertical)

    def image(self, x: Array, parameters: Flip) -> Array:
        """The image, or a mirrored view of it."""
        if parameters.horizontal:
            x = augment.flip_axis(x, 1)
        if parameters.vertical:
            x = augment.flip_axis(x, 0)
        return x


def needs_scipy(spec: RandomAffine, channels: int, compute: str) -> bool:
    """Whether OpenCV cannot do the warp.

    Args:
        spec: the operation.
        channels: of the images.
        compute: the dtype to compute in.
    """
    return spec.interpolation_order != 1 or compute != "float32" or channels > MAX_CHANNELS


def _shift(shift_range: float | tuple[float, ...], size: int) -> Shift:
    """The function from two uniforms to a shift in pixels; ``size`` is the image's on that axis.

    Keras tries ``np.random.choice`` first: a positive int is a choice from ``range(v)``, a
    sequence from its values, both with a random sign; other ranges are uniform.
    """
    if not shift_range:
        return _no_shift
    if isinstance(shift_range, tuple | list):
        unit = size if max(shift_range) < 1 else 1
        return _choice([value * unit for value in shift_range])
    if isinstance(shift_range, int) and shift_range > 0:
        return _choice(list(range(shift_range)))
    return _uniform(shift_range * (size if shift_range < 1 else 1))


def _no_shift(uniform: float, sign: float) -> float:
    return 0.0


def _uniform(reach: float) -> Shift:
    return lambda uniform, sign: (2 * uniform - 1) * reach


def _choice(values: list[float] | list[int]) -> Shift:
    count = len(values)

    def choose(uniform: float, sign: float) -> float:
        value = values[int(uniform * count)]
        return -value if sign < 0.5 else value

    return choose
