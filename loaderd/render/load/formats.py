"""The formats that are decoded: those that PIL recognizes by a file's contents, as in Keras.

Six are loaded with this module, the others when a file is none of the six. PIL itself would then
load all of its plugins, also those that run programs or that decode nothing.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import sys
from contextlib import suppress
from functools import cache
from operator import attrgetter
from typing import Any

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401  importing these six keeps PIL from importing all others
    PngImagePlugin,
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
)

from loaderd import pillow
from loaderd.spec.load import Pil, Plugin

Size = tuple[int, int]
"""(width, height) in pixels."""

FIRST = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "GIF")
"""Formats that every worker loads."""

_OTHERS = {
    "DIB": "Bmp", "AVIF": "Avif", "BLP": "Blp", "CUR": "Cur", "PCX": "Pcx", "DCX": "Dcx",
    "DDS": "Dds", "FITS": "Fits", "FLI": "Fli", "FTEX": "Ftex", "GBR": "Gbr", "ICNS": "Icns",
    "ICO": "Ico", "IM": "Im", "IMT": "Imt", "JPEG2000": "Jpeg2K", "MCIDAS": "McIdas",
    "MSP": "Msp", "PCD": "Pcd", "PIXAR": "Pixar", "PSD": "Psd", "QOI": "Qoi", "SGI": "Sgi",
    "SPIDER": "Spider", "SUN": "Sun", "TGA": "Tga", "WEBP": "WebP", "XBM": "Xbm", "XPM": "Xpm",
    "XVTHUMB": "XVThumb",
}  # fmt: skip
"""The others, in PIL's order, and its modules. Excluded: EPS, which runs Ghostscript; IPTC, which
opens embedded data in any format; WMF, BUFR, GRIB, HDF5 and MPEG, which PIL only identifies."""

_HEIF = (
    "a HEIF photo: convert it to JPEG, or register a plugin for it in the program, such as "
    "pillow_heif"
)
_JPEG_XL = (
    "a JPEG XL image: convert it to JPEG, or import a plugin for it in the program, such as "
    "pillow_jxl"
)

_PLAIN = (
    (rb"%!PS|\xc5\xd0\xd3\xc6", "an EPS file, which is a program: convert it to PNG"),
    (rb"%PDF", "a PDF: convert its pages to PNG"),
    (rb"\xd7\xcd\xc6\x9a\0\0|\x01\0\0\0.{36} EMF", "a drawing (WMF, EMF): convert it to PNG"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg",
     "an SVG drawing: convert it to PNG"),
    (rb"(?i)\s*(<!doctype html|<html|<head)", "a web page: what was downloaded is no image"),
    (rb"\x89HDF|GRIB|BUFR", "data that PIL does not read: convert it to PNG or TIFF"),
    (rb".{4}ftypavi[fs]", "a damaged AVIF image"),
    (rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", _HEIF),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", _JPEG_XL),
    (rb".{4}ftyp|\0\0\x01[\xb3\xba]|RIFF.{4}AVI |\x1aE\xdf\xa3",
     "a video: take its frames as images"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|7z\xbc\xaf|Rar!", "an archive: unpack it"),
)  # fmt: skip
"""First bytes of unsupported files, and the text of their errors."""

_DECODERS = {"libtiff": pillow.TIFF, "jpeg2k": pillow.JPEG2000}
_OPTIONAL = ("zstd", "webp", "lzma", "jpeg")
"""Compressions of TIFFs that libtiff may have been built without."""


class Unknown(ValueError):
    """The file is in no supported format; the text names what it is."""


class LacksCodec(Exception):
    """PIL lacks the codec of a file; the text names it, and says what to do."""


class Switches:
    """PIL's switches for one stream. They are global in PIL, so they are set for each image.

    Args:
        pil: the trainer's switches.
        truncated: whether truncated images are accepted.

    Attributes:
        formats: names of the formats of other packages.
        absent: plugins of other packages that this Python lacks.
    """

    def __init__(self, pil: Pil, truncated: bool) -> None:
        self._pil = pil
        self._truncated = truncated
        self._gif_loading = GifImagePlugin.LoadingStrategy(pil.gif_loading)
        loaded = {plugin: _load(plugin) for plugin in pil.plugins}
        self.formats = tuple(name for name in loaded.values() if name)
        self.absent = tuple(plugin for plugin, name in loaded.items() if not name)

    def set(self) -> None:
        """Sets the switches; called before an image is opened."""
        ImageFile.LOAD_TRUNCATED_IMAGES = self._truncated
        PngImagePlugin.MAX_TEXT_CHUNK = self._pil.max_text_chunk
        PngImagePlugin.MAX_TEXT_MEMORY = self._pil.max_text_memory
        GifImagePlugin.LOADING_STRATEGY = self._gif_loading
        BmpImagePlugin.USE_RAW_ALPHA = self._pil.bmp_alpha
        TiffImagePlugin.READ_LIBTIFF = self._pil.libtiff


def _load(plugin: Plugin) -> str:
    """Imports a plugin; returns the name under which it is registered, or empty."""
    try:
        module = importlib.import_module(plugin.module)
        factory = attrgetter(plugin.factory)(module)
        accept = attrgetter(plugin.accept)(module) if plugin.accept else None
    except Exception:  # an import runs any code
        return ""
    name = f"{plugin.format}/{plugin.module}".upper()
    Image.register_open(name, factory, accept)
    return name


def open_first(data: memoryview) -> Image.Image:
    """Reads the header of a file in one of the six formats.

    Raises:
        UnidentifiedImageError: it is in none of them.
    """
    return Image.open(io.BytesIO(data), formats=FIRST)


def open_other(data: memoryview, switches: Switches) -> Image.Image:
    """Reads the header of a file in another format.

    Raises:
        Unknown: the format is not supported.
        LacksCodec: PIL lacks a codec, or this Python a plugin of the trainer's, that may decode it.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=(*_others(), *switches.formats))
    except UnidentifiedImageError as error:
        raise _unidentified(data, switches.absent) from error
    if image.format == "FITS" and image.tile and image.tile[0][0] == "fits_gzip":
        raise Unknown("a compressed FITS file: unpack it")
    return image


