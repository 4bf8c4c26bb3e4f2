"""Decodes masks: pictures whose values are numbers of classes."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderd.errors import BadImage
from loaderd.ipc.text import printable
from loaderd.render.load.decode import file_error
from loaderd.render.load.pixel_limits import PixelLimit, TooManyPixels

_MODES = ("1", "L", "P")


class MaskDecoder:
    """Decodes files to masks.

    Args:
        limit: of a mask's pixels.
    """

    def __init__(self, limit: PixelLimit) -> None:
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
        try:
            picture = Image.open(io.BytesIO(data))
            if picture.width * picture.height > self._limit.pixels:
                raise TooManyPixels(f"{picture.width}x{picture.height} pixels", self._limit)
            picture.load()
        except Exception as error:  # PIL's decoders raise nearly everything on bad files
            raise file_error(name, error) from error
        if picture.mode not in _MODES:
            raise BadImage(
                f"{printable(name)}: a mask must have one number from 0 to 255 for each pixel "
                f"(PIL's modes {', '.join(_MODES)}), and this one is {picture.mode}"
            )
        return np.asarray(picture).astype(np.uint8)
