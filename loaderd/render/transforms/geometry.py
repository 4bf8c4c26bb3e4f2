"""Random rotation, shift, shear, zoom and flips of one image, as in Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.render.native.kernels import MAX_CHANNELS, MAX_SIDE, MAX_VALUES, Finish
from loaderd.render.transforms import augment
from loaderd.spec.base import Compat
from loaderd.spec.operations import GeneratorFlip, RandomAffine
from loaderd.spec.transform import Affine, Flip

STILL = Affine()

Array = NDArray[Any]
Shift = Callable[[float, float], float]


def matrices(affines: Sequence[Affine], size: tuple[int, int], compat: Compat) -> Array:
    """The matrices of warps, with the last bits of Keras's.

    Each is that of ``apply_affine_transform`` in ``keras/src/legacy/preprocessing/image.py``:
    rotation, shift, shear and zoom about the centre. What Keras calls x are the columns (it swaps
    the axes at the end), so its first shift, drawn from the height's range, moves columns; and
    its centre is that of the swapped size, which is off for images that are not square.

    Args:
        affines: the parameters.
        size: (height, width) of the images, in pixels.
        compat: ``fixed`` corrects shifts and centre.

    Returns:
        Rows of six float64: a pixel (y, x) of the result is read at (m[2] + m[0] y + m[1] x,
        m[5] + m[3] y + m[4] x). NaN for parameters that move nothing.
    """
    theta, tx, ty, shear, zx, zy = np.array(affines, np.float64).T
    height, width = size
    if compat == "fixed":
        tx, ty, height, width = ty, tx, width, height
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    turn = _matrices(len(affines), np.cos(theta), -np.sin(theta), np.sin(theta), np.cos(theta))
    shift = _matrices(len(affines), 1.0, 0.0, 0.0, 1.0, tx, ty)
    sheared = _matrices(len(affines), 1.0, -np.sin(shear), 0.0, np.cos(shear))
    zoom = _matrices(len(affines), zx, 0.0, 0.0, zy)
    # About the centre, which Keras multiplies last: products of identities change no bit.
    to, back = (_matrices(1, 1.0, 0.0, 0.0, 1.0, *center) for center in _centers(height, width))
    product = to @ (turn @ shift @ sheared @ zoom) @ back
    result = np.empty((len(affines), 6))
    result[:, :3] = product[:, 1, [1, 0, 2]]
    result[:, 3:] = product[:, 0, [1, 0, 2]]
    result[[affine == STILL for affine in affines]] = np.nan
    return result


def _matrices(count: int, *values: Any) -> Array:
    """Matrices of the values xx, xy, yx, yy, and of shifts, each one number or one per matrix."""
    made = np.zeros((count, 3, 3))
    made[:, 2, 2] = 1
    places = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2))
    for (row, column), value in zip(places, values, strict=False):
        made[:, row, column] = value
    return made


def _centers(height: float, width: float) -> tuple[tuple[float, float], tuple[float, float]]:
    x, y = height / 2 - 0.5, width / 2 - 0.5
    return (x, y), (-x, -y)


class AffineOperation:
    """Random rotation, shift, shear and zoom of one image, as in Keras.

    The warp is the kernels' where it can be, else scipy's: the kernels have no splines, and give
    float32. The distributions are those of ``ImageDataGenerator.get_random_transform`` in
    ``keras/src/legacy/preprocessing/image.py``.

    Args:
        spec: holds the ranges, and how the warp interpolates.
        shape: (height, width, channels) of the images.
        compute: the dtype to compute in.
    """

    def __init__(self, spec: RandomAffine, shape: tuple[int, int, int], compute: str) -> None:
        height, width = shape[:2]
        self._spec = spec
        self._shift_x = _shift(spec.height_shift_range, height)
        self._shift_y = _shift(spec.width_shift_range, width)
        self._zoom_from, zoom_to = spec.zoom_range
        self._zoom_by = zoom_to - self._zoom_from
        self._shape = shape
        self._by_scipy = needs_scipy(spec, shape, compute)
        self._how = augment.Resampling(
            spec.fill_mode, spec.cval, spec.interpolation_order, spec.compat == "fixed"
        )

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

    @cached_property
    def _kernel(self) -> Finish:
        return warp_kernel(self._spec, self._shape, planar=True)

    def image(self, x: Array, parameters: Affine) -> Array:
        """The warped image."""
        if parameters == STILL:
            return x
        if self._by_scipy or x.dtype != np.float32:
            return augment.apply_affine(x, parameters, augment.LAST, self._how)
        height, width, channels = self._shape
        matrix = matrices([parameters], (height, width), self._spec.compat)
        # As Keras has it: later sums follow the order in memory.
        planes = np.empty((channels, height, width), np.float32)
        self._kernel.one(np.require(x, requirements=["C", "A"]), matrix, None, 0, planes)
        return planes.transpose(1, 2, 0)


class FlipOperation:
    """Mirrors each image with probability 1/2, as a view.

    Args:
        spec: the directions.
    """

    def __init__(self, spec: GeneratorFlip) -> None:
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


def fits(shape: tuple[int, int, int]) -> bool:
    """Whether the kernels take images of (height, width, channels)."""
    return max(shape) <= MAX_SIDE and shape[2] <= MAX_CHANNELS and prod(shape) <= MAX_VALUES


def needs_scipy(spec: RandomAffine, shape: tuple[int, int, int], compute: str) -> bool:
    """Whether the kernels cannot do the warp of images of a shape, computed in a dtype."""
    return spec.interpolation_order > 1 or compute != "float32" or not fits(shape)


def warp_kernel(spec: RandomAffine, shape: tuple[int, int, int], **more: Any) -> Finish:
    """The kernel of a warp.

    Args:
        spec: how it interpolates, and fills.
        shape: (height, width, channels) of the images.
        more: what else it does; see ``Finish``.
    """
    return Finish(
        shape,
        fill_mode=spec.fill_mode,
        cval=spec.cval,
        order=spec.interpolation_order,
        fast=spec.precision == "fast",
        **more,
    )


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
