"""Resizes pictures to arrays of the target size, with the pixels of Keras.

PIL resizes, as in Keras, with one exception: OpenCV's ``INTER_NEAREST_EXACT`` picks the same
pixels as PIL's NEAREST, without PIL's four bytes a pixel for JPEGs. (For a box within
the picture PIL rounds differently, so PIL does crops too.)

The frame, the part of a picture that is resized, is computed for its true size. A reduced picture
is read at the same places, if necessary with fractional edges.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from math import ceil
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderd.render.load.pixel_limits import DEFAULT, PixelLimit, TooManyPixels
from loaderd.spec.base import Aspect, Interpolation
from loaderd.spec.load import Load

Pixels = NDArray[Any]
Size = tuple[int, int]
"""(width, height) in pixels: PIL's order."""
Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels; may extend beyond the picture."""

REDUCTIONS = (8, 4, 2)
"""Factors at which libjpeg decodes fast; those between are slower than the full size."""

_FEW = 3
"""Where fewer than one in so many pixels is kept, decoding only those is faster."""

_WEIGHTS = 12  # in pixels' worth of memory: lanczos uses six weights, in float64

FILTERS = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}


class Reduced(NamedTuple):
    """A picture that was decoded at a fraction of its size.

    Attributes:
        image: the small picture, or a part of it; its last column and row may be partial.
        reduction: pixels of the true picture per pixel of the small one, each way.
        size: of the true picture.
        skip: (columns, rows) before the true picture, in pixels of the true size; negative where
            the image begins within it.
    """

    image: Image.Image
    reduction: int
    size: Size
    skip: Size = (0, 0)


class PicturePart(NamedTuple):
    """What is needed of a picture.

    Attributes:
        reduction: by which it may be reduced: 8, 4, 2, or 1.
        box: the pixels of the true picture that are needed, within it; None for all.
    """

    reduction: int = 1
    box: Box | None = None


class PixelPlaces(NamedTuple):
    """The pixels that a nearest-neighbour resize keeps.

    Attributes:
        rows: int32 (target height,).
        columns: int32 (target width,).
    """

    rows: Pixels
    columns: Pixels


def takes_arrays(load: Load) -> bool:
    """Whether a resizer is faster with arrays of three channels than with PIL images."""
    return load.interpolation == "nearest" and load.aspect in ("stretch", "pad")


class Resizer:
    """Resizes pictures; those of the target size are not changed.

    Args:
        load: the target size, the filter, and the treatment of other aspect ratios.
        limit: of a picture's pixels. Padded and half-resized pictures have the same limit, but at
            least the default.
    """

    def __init__(self, load: Load, limit: PixelLimit = DEFAULT) -> None:
        self._size = (load.target_size[1], load.target_size[0])
        self._filter = FILTERS[load.interpolation]
        self._frame = _FRAMES[load.aspect]
        self._pads = load.aspect == "pad"
        self._limit = max(limit, DEFAULT)  # by their pixels
        self._max_pixels = self._limit.pixels
        # Antialiased filters span the pixels of two target pixels or more.
        self._min_ratio = 1 if load.interpolation == "nearest" else 2
        self._rgb = np.empty((*load.target_size, 3), np.uint8)
        self._window = cache(partial(_Window, size=self._size))  # by mode

    def reduction(self, size: Size) -> int:
        """The factor by which a picture may be reduced before it is resized: 8, 4, 2, or 1.

        The frame keeps at least twice the target's pixels each way, or, with ``nearest``,
        the target's.
        """
        left, top, right, bottom = self._frame(size, self._size)
        columns, rows = self._min_ratio * self._size[0], self._min_ratio * self._size[1]
        for factor in REDUCTIONS:
            if -(-(right - left) // factor) >= columns and -(-(bottom - top) // factor) >= rows:
                return factor
        return 1

    def part(self, size: Size) -> PicturePart:
        """What is needed of a picture: all, reduced."""
        return PicturePart(self.reduction(size))

    def picks(self, size: Size) -> PixelPlaces | None:
        """The pixels of a picture that the target keeps; None if they are not few.

        Only where ``takes_arrays``.
        """
        columns, rows = self._size
        if self._pads or _FEW * columns * rows >= size[0] * size[1]:
            return None
        return PixelPlaces(_nearest(size[1], rows), _nearest(size[0], columns))

    def __call__(self, picture: Image.Image | Pixels | Reduced) -> Pixels:
        """The picture in the target size: (height, width, channels).

        Args:
            picture: an array only where ``takes_arrays``: (height, width, 3), uint8.

        Returns:
            Pixels of the picture's dtype, valid until the next call, and as long as the
            picture.

        Raises:
            TooManyPixels: an intermediate of a very narrow picture would be too large.
            ValueError: PIL cannot resize pictures of this mode, or the frame is empty.
        """
        if isinstance(picture, np.ndarray):
            return self._resize_array(picture)
        if isinstance(picture, Reduced):
            return self._to_array(self._fit(*picture))
        if picture.size != self._size:
            picture = self._fit(picture, 1, picture.size)
        return self._to_array(picture)

    def _fit(
        self, image: Image.Image, reduction: int, size: Size, skip: Size = (0, 0)
    ) -> Image.Image:
        frame = self._frame(size, self._size)
        left, right = ((edge + skip[0]) / reduction for edge in frame[::2])
        top, bottom = ((edge + skip[1]) / reduction for edge in frame[1::2])
        columns = ceil(max(-left, right - image.width, 0))
        rows = ceil(max(-top, bottom - image.height, 0))
        if columns or rows:
            image = self._padded(image, columns, rows)
            left, top, right, bottom = left + columns, top + rows, right + columns, bottom + rows
        self._check_intermediates(image.width, ceil(bottom - top))
        return image.resize(self._size, self._filter, box=(left, top, right, bottom))

    def _padded(self, image: Image.Image, columns: int, rows: int) -> Image.Image:
        size = (image.width + 2 * columns, image.height + 2 * rows)
        self._check_padded(size)
        canvas = Image.new(image.mode, size)
        canvas.paste(image, (columns, rows))
        return canvas

    def _check_padded(self, size: Size) -> None:
        if size[0] * size[1] > self._max_pixels:
            raise TooManyPixels(f"{size[0]}x{size[1]} pixels with the padding", self._limit)

    def _check_intermediates(self, columns: int, rows: int) -> None:
        """Checks PIL's intermediates: all rows at the target's width, and the weights."""
        if self._min_ratio == 1:
            return  # nearest needs no intermediates
        if max(self._size[0] * rows, _WEIGHTS * columns, _WEIGHTS * rows) > self._max_pixels:
            raise TooManyPixels(f"what resizing {columns}x{rows} pixels takes", self._limit)

    def _resize_array(self, pixels: Pixels) -> Pixels:
        size = (pixels.shape[1], pixels.shape[0])
        if size == self._size:
            return pixels
        if self._pads:
            pixels = self._padded_array(pixels, *pad_margins(size, self._size))
        return cv2.resize(pixels, self._size, dst=self._rgb, interpolation=cv2.INTER_NEAREST_EXACT)

    def _padded_array(self, pixels: Pixels, columns: int, rows: int) -> Pixels:
        height, width = pixels.shape[0] + 2 * rows, pixels.shape[1] + 2 * columns
        self._check_padded((width, height))
        canvas = np.empty((height, width, 3), np.uint8)  # raises MemoryError, not OpenCV's error
        return cv2.copyMakeBorder(
            pixels, rows, rows, columns, columns, cv2.BORDER_CONSTANT, dst=canvas
        )

    def _to_array(self, image: Image.Image) -> Pixels:
        pixels = self._window(image.mode).pixels_of(image)
        if image.mode == "RGBX":
            return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB, dst=self._rgb)
        return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


class _Window:
    """Gives the pixels of PIL images of one mode and size, five times as fast as NumPy.

    NumPy copies an image's pixels twice, by way of ``bytes``. Here PIL pastes the image into
    one whose memory is an array's.
    """

    def __init__(self, mode: str, size: Size) -> None:
        self._image: Image.Image | None = None
        if mode in ("L", "RGBA", "RGBX"):
            self._pixels = np.zeros((size[1], size[0], len(mode)), np.uint8)
            image = Image.frombuffer(mode, size, self._pixels, "raw", mode, 0, 1)
            image.readonly = 0
            image.paste((1,) * len(mode) if len(mode) > 1 else 1, (0, 0, *size))
            if self._pixels.all():  # else this PIL copied the memory
                self._image = image

    def pixels_of(self, image: Image.Image) -> Pixels:
        """(height, width, channels) or (height, width), valid until the next call."""
        if self._image is None:
            return np.asarray(image)
        self._image.paste(image)
        return self._pixels


@lru_cache(1024)
def _nearest(length: int, target: int) -> Pixels:
    """The places that OpenCV picks of so many pixels in a row or column: int32 (target,)."""
    places = np.arange(length, dtype=np.int32)[np.newaxis]
    picked: Pixels = cv2.resize(places, (target, 1), interpolation=cv2.INTER_NEAREST_EXACT)
    return picked.reshape(target)


def crop_box(size: Size, target: Size) -> Box:
    """The largest centred box of the target's aspect ratio: (left, top, right, bottom).

    The formula is that of ``load_img(keep_aspect_ratio=True)`` in
    ``keras/src/utils/image_utils.py``.
    """
    (width, height), (target_width, target_height) = size, target
    box_height = min(height, width * target_height // target_width)
    box_width = min(width, height * target_width // target_height)
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def pad_margins(size: Size, target: Size) -> tuple[int, int]:
    """The padding of a picture: (columns left and right each, rows above and below each).

    The formula is that of ``resize(pad_to_aspect_ratio=True)`` in
    ``keras/src/backend/tensorflow/image.py``: both sides get the same, so an odd remainder is lost.
    """
    (width, height), (target_width, target_height) = size, target
    pad_width = max(width, height * target_width // target_height)
    pad_height = max(height, width * target_height // target_width)
    return (pad_width - width) // 2, (pad_height - height) // 2


def frame(load: Load, size: tuple[int, int]) -> Box:
    """The part of a picture that is resized: (left, top, right, bottom).

    Args:
        load: how.
        size: (height, width) of the picture.
    """
    return _FRAMES[load.aspect](size[::-1], load.target_size[::-1])


def _whole(size: Size, target: Size) -> Box:
    return (0, 0, *size)


def _pad_box(size: Size, target: Size) -> Box:
    columns, rows = pad_margins(size, target)
    return -columns, -rows, size[0] + columns, size[1] + rows


_FRAMES: dict[Aspect, Callable[[Size, Size], Box]] = {
    "stretch": _whole,
    "crop": crop_box,
    "pad": _pad_box,
    "keep": _whole,
}
