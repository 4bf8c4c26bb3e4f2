"""Operations on pixels and their neighbours, noise and compression.

All of them keep an alpha channel as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Range, Size, bounds
from loaderd.errors import RenderError

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas
    from loaderd.augment.pixels import Pixels

_MAX_JPEG_SIDE = 65_500
"""Of libjpeg."""
_MAX_KERNEL = 255
"""Pixels, so that no mistake makes a worker busy for ever."""

_SMALLEST_SIGMA = 1e-6


class RandomSharpness(ImageOperation, frozen=True):
    """Blurs or sharpens the edges of each image; as ``keras.layers.RandomSharpness``.

    As there, pixels outside of the image count as black.

    Args:
        factor: (lower, upper) of the strength, from 0 (blurred) over 0.5 (unchanged) to 1
            (sharpened); one number is the upper, and the lower is 0.
    """

    factor: Range

    def check(self) -> None:
        """Raises InvalidArgument for a factor that is not from 0 to 1."""
        self.check_range("factor")

    def draw(self, draws: Draws, size: Size) -> float:
        """The weight of the image against its blurred self: from 0 to 2."""
        return 2 * draws.uniform(*bounds(self.factor))

    def apply(self, canvas: Canvas, parameters: float) -> None:
        """Mixes the image with its blurred self."""
        _change_colors(canvas, lambda colors: _against_smooth(colors, parameters))


def sharpened(canvas: Canvas, factor: float) -> None:
    """Changes the sharpness as PIL's ``ImageEnhance.Sharpness`` and torchvision's.

    The arithmetic is that of :class:`RandomSharpness`, but the outermost pixels are kept.

    Args:
        canvas: holds the image.
        factor: 0 blurs, 1 changes nothing, more sharpens.
    """

    def sharpen(colors: Pixels) -> Pixels:
        result: Pixels = _against_smooth(colors, factor)
        result[[0, -1]] = colors[[0, -1]]
        result[:, [0, -1]] = colors[:, [0, -1]]
        return result

    _change_colors(canvas, sharpen)


def _against_smooth(colors: Pixels, factor: float) -> Any:
    """``factor * colors + (1 - factor) * smooth``, rounded once.

    ``smooth`` is the mean of 3 x 3 pixels where the one in the middle counts 5 times: a sum of all
    nine, and 4 times the middle.
    """
    import cv2

    total = cv2.boxFilter(
        colors, cv2.CV_32F, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    other = (1 - factor) / 13
    mixed = cv2.addWeighted(
        colors, factor + 4 * other, total.reshape(colors.shape), other, 0, dtype=cv2.CV_8U
    )
    return mixed.reshape(colors.shape)


class RandomGaussianBlur(ImageOperation, frozen=True):
    """Blurs some of the images; as ``keras.layers.RandomGaussianBlur``.

    As there, pixels outside of the image count as black. ``sigma`` is drawn for each image instead
    of for the batch, and may be above 1.

    Args:
        factor: (lower, upper) of the probability, which is drawn for each image; one number is the
            upper, and the lower is 0.
        kernel_size: width and height of the kernel in pixels, odd; or (width, height), whose
            weights Keras mixes up where they differ.
        sigma: (lower, upper) of the kernel's standard deviation in pixels, which is drawn once for
            the width and once for the height; one number is the upper, and the lower is 0.
    """

    factor: Range = 1.0
    kernel_size: int | tuple[int, int] = 3
    sigma: Range = 1.0

    def check(self) -> None:
        """Raises InvalidArgument for values that are out of range."""
        self.check_range("factor")
        if any(not 1 <= size <= _MAX_KERNEL or size % 2 == 0 for size in self._sizes):
            raise self.refusal("kernel_size", f"must be odd, and from 1 to {_MAX_KERNEL}")
        low, high = bounds(self.sigma)
        if not 0 <= low <= high < float("inf"):
            raise self.refusal("sigma", "must be a number, or (lower, upper), not below 0")

    @property
    def _sizes(self) -> tuple[int, int]:
        size = self.kernel_size
        return size if isinstance(size, tuple) else (size, size)

    def draw(self, draws: Draws, size: Size) -> tuple[float, float] | None:
        """The standard deviations across and down; None for no blur."""
        if not draws.happens(draws.uniform(*bounds(self.factor))):
            return None
        low, high = bounds(self.sigma)
        across, down = draws.uniform(low, high), draws.uniform(low, high)
        return across + _SMALLEST_SIGMA, down + _SMALLEST_SIGMA

    def apply(self, canvas: Canvas, parameters: tuple[float, float] | None) -> None:
        """Blurs the image."""
        if parameters is None:
            return
        import cv2

        # Not GaussianBlur: that rounds its weights to 1/256, and is slower.
        across, down = map(_gaussian, self._sizes, parameters)
        _change_colors(
            canvas,
            lambda colors: cv2.sepFilter2D(
                colors, -1, across, down, borderType=cv2.BORDER_CONSTANT
            ),
        )


def _gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """The weights of a kernel, with sum 1."""
    places = np.arange(size) - (size - 1) / 2
    weights: NDArray[np.float64] = np.exp(-0.5 * (places / sigma) ** 2)
    weights /= weights.sum()
    return weights


class GaussianNoise(ImageOperation, frozen=True):
    """Adds normally distributed noise to each value; as ``keras.layers.GaussianNoise``.

    Keras's is in the units of the values that the layer gets, and at most 1; here they are grey
    levels, and the result is rounded and clipped to 0 to 255.

    Args:
        stddev: the standard deviation, in grey levels from 0 to 255.
    """

    stddev: float

    def check(self) -> None:
        """Raises InvalidArgument for a standard deviation that is not from 0 to 255."""
        if not 0 <= self.stddev <= 255:
            raise self.refusal("stddev", "must be from 0 to 255")

    def draw(self, draws: Draws, size: Size) -> NDArray[np.float32]:
        """Standard normal noise (height, width, 3); grey images use the first channel."""
        return draws.normals((*size, 3))

    def apply(self, canvas: Canvas, parameters: NDArray[np.float32]) -> None:
        """Adds the noise."""
        import cv2

        def add(colors: Pixels) -> Any:
            noise = np.ascontiguousarray(parameters[:, :, : colors.shape[2]])
            return cv2.addWeighted(colors, 1, noise, self.stddev, 0, dtype=cv2.CV_8U)

        _change_colors(canvas, add)


class JPEG(ImageOperation, frozen=True):
    """Compresses each image as a JPEG file, and decompresses it; as torchvision's ``JPEG``.

    Colours are stored at half the width and height (4:2:0), as there and in PIL.

    Args:
        quality: from 1 to 100; or (lower, upper), both included.
    """

    quality: int | tuple[int, int]

    def check(self) -> None:
        """Raises InvalidArgument for a quality that is not from 1 to 100."""
        low, high = self._bounds
        if not 1 <= low <= high <= 100:
            raise self.refusal("quality", "must be a number, or (lower, upper), from 1 to 100")

    @property
    def _bounds(self) -> tuple[int, int]:
        quality = self.quality
        return quality if isinstance(quality, tuple) else (quality, quality)

    def draw(self, draws: Draws, size: Size) -> int:
        """The quality."""
        low, high = self._bounds
        return low + draws.integer(high - low + 1)

    def apply(self, canvas: Canvas, parameters: int) -> None:
        """Compresses and decompresses."""
        _change_colors(canvas, lambda colors: _compressed(colors, parameters))


def _compressed(colors: Pixels, quality: int) -> Pixels:
    # OpenCV's encoder gives the bytes of PIL's, simplejpeg's does not; simplejpeg's decoder gives
    # the pixels of both, and is the faster one.
    import cv2
    import simplejpeg

    if max(colors.shape[:2]) > _MAX_JPEG_SIDE:
        raise RenderError(
            f"JPEG takes up to {_MAX_JPEG_SIDE} pixels each way, and this image has "
            f"{colors.shape[1]}x{colors.shape[0]}: resize or crop it first"
        )
    grey = colors.shape[2] == 1
    settings = (
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    )
    picture = colors if grey else cv2.cvtColor(colors, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", picture, settings)
    pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", fastdct=False)
    return pixels


def _change_colors(canvas: Canvas, change: Callable[[Pixels], Any]) -> None:
    """Applies a function to an image without its alpha channel, which is kept."""
    image = canvas.image
    colors = np.ascontiguousarray(image[:, :, :3])  # a copy only where there is alpha
    changed = change(colors).reshape(colors.shape)
    canvas.image = changed if image.shape[2] < 4 else np.dstack([changed, image[:, :, 3]])
