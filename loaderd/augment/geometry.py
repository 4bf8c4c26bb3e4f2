"""Operations that move pixels, and keep the size of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Range, Size, bounds
from loaderd.augment.warps import (
    FillMode,
    Interpolation,
    Matrix,
    Point,
    WarpStyle,
    perspective,
    rotation,
    shear,
    translation,
    zoom,
)

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

_BACKWARDS = -1.0
"""The lowest of a factor whose one number stands for both directions."""
_ALPHA, _SIGMA = 0.1, 0.05
"""Of an elastic transform of scale 1, as fractions of the longer and the shorter side."""


class RandomFlip(ImageOperation, frozen=True):
    """Mirrors each image with probability 1/2 in each direction; as ``keras.layers.RandomFlip``.

    Args:
        mode: ``horizontal`` (left to right), ``vertical`` (upside down), or
            ``horizontal_and_vertical``.
    """

    mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal_and_vertical"

    def draw(self, draws: Draws, size: Size) -> tuple[bool, bool]:
        """(left to right, upside down)."""
        across, down = draws.happens(0.5), draws.happens(0.5)
        return across and self.mode != "vertical", down and self.mode != "horizontal"

    def apply(self, canvas: Canvas, parameters: tuple[bool, bool]) -> None:
        """Mirrors the image."""
        if any(parameters):
            canvas.flip(*parameters)


class _Warping(ImageOperation, frozen=True):
    """Warps each image by a matrix. Subclasses have the arguments of a ``WarpStyle``."""

    def check(self) -> None:
        """Raises InvalidArgument for a fill value that is no grey level."""
        if not 0 <= self._style.fill_value <= 255:
            raise self.refusal("fill_value", "must be from 0 to 255")

    @property
    def _style(self) -> WarpStyle:
        return WarpStyle(*(getattr(self, name) for name in WarpStyle._fields))

    def matrix(self, parameters: Any, size: Size) -> Matrix:
        """The matrix for parameters that were drawn for an image of (height, width)."""
        raise NotImplementedError

    def apply(self, canvas: Canvas, parameters: Any) -> None:
        """Warps the image, unless the parameters are None."""
        if parameters is not None:
            canvas.warp(self.matrix(parameters, canvas.size), self._style)


class RandomRotation(_Warping, frozen=True):
    """Turns each image about its centre by a random angle; as ``keras.layers.RandomRotation``.

    Args:
        factor: (lower, upper) of the angle, counter-clockwise, as a fraction of a full turn, from
            -1 to 1; one number is the upper, and the lower is its negative.
        fill_mode: how points outside of the image are filled: ``constant``, ``nearest``,
            ``reflect`` or ``wrap``. (``wrap`` repeats the image, as in
            ``keras.ops.image.map_coordinates``; Keras's layers on TensorFlow double an edge.)
        interpolation: ``nearest`` or ``bilinear``.
        fill_value: the grey level for ``constant``, from 0 to 255.
    """

    factor: Range
    fill_mode: FillMode = "reflect"
    interpolation: Interpolation = "bilinear"
    fill_value: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for numbers that are out of their range."""
        super().check()
        self.check_range("factor", lowest=_BACKWARDS)

    def draw(self, draws: Draws, size: Size) -> float:
        """The angle in degrees."""
        low, high = bounds(self.factor, _BACKWARDS)
        return draws.uniform(low * 360.0, high * 360.0)

    def matrix(self, parameters: float, size: Size) -> Matrix:
        """That of a rotation."""
        return rotation(parameters, size)


class RandomTranslation(_Warping, frozen=True):
    """Moves each image by random distances; as ``keras.layers.RandomTranslation``.

    Args:
        height_factor: (lower, upper) of the distance down, as a fraction of the height, from -1
            to 1; one number is the upper, and the lower is its negative.
        width_factor: the same of the distance to the right, as a fraction of the width.
        fill_mode: see ``RandomRotation``.
        interpolation: ``nearest`` or ``bilinear``.
        fill_value: the grey level for ``constant``, from 0 to 255.
    """

    height_factor: Range
    width_factor: Range
    fill_mode: FillMode = "reflect"
    interpolation: Interpolation = "bilinear"
    fill_value: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for numbers that are out of their range."""
        super().check()
        self.check_range("height_factor", "width_factor", lowest=_BACKWARDS)

    def draw(self, draws: Draws, size: Size) -> Point:
        """The distances (right, down) in pixels."""
        down = draws.uniform(*bounds(self.height_factor, _BACKWARDS)) * size[0]
        return draws.uniform(*bounds(self.width_factor, _BACKWARDS)) * size[1], down

    def matrix(self, parameters: Point, size: Size) -> Matrix:
        """That of a translation."""
        return translation(*parameters)


class RandomZoom(_Warping, frozen=True):
    """Shows a larger or a smaller part of each image; as ``keras.layers.RandomZoom``.

    Args:
        height_factor: (lower, upper) of what is shown more of the height, as a fraction, above -1
            and up to 1: the image shrinks if positive, and grows if negative. One number is the
            upper, and the lower is its negative.
        width_factor: the same of the width; None for that of the height.
        fill_mode: see ``RandomRotation``.
        interpolation: ``nearest`` or ``bilinear``.
        fill_value: the grey level for ``constant``, from 0 to 255.
    """

    height_factor: Range
    width_factor: Range | None = None
    fill_mode: FillMode = "reflect"
    interpolation: Interpolation = "bilinear"
    fill_value: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for numbers that are out of their range."""
        super().check()
        for name in ("height_factor", "width_factor"):
            if getattr(self, name) is not None:
                self.check_range(name, lowest=_BACKWARDS)
                if bounds(getattr(self, name), _BACKWARDS)[0] == -1:
                    raise self.refusal(name, "must be above -1: nothing would be shown")

    def draw(self, draws: Draws, size: Size) -> Point:
        """The parts that are shown, (of the width, of the height), as fractions."""
        down = 1 + draws.uniform(*bounds(self.height_factor, _BACKWARDS))
        if self.width_factor is None:
            return down, down
        return 1 + draws.uniform(*bounds(self.width_factor, _BACKWARDS)), down

    def matrix(self, parameters: Point, size: Size) -> Matrix:
        """That of a zoom."""
        return zoom(*parameters, size)


class RandomShear(_Warping, frozen=True):
    """Moves rows and columns of each image against one another; as ``keras.layers.RandomShear``.

    The first pixel keeps its place. Both directions have the same random sign.

    Args:
        x_factor: (lower, upper) of the distance that each row moves further than the row above, in
            pixels, from 0 to 1; one number is the upper, and the lower is its negative.
        y_factor: the same for columns.
        interpolation: ``nearest`` or ``bilinear``.
        fill_mode: see ``RandomRotation``.
        fill_value: the grey level for ``constant``, from 0 to 255.
    """

    x_factor: Range = 0.0
    y_factor: Range = 0.0
    interpolation: Interpolation = "bilinear"
    fill_mode: FillMode = "reflect"
    fill_value: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for numbers that are out of their range."""
        super().check()
        self.check_range("x_factor", "y_factor")

    def draw(self, draws: Draws, size: Size) -> Point:
        """The distances (of rows, of columns), in pixels for each pixel."""
        sign = -1.0 if draws.happens(0.5) else 1.0
        down = draws.uniform(*bounds(self.y_factor, _BACKWARDS)) * sign
        return draws.uniform(*bounds(self.x_factor, _BACKWARDS)) * sign, down

    def matrix(self, parameters: Point, size: Size) -> Matrix:
        """That of a shear."""
        return shear(*parameters)


class RandomPerspective(_Warping, frozen=True):
    """Moves the corners of some of the images; as ``keras.layers.RandomPerspective``.

    As there, the first corner stays, its neighbours move along their edges, and the last in both
    directions. Points outside of the image are filled with a constant.

    Args:
        factor: (lower, upper) of the probability, from 0 to 1, which is drawn for each image; one
            number is the upper, and the lower is 0.
        scale: the largest distance that a corner moves, as a fraction of half a side, from 0 to 1.
        interpolation: ``nearest`` or ``bilinear``.
        fill_value: the grey level outside of the image, from 0 to 255.
    """

    factor: Range = 1.0
    scale: float = 1.0
    interpolation: Interpolation = "bilinear"
    fill_value: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for numbers that are out of their range."""
        super().check()
        self.check_range("factor")
        if not 0 <= self.scale <= 1:
            raise self.refusal("scale", "must be from 0 to 1")

    @property
    def _style(self) -> WarpStyle:
        return WarpStyle(self.interpolation, "constant", self.fill_value)

    def draw(self, draws: Draws, size: Size) -> tuple[Point, ...] | None:
        """By which fraction each corner's (x, y) grow; None for an image that stays as it is.

        The corners are those at the top, left and right, then those at the bottom.
        """
        if not draws.happens(draws.uniform(*bounds(self.factor))):
            return None
        most = 0.5 * self.scale
        return tuple((draws.uniform(-most, most), draws.uniform(-most, most)) for _ in range(4))

    def matrix(self, parameters: tuple[Point, ...], size: Size) -> Matrix:
        """That of the corners, which are centres of pixels, and counted from the first."""
        right, bottom = (max(length - 1, 1) for length in reversed(size))
        start = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
        grown = zip(start, parameters, strict=True)
        end = [(x * (1 + by_x), y * (1 + by_y)) for (x, y), (by_x, by_y) in grown]
        moved = perspective(start, end)
        return translation(-0.5, -0.5) @ moved @ translation(0.5, 0.5)


class RandomElasticTransform(_Warping, frozen=True):
    """Distorts some of the images as rubber; as ``keras.layers.RandomElasticTransform``.

    Each pixel is read from a random place beside it; the distances are Gaussian noise that is
    blurred, so that neighbours move together. Keras draws one scale for a batch.

    Args:
        factor: (lower, upper) of the probability, from 0 to 1, which is drawn for each image; one
            number is the upper, and the lower is 0.
        scale: (lower, upper) of the strength, from 0 to 1; one number is the upper, and the lower
            is 0. The noise's amplitude is a tenth of it times the longer side, the blur's standard
            deviation a twentieth of it times the shorter.
        interpolation: ``nearest`` or ``bilinear``.
        fill_mode: see ``RandomRotation``.
        fill_value: the grey level for ``constant``, from 0 to 255.
    """

    factor: Range = 1.0
    scale: Range = 1.0
    interpolation: Interpolation = "bilinear"
    fill_mode: FillMode = "reflect"
    fill_value: float = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for numbers that are out of their range."""
        super().check()
        self.check_range("factor", "scale")

    def draw(self, draws: Draws, size: Size) -> tuple[float, NDArray[np.float32]] | None:
        """The strength, and normal noise (2, height, width); None for an image that stays."""
        if not draws.happens(draws.uniform(*bounds(self.factor))):
            return None
        strength = draws.uniform(*bounds(self.scale))
        return (strength, draws.normals((2, *size))) if strength else None

    def apply(self, canvas: Canvas, parameters: tuple[float, NDArray[np.float32]] | None) -> None:
        """Distorts the image."""
        if parameters is None:
            return
        x, y = distances(*parameters)
        canvas.displace(x, y, self._style)


def distances(strength: float, noise: NDArray[np.float32]) -> tuple[Any, Any]:
    """How far to the right, and how far below, an elastic transform reads each pixel.

    Args:
        strength: from 0 (excluded) to 1.
        noise: standard normal, (2, height, width).

    Returns:
        Two float32 arrays (height, width), in pixels.
    """
    import cv2

    size = noise.shape[1:]
    alpha, sigma = _ALPHA * strength * max(size), _SIGMA * strength * min(size)
    width = 6 * int(sigma) | 1
    blurred = [
        cv2.GaussianBlur(one, (width, width), sigma, borderType=cv2.BORDER_CONSTANT)
        for one in noise
    ]
    return blurred[0] * np.float32(alpha * sigma), blurred[1] * np.float32(alpha * sigma)
