"""The bytes of picture files of all kinds, also of kinds that no library writes."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIZE = (60, 45)  # columns, rows
FORGED = (60_000, 60_000)
SUFFIXES = {
    "jpeg": "jpg",
    "progressive": "jpg",
    "png": "png",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
    "ppm": "ppm",
}
"""The kinds that Keras reads, and what their names end with."""
ORIENTATION = 0x0112


def photo(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """Soft spots of colour with some grain."""
    rng = np.random.default_rng((*size, seed))
    spots = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    grain = rng.integers(-9, 10, (size[1], size[0], 3))
    pixels = np.asarray(spots.resize(size, Image.Resampling.BICUBIC)) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def saved(image: Image.Image, form: str, **choices: Any) -> bytes:
    """The file as PIL writes it; ``form`` is one of the kinds, or PIL's name."""
    if form == "progressive":
        form, choices = "jpeg", choices | {"progressive": True}
    if form == "gif":
        image = image.quantize(64)
    file = io.BytesIO()
    image.save(file, form, **choices)
    return file.getvalue()


def plain(form: str, seed: int = 0) -> bytes:
    return saved(photo(seed=seed), form)


# ---- sizes that are not true -----------------------------------------------------------


def bomb(form: str, size: tuple[int, int] = FORGED) -> bytes:
    """A small file whose header claims a huge picture."""
    return _FORGERS[form](plain(form), *size)


def _forge_jpeg(data: bytes, width: int, height: int) -> bytes:
    found = re.search(rb"\xff[\xc0\xc2]\0\x11\x08", data)
    assert found
    return _put(data, found.end(), struct.pack(">HH", height, width))


def _forge_png(data: bytes, width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def _forge_gif(data: bytes, width: int, height: int) -> bytes:
    return _put(data, 6, struct.pack("<HH", width, height))


def _forge_bmp(data: bytes, width: int, height: int) -> bytes:
    return _put(data, 18, struct.pack("<ii", width, height))


def _forge_ppm(data: bytes, width: int, height: int) -> bytes:
    return data.replace(b"%d %d" % SIZE, b"%d %d" % (width, height), 1)


def _forge_tiff(data: bytes, width: int, height: int) -> bytes:
    for tag, value in ((256, width), (257, height)):
        found = re.search(struct.pack("<H", tag) + b"[\x03\x04]\0\x01\0\0\0", data)
        assert found
        data = _put(data, found.end(), struct.pack("<I", value))
    return data


_FORGERS = {
    "jpeg": _forge_jpeg,
    "progressive": _forge_jpeg,
    "png": _forge_png,
    "gif": _forge_gif,
    "bmp": _forge_bmp,
    "tiff": _forge_tiff,
    "ppm": _forge_ppm,
}


def wide_frame() -> bytes:
    """A GIF whose first frame reaches far beyond the picture, and is to be cleared."""
    data = saved(photo(), "gif", disposal=2)
    frame = data.index(b",\0\0\0\0" + struct.pack("<HH", *SIZE))
    return _put(data, frame + 5, struct.pack("<HH", 65_000, 65_000))


def _put(data: bytes, place: int, part: bytes) -> bytes:
    return data[:place] + part + data[place + len(part) :]


# ---- JPEGs -----------------------------------------------------------------------------


def scans(count: int, size: tuple[int, int]) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = _forge_jpeg(saved(photo((16, 16)), "progressive"), *size)
    places = [found.start() for found in re.finditer(b"\xff\xda\0", data)]
    return data[: places[-1]] + data[places[-1] : -2] * (count - len(places) + 1) + data[-2:]


def separate_scans(count: int, size: tuple[int, int]) -> bytes:
    """A sequential JPEG whose three components take turns, each in scans of its own."""
    data = saved(photo((16, 16)).convert("L"), "jpeg")
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    tables = data[:frame], data[frame + 13 : scan]
    head = struct.pack(">HHBHHB", 0xFFC0, 17, 8, size[1], size[0], 3)
    parts = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    pixels = [_put(data[scan:-2], 5, bytes((number % 3 + 1,))) for number in range(count)]
    return tables[0] + head + parts + tables[1] + b"".join(pixels) + data[-2:]


def ycck() -> bytes:
    """A CMYK JPEG whose Adobe segment says that it is YCCK."""
    data = saved(photo().convert("CMYK"), "jpeg")
    return _put(data, data.index(b"Adobe") + 11, b"\x02")


def cmyk_without_adobe() -> bytes:
    data = saved(photo().convert("CMYK"), "jpeg")
    place = data.index(b"\xff\xee")
    return data[:place] + data[place + 16 :]


def turned(form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(photo(), form, exif=exif)


def with_exif(block: bytes) -> bytes:
    """A JPEG with an EXIF block of any bytes."""
    data = plain("jpeg")
    return data[:2] + struct.pack(">HH", 0xFFE1, len(block) + 8) + b"Exif\0\0" + block + data[2:]


def png_with_exif(block: bytes) -> bytes:
    """The same as a PNG."""
    data = plain("png")
    return data[:33] + _chunk(b"eXIf", block) + data[33:]


def with_xmp(orientation: int) -> bytes:
    text = f'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="{orientation}"/>'.encode()
    data = plain("jpeg")
    return data[:2] + struct.pack(">HH", 0xFFE1, len(text) + 2) + text + data[2:]


# ---- PNGs ------------------------------------------------------------------------------

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip


def png(pixels: np.ndarray[Any, Any], colour: int, interlaced: bool = False) -> bytes:
    """(height, width, channels) of 8 or 16 bits; ``colour`` is the format's own number."""
    height, width, _ = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    steps = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [pixels[y::rise, x::run] for x, y, run, rise in steps]
    rows = [b"\0" + row.astype(f">u{depth // 8}").tobytes() for part in parts for row in part]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def deep(channels: int) -> np.ndarray[Any, Any]:
    """Pixels of 16 bits."""
    rng = np.random.default_rng(channels)
    return rng.integers(0, 65536, (*SIZE[::-1], channels), dtype=np.uint16)


# ---- formats that are not decoded, and damaged ones ------------------------------------

FOREIGN = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n",
    "webp": b"RIFF"
    + struct.pack("<I", 30)
    + b"WEBPVP8L"
    + struct.pack("<I", 18)
    + b"/".ljust(18, b"\0"),
    "icns": b"icns" + struct.pack(">I", 116) + b"ic07" + struct.pack(">I", 108) + bytes(100),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 " + bytes(60),
    "fli": struct.pack("<IHHHHHH", 128, 0xAF11, 1, 9, 9, 8, 3) + bytes(112),
    "fits": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n",
}
