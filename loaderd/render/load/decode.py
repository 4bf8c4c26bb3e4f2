"""Decodes a file's bytes, exactly as Keras's ``load_img`` does.

JPEG, the common case, is decoded by simplejpeg into reused memory, or, where a resize keeps few of
the pixels, only those by libjpeg-turbo itself. The pixels are those of PIL, which decodes
everything else: other formats, CMYK, and slightly damaged files, which PIL takes or refuses as in
Keras.

The pixels that a header claims, and a JPEG's scans, are checked before memory is allocated.
Which formats there are, and PIL's own switches: :mod:`loaderd.render.load.formats`.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from loaderd import memory
from loaderd.errors import BadImage, MissingCodec, NoRoom
from loaderd.ipc.text import printable, readable
from loaderd.render.load import formats, pixel_limits
from loaderd.render.load.formats import LacksCodec, Switches
from loaderd.render.load.jpeg import has_too_many_scans, max_scans, may_be_turned
from loaderd.render.load.pixel_limits import PixelLimit, TooManyPixels
from loaderd.render.load.resize import PicturePart, PixelPlaces, Pixels, Reduced, Size, takes_arrays
from loaderd.render.native import jpeg
from loaderd.scratch import Scratch
from loaderd.spec.base import ColorMode
from loaderd.spec.load import Load

Picture = Image.Image | Pixels | Reduced
"""A PIL image, an array (height, width, 3) of uint8, or an image of a fraction of its size."""

_JPEG_START = b"\xff\xd8\xff"
_GIF_START = b"GIF8"
_JPEG_COLORS = frozenset({"YCbCr", "RGB", "Gray"})
_PILS_MEMORY_ERROR = "out of memory"

_MODES: dict[ColorMode, str] = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}
_GREY_MODES = ("L", "I;16", "I")

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UPRIGHT = (None, *list(_TURNS.values())[:3])
"""Turns that keep width and height."""
_FROM_THE_RIGHT = (_TURNS[2], _TURNS[3], _TURNS[6], _TURNS[7])
_FROM_BELOW = (_TURNS[3], _TURNS[4], _TURNS[7], _TURNS[8])
"""Turns after which the file's last row or column is the first column, or the first row."""


