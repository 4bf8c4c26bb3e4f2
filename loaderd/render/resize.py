"""A picture of any size to an array of the target size, with the pixels of Keras.

PIL resizes, as in Keras, but for one case: OpenCV's ``INTER_NEAREST_EXACT`` picks the
pixels that PIL's NEAREST picks, and spares JPEGs PIL's four bytes a pixel. (For a box
within the picture PIL rounds in another way, so crops are PIL's too.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderd.wire.spec import Aspect, Interpolation

Pixels = NDArray[Any]
Size = tuple[int, int]
"""(width, height) in pixels: PIL's order."""

FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "hamming": Image.Resampling.HAMMING,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def takes_arrays(interpolation: Interpolation, aspect: Aspect) -> bool:
    """Whether a resizer is faster with arrays of three channels than with PIL images."""
    return interpolation == "nearest" and aspect != "crop"


class Resizer:
    """Resizes pictures; those that have the target size are left as they are.

    Args:
        target_size: (height, width) in pixels.
        interpolation: the filter's name.
        aspect: what happens to pictures of another aspect ratio.
    """

    def __init__(
        self, target_size: tuple[int, int], interpolation: Interpolation, aspect: Aspect
    ) -> None:
        self._size = (target_size[1], target_size[0])
        self._filter = FILTERS[interpolation]
        self._fit = _FITS[aspect]
        self._pads = aspect == "pad"
        self._rgb = np.empty((*target_size, 3), np.uint8)

    def __call__(self, picture: Image.Image | Pixels) -> Pixels:
        """The picture in the target size: (height, width, channels).

        Args:
            picture: an array only where ``takes_arrays``: (height, width, 3), uint8.

        Returns:
            Pixels of the picture's dtype, valid until the next call, and as long as the
            picture.

        Raises:
            ValueError: PIL cannot resize pictures of this mode, or nothing is left of it.
        """
        if isinstance(picture, np.ndarray):
            return self._resize_array(picture)
        if picture.size != self._size:
            picture = self._fit(picture, self._size, self._filter)
        return self._to_array(picture)

    def _resize_array(self, pixels: Pixels) -> Pixels:
        size = (pixels.shape[1], pixels.shape[0])
        if size == self._size:
            return pixels
        if self._pads:
            columns, rows = pad_margins(size, self._size)
            pixels = cv2.copyMakeBorder(pixels, rows, rows, columns, columns, cv2.BORDER_CONSTANT)
        return cv2.resize(pixels, self._size, dst=self._rgb, interpolation=cv2.INTER_NEAREST_EXACT)

    def _to_array(self, image: Image.Image) -> Pixels:
        pixels: Pixels = np.asarray(image)
        if image.mode == "RGBX":
            return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB, dst=self._rgb)
        return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def crop_box(size: Size, target: Size) -> tuple[int, int, int, int]:
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
    """The columns left and right, and the rows above and below, that pad a picture.

    The formula is that of ``resize(pad_to_aspect_ratio=True)`` in
    ``keras/src/backend/tensorflow/image.py``: both sides get the same, so an odd rest
    is lost.
    """
    (width, height), (target_width, target_height) = size, target
    pad_width = max(width, height * target_width // target_height)
    pad_height = max(height, width * target_height // target_width)
    return (pad_width - width) // 2, (pad_height - height) // 2


def _stretch(image: Image.Image, target: Size, resample: Image.Resampling) -> Image.Image:
    return image.resize(target, resample)


def _crop(image: Image.Image, target: Size, resample: Image.Resampling) -> Image.Image:
    return image.resize(target, resample, box=crop_box(image.size, target))


def _pad(image: Image.Image, target: Size, resample: Image.Resampling) -> Image.Image:
    columns, rows = pad_margins(image.size, target)
    canvas = Image.new(image.mode, (image.width + 2 * columns, image.height + 2 * rows))
    canvas.paste(image, (columns, rows))
    return canvas.resize(target, resample)


_FITS: dict[Aspect, Callable[[Image.Image, Size, Image.Resampling], Image.Image]] = {
    "stretch": _stretch,
    "crop": _crop,
    "pad": _pad,
}
