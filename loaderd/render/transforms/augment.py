"""Keras's augmentations of one image, operation by operation, with Keras's exact values.

Each follows the function of its name in ``keras/src/legacy/preprocessing/image.py``, including
the memory layout of the result, which affects the last bit of later sums. The common warp is in
:mod:`loaderd.render.native`, with the same values and twenty times as fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageEnhance

from loaderd.errors import InvalidArgument, MissingDependency
from loaderd.spec.base import ComputeDType
from loaderd.spec.operations import GeneratorBrightness, RandomChannelShift
from loaderd.spec.transform import Affine, Transform

Array = NDArray[Any]
Axes = tuple[int, int, int]
"""An image's axes of (rows, columns, channels)."""

LAST: Axes = (0, 1, 2)


def flip_axis(x: Array, axis: int) -> Array:
    """A view of the image, read backwards along an axis."""
    return np.flip(x, axis)


def shift_channels(x: Array, intensity: float, channel_axis: int) -> Array:
    """Adds a number of grey levels, clipped to the image's own range."""
    x = np.rollaxis(x, channel_axis, 0)
    low, high = np.min(x), np.max(x)
    shifted = np.stack([np.clip(channel + intensity, low, high) for channel in x])
    return np.rollaxis(shifted, 0, channel_axis + 1)


def shift_brightness(x: Array, brightness: float, scale: bool, dtype: DTypeLike) -> Array:
    """Multiplies the brightness, by way of a picture of 8 bits.

    Args:
        x: (height, width, channels).
        brightness: a factor.
        scale: whether the image's range is first stretched to 0 to 255.
        dtype: of the result.

    Raises:
        ValueError: the image has not 1, 3 or 4 channels.
    """
    low, high = x.min(), x.max()
    outside = bool(low < 0 or high > 255)
    picture = ImageEnhance.Brightness(to_picture(x, outside or scale, dtype)).enhance(brightness)
    x = np.asarray(picture, dtype)
    if x.ndim == 2:
        x = x[:, :, np.newaxis]
    if not outside or scale:
        return x
    stretched: Array = x / 255 * (high - low) + low
    return stretched


class ChannelShiftOperation:
    """Adds a random number of grey levels; see :func:`shift_channels`."""

    def __init__(self, spec: RandomChannelShift) -> None:
        self._range = spec.channel_shift_range

    def draw(self, uniforms: Array) -> Mapping[str, Array]:
        """Draws from uniform number 10, counted from 0."""
        return {"channel_shift_intensity": (2 * uniforms[10] - 1) * self._range}

    def image(self, x: Array, drawn: Transform) -> Array:
        """The image with grey levels added."""
        assert drawn.channel_shift_intensity is not None, "always drawn for this operation"
        return shift_channels(x, drawn.channel_shift_intensity, 2)


class BrightnessOperation:
    """Multiplies the brightness by a random factor; see :func:`shift_brightness`.

    Args:
        spec: the range of the factor.
        floatx: the dtype that Keras computes in.
    """

    def __init__(self, spec: GeneratorBrightness, floatx: ComputeDType) -> None:
        self._low, self._high = spec.brightness_range
        self._floatx = floatx

    def draw(self, uniforms: Array) -> Mapping[str, Array]:
        """Draws from uniform number 11, counted from 0."""
        return {"brightness": self._low + uniforms[11] * (self._high - self._low)}

    def image(self, x: Array, drawn: Transform) -> Array:
        """The image with its brightness multiplied."""
        assert drawn.brightness is not None, "always drawn for this operation"
        return shift_brightness(x, drawn.brightness, False, self._floatx)


def to_picture(x: Array, scale: bool, dtype: DTypeLike) -> Image.Image:
    """An image (height, width, channels) as PIL has it (Keras's ``array_to_img``).

    Args:
        x: the image.
        scale: whether its range is stretched to 0 to 255; otherwise values are truncated.
        dtype: to compute in.

    Raises:
        ValueError: the image has not 1, 3 or 4 channels.
    """
    x = np.asarray(x, dtype)
    if scale:
        x = x - np.min(x)
        highest = np.max(x)
        if highest != 0:
            x /= highest
        x *= 255
    if x.shape[2] not in (1, 3, 4):
        raise ValueError(f"Unsupported channel number: {x.shape[2]}")
    if x.shape[2] == 1:
        x = x[:, :, 0]
        if np.max(x) > 255:
            return Image.fromarray(x.astype(np.int32))
    with np.errstate(invalid="ignore"):  # NaN has no grey level
        return Image.fromarray(x.astype(np.uint8))