class Decoder:
    """Decodes files to pictures of one colour mode.

    JPEGs as ``rgb`` are arrays, or PIL images of mode RGBX (the fourth byte is padding);
    ``grayscale`` pictures keep 16 and 32 bit values, as with Keras's ``load_img``.

    Args:
        load: how to decode. ``compat="keras"`` has PIL convert grey pictures of 16 bits to
            ``rgb``, which clips at 255; ``fixed`` keeps their upper 8 bits.
        limit: of a picture's pixels; larger ones are bad images.
        part: gives what is needed of a picture of a size; a JPEG is then reduced, and its other
            pixels may be left out.
        picks: gives the few pixels of a picture of a size that are needed, or None; then the
            picture may be these pixels alone.
        arrays: whether JPEGs as ``rgb`` shall be arrays also where a resizer prefers PIL images.
    """

    def __init__(
        self,
        load: Load,
        limit: PixelLimit = pixel_limits.DEFAULT,
        part: Callable[[Size], PicturePart] | None = None,
        picks: Callable[[Size], PixelPlaces | None] | None = None,
        arrays: bool = False,
    ) -> None:
        self._color_mode = load.color_mode
        self._as_tensorflow = load.reading == "decode_image"
        self._fixed = self._as_tensorflow or load.compat == "fixed"
        self._arrays = load.color_mode == "rgb" and (arrays or takes_arrays(load))
        self._part = part if load.decode == "scaled" else None
        can_pick = takes_arrays(load) and self._arrays and not load.sized and jpeg.VERSION
        self._picks = picks if can_pick else None
        self._picked = np.empty((*load.target_size, 3), np.uint8)
        self._exif = load.exif
        pil = msgspec.structs.replace(load.pil, bmp_alpha=self._as_tensorflow or load.pil.bmp_alpha)
        self._switches = Switches(pil, load.truncated)
        self._limit = limit
        self._max_pixels = limit.pixels
        self._pils_limit: Any = limit.pixels / 2  # PIL refuses more than twice MAX_IMAGE_PIXELS
        self._pixels = Scratch()

    def decode(self, data: memoryview) -> Picture:
        """The picture in a file's bytes, valid until the next ``decode``.

        Raises:
            TooManyPixels: its header claims more than ``max_pixels``.
            MemoryError: there is no memory for it.
            Exception: of any type, from PIL, if they cannot be decoded.
        """
        if data[:3] == _JPEG_START:
            picture = self._decode_jpeg(data)
            if picture is not None:
                return picture
        return self._decode_any(data)

    def _decode_jpeg(self, data: memoryview) -> Picture | None:
        """The picture, or None if PIL must decode it."""
        try:
            # Not strict: the size is checked even where PIL tolerates faults of the file.
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        except (ValueError, LookupError):
            return None
        self._check((width, height), data)
        if colors not in _JPEG_COLORS:
            return None
        turn = self._turn_of_jpeg(data) if self._exif and may_be_turned(data) else None
        return self._decode_plain_jpeg(data, (width, height), colors, turn)

    def _decode_plain_jpeg(
        self, data: memoryview, size: Size, colors: str, turn: Image.Transpose | None
    ) -> Picture | None:
        width, height = size
        upright = size if turn in _UPRIGHT else (height, width)
        part = self._part(upright) if self._part else PicturePart()
        if part.box is not None and turn is None:
            region = self._decode_region(data, size, colors, part)
            if region is not None:
                return region
        reduction = part.reduction
        columns, rows = -(-width // reduction), -(-height // reduction)
        arrays = self._arrays and reduction == 1 and turn is None
        picks = self._picks(size) if self._picks and arrays else None
        if picks is not None and jpeg.pick(data, *picks, self._picked):
            return self._picked
        layout, mode = ("RGB", "RGB") if arrays else self._layout(colors)
        room = self._pixels.take(rows * columns * len(mode))
        # libjpeg takes the smallest scale that gives at least so many pixels.
        least = {} if reduction == 1 else {"min_height": rows, "min_width": columns}
        pixels = _jpeg_pixels(data, layout, room, least)
        if pixels is None or arrays:
            return pixels
        image = self._image_of(pixels, mode)
        image = image if turn is None else image.transpose(turn)
        return image if reduction == 1 else _reduced(image, reduction, upright, turn)

    def _decode_region(
        self, data: memoryview, size: Size, colors: str, part: PicturePart
    ) -> Reduced | None:
        """The part alone; None if it is all, or cannot be decoded alone."""
        by, box = part.reduction, part.box
        assert box is not None, "asked for a part"
        left, top = box[0] // by, box[1] // by
        columns, rows = -(-box[2] // by) - left, -(-box[3] // by) - top
        if box == (0, 0, *size):
            return None
        _, mode = self._layout(colors)
        room = self._pixels.take(rows * columns * len(mode))
        pixels = np.frombuffer(room, np.uint8).reshape(rows, columns, -1)
        if not jpeg.crop(data, by, (left, top), pixels):
            return None
        return Reduced(self._image_of(pixels, mode), by, size, (-left * by, -top * by))

    def _image_of(self, pixels: Pixels, mode: str) -> Image.Image:
        """Decoded pixels as a PIL image, in the colour mode."""
        size = (pixels.shape[1], pixels.shape[0])
        image = Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)
        converts = self._color_mode == "grayscale" and mode != "L"
        return image.convert("L") if converts else image

    def _layout(self, colors: str) -> tuple[str, str]:
        """The pixel format to decode to, by its names in simplejpeg and PIL."""
        if self._color_mode == "rgba":
            return "RGBA", "RGBA"
        if self._color_mode == "grayscale" and colors == "Gray":
            return "GRAY", "L"
        return "RGBX", "RGBX"

    def _decode_any(self, data: memoryview) -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors still raise
            image = self._load(data)
            turn = _turn_of(image) if self._exif else None
            image = image if turn is None else image.transpose(turn)
            if self._as_tensorflow and image.format == "GIF":
                image = self._on_black(image)
            if self._fixed and _is_deep(image):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if self._color_mode == "grayscale" and image.mode in _GREY_MODES:
                return image
            mode = _MODES[self._color_mode]
            return image if image.mode == mode else image.convert(mode)

    def _on_black(self, image: Image.Image) -> Image.Image:
        """A GIF with its transparent pixels black, as in TensorFlow."""
        if "transparency" not in image.info or self._color_mode == "rgba":
            return image
        pixels = image.convert("RGBA")
        canvas = Image.new("RGB", image.size)
        canvas.paste(pixels, mask=pixels.getchannel("A"))
        return canvas

    def _load(self, data: memoryview) -> Image.Image:
        """Opens and loads the file with PIL."""
        try:
            image = self._open(data)
            self._check(image.size, data)
            # For tiles, frames and images of other sizes within it.
            Image.MAX_IMAGE_PIXELS = self._pils_limit
            formats.load(image)
        except Image.DecompressionBombError as error:
            # Its text has the pixels, of the picture or a part, in parentheses.
            found = re.search(r"\d+(?= pixels\))", str(error))
            raise TooManyPixels(f"{found[0] if found else 'its'} pixels", self._limit) from error
        return image

    def _open(self, data: memoryview) -> Image.Image:
        """Reads the header, such that PIL does not refuse the size before it is known."""
        self._switches.set()
        Image.MAX_IMAGE_PIXELS = None
        if data[:4] == _GIF_START and len(data) >= 10:
            self._check(struct.unpack_from("<HH", data, 6), data)
            Image.MAX_IMAGE_PIXELS = self._pils_limit  # some formats allocate here
        try:
            return formats.open_first(data)
        except UnidentifiedImageError:
            size = formats.size_before_opening(data)
            if size is not None:
                self._check(size, data)
            Image.MAX_IMAGE_PIXELS = self._pils_limit  # some allocate when their header is read
            return formats.open_other(data, self._switches)

    def _check(self, size: Size, data: memoryview) -> None:
        """Refuses pictures that would take too much memory or time."""
        width, height = size
        pixels = width * height
        if pixels > self._max_pixels:
            raise TooManyPixels(f"{width}x{height} pixels", self._limit)
        if has_too_many_scans(data, pixels):
            raise ValueError(
                f"more than {max_scans(pixels)} scans of {width}x{height} pixels "
                "would take too long to decode"
            )

    def _turn_of_jpeg(self, data: memoryview) -> Image.Transpose | None:
        """The turn as PIL reads it, also from split EXIF blocks and from XMP."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return _turn_of(self._open(data))
            except MemoryError:
                raise
            except Exception:  # damaged metadata does not affect the pixels
                return None


def _jpeg_pixels(
    data: memoryview, layout: str, room: memoryview, least: dict[str, int]
) -> Pixels | None:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, layout, buffer=room, **least)
    except ValueError as error:
        if "memory" in str(error).lower():  # PIL would report a broken file
            raise MemoryError(str(error)) from error
        return None
    return pixels


def _reduced(
    image: Image.Image, reduction: int, size: Size, turn: Image.Transpose | None
) -> Reduced:
    """A reduced picture that was turned: its partial column or row may be the first now."""
    columns = image.width * reduction - size[0] if turn in _FROM_THE_RIGHT else 0
    rows = image.height * reduction - size[1] if turn in _FROM_BELOW else 0
    return Reduced(image, reduction, size, (columns, rows))


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """The turn of PIL's ``exif_transpose``; None if the block is damaged.

    PIL itself turns TIFFs when it loads them, in Keras too, and then removes their tag.
    """
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise  # else the same file would be turned only sometimes
    except Exception:  # PIL's parser raises nearly everything
        return None


def _is_deep(image: Image.Image) -> bool:
    """Whether it is a grey picture of 16 bits; some versions of PIL load those of PNGs as 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def file_error(path: bytes | str, error: Exception) -> BadImage | NoRoom | MissingCodec:
    """The error for a file that ``error`` came from, in one printable line.

    A lack of memory or of a codec in PIL is no fault of the file, and so no :class:`BadImage`.
    """
    name = readable(path)
    if isinstance(error, MemoryError) or str(error).startswith(_PILS_MEMORY_ERROR):
        return memory.no_room(name)
    lacks = str(error) if isinstance(error, LacksCodec) else formats.lack_behind(error)
    if lacks:
        return MissingCodec(f"{name}: {printable(lacks)}")
    return BadImage(f"{name}: {printable(_reason(error))}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "MAX_TEXT_" in str(error):
        switch = "MAX_TEXT_CHUNK" if "CHUNK" in str(error) else "MAX_TEXT_MEMORY"
        return f"{error}; if the file is real, raise PIL's PngImagePlugin.{switch}"
    return str(error) or type(error).__name__
