"""Files of formats and variants that people have and Keras reads through PIL."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from tests.corpus import pictures
from tests.corpus.pictures import photo, plain, saved

SHORT, LONG = 3, 4
Make = Callable[[], bytes]


def _alpha() -> Image.Image:
    image = photo().convert("RGBA")
    image.putalpha(photo(seed=1).convert("L"))
    return image


def _deep(channels: int = 1) -> np.ndarray[Any, Any]:
    pixels = pictures.deep(channels)
    return pixels[..., 0] if channels == 1 else pixels


# ---- what PIL writes -------------------------------------------------------------------

WRITTEN: dict[str, tuple[str, Callable[[], Image.Image], dict[str, Any]]] = {
    "webp": ("webp", photo, {}),
    "webp-lossless": ("webp", photo, {"lossless": True}),
    "webp-alpha": ("webp", _alpha, {}),
    "webp-animated": ("webp", photo, {"save_all": True, "append_images": [photo(seed=1)]}),
    "webp-icc-exif": ("webp", photo, {"icc_profile": b"x" * 99, "exif": b"Exif\0\0II*\0"}),
    "jpeg2000": ("jpeg2000", photo, {}),
    "jpeg2000-grey": ("jpeg2000", lambda: photo().convert("L"), {}),
    "jpeg2000-alpha": ("jpeg2000", _alpha, {}),
    "jpeg2000-16": ("jpeg2000", lambda: Image.fromarray(_deep()), {}),
    "jpeg2000-stream": ("jpeg2000", photo, {"no_jp2": True}),
    "avif": ("avif", photo, {}),
    "avif-alpha": ("avif", _alpha, {}),
    "avif-animated": ("avif", photo, {"save_all": True, "append_images": [photo(seed=1)]}),
    "mpo": ("mpo", photo, {"save_all": True, "append_images": [photo(seed=1)]}),
    "ico": ("ico", photo, {"sizes": [(16, 16), (32, 24)]}),
    "ico-bmp": ("ico", photo, {"sizes": [(16, 16)], "bitmap_format": "bmp"}),
    "icns": ("icns", lambda: photo((128, 128)), {}),
    "tga": ("tga", photo, {}),
    "tga-rle": ("tga", _alpha, {"compression": "tga_rle"}),
    "tga-palette": ("tga", lambda: photo().quantize(16), {}),
    "pcx": ("pcx", photo, {}),
    "pcx-one-bit": ("pcx", lambda: photo().convert("1"), {}),
    "sgi": ("sgi", photo, {}),
    "sgi-alpha": ("sgi", _alpha, {}),
    "dds": ("dds", _alpha, {}),
    "dds-dxt1": ("dds", lambda: photo((64, 48)), {"pixel_format": "DXT1"}),
    "dds-bc5": ("dds", lambda: photo((64, 48)), {"pixel_format": "BC5"}),
    "qoi": ("qoi", photo, {}),
    "im": ("im", photo, {}),
    "msp": ("msp", lambda: photo().convert("1"), {}),
    "xbm": ("xbm", lambda: photo().convert("1"), {}),
    "spider": ("spider", lambda: photo().convert("F"), {}),
    "dib": ("dib", photo, {}),
    "blp": ("blp", lambda: photo().quantize(16), {}),
    "jpeg-restart": ("jpeg", photo, {"restart_marker_blocks": 2}),
    "jpeg-progressive-restart": ("jpeg", photo, {"restart_marker_rows": 1, "progressive": True}),
    "jpeg-cmyk": ("jpeg", lambda: photo().convert("CMYK"), {}),
    "jpeg-icc": ("jpeg", photo, {"icc_profile": b"x" * 200_000}),
    "jpeg-comment": ("jpeg", photo, {"comment": b"x" * 60_000}),
    "jpeg-2000-dots": ("jpeg", photo, {"dpi": (2000, 1)}),
    "png-icc": ("png", photo, {"icc_profile": b"x" * 99_999}),
    "png-two-bit": ("png", lambda: photo().quantize(4), {"bits": 2}),
    "png-palette-alpha": ("png", lambda: _alpha().quantize(8, method=2), {}),
    "apng": ("png", photo, {"save_all": True, "append_images": [photo(seed=1)]}),
    "apng-apart": (
        "png",
        photo,
        {"save_all": True, "append_images": [photo(seed=1)], "default_image": True},
    ),
    "gif-interlaced": ("gif", photo, {"interlace": 1}),
    "gif-animated": (
        "gif",
        photo,
        {"save_all": True, "append_images": [photo(seed=1)], "disposal": 2},
    ),
    "tiff-lzw": ("tiff", photo, {"compression": "tiff_lzw"}),
    "tiff-predictor": ("tiff", photo, {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
    "tiff-deflate": ("tiff", photo, {"compression": "tiff_adobe_deflate"}),
    "tiff-jpeg": ("tiff", photo, {"compression": "jpeg", "quality": 90}),
    "tiff-packbits": ("tiff", photo, {"compression": "packbits"}),
    "tiff-zstd": ("tiff", photo, {"compression": "zstd"}),
    "tiff-lzma": ("tiff", photo, {"compression": "lzma"}),
    "tiff-webp": ("tiff", photo, {"compression": "webp"}),
    "tiff-fax3": ("tiff", lambda: photo().convert("1"), {"compression": "group3"}),
    "tiff-fax4": ("tiff", lambda: photo().convert("1"), {"compression": "group4"}),
    "tiff-float": ("tiff", lambda: photo().convert("F"), {}),
    "tiff-float-deflate": (
        "tiff",
        lambda: photo().convert("F"),
        {"compression": "tiff_adobe_deflate"},
    ),
    "tiff-16": ("tiff", lambda: Image.fromarray(_deep()), {}),
    "tiff-16-lzw": ("tiff", lambda: Image.fromarray(_deep()), {"compression": "tiff_lzw"}),
    "tiff-32": ("tiff", lambda: Image.fromarray(_deep().astype(np.int32)), {}),
    "tiff-lab": ("tiff", lambda: Image.frombytes("LAB", (60, 45), photo().tobytes()), {}),
    "tiff-ycbcr": ("tiff", lambda: photo().convert("YCbCr"), {}),
    "tiff-alpha": ("tiff", _alpha, {"compression": "tiff_lzw"}),
    "tiff-grey-alpha": ("tiff", lambda: _alpha().convert("LA"), {}),
    "tiff-palette": ("tiff", lambda: photo().quantize(16), {"compression": "tiff_lzw"}),
    "tiff-pages": ("tiff", photo, {"save_all": True, "append_images": [photo((9, 9))]}),
    "bigtiff": ("tiff", photo, {"big_tiff": True}),
    "bigtiff-deflate": ("tiff", photo, {"big_tiff": True, "compression": "tiff_deflate"}),
    "ppm-16": ("ppm", lambda: Image.fromarray(_deep()), {}),
    "pfm": ("ppm", lambda: photo().convert("F"), {}),
}


def written() -> Iterator[tuple[str, Make]]:
    """Those that this PIL can write, by their names."""
    for name, (form, make, choices) in WRITTEN.items():
        yield name, partial(_save, make, form, choices)


def _save(make: Callable[[], Image.Image], form: str, choices: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    make().save(file, form, **choices)
    return file.getvalue()


# ---- what no library writes ------------------------------------------------------------


def tiff(
    data: list[bytes], compression: int, photometric: int, more: dict[int, tuple[int, list[int]]],
    size: tuple[int, int] = (48, 32), bits: int = 8, channels: int = 3, tile: int = 0,
) -> bytes:  # fmt: skip
    """A TIFF of one image; ``data`` are its strips or tiles."""
    offsets, body = [], b""
    for part in data:
        offsets.append(8 + len(body))
        body += part + b"\0" * (len(part) % 2)
    sizes = [len(part) for part in data]
    tags = {
        256: (LONG, [size[0]]), 257: (LONG, [size[1]]), 258: (SHORT, [bits] * channels),
        259: (SHORT, [compression]), 262: (SHORT, [photometric]), 277: (SHORT, [channels]),
    }  # fmt: skip
    if tile:
        tags |= {322: (LONG, [tile]), 323: (LONG, [tile]), 324: (LONG, offsets), 325: (LONG, sizes)}
    else:
        tags |= {273: (LONG, offsets), 278: (LONG, [size[1]]), 279: (LONG, sizes)}
    tags |= more
    after = 8 + len(body) + 2 + 12 * len(tags) + 4
    entries, rest = struct.pack("<H", len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(packed) > 4:
            place = struct.pack("<I", after + len(rest))
            rest += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(values)) + place
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + entries + bytes(4) + rest


def _pixels(size: tuple[int, int] = (48, 32)) -> np.ndarray[Any, Any]:
    return np.asarray(photo(size))


def tiled() -> bytes:
    pixels = _pixels()
    tiles = [
        zlib.compress(np.ascontiguousarray(pixels[top : top + 16, left : left + 16]).tobytes())
        for top in range(0, 32, 16)
        for left in range(0, 48, 16)
    ]
    return tiff(tiles, 8, 2, {}, tile=16)


def planar() -> bytes:
    planes = [zlib.compress(np.ascontiguousarray(_pixels()[..., c]).tobytes()) for c in range(3)]
    return tiff(planes, 8, 2, {284: (SHORT, [2])})


def tiff_rgb16() -> bytes:
    deep = (_pixels().astype("<u2") * 257).tobytes()
    return tiff([deep], 1, 2, {}, bits=16)


def white_is_zero() -> bytes:
    return tiff([_pixels()[..., 0].tobytes()], 1, 0, {}, channels=1)


def turned_tiff() -> bytes:
    return tiff([zlib.compress(_pixels().tobytes())], 8, 2, {274: (SHORT, [6])})


def bmp(
    rows: bytes, bits: int, compression: int, size: tuple[int, int] = (8, 6),
    palette: bytes = b"", masks: bytes = b"",
) -> bytes:  # fmt: skip
    """A BMP of ``size``, whose height may be negative: from the top down."""
    start = 14 + 40 + len(masks) + len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", 40, *size, 1, bits, compression, len(rows), 0, 0, len(palette) // 4, 0
    )
    file = struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start)
    return file + header + masks + palette + rows


_GREYS = b"".join(bytes((v, v, v, 0)) for v in range(256))
_RLE8 = b"".join(bytes((4, row * 40, 4, 255 - row * 40, 0, 0)) for row in range(6)) + b"\0\1"
_RLE4 = b"".join(bytes((8, row * 17, 0, 0)) for row in range(6)) + b"\0\1"
_WORDS = np.arange(48, dtype="<u2").tobytes()
_LONGS = (np.arange(48, dtype="<u4") * 0x05030201).tobytes()


def png_parts(*chunks: tuple[bytes, bytes], after: bytes = b"", depth: int = 8) -> bytes:
    """A small grey PNG with other chunks behind its header."""
    rows = b"".join(b"\0" + bytes((row * 16 + column) & 255 for column in range(16 * depth // 8))
                    for row in range(16))  # fmt: skip
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, 0, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pictures._chunk(*part) for part in parts) + after


def long_notes(size: int) -> bytes:
    """A PNG with one compressed text of so many bytes."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("notes", "x" * size, zip=True)
    return saved(photo(), "png", pnginfo=notes)