def affine_matrix(affine: Affine) -> Array | None:
    """Rotation · shift · shear · zoom about the origin; None if nothing moves."""
    theta, shear = np.deg2rad(affine.theta), np.deg2rad(affine.shear)
    tx, ty, zx, zy = affine.tx, affine.ty, affine.zx, affine.zy
    turn = [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    parts = (
        (affine.theta != 0, turn),
        (tx != 0 or ty != 0, [[1, 0, tx], [0, 1, ty], [0, 0, 1]]),
        (affine.shear != 0, [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]]),
        (zx != 1 or zy != 1, [[zx, 0, 0], [0, zy, 0], [0, 0, 1]]),
    )
    matrix = None
    for moves, part in parts:
        if moves:
            matrix = np.array(part) if matrix is None else np.dot(matrix, np.array(part))
    return matrix


class Resampling(NamedTuple):
    """How a warp reads its source.

    Attributes:
        fill_mode: scipy's ``mode`` outside the source.
        cval: the value outside for ``constant``.
        order: of the spline, 0 to 5.
        fixed: whether shifts and centre are corrected (``compat="fixed"``).
    """

    fill_mode: str
    cval: float
    order: int
    fixed: bool = False


def apply_affine(x: Array, affine: Affine, axes: Axes, how: Resampling) -> Array:
    """Warps an image with scipy, bit-identical to Keras.

    Args:
        x: the image.
        affine: the parameters.
        axes: the image's axes.
        how: to read the image.

    Raises:
        MissingDependency: scipy is not installed.
        RuntimeError: scipy does not support the image's dtype.
    """
    rows, columns, channels = axes
    size = (x.shape[columns], x.shape[rows]) if how.fixed else (x.shape[rows], x.shape[columns])
    if how.fixed:
        affine = affine._replace(tx=affine.ty, ty=affine.tx)
    matrix = affine_matrix(affine)
    if matrix is None:
        return x
    matrix = about_center(matrix, *size)
    if columns > rows:
        matrix[:, [0, 1]] = matrix[:, [1, 0]]
        matrix[[0, 1]] = matrix[[1, 0]]
    warp = _scipy_ndimage().affine_transform
    warped = [
        warp(
            channel,
            matrix[:2, :2],
            matrix[:2, 2],
            order=how.order,
            mode=how.fill_mode,
            cval=how.cval,
        )
        for channel in np.rollaxis(x, channels, 0)
    ]
    stacked: Array = np.rollaxis(np.stack(warped), 0, channels + 1)
    return stacked


def about_center(matrix: Array, x: int, y: int) -> Any:
    """The matrix of the same map about the point (x / 2 - 0.5, y / 2 - 0.5), as in Keras."""
    center_x, center_y = float(x) / 2 - 0.5, float(y) / 2 - 0.5
    there = np.array([[1, 0, center_x], [0, 1, center_y], [0, 0, 1]])
    back = np.array([[1, 0, -center_x], [0, 1, -center_y], [0, 0, 1]])
    return np.dot(np.dot(there, matrix), back)


def _scipy_ndimage() -> Any:
    """Imports scipy.ndimage on first use, as the common warp is the kernels'."""
    try:
        return import_module("scipy.ndimage")
    except ImportError as error:
        raise MissingDependency(
            'this warp needs scipy, which this Python lacks: pip install "loaderd[daemon]"'
        ) from error


def check_axes(x: Array, axes: Axes) -> None:
    """Raises InvalidArgument, in Keras's words, unless this is an image with these axes."""
    if len(set(axes)) != 3:
        raise InvalidArgument("'row_axis', 'col_axis', and 'channel_axis' must be distinct")
    if set(axes) != {0, 1, 2}:
        raise InvalidArgument(f"Invalid axis' indices: {set(axes) - {0, 1, 2}}")
    if x.ndim != 3:
        raise InvalidArgument("Input arrays must be multi-channel 2D images.")
    if axes[2] not in (0, 2):
        raise InvalidArgument("Channels are allowed and the first and last dimensions.")