@cache
def _others() -> tuple[str, ...]:
    """Loads PIL's other plugins, which takes about 20 ms."""
    for module in dict.fromkeys(_OTHERS.values()):
        with suppress(ImportError):  # not in this version of PIL
            importlib.import_module(f"PIL.{module}ImagePlugin")
    if not getattr(sys.modules.get("PIL.AvifImagePlugin"), "SUPPORTED", False):
        with suppress(ImportError):
            importlib.import_module(f"{pillow.AVIF_PLUGIN}.AvifImagePlugin")
    for package in ("PIL", pillow.AVIF_PLUGIN):
        avif: Any = sys.modules.get(f"{package}.AvifImagePlugin")
        if avif is not None:
            avif.DEFAULT_MAX_THREADS = 1  # there is a worker for every CPU
    return tuple(name for name in _OTHERS if name in Image.OPEN)


def size_before_opening(data: memoryview) -> Size | None:
    """The size in a file's header, for formats where PIL allocates memory when it reads that."""
    if not _is_webp(data) or len(data) < 30:
        return None
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        wide, high = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        both = int.from_bytes(data[21:25], "little")
        wide, high = (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    else:
        wide, high = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return wide, high


def _is_webp(data: memoryview) -> bool:
    return data[:4].tobytes() == b"RIFF" and data[8:12].tobytes() == b"WEBP"


def _is_avif(data: memoryview) -> bool:
    """Whether its brands name AVIF; the first may be a more general one."""
    if data[4:8].tobytes() != b"ftyp":
        return False
    brands = bytes(data[8 : min(int.from_bytes(data[:4], "big"), 200)])
    return any(brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4))


def _unidentified(data: memoryview, absent: tuple[Plugin, ...]) -> Unknown | LacksCodec:
    for codec, is_it in ((pillow.WEBP, _is_webp), (pillow.AVIF, _is_avif)):
        if is_it(data) and pillow.lacks(codec):
            return LacksCodec(pillow.lack(codec))
    if not data:
        return Unknown("an empty file")
    start = bytes(data[:400])
    words = next((words for magic, words in _PLAIN if re.match(magic, start, re.DOTALL)), "")
    packages = ", ".join(f"{plugin.module} ({plugin.format})" for plugin in absent)
    if packages and words in (_HEIF, _JPEG_XL):
        return LacksCodec(
            f"the program has PIL read such files by {packages}, which workers cannot import: "
            "install it where the daemon runs"
        )
    more = f", and workers cannot import {packages}" if packages else ""
    return Unknown(words or f"not an image in a format that PIL reads{more}")


def lack_behind(error: Exception) -> str:
    """The text of what PIL lacks, if that caused its error; else empty."""
    found = re.search(r"(?:decoder|encoder) (\w+) not available|(JPEG 2000) support", str(error))
    if found:
        codec = _DECODERS.get(found[1] or "jpeg2k")
        return pillow.lack(codec) if codec else f"PIL was built without its decoder {found[1]!r}"
    if isinstance(error, ImportError):
        return pillow.lack(pillow.LAB) if "imagingcms" in str(error) else str(error)
    return ""


def load(image: Image.Image) -> None:
    """Loads the pixels of an opened image.

    Raises:
        LacksCodec: libtiff lacks the compression of a TIFF.
    """
    try:
        image.load()
    except OSError as error:
        compression = str(image.info.get("compression", ""))
        lacks = image.format == "TIFF" and compression in _OPTIONAL
        if not lacks or lack_behind(error) or _tiff_can(compression):
            raise  # libtiff itself may be missing
        raise LacksCodec(
            f"libtiff was built without {compression}, in which this TIFF is compressed: install "
            "another, or convert the file"
        ) from error


@cache
def _tiff_can(compression: str) -> bool:
    """Whether libtiff supports a compression, by a trial."""
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), "TIFF", compression=compression)
    except (OSError, ValueError, KeyError):
        return False
    return True