def jpeg_marked(marker: int, precision: int = 8) -> bytes:
    """A JPEG whose header claims another process or precision."""
    data = plain("jpeg")
    place = data.index(b"\xff\xc0")
    return (
        data[: place + 1]
        + bytes((marker,))
        + data[place + 2 : place + 4]
        + bytes((precision,))
        + data[place + 5 :]
    )


def with_thumbnail() -> bytes:
    small = saved(photo((16, 12)), "jpeg")
    head = b"II*\0\x08\0\0\0\0\0\x0e\0\0\0"
    directory = struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, 44, 0x202, 4, 1, len(small), 0)
    return pictures.with_exif(head + directory + small)


def fits(width: int) -> bytes:
    cards = {"SIMPLE": "T", "BITPIX": "8", "NAXIS": "2", "NAXIS1": str(width), "NAXIS2": "4"}
    return _cards(cards) + bytes(range(32))


def packed_fits() -> bytes:
    """One whose pixels are a gzip stream, which may be of any length."""
    cards = {
        "XTENSION": "'BINTABLE'", "BITPIX": "8", "NAXIS": "2", "NAXIS1": "8", "NAXIS2": "4",
        "ZIMAGE": "T", "ZBITPIX": "8", "ZNAXIS": "2", "ZNAXIS1": "8", "ZNAXIS2": "4",
        "ZCMPTYPE": "'GZIP_1  '",
    }  # fmt: skip
    return _cards({"SIMPLE": "T", "BITPIX": "8", "NAXIS": "0"}) + _cards(cards) + bytes(99)


