"""The limit of a picture's pixels, and the setting that it comes from."""

from __future__ import annotations

from typing import NamedTuple

from loaderd.spec.load import PILS_PIXELS, Pil

_DAEMON = "--max-pixels (LOADERD_MAX_PIXELS)"
_MAX_FILE_BYTES = 2**31
_PIXEL_BYTES = 16
_PROGRAM = "PIL.Image.MAX_IMAGE_PIXELS in the program"


class PixelLimit(NamedTuple):
    """The most pixels that a picture may have.

    Attributes:
        pixels: the limit.
        setting: the name of the setting that raises it.
    """

    pixels: int
    setting: str

    @property
    def file_bytes(self) -> int:
        """The most bytes of a file with such a picture and its metadata."""
        return max(_MAX_FILE_BYTES, _PIXEL_BYTES * self.pixels)

    @property
    def file_reason(self) -> str:
        """Why a larger file is not read."""
        return f"any picture of {self.pixels} pixels has: if it is real, raise {self.setting}"


DEFAULT = PixelLimit(PILS_PIXELS, f"{_DAEMON}, or {_PROGRAM}")


def pixel_limit(pil: Pil, allowed: int | None) -> PixelLimit:
    """The limit of a stream.

    Args:
        pil: the trainer's switches; their limit counts if it is not PIL's default.
        allowed: the daemon's limit, which holds for all streams; None for none.
    """
    limits = [] if allowed is None else [PixelLimit(allowed, _DAEMON)]
    if pil.max_pixels != PILS_PIXELS:
        limits.append(PixelLimit(pil.max_pixels, _PROGRAM))
    return min(limits, key=lambda limit: limit.pixels, default=DEFAULT)


class TooManyPixels(ValueError):
    """A picture has too many pixels, or needs too many in an intermediate step.

    Args:
        what: the size, such as "60000x60000 pixels".
        limit: the limit that it exceeds.
    """

    def __init__(self, what: str, limit: PixelLimit) -> None:
        super().__init__(
            f"{what} are more than {limit.pixels}; if the picture is real, raise {limit.setting}"
        )
