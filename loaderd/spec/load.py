"""How one file becomes an array of the target size."""

from __future__ import annotations

from typing import Literal

from loaderd.errors import InvalidArgument
from loaderd.spec.base import (
    CHANNELS,
    Aspect,
    ColorMode,
    Compat,
    Decode,
    Frozen,
    Interpolation,
    Reading,
)

PILS_PIXELS = 178_956_970
"""Of a picture, beyond which PIL refuses it of its own accord."""

MAX_PIXELS = 2**40
"""What stands for no limit."""


class Plugin(Frozen, frozen=True):
    """A format that the trainer's PIL reads by a package that is none of PIL's own.

    Attributes:
        format: what the package calls it.
        module: where the two are found.
        factory: the qualified name of what opens an image.
        accept: that of what looks at a file's first bytes; empty for none.
    """

    format: str
    module: str
    factory: str
    accept: str = ""


class Pil(Frozen, frozen=True, omit_defaults=True):
    """PIL's own switches as the trainer has set them, where they decide what is read and how.

    Attributes:
        max_pixels: of a picture, beyond which PIL refuses it: twice ``Image.MAX_IMAGE_PIXELS``.
        max_text_chunk: bytes, ``PngImagePlugin.MAX_TEXT_CHUNK``.
        max_text_memory: bytes, ``PngImagePlugin.MAX_TEXT_MEMORY``.
        gif_loading: ``GifImagePlugin.LOADING_STRATEGY``, as a number.
        bmp_alpha: ``BmpImagePlugin.USE_RAW_ALPHA``.
        libtiff: ``TiffImagePlugin.READ_LIBTIFF``.
        plugins: formats of other packages.
    """

    max_pixels: int = PILS_PIXELS
    max_text_chunk: int = 2**20
    max_text_memory: int = 2**26
    gif_loading: Literal[0, 1, 2] = 0
    bmp_alpha: bool = False
    libtiff: bool = False
    plugins: tuple[Plugin, ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidArgument for numbers that are none of pixels or bytes."""
        if not 0 <= self.max_pixels <= MAX_PIXELS:
            raise InvalidArgument(f"PIL's limit must be from 0 to {MAX_PIXELS} pixels")
        if min(self.max_text_chunk, self.max_text_memory) < 0:
            raise InvalidArgument("PIL's MAX_TEXT_CHUNK and MAX_TEXT_MEMORY must not be negative")


class Load(Frozen, frozen=True):
    """How one image is read, decoded and resized; it decides what a cache keeps.

    Attributes:
        target_size: (height, width) in pixels.
        channels: of images that come as arrays; None is what ``color_mode`` says.
        aspect: what happens to images of another aspect ratio: ``stretch`` them,
            ``crop`` the centre (Keras's ``keep_aspect_ratio``), or ``pad`` with black.
        truncated: whether pictures whose end is missing are taken, as with PIL's
            ``LOAD_TRUNCATED_IMAGES``.
        pil: the other switches of PIL.
        reading: which of Keras's two ways gives the pixels: ``load_img`` is PIL's, of
            ``ImageDataGenerator``. With ``decode_image``, TensorFlow's, of
            ``image_dataset_from_directory``, grey images of 16 bits keep their upper 8,
            transparent pixels of GIFs are black, and BMPs of 32 bits have an alpha channel.
        decode: ``exact``, or ``scaled``: JPEGs are decoded at 1/2, 1/4 or 1/8 of their
            size where that stays at least twice the target for antialiased filters, at
            least the target for ``nearest``.
        exif: whether pictures are turned as their EXIF orientation says. Keras turns none
            but TIFFs, which PIL turns as it loads them.
        compat: with ``keras`` grey pictures of 16 bits saturate, as in Keras, where they become
            ``rgb``; with ``fixed`` they keep their upper 8 bits.
    """

    target_size: tuple[int, int]
    color_mode: ColorMode = "rgb"
    interpolation: Interpolation = "nearest"
    aspect: Aspect = "stretch"
    truncated: bool = False
    compat: Compat = "keras"
    decode: Decode = "exact"
    exif: bool = False
    reading: Reading = "load_img"
    pil: Pil = Pil()
    channels: int | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument where nothing can be loaded to such a size."""
        if min(*self.target_size, self.channels or 1) < 1:
            raise InvalidArgument(f"target_size must be positive, got {self.target_size}")

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one loaded image."""
        return (*self.target_size, self.channels or CHANNELS[self.color_mode])
