"""A format that no PIL knows, as packages bring them."""

from __future__ import annotations

from PIL import ImageFile


class Dots(ImageFile.ImageFile):
    """Eight by eight greys behind four letters."""

    format = "DOTS"

    def _open(self) -> None:
        self._size, self._mode = (8, 8), "L"
        self.tile = [ImageFile._Tile("raw", (0, 0, 8, 8), 4, ("L", 0, 1))]


def accept(prefix: bytes) -> bool:
    """Whether a file begins so."""
    return prefix[:4] == b"DOTS"
