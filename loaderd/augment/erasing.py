"""Operations that hide a part of the image."""

from __future__ import annotations

from functools import cache
from math import ceil, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.draws import Draws, normal_quantiles
from loaderd.augment.operation import ImageOperation, Range, Size, bounds

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas


class Erased(NamedTuple):
    """The part of an image that is erased.

    Attributes:
        rows: (first, end).
        columns: (first, end).
        noise: grey levels (height, width, 3) of the part; None for a fill value.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    noise: NDArray[np.uint8] | None


class RandomErasing(ImageOperation, frozen=True):
    """Replaces a rectangle of some of the images; as ``keras.layers.RandomErasing``.

    An alpha channel is kept.

    Args:
        factor: (lower, upper) of the probability, which is drawn for each image; one number is the
            upper, and the lower is 0.
        scale: (lower, upper) from which two numbers are drawn; the rectangle's width is the square
            root of the first as a fraction of the image's, its height that of the second. One
            number is the upper, and the lower is 0.
        fill_value: the grey level, or those of red, green and blue (grey images have the first),
            clipped to 0 to 255; None for noise of standard deviation 255, clipped: half of it is
            black.
    """

    factor: Range = 1.0
    scale: Range = (0.02, 0.33)
    fill_value: float | tuple[float, float, float] | None = None

    def check(self) -> None:
        """Raises InvalidArgument for ranges that are not from 0 to 1."""
        self.check_range("factor", "scale")

    def draw(self, draws: Draws, size: Size) -> Erased | None:
        """The rectangle and its noise; None for an image that is kept."""
        if not draws.happens(draws.uniform(*bounds(self.factor))):
            return None
        columns, rows = (self._span(draws, length) for length in reversed(size))
        if self.fill_value is not None:
            return Erased(rows, columns, None)
        shape = (rows[1] - rows[0], columns[1] - columns[0], 3)
        return Erased(rows, columns, draws.picks(_noise(), shape))

    def _span(self, draws: Draws, length: int) -> tuple[int, int]:
        """(first, end) of the pixels that begin within a random part of a side."""
        part = sqrt(draws.uniform(*bounds(self.scale))) * length
        start = draws.uniform(0, length - part)
        return ceil(start), ceil(start + part)

    def apply(self, canvas: Canvas, parameters: Erased | None) -> None:
        """Fills the rectangle."""
        if parameters is None:
            return
        rows, columns, noise = parameters
        image = canvas.image.copy()
        part = image[slice(*rows), slice(*columns), :3]
        if noise is None:
            noise = np.rint(np.array(self.fill_value, ndmin=1).clip(0, 255)).astype(np.uint8)
        part[:] = noise[..., : part.shape[2]]
        canvas.image = image


@cache
def _noise() -> NDArray[np.uint8]:
    """The grey levels of normal noise."""
    levels: NDArray[np.uint8] = np.rint((normal_quantiles() * 255).clip(0, 255)).astype(np.uint8)
    return levels
