"""Random rotation, shift, shear, zoom and flips of one image, as in Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.render.native.kernels import MAX_CHANNELS, MAX_SIDE, MAX_VALUES, Finish
from loaderd.render.transforms import augment
from loaderd.spec.base import Compat
from loaderd.spec.operations import GeneratorFlip, RandomAffine
from loaderd.spec.transform import AFFINE, Affine, Transform, Transforms

STILL = Affine()

Array = NDArray[Any]
Shift = Callable[[Array, Array], Array]


def matrices(drawn: Transforms, size: tuple[int, int], compat: Compat) -> Array:
    """The matrices of warps, with the last bits of Keras's.

    Each is that of ``apply_affine_transform`` in ``keras/src/legacy/preprocessing/image.py``:
    rotation, shift, shear and zoom about the centre. What Keras calls x are the columns (it swaps
    the axes at the end), so its first shift, drawn from the height's range, moves columns; and
    its centre is that of the swapped size, which is off for images that are not square.

    Args:
        drawn: the parameters.
        size: (height, width) of the images, in pixels.
        compat: ``fixed`` corrects shifts and centre.

    Returns:
        Rows of six float64: a pixel (y, x) of the result is read at (m[2] + m[0] y + m[1] x,
        m[5] + m[3] y + m[4] x). NaN for parameters that move nothing.
    """
    affines = drawn[:, AFFINE]
    theta, tx, ty, shear, zx, zy = affines.T
    height, width = size
    if compat == "fixed":
        tx, ty, height, width = ty, tx, width, height
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    turn, shift, sheared, zoom = made = np.empty((4, len(drawn), 3, 3))
    made[:] = _IDENTITY
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(theta)
    turn[:, 1, 0] = np.sin(theta)
    turn[:, 0, 1] = -turn[:, 1, 0]
    shift[:, 0, 2], shift[:, 1, 2] = tx, ty
    sheared[:, 0, 1] = -np.sin(shear)
    sheared[:, 1, 1] = np.cos(shear)
    zoom[:, 0, 0], zoom[:, 1, 1] = zx, zy
    # About the centre, which Keras multiplies last: products of identities change no bit.
    to, back = _centers(height, width)
    product = to @ (turn @ shift @ sheared @ zoom) @ back
    result: Array = product.reshape(-1, 9).take(_YX, axis=1)
    result[(affines == STILL).all(axis=1)] = np.nan
    return result


_IDENTITY = np.eye(3)
_YX = np.array([4, 3, 5, 1, 0, 2])
"""Places in a matrix: of its second row, then of its first, with y before x."""


@cache
def _centers(height: float, width: float) -> tuple[Array, Array]:
    """The matrices that move the centre to the origin's place, and back."""
    to, back = _IDENTITY.copy(), _IDENTITY.copy()
    to[:2, 2] = height / 2 - 0.5, width / 2 - 0.5
    back[:2, 2] = -to[:2, 2]
    return to, back


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

    def draw(self, uniforms: Array) -> Mapping[str, Array]:
        """Draws from uniform numbers 0 to 7."""
        turn, x, x_sign, y, y_sign, shear, zx, zy = uniforms[:8]
        return {
            "theta": (2 * turn - 1) * self._spec.rotation_range,
            "tx": self._shift_x(x, x_sign),
            "ty": self._shift_y(y, y_sign),
            "shear": (2 * shear - 1) * self._spec.shear_range,
            "zx": self._zoom_from + zx * self._zoom_by,
            "zy": self._zoom_from + zy * self._zoom_by,
        }

    @cached_property
    def _kernel(self) -> Finish:
        return warp_kernel(self._spec, self._shape, planar=True)

    def image(self, x: Array, drawn: Transform) -> Array:
        """The warped image."""
        if drawn.affine == STILL:
            return x
        if self._by_scipy or x.dtype != np.float32:
            return augment.apply_affine(x, drawn.affine, augment.LAST, self._how)
        height, width, channels = self._shape
        matrix = matrices(np.array([drawn], np.float64), (height, width), self._spec.compat)
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

    def draw(self, uniforms: Array) -> Mapping[str, Array]:
        """Draws from uniform numbers 8 and 9."""
        return {
            "flip_horizontal": uniforms[8] < self._horizontal,
            "flip_vertical": uniforms[9] < self._vertical,
        }

    def image(self, x: Array, drawn: Transform) -> Array:
        """The image, or a mirrored view of it."""
        if drawn.flip_horizontal:
            x = augment.flip_axis(x, 1)
        if drawn.flip_vertical:
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
    """The function from uniforms to shifts in pixels; ``size`` is the image's on that axis.

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


def _no_shift(uniform: Array, sign: Array) -> Array:
    return np.zeros_like(uniform)


def _uniform(reach: float) -> Shift:
    return lambda uniform, sign: (2 * uniform - 1) * reach


def _choice(values: list[float] | list[int]) -> Shift:
    choices = np.array(values, np.float64)

    def choose(uniform: Array, sign: Array) -> Array:
        chosen: Array = choices[(uniform * len(choices)).astype(np.int64)]
        return np.where(sign < 0.5, -chosen, chosen)

    return choose