def _cards(cards: dict[str, str]) -> bytes:
    lines = [f"{name:<8}= {value:>20}".ljust(80) for name, value in cards.items()]
    return "".join([*lines, "END"]).ljust(2880).encode()


MADE: dict[str, Make] = {
    "tiff-tiled": tiled,
    "tiff-planar": planar,
    "tiff-rgb-16": tiff_rgb16,
    "tiff-white-is-zero": white_is_zero,
    "tiff-turned": turned_tiff,
    "bmp-rle8": lambda: bmp(_RLE8, 8, 1, palette=_GREYS),
    "bmp-rle4": lambda: bmp(_RLE4, 4, 2, palette=_GREYS[:64]),
    "bmp-565": lambda: bmp(_WORDS, 16, 3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)),
    "bmp-555": lambda: bmp(_WORDS, 16, 0),
    "bmp-32": lambda: bmp(_LONGS, 32, 0),
    "bmp-32-masks": lambda: bmp(
        _LONGS, 32, 3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    ),
    "bmp-top-down": lambda: bmp(_LONGS, 32, 0, size=(8, -6)),
    "ppm-text": lambda: b"P3\n# note\n2 2\n255\n255 0 0 0 255 0 0 0 255 9 9 9\n",
    "ppm-rgb-16": lambda: b"P6 4 2 65535\n" + bytes(range(48)),
    "ppm-ten-bits": lambda: b"P5 4 2 1023\n" + bytes(range(16)),
    "pbm": lambda: b"P4 8 2\n\xaa\x55",
    "png-srgb": lambda: png_parts((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))),
    "png-tail": lambda: png_parts(after=bytes(999)),
    "png-two": lambda: png_parts(after=png_parts()),
    "png-grey-transparent": lambda: png_parts((b"tRNS", b"\0\x10")),
    "png-unknown-chunk": lambda: png_parts((b"prVt", b"x" * 999)),
    "png-notes": lambda: long_notes(2**20 - 99),
    "png-too-long-notes": lambda: long_notes(3 * 2**20),
    "jpeg-12-bit": lambda: jpeg_marked(0xC1, 12),
    "jpeg-lossless": lambda: jpeg_marked(0xC3),
    "jpeg-arithmetic": lambda: jpeg_marked(0xC9),
    "jpeg-extended": lambda: jpeg_marked(0xC1),
    "jpeg-thumbnail": with_thumbnail,
    "jpeg-zeros-after": lambda: plain("jpeg") + bytes(5000),
    "jpeg-two": lambda: plain("jpeg") + plain("jpeg", 1),
    "jpeg-then-png": lambda: plain("jpeg") + plain("png"),
    "jpeg-ycck": pictures.ycck,
    "psd": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3)
    + bytes(14) + bytes(range(243)),
    "sun": lambda: struct.pack(">8I", 0x59A66A95, 4, 2, 8, 8, 1, 0, 0) + bytes(range(8)),
    "xpm": lambda: b'/* XPM */\nstatic char *x[] = {\n"2 2 2 1",\n"a c #ff0000",\n"b c #0000ff",\n'
    b'"ab",\n"ba"\n};\n',
    "xv-thumbnail": lambda: b"P7 332\n#END_OF_COMMENTS\n4 2 255\n" + bytes(range(8)),
    "fits": lambda: fits(8),
    "cur": lambda: b"\0\0\2\0\1\0" + struct.pack("<BBBBHHII", 8, 6, 0, 0, 0, 0, 40 + 192, 22)
    + bmp(_LONGS, 32, 0, size=(8, 12))[14:],
}  # fmt: skip


