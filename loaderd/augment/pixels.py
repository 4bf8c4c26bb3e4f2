"""What a canvas does to pixels, masks and targets; pure.

Pixels are arrays or PIL images. Coordinates are continuous: the pixel in row i and column j covers
i to i + 1 and j to j + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderd.augment.targets import Targets
from loaderd.augment.warps import (
    FillMode,
    Filter,
    Interpolation,
    Matrix,
    Size,
    WarpStyle,
    translation,
)
from loaderd.errors import RenderError

Pixels = NDArray[np.uint8]
"""(height, width, channels)."""
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""
Flips = tuple[bool, bool]
"""(left to right, upside down)."""
Distances = NDArray[np.float32]
"""(height, width), in pixels."""
Masks = tuple[NDArray[Any], ...]
"""Each (height, width), integers."""

_BORDERS: dict[FillMode, int] = {
    "constant": cv2.BORDER_CONSTANT,
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
}
_READINGS: dict[Interpolation, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
}
_FILTERS: dict[Filter, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
_BYTES = np.dtype(np.uint8)
_MODES = ("L", "RGB", "RGBX", "RGBA")
_FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}
"""OpenCV's codes."""
_MAX_SIDE = 2**15 - 2
"""Of what ``cv2.remap`` takes; warps by a matrix have no limit."""


class Window(NamedTuple):
    """A part of the image, resized, then mirrored: geometry without rotation.

    Attributes:
        box: in the image; whole numbers while there is no filter.
        size: of the result.
        filter: of the resize; None while the part keeps its size.
        flips: of the result.
        edge: the part that was resized, in the image: a filter sees nothing beyond it. Without a
            filter, it is the box.
    """

    box: Box
    size: Size
    filter: Filter | None = None
    flips: Flips = (False, False)
    edge: Box | None = None

    def part(self, box: Box, size: Size) -> Window:
        """A part of the result, to be resized to ``size``."""
        (rows, columns), (left, top, right, bottom) = self.size, box
        if self.flips[0]:
            left, right = columns - right, columns - left
        if self.flips[1]:
            top, bottom = rows - bottom, rows - top
        x, y, end_x, end_y = self.box
        across, down = (end_x - x) / columns, (end_y - y) / rows
        edges = (x + left * across, y + top * down, x + right * across, y + bottom * down)
        return Window(edges, size, self.filter, self.flips, self.edge)

    def mirrored(self, flips: Flips) -> Window:
        """The same, mirrored once more."""
        (across, down), now = flips, self.flips
        flips = (now[0] != across, now[1] != down)
        return Window(self.box, self.size, self.filter, flips, self.edge)

    @property
    def matrix(self) -> Matrix:
        """The same as a matrix."""
        left, top, right, bottom = self.box
        across, down = (right - left) / self.size[1], (bottom - top) / self.size[0]
        x = (-across, right) if self.flips[0] else (across, left)
        y = (-down, bottom) if self.flips[1] else (down, top)
        return np.array([[x[0], 0.0, x[1]], [0.0, y[0], y[1]], [0.0, 0.0, 1.0]])

    def applied(self, image: Pixels | Image.Image) -> Pixels | Image.Image:
        """The part; its rows may be further apart in memory than they are long."""
        part = self.before_flips(image)
        return _mirrored(pixels_of(part), self.flips) if any(self.flips) else part

    def before_flips(self, image: Pixels | Image.Image) -> Pixels | Image.Image:
        """The part before it is mirrored."""
        height, width = self.size
        left, top = int(self.box[0]), int(self.box[1])
        whole = (left, top, left + width, top + height)
        if self.box != whole:
            filter = _FILTERS[self.filter or "bilinear"]
            return _resized(image, self.box, (width, height), filter, self.edge or self.box)
        return image if self.size == size_of(image) else pixels_of(image, whole)


class Warp(NamedTuple):
    """Geometry of any kind.

    Attributes:
        matrix: takes points of the result to points of the image.
        size: of the result.
        style: how the image is read.
    """

    matrix: Matrix
    size: Size
    style: WarpStyle

    def applied(self, image: Pixels | Image.Image) -> Pixels:
        """The image, read by OpenCV."""
        # OpenCV counts from the centres of pixels.
        matrix = translation(0.5, 0.5) @ self.matrix @ translation(-0.5, -0.5)
        pixels, size, how = pixels_of(image), self.size[::-1], _how(self.style)
        flags = _READINGS[self.style.interpolation] | cv2.WARP_INVERSE_MAP
        if tuple(matrix[2]) == (0, 0, 1):
            result = cv2.warpAffine(pixels, matrix[:2], size, flags=flags, **how)
        else:
            result = cv2.warpPerspective(pixels, matrix, size, flags=flags, **how)
        return _shaped(result, self.size)


def _resized(
    image: Pixels | Image.Image,
    box: Box,
    size: tuple[int, int],
    filter: Image.Resampling,
    edge: Box,
) -> Image.Image:
    """A part, resized; as if there were no pixels beyond the edge, if that is of whole pixels."""
    left, top, right, bottom = map(int, edge)
    if (left, top, right, bottom) != edge:
        left, top = 0, 0
        bottom, right = size_of(image)
    part = (left, top, right, bottom)
    if isinstance(image, Image.Image) and image.mode != "RGBA":
        picture = image if part == (0, 0, *image.size) else image.crop(part)
    else:
        picture = _picture(pixels_of(image, part))
    within = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return picture.resize(size, filter, box=within)


