"""The image of one sample, and its targets, while operations are applied to them.

Operations tell a canvas what to do. It collects geometry and tables of values, and applies them
when the pixels are needed::

    picture ──► pending part (crops, flips, one resize) ──► pending table ──► pixels
            or  pending warp (matrices, crops, flips)

Crops, flips and a resize in a row become one resize of a part of the picture; warps in a row, with
crops and flips, become one matrix and one warp; tables in a row become one table, and wait while
crops and flips follow. A later warp of a row sees the image before the row: what an earlier one
moved out of the frame may come back, instead of the fill.

Coordinates are continuous: the pixel in row i and column j covers i to i + 1 and j to j + 1.
Matrices take (x, y, 1) of the result to (x, y, 1) of the image before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loaderd.augment.pixels import (
    Box,
    Flips,
    Pixels,
    Warp,
    Window,
    displaced,
    displaced_masks,
    flipping,
    moved,
    pixels_of,
    size_of,
)
from loaderd.augment.targets import Targets
from loaderd.augment.warps import Filter, Matrix, Size, WarpStyle, translation

Caller = Callable[[Any, Pixels, Targets], tuple[Pixels, Targets]]
"""Calls a function of the user's: with a ``function.DrawnCall``, pixels that it may change, and
targets that it may not; returns both as they are then."""

_CHANNELS = {"L": 1, "RGBA": 4}
"""Of PIL's modes; others have three."""
_NO_FLIPS = (False, False)

ColorChange = tuple[float, float, float, float]
"""What is done to colours, in this order: grey levels that are added; by what the distance of each
value to its channel's mean, and the saturation in HSV, are multiplied; the turn of the hue in
sixths of a circle, from 0 to 6. Values are clipped to 0 to 255 after the first two."""


class Kernels(NamedTuple):
    """What a canvas has done in C; nothing changes the pixels that it is given.

    Attributes:
        look_up: gives the values of pixels in a table, (256,) or (256, channels).
        change_colors: changes colours as ``Canvas.change_colors`` says.
    """

    look_up: Callable[[Pixels, Pixels], Pixels]
    change_colors: Callable[[Pixels, ColorChange], Pixels]