def all_files() -> Iterator[tuple[str, Make]]:
    """Every file here, by its name."""
    yield from written()
    yield from MADE.items()


# ---- sizes that are not true -----------------------------------------------------------


def _put(name: str, place: int, part: bytes) -> bytes:
    data = dict(all_files())[name]()
    return data[:place] + part + data[place + len(part) :]


def _replace(name: str, old: bytes, new: bytes) -> bytes:
    data = dict(all_files())[name]()
    assert old in data
    return data.replace(old, new, 1)


def _within(name: str) -> bytes:
    """A container whose PNG claims to be huge, whatever the container says."""
    data = dict(all_files())[name]()
    for found in re.finditer(rb"\x89PNG.*?IEND.{4}", data, re.DOTALL):
        huge = pictures._forge_png(found[0], HUGE, HUGE)
        data = data[: found.start()] + huge + data[found.end() :]
    return data


HUGE = 60_000
FORGED: dict[str, Make] = {
    "webp": lambda: _put("webp", 26, struct.pack("<HH", 0x3FFF, 0x3FFF)),
    "webp-lossless": lambda: _put("webp-lossless", 21, b"\xff\xff\xff\x0f"),
    "webp-alpha": lambda: _put("webp-alpha", 24, b"\xff\xff\x01\xff\x7f\0"),
    "webp-animated": lambda: _put("webp-animated", 24, b"\xff\xff\x01\xff\x7f\0"),
    "jpeg2000": lambda: _replace(
        "jpeg2000", b"ihdr" + struct.pack(">II", 45, 60), b"ihdr" + struct.pack(">II", HUGE, HUGE)
    ),
    "jpeg2000-inner": lambda: _replace(
        "jpeg2000",
        b"\xff\x51\0\x2f\0\0" + struct.pack(">II", 60, 45),
        b"\xff\x51\0\x2f\0\0" + struct.pack(">II", HUGE, HUGE),
    ),
    "avif": lambda: _replace("avif", struct.pack(">II", 60, 45), struct.pack(">II", HUGE, HUGE)),
    "jpeg2000-stream": lambda: _put("jpeg2000-stream", 8, struct.pack(">II", HUGE, HUGE)),
    "ico": lambda: _within("ico"),
    "icns": lambda: _within("icns"),
    "dds": lambda: _put("dds", 12, struct.pack("<II", HUGE, HUGE)),
    "dds-dxt1": lambda: _put("dds-dxt1", 12, struct.pack("<II", HUGE, HUGE)),
    "qoi": lambda: _put("qoi", 4, struct.pack(">II", HUGE, HUGE)),
    "psd": lambda: _put("psd", 14, struct.pack(">II", HUGE, HUGE)),
    "sgi": lambda: _put("sgi", 6, struct.pack(">HH", HUGE, HUGE)),
    "pcx": lambda: _put("pcx", 8, struct.pack("<HH", HUGE, HUGE)),
    "tga": lambda: _put("tga", 12, struct.pack("<HH", HUGE, HUGE)),
    "tga-rle": lambda: _put("tga-rle", 12, struct.pack("<HH", HUGE, HUGE)),
    "dib": lambda: _put("dib", 4, struct.pack("<ii", HUGE, HUGE)),
    "cur": lambda: _put("cur", 26, struct.pack("<ii", HUGE, HUGE)),
    "sun": lambda: _put("sun", 4, struct.pack(">II", HUGE, HUGE)),
    "xpm": lambda: _replace("xpm", b'"2 2 2 1"', b'"60000 60000 2 1"'),
    "xbm": lambda: _replace("xbm", b"width 60", b"width 9999999"),
    "im": lambda: _replace("im", b"60*45", b"60000*60000"),
    "fits": lambda: fits(HUGE * HUGE),
    "tiff-lzw": lambda: pictures._forge_tiff(dict(all_files())["tiff-lzw"](), HUGE, HUGE),
    "tiff-tiled": lambda: pictures._forge_tiff(tiled(), HUGE, HUGE),
    "ppm-text": lambda: _replace("ppm-text", b"2 2", b"60000 60000"),
    "pfm": lambda: _replace("pfm", b"60 45", b"60000 60000"),
}
"""Small files that claim to be huge."""
