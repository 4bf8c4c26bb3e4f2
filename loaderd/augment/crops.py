"""Operations that decide the size of images: resizes and crops."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Size
from loaderd.augment.warps import Filter, WarpStyle

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

_ATTEMPTS = 10
_LEAST = 1e-6
"""Of the factors of a part's area and shape; also the greatest's reciprocal."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def size(self) -> Size:
        """(height, width) of whole pixels."""
        return int(self.bottom - self.top), int(self.right - self.left)


class _Sized(ImageOperation, frozen=True):
    """Makes images of one size.

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
    """

    height: int
    width: int

    def check(self) -> None:
        """Raises InvalidArgument for a size that is not positive."""
        for name in ("height", "width"):
            if getattr(self, name) < 1:
                raise self.refusal(name, "must be positive")

    @property
    def sets_size(self) -> Size:
        """(height, width)."""
        return self.height, self.width


class Resize(_Sized, frozen=True):
    """Resizes each image.

    As ``keras.layers.Resizing``, but for the default of ``antialias``, which is torchvision's.

    Args:
        height: of the result, in pixels.
        width: of the result, in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``box``, ``hamming`` or ``lanczos``.
        crop_to_aspect_ratio: resizes the largest centred part of the result's shape.
        antialias: whether filters average where they shrink; ``nearest`` never does. Without, only
            ``bilinear`` is possible, and a list that begins with it cannot be cached.
    """

    interpolation: Filter = "bilinear"
    crop_to_aspect_ratio: bool = False
    antialias: bool = True

    def check(self) -> None:
        """Raises InvalidArgument for a size or a filter that is not possible."""
        super().check()
        if not self.antialias and self.interpolation not in ("nearest", "bilinear"):
            raise self.refusal("antialias", f"must be True for {self.interpolation}")

    @property
    def averages(self) -> bool:
        """Whether PIL's filters give the result."""
        return self.antialias or self.interpolation == "nearest"

    def apply(self, canvas: Canvas, parameters: None) -> None:
        """Resizes."""
        box = largest_box(canvas.size, self.sets_size) if self.crop_to_aspect_ratio else None
        if self.averages:
            canvas.resize(self.sets_size, box, self.interpolation)
            return
        if box is not None:
            canvas.crop(int(box.left), int(box.top), box.size)
        _resize_without_averaging(canvas, self.sets_size)


class CenterCrop(_Sized, frozen=True):
    """Takes the centre of each image.

    As ``keras.layers.CenterCrop``: an image that is smaller than the result is resized from its
    largest centred part of the result's shape.

    Args:
        height: of the result, in pixels.
        width: of the result, in pixels.
    """

    def apply(self, canvas: Canvas, parameters: None) -> None:
        """Crops, or resizes."""
        rows, columns = canvas.size
        if rows < self.height or columns < self.width:
            canvas.resize(self.sets_size, largest_box(canvas.size, self.sets_size))
            return
        left, top = int((columns - self.width) / 2), int((rows - self.height) / 2)
        canvas.crop(left, top, self.sets_size)


class RandomCrop(_Sized, frozen=True):
    """Takes a part of each image at a random place.

    As ``keras.layers.RandomCrop``, but with a place for each image instead of one for the batch:
    an image that is smaller than the result is resized from its largest centred part of the
    result's shape.

    Args:
        height: of the result, in pixels.
        width: of the result, in pixels.
    """

    def draw(self, draws: Draws, size: Size) -> tuple[int, int] | None:
        """(left, top) in pixels; None for an image that is smaller."""
        rows, columns = size[0] - self.height, size[1] - self.width
        if min(rows, columns) < 0:
            return None
        top = draws.integer(rows + 1)
        return draws.integer(columns + 1), top

    def apply(self, canvas: Canvas, parameters: tuple[int, int] | None) -> None:
        """Crops, or resizes."""
        if parameters is None:
            canvas.resize(self.sets_size, largest_box(canvas.size, self.sets_size))
        else:
            canvas.crop(*parameters, self.sets_size)


class RandomResizedCrop(_Sized, frozen=True):
    """Resizes a part of each image, of random size, shape and place.

    As torchvision's ``RandomResizedCrop`` (Szegedy et al., "Going deeper with convolutions", 2015):
    area and shape are drawn up to ten times until the part lies within the image; then it is the
    largest centred part of an allowed shape.

    Args:
        height: of the result, in pixels.
        width: of the result, in pixels.
        scale: (lower, upper) of the part's area, as a fraction of the image's.
        ratio: (lower, upper) of its width divided by its height, drawn on a logarithmic scale.
        interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``box``, ``hamming`` or ``lanczos``.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Filter = "bilinear"

    def check(self) -> None:
        """Raises InvalidArgument for ranges that are empty or not positive."""
        super().check()
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not _LEAST <= low <= high <= 1 / _LEAST:
                raise self.refusal(name, "must be (lower, upper), both positive and not extreme")

    def draw(self, draws: Draws, size: Size) -> Box:
        """The part."""
        rows, columns = size
        for _ in range(_ATTEMPTS):
            area = rows * columns * draws.uniform(*self.scale)
            ratio = exp(draws.uniform(log(self.ratio[0]), log(self.ratio[1])))
            width, height = round(sqrt(area * ratio)), round(sqrt(area / ratio))
            if 0 < width <= columns and 0 < height <= rows:
                top = draws.integer(rows - height + 1)
                left = draws.integer(columns - width + 1)
                return Box(left, top, left + width, top + height)
        return self._central(size)

    def _central(self, size: Size) -> Box:
        rows, columns = size
        ratio = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        width = max(1, min(columns, round(rows * ratio)))
        height = max(1, min(rows, round(columns / ratio)))
        left, top = (columns - width) // 2, (rows - height) // 2
        return Box(left, top, left + width, top + height)

    def apply(self, canvas: Canvas, parameters: Box) -> None:
        """Resizes the part."""
        canvas.resize(self.sets_size, parameters, self.interpolation)


def _resize_without_averaging(canvas: Canvas, size: Size) -> None:
    canvas.image = canvas.image  # a part ends at its edge
    (rows, columns), (height, width) = canvas.size, size
    matrix = np.diag([columns / width, rows / height, 1.0])
    canvas.warp(matrix, WarpStyle("bilinear", "nearest"), size)


def largest_box(size: Size, target: Size) -> Box:
    """The largest centred part of an image of the target's shape.

    The formula is that of ``smart_resize`` in ``keras/src/utils/image_utils.py``.
    """
    (height, width), (target_height, target_width) = size, target
    box_height = max(min(height, int(width * target_height / target_width)), 1)
    box_width = max(min(width, int(height * target_width / target_height)), 1)
    left, top = int((width - box_width) / 2), int((height - box_height) / 2)
    return Box(left, top, left + box_width, top + box_height)
