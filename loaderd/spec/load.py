"""The part of a spec that decodes and resizes one file."""

from __future__ import annotations

from typing import Literal

from loaderd.errors import InvalidArgument
from loaderd.spec.base import CHANNELS, Aspect, ColorMode, Compat, Decode, Frozen, Interpolation

PILS_PIXELS = 178_956_970
"""Pixels of a picture beyond which PIL refuses it by default."""

MAX_PIXELS = 2**40
"""Stands for no limit."""


SIZE_BYTES = 8
"""Of (height, width), two int32."""


class Plugin(Frozen, frozen=True):
    """A format that another package has registered in the trainer's PIL.

    Attributes:
        format: its name in the package.
        module: that holds the two functions.
        factory: the qualified name of the function that opens an image.
        accept: that of the function that checks a file's first bytes; empty for none.
    """

    format: str
    module: str
    factory: str
    accept: str = ""


class Pil(Frozen, frozen=True, omit_defaults=True):
    """The trainer's values of PIL's switches that affect decoding.

    Attributes:
        max_pixels: limit of a picture: twice ``Image.MAX_IMAGE_PIXELS``.
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
        """Raises InvalidArgument for impossible numbers of pixels or bytes."""
        if not 0 <= self.max_pixels <= MAX_PIXELS:
            raise InvalidArgument(f"PIL's limit must be from 0 to {MAX_PIXELS} pixels")
        if min(self.max_text_chunk, self.max_text_memory) < 0:
            raise InvalidArgument("PIL's MAX_TEXT_CHUNK and MAX_TEXT_MEMORY must not be negative")


class Load(Frozen, frozen=True):
    """How one image is read, decoded and resized; part of a cache's key.

    Attributes:
        target_size: (height, width) in pixels.
        channels: of images given as arrays; None for those of ``color_mode``.
        aspect: treatment of images of another aspect ratio: ``stretch`` them,
            ``crop`` the centre (Keras's ``keep_aspect_ratio``), or ``pad`` with black; or
            ``keep`` the size that each image has, for operations that resize it.
        truncated: whether truncated pictures are accepted, as with PIL's
            ``LOAD_TRUNCATED_IMAGES``.
        pil: the other switches of PIL.
        reading: which of Keras's decoders gives the pixels: ``load_img``, PIL's, is that of
            ``ImageDataGenerator``. With ``decode_image``, TensorFlow's, that of
            ``image_dataset_from_directory``, grey images of 16 bits keep their upper 8,
            transparent pixels of GIFs are black, and BMPs of 32 bits have an alpha channel.
        decode: ``exact``, or ``scaled``: JPEGs are decoded at 1/2, 1/4 or 1/8 of their
            size where that is at least twice the target for antialiased filters, or at
            least the target for ``nearest``.
        exif: whether pictures are turned by their EXIF orientation. Keras turns only TIFFs,
            which PIL turns when it loads them.
        sized: whether the size of the picture belongs to a loaded image, for what is in its pixels.
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
    reading: Literal["load_img", "decode_image"] = "load_img"
    pil: Pil = Pil()
    channels: int | None = None
    sized: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidArgument for an impossible target size."""
        if min(*self.target_size, self.channels or 1) < 1:
            raise InvalidArgument(f"target_size must be positive, got {self.target_size}")

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one loaded image."""
        return (*self.target_size, self.channels or CHANNELS[self.color_mode])

    @property
    def extra_bytes(self) -> int:
        """Bytes of one cached image beside its pixels."""
        return SIZE_BYTES if self.sized else 0
