"""Decodes masks: pictures whose values are numbers of classes."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from loaderd.render.load import formats
from loaderd.render.load.decode import file_error
from loaderd.render.load.formats import Switches
from loaderd.render.load.pixel_limits import PixelLimit, TooManyPixels
from loaderd.spec.load import Load

_FORMATS = ("PNG", "BMP", "GIF", "TIFF")
"""Those without loss."""
_MODES = ("1", "L", "P")
_SPREAD = {"L;2": 85, "L;4": 17}
"""PIL spreads numbers of so few bits over 0 to 255: the factors."""
_RAW = re.compile(r"1|L|P(;[124])?|L;[24]")


class MaskDecoder:
    """Decodes files to masks.

    Args:
        load: the trainer's switches of PIL.
        limit: of a mask's pixels.
    """

    def __init__(self, load: Load, limit: PixelLimit) -> None:
        self._switches = Switches(load.pil, load.truncated)
        self._limit = limit

    def decode(self, data: memoryview, name: str) -> NDArray[np.uint8]:
        """(height, width): a palette's indices, not its colours; 0 and 1 of pictures with one bit.

        Args:
            data: the file's bytes.
            name: its path, for errors.

        Raises:
            BadImage: it is no picture with one number of up to 8 bits for each pixel.
            NoRoom: there is no memory for it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors still raise
            try:
                return self._numbers(data)
            except Exception as error:  # PIL's decoders raise nearly everything on bad files
                raise file_error(name, error) from error

    def _numbers(self, data: memoryview) -> NDArray[np.uint8]:
        self._switches.set()
        Image.MAX_IMAGE_PIXELS = None  # it is checked here
        try:
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"a mask must be a {', '.join(_FORMATS)} file") from None
        if picture.width * picture.height > self._limit.pixels:
            raise TooManyPixels(f"{picture.width}x{picture.height} pixels", self._limit)
        raw = _raw_mode(picture)
        formats.load(picture)
        if picture.mode not in _MODES or not _RAW.fullmatch(raw):
            raise ValueError(
                "a mask must have one number from 0 to 255 for each pixel (PIL's modes "
                f"{', '.join(_MODES)}), and this one is {picture.mode} of {raw}"
            )
        return np.asarray(picture, np.uint8) // np.uint8(_SPREAD.get(raw, 1))


def _raw_mode(picture: Image.Image) -> str:
    """How the file holds the pixels, as PIL calls it; the mode where it does not say."""
    tiles: list[Any] = getattr(picture, "tile", [])
    if not tiles:
        return picture.mode
    found = tiles[0][3]
    raw = found[0] if isinstance(found, tuple) and found else found
    return raw if isinstance(raw, str) else picture.mode
