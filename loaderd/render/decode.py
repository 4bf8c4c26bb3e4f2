"""A file's bytes, and the picture in them, exactly as Keras's ``load_img`` sees it.

JPEG, the common case, is decoded by simplejpeg into memory that is reused; the pixels
are those of PIL, which decodes everything else: other formats, CMYK, and files that
are damaged a little, about which PIL's judgement is Keras's.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,  # noqa: F401  importing these six keeps PIL from importing all others
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
)

from loaderd.errors import BadImage
from loaderd.render.resize import Reduced, Size
from loaderd.wire.spec import ColorMode, Compat

Path = bytes | str
Pixels = NDArray[Any]
Picture = Image.Image | Pixels | Reduced
"""A PIL image, an array (height, width, 3) of uint8, or an image of a fraction of its size."""

_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "GIF")
_JPEG_START = b"\xff\xd8\xff"
_JPEG_COLORS = frozenset({"YCbCr", "RGB", "GRAY"})
_LARGEST_SCRATCH = 1 << 26  # bytes; a larger file or picture has memory of its own

_MODES: dict[ColorMode, str] = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}
_GREY_MODES = ("L", "I;16", "I")


class Scratch:
    """Memory that is used again for each sample, and grows to the largest one."""

    def __init__(self) -> None:
        self._memory = _memory(1 << 16)

    def take(self, size: int) -> memoryview:
        """The first ``size`` bytes; the next call gives the same ones away again."""
        if size > len(self._memory):
            if size > _LARGEST_SCRATCH:
                return _memory(size)
            self._memory = _memory(min(size + size // 2, _LARGEST_SCRATCH))
        return self._memory[:size]


def _memory(size: int) -> memoryview:
    """Bytes that take no room before they are written."""
    return np.empty(size, np.uint8).data


class Decoder:
    """Reads and decodes files to pictures of one colour mode.

    Args:
        color_mode: of the pictures. ``rgb`` images of JPEGs have PIL's mode RGBX (the
            fourth byte is padding); ``grayscale`` ones keep 16 and 32 bit values, as
            Keras's ``load_img`` does.
        arrays: whether ``rgb`` JPEGs shall come as arrays instead.
        compat: ``keras`` leaves grey pictures of 16 bits to PIL, which cuts off all above
            255 when it makes them ``rgb``; ``fixed`` keeps their upper 8 bits.
        truncated: whether pictures whose end is missing are taken.
        reduction: by how much a JPEG of some size is to be reduced: 8, 4, 2, or 1 for not.

    Attributes:
        source: size and modification time (ns) of the file that was read last.
    """

    def __init__(
        self,
        color_mode: ColorMode,
        arrays: bool = False,
        compat: Compat = "keras",
        truncated: bool = False,
        reduction: Callable[[Size], int] | None = None,
    ) -> None:
        self._color_mode: ColorMode = color_mode
        self._fixed = compat == "fixed"
        self._truncated = truncated
        self._arrays = arrays and color_mode == "rgb"
        self._reduction = reduction
        self.source = (-1, -1)
        self._file = Scratch()
        self._pixels = Scratch()

    def read(self, path: Path) -> memoryview:
        """The bytes of a file, valid until the next ``read``.

        Raises:
            BadImage: the file is missing, unreadable or not a regular file.
        """
        try:
            # A FIFO opened without O_NONBLOCK would wait for its writer for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return self._read(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, ValueError, MemoryError) as error:
            raise bad_image(path, error) from error

    def _read(self, descriptor: int) -> memoryview:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        self.source = (status.st_size, status.st_mtime_ns)
        data = self._file.take(status.st_size)
        done = 0
        while done < len(data) and (count := os.readv(descriptor, [data[done:]])):
            done += count
        return data[:done]

    def decode(self, data: memoryview) -> Picture:
        """The picture in a file's bytes, valid until the next ``decode``.

        Raises:
            Exception: whatever PIL raises when it cannot decode them.
        """
        if data[:3] == _JPEG_START:
            picture = self._decode_jpeg(data)
            if picture is not None:
                return picture
        return self._decode_any(data)

    def _decode_jpeg(self, data: memoryview) -> Picture | None:
        """The picture, or None if PIL should see the file."""
        try:
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
            if colors not in _JPEG_COLORS or _is_bomb(width, height):
                return None
            reduction = self._reduction((width, height)) if self._reduction else 1
            columns, rows = -(-width // reduction), -(-height // reduction)
            arrays = self._arrays and reduction == 1
            layout, mode = ("RGB", "RGB") if arrays else self._layout(colors)
            # libjpeg's smallest picture that has as many pixels is the one that is wanted.
            least = {} if reduction == 1 else {"min_height": rows, "min_width": columns}
            memory = self._pixels.take(rows * columns * len(mode))
            pixels: Pixels = simplejpeg.decode_jpeg(data, layout, buffer=memory, **least)
        except ValueError:
            return None
        if arrays:
            return pixels
        image = Image.frombuffer(mode, (columns, rows), pixels, "raw", mode, 0, 1)
        if self._color_mode == "grayscale" and mode != "L":
            image = image.convert("L")
        return image if reduction == 1 else Reduced(image, reduction, (width, height))

    def _layout(self, colors: str) -> tuple[str, str]:
        """The names that simplejpeg and PIL have for the pixels to decode to."""
        if self._color_mode == "rgba":
            return "RGBA", "RGBA"
        if self._color_mode == "grayscale" and colors == "GRAY":
            return "GRAY", "L"
        return "RGBX", "RGBX"

    def _decode_any(self, data: memoryview) -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files; what is wrong raises
            ImageFile.LOAD_TRUNCATED_IMAGES = self._truncated  # of all PIL, so each time
            image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
            image.load()
            if self._fixed and _is_deep(image):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if self._color_mode == "grayscale" and image.mode in _GREY_MODES:
                return image
            mode = _MODES[self._color_mode]
            return image if image.mode == mode else image.convert(mode)


def _is_bomb(width: int, height: int) -> bool:
    """Whether PIL refuses pictures of this size; its limit may be changed, or None."""
    return Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS


def _is_deep(image: Image.Image) -> bool:
    """Whether it is a grey picture of 16 bits; some versions of PIL hold those of PNGs in 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def bad_image(path: Path, error: Exception) -> BadImage:
    """The error for a file that ``error`` came from: one line that any terminal can show."""
    return BadImage(f"{_printable(os.fsdecode(path))}: {_printable(_reason(error))}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(_FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