def flipping(size: Size, flips: Flips) -> Window:
    """The whole of an image, mirrored."""
    return Window((0, 0, size[1], size[0]), size, None, flips)


def displaced(pixels: Pixels, x: Distances, y: Distances, style: WarpStyle) -> Pixels:
    """Pixels that are read so far to the right of themselves, and so far below.

    Raises:
        RenderError: the image is too long or too wide for OpenCV.
    """
    height, width = size_of(pixels)
    if max(height, width) > _MAX_SIDE:
        raise RenderError(
            f"an elastic transform takes up to {_MAX_SIDE} pixels each way, and this image has "
            f"{width}x{height}: resize or crop it first"
        )
    columns = x + np.arange(width, dtype=np.float32)
    rows = y + np.arange(height, dtype=np.float32)[:, np.newaxis]
    reading = _READINGS[style.interpolation]
    return _shaped(cv2.remap(pixels, columns, rows, reading, **_how(style)), (height, width))


def _how(style: WarpStyle) -> dict[str, Any]:
    return {
        "borderMode": _BORDERS[style.fill_mode],
        "borderValue": (style.fill_value,) * 4,
    }


def _shaped(pixels: Any, size: Size) -> Pixels:
    """With an axis of channels, which OpenCV leaves out if there is one."""
    shaped: Pixels = pixels.reshape(*size, -1)
    return shaped


def _mirrored(pixels: Pixels, flips: Flips) -> Pixels:
    return _shaped(cv2.flip(pixels, _FLIPS[flips]), size_of(pixels))


# -- targets ---------------------------------------------------------------------------


def moved(targets: Targets, geometry: Window | Warp) -> Targets:
    """The targets of an image after it was moved."""
    if isinstance(geometry, Window):
        masks = tuple(_picked(mask, geometry) for mask in targets.masks)
    else:
        warp = geometry._replace(style=_for_masks(geometry.style))
        masks = _read(targets.masks, warp.applied)
    return targets.moved(geometry.matrix, geometry.size)._replace(masks=masks)


def displaced_masks(masks: Masks, x: Distances, y: Distances, style: WarpStyle) -> Masks:
    """Masks beside an image after ``displaced``."""
    return _read(masks, lambda pixels: displaced(pixels, x, y, _for_masks(style)))


def _for_masks(style: WarpStyle) -> WarpStyle:
    return WarpStyle("nearest", style.fill_mode)


def _read(masks: Masks, read: Callable[[Any], Pixels]) -> Masks:
    """The masks, read as images of bytes or words, as OpenCV lacks some kinds of integers."""
    results = []
    for mask in masks:
        kind = np.uint8 if mask.itemsize in (1, 4) else np.uint16
        words = np.ascontiguousarray(mask)[..., np.newaxis].view(kind)
        results.append(read(words).view(mask.dtype)[..., 0])
    return tuple(results)


def _picked(mask: NDArray[Any], part: Window) -> NDArray[Any]:
    """The part by nearest neighbour."""
    left, top, right, bottom = part.box
    rows = _places(top, bottom, part.size[0], part.flips[1])
    columns = _places(left, right, part.size[1], part.flips[0])
    return mask.take(rows, axis=0).take(columns, axis=1)


def _places(first: float, end: float, count: int, backwards: bool) -> NDArray[np.intp]:
    """The pixels in which the centres of the result's pixels lie."""
    places = (first + (np.arange(count) + 0.5) * ((end - first) / count)).astype(np.intp)
    return places[::-1] if backwards else places


# -- PIL -------------------------------------------------------------------------------


def check_kind(picture: Pixels | Image.Image) -> None:
    """Raises RenderError for a picture that has other than 8 bits for each channel."""
    kind: Any
    if isinstance(picture, Image.Image):
        kind, fits = picture.mode, picture.mode in _MODES
    else:
        kind, fits = picture.dtype, picture.dtype == _BYTES
    if not fits:
        raise RenderError(f"augment takes images of bytes, and this one is {kind}")


def size_of(image: Pixels | Image.Image) -> Size:
    """(height, width)."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    height, width, _ = image.shape
    return height, width


def pixels_of(image: Pixels | Image.Image, box: tuple[int, int, int, int] | None = None) -> Pixels:
    """The pixels of an image, or of a part of it."""
    if not isinstance(image, Image.Image):
        return image[box[1] : box[3], box[0] : box[2]] if box else image
    left, top, right, bottom = box or (0, 0, *image.size)
    if image.mode == "RGB":
        return np.asarray(image.crop((left, top, right, bottom)))
    # NumPy would copy the whole image twice, by way of bytes; PIL pastes a part into an array.
    pixels: Pixels = np.empty((bottom - top, right - left, len(image.mode)), np.uint8)
    window = _viewed(pixels, image.mode)
    window.readonly = 0
    window.paste(image, (-left, -top))
    if image.mode == "RGBX":
        return _shaped(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), size_of(pixels))
    return pixels


def _picture(pixels: Pixels) -> Image.Image:
    """The pixels as a PIL image; RGB becomes RGBX, three times as fast as by PIL."""
    if pixels.shape[2] == 3:
        return _viewed(_shaped(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA), size_of(pixels)), "RGBX")
    # Of mode RGBA, PIL would multiply colours by alpha before it resizes.
    return _viewed(np.ascontiguousarray(pixels), "L" if pixels.shape[2] == 1 else "CMYK")


def _viewed(pixels: Pixels, mode: str) -> Image.Image:
    """A PIL image whose memory is an array's; not of mode RGB."""
    height, width, _ = pixels.shape
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