class Canvas:
    """The image of one sample, and its targets. Made once for each thread.

    Args:
        kernels: those of ``loaderd.render``.
        caller: calls the user's functions; None where there are none.
    """

    def __init__(self, kernels: Kernels, caller: Caller | None = None) -> None:
        self._kernels = kernels
        self._caller = caller
        self._image: Pixels | Image.Image = np.empty((0, 0, 3), np.uint8)
        self._targets: Targets | None = None
        self._geometry: Window | Warp | None = None
        self._table: Pixels | None = None

    def another(self) -> Canvas:
        """A canvas with the same kernels, and no image yet."""
        return Canvas(self._kernels)

    def begin(self, picture: Pixels | Image.Image, targets: Targets | None = None) -> None:
        """Takes the picture of the next sample, and its targets; they are not changed.

        Args:
            picture: uint8 (height, width, channels); or a PIL image of mode RGB, RGBA, L, or RGBX,
                whose fourth byte is padding.
            targets: in pixels of the picture, with their visibility if it is not 1; None for none.
        """
        self._image = picture
        if targets is not None and len(targets.visibility) != len(targets.boxes):
            targets = targets._replace(visibility=np.ones(len(targets.boxes)))
        self._targets = targets
        self._geometry = None
        self._table = None

    @property
    def size(self) -> Size:
        """(height, width) as it is now."""
        return size_of(self._image) if self._geometry is None else self._geometry.size

    @property
    def channels(self) -> int:
        """1, 3, or 4 with alpha; applies nothing that is pending."""
        if isinstance(self._image, Image.Image):
            return _CHANNELS.get(self._image.mode, 3)
        channels: int = self._image.shape[2]
        return channels

    @property
    def picture(self) -> Pixels | Image.Image:
        """The image as it is now, in any of the forms that ``begin`` takes; not to be changed."""
        self._flush()
        return self._image

    @property
    def image(self) -> Pixels:
        """The pixels as they are now, C-contiguous; not to be changed, but to be replaced."""
        self._flush()
        self._image = np.ascontiguousarray(pixels_of(self._image))
        return self._image

    @image.setter
    def image(self, pixels: Pixels) -> None:
        """Replaces the pixels by as many others."""
        self._flush()  # so that targets move
        self._image = pixels

    @property
    def targets(self) -> Targets:
        """The targets as they are now; not to be changed."""
        self._flush()
        return Targets() if self._targets is None else self._targets

    # -- geometry ----------------------------------------------------------------------

    def crop(self, left: int, top: int, size: Size) -> None:
        """Takes a part, which must lie within the image."""
        now = self._pending()
        if isinstance(now, Warp):
            matrix = now.matrix @ translation(-left, -top)
            self._geometry = now._replace(matrix=matrix, size=size)
        else:
            self._geometry = now.part((left, top, left + size[1], top + size[0]), size)

    def resize(self, size: Size, box: Box | None = None, filter: Filter = "bilinear") -> None:
        """Resizes the image, or a part of it; filters average where they shrink (antialiasing).

        Args:
            size: (height, width) of the result.
            box: the part, within the image. If its edges are not whole numbers, filters that reach
                beyond them see the pixels there.
            filter: as PIL's.
        """
        box = (0, 0, *self.size[::-1]) if box is None else box
        if box == (0, 0, *size[::-1]) and size == self.size:
            return
        now = self._pending()
        if self._table is not None or isinstance(now, Warp) or now.filter:
            self._flush()
        part = self._part().part(box, size)
        self._geometry = part._replace(filter=filter, edge=part.box)

    def flip(self, horizontal: bool, vertical: bool) -> None:
        """Mirrors the image."""
        now, flips = self._geometry, (horizontal, vertical)
        if now is None:
            self._geometry = flipping(size_of(self._image), flips)
        elif isinstance(now, Warp):
            matrix = now.matrix @ flipping(now.size, flips).matrix
            self._geometry = now._replace(matrix=matrix)
        else:
            self._geometry = now.mirrored(flips)

    def warp(self, matrix: Matrix, style: WarpStyle, size: Size | None = None) -> None:
        """Warps the image.

        Args:
            matrix: (3, 3): takes points of the result to those of the image now.
            style: how to read there.
            size: of the result; None keeps it.
        """
        size = self.size if size is None else size
        now = self._geometry
        if self._table is None and isinstance(now, Warp) and now.style == style:
            before = now.matrix
        else:
            flips = self._flush(leave_flips=True)
            before = flipping(self.size, flips).matrix
        self._geometry = Warp(before @ matrix, size, style)

    def displace(self, x: NDArray[np.float32], y: NDArray[np.float32], style: WarpStyle) -> None:
        """Reads each pixel from a place beside it.

        Args:
            x: float32 (height, width), in pixels: how far to the right.
            y: the same, below.
            style: how to read there.

        Raises:
            RenderError: the image is too long or too wide for OpenCV.
        """
        self._flush()
        self._image = displaced(pixels_of(self._image), x, y, style)
        if self._targets is not None:
            masks = displaced_masks(self._targets.masks, x, y, style)
            self._targets = self._targets.displaced(x, y)._replace(masks=masks)

    def _pending(self) -> Window | Warp:
        return self._geometry if isinstance(self._geometry, Warp) else self._part()

    def _part(self) -> Window:
        """The pending geometry, which is no warp."""
        if isinstance(self._geometry, Window):
            return self._geometry
        return flipping(size_of(self._image), _NO_FLIPS)

    # -- values ------------------------------------------------------------------------

    def map_values(self, table: Pixels) -> None:
        """Replaces each value by that of a table: uint8 (256,), or (256, channels)."""
        now = self._table
        if now is None:
            self._table = table
        elif now.ndim == table.ndim == 2:
            self._table = np.take_along_axis(table, now.astype(np.intp), axis=0)
        else:
            self._table = table[now]

    def mix_channels(self, matrix: NDArray[Any]) -> None:
        """Multiplies the values of each pixel by a matrix, rounds, and clips to 0 to 255.

        Args:
            matrix: float (3, 3), or (3, 4) with numbers that are added; of images with an alpha
                channel, that channel is kept.
        """
        image = self.image
        if image.shape[2] == 4:
            whole = np.zeros((4, 5))
            whole[:3, :3] = matrix[:, :3]
            whole[:3, 4] = matrix[:, 3] if matrix.shape[1] == 4 else 0
            whole[3, 3] = 1
            matrix = whole
        self.image = np.asarray(cv2.transform(image, matrix), np.uint8)

    def change_colors(self, change: ColorChange) -> None:
        """Changes brightness, contrast, saturation and hue, and rounds once; alpha is kept."""
        self.image = self._kernels.change_colors(self.image, change)

    # -- pixels ------------------------------------------------------------------------

    def call(self, drawn: Any) -> None:
        """Replaces pixels and targets by what a function of the user's makes of them.

        Raises:
            RenderError: it raised, or returned something else.
        """
        assert self._caller is not None, "specs with calls have functions"
        image, targets = self._caller(drawn, self.image.copy(), self.targets)
        self._image = image
        if self._targets is not None:
            self._targets = targets

    def finish(self) -> tuple[Pixels, Flips, Pixels | None]:
        """The pixels, and the flips and the table that are left to be applied to them.

        Rows may be further apart in memory than they are long. The targets have the flips already.
        """
        flips = self._flush_geometry(leave_flips=True)
        if self._targets is not None and any(flips):
            self._targets = moved(self._targets, flipping(self.size, flips))
        table, self._table = self._table, None
        self._image = pixels_of(self._image)
        return self._image, flips, table

    def _flush(self, leave_flips: bool = False) -> Flips:
        """Applies what is pending, and returns the flips that are left."""
        left = self._flush_geometry(leave_flips)
        if self._table is not None:
            self._image = self._kernels.look_up(pixels_of(self._image), self._table)
            self._table = None
        return left

    def _flush_geometry(self, leave_flips: bool) -> Flips:
        """The same, but for tables."""
        geometry, self._geometry = self._geometry, None
        if geometry is None:
            return _NO_FLIPS
        if not (leave_flips and isinstance(geometry, Window)):
            if self._targets is not None:
                self._targets = moved(self._targets, geometry)
            self._image = geometry.applied(self._image)
            return _NO_FLIPS
        if self._targets is not None:
            self._targets = moved(self._targets, geometry.mirrored(geometry.flips))
        self._image = geometry.before_flips(self._image)
        return geometry.flips
