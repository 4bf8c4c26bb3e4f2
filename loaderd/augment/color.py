"""Operations on the values of pixels, each by itself.

``factor`` means what it means in Keras 3.15: two numbers are limits, one number f stands for the
limits that the class names. Keras's documentation describes some of them otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from loaderd.augment.color_changes import (
    Adjustment,
    adjust,
    autocontrasted,
    blend_gray,
    contrasted,
    equalize_table,
    gamma_table,
    histograms,
    inverted,
    linear_table,
    map_channels,
    map_colors,
    posterized,
    saturated,
    solarize_table,
)
from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Size

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

Factor = float | tuple[float, float]

_MAX_BINS = 2**16
_EPSILON = 1e-7  # keras.config.epsilon()


class _Factored(ImageOperation, frozen=True):
    """Has a ``factor``."""

    _lowest: ClassVar[float] = 0.0

    factor: Factor

    def check(self) -> None:
        """Raises InvalidArgument for a factor beyond the limits."""
        _check_factor(self, "factor", self._lowest)


class RandomBrightness(_Factored, frozen=True):
    """Adds a random number to all values; as ``keras.layers.RandomBrightness``.

    Args:
        factor: limits of what is added, from -1 to 1, as a share of 255; one number f for -f to f.
    """

    _lowest = -1.0

    def draw(self, draws: Draws, size: Size) -> float:
        """What is added, in grey levels."""
        return _drawn_brightness(draws, self.factor)

    def apply(self, canvas: Canvas, parameters: float) -> None:
        """Adds it."""
        map_colors(canvas, linear_table(1.0, parameters))


class RandomContrast(_Factored, frozen=True):
    """Moves values from or to their channel's mean; as ``keras.layers.RandomContrast``.

    Args:
        factor: two numbers a and b from 0 to 1, the lesser first: the distance to the mean is
            multiplied by 1 - a to 1 + b; one number f for 1 to 1 + f.
    """

    def draw(self, draws: Draws, size: Size) -> float:
        """By what the distance is multiplied."""
        return _drawn_contrast(draws, self.factor)

    def apply(self, canvas: Canvas, parameters: float) -> None:
        """Multiplies the distance."""
        contrasted(canvas, parameters)


class RandomSaturation(_Factored, frozen=True):
    """Multiplies the saturation of colours, in HSV; as ``keras.layers.RandomSaturation``.

    As there, saturation may exceed its range, and what colours then have below 0 becomes 0. Images
    of one channel are kept.

    Args:
        factor: limits of f, from -1 to 1: saturation is multiplied by f / (1 - f): 0 and less for
            grey, 0.5 for no change, 1 for full colours; one number f for -f to f.
    """

    _lowest = -1.0

    def draw(self, draws: Draws, size: Size) -> float:
        """By what saturation is multiplied."""
        return _drawn_saturation(draws, self.factor)

    def apply(self, canvas: Canvas, parameters: float) -> None:
        """Multiplies the saturation."""
        saturated(canvas, parameters)


class RandomHue(_Factored, frozen=True):
    """Turns the hue of colours, in HSV, in a random direction; as ``keras.layers.RandomHue``.

    Images of one channel are kept.

    Args:
        factor: limits of the turn, from 0 to 1, as a share of half a circle; one number f for
            0 to f.
    """

    def draw(self, draws: Draws, size: Size) -> float:
        """The turn, as a share of a circle."""
        return _drawn_hue(draws, self.factor)

    def apply(self, canvas: Canvas, parameters: float) -> None:
        """Turns the hue."""
        adjust(canvas, Adjustment(hue=parameters))


class RandomColorJitter(ImageOperation, frozen=True):
    """Changes brightness, contrast, saturation and hue, in this order.

    As ``keras.layers.RandomColorJitter``. On images of one channel, brightness and contrast alone.

    Args:
        brightness_factor: as ``RandomBrightness``'s ``factor``; None leaves it out.
        contrast_factor: as ``RandomContrast``'s ``factor``; None leaves it out.
        saturation_factor: as ``RandomSaturation``'s ``factor``; None leaves it out.
        hue_factor: as ``RandomHue``'s ``factor``; None leaves it out.
    """

    brightness_factor: Factor | None = None
    contrast_factor: Factor | None = None
    saturation_factor: Factor | None = None
    hue_factor: Factor | None = None

    def check(self) -> None:
        """Raises InvalidArgument for factors beyond the limits."""
        _check_factor(self, "brightness_factor", RandomBrightness._lowest)
        _check_factor(self, "contrast_factor", RandomContrast._lowest)
        _check_factor(self, "saturation_factor", RandomSaturation._lowest)
        _check_factor(self, "hue_factor", RandomHue._lowest)

    def draw(self, draws: Draws, size: Size) -> Adjustment:
        """All four."""
        brightness, contrast = self.brightness_factor, self.contrast_factor
        saturation, hue = self.saturation_factor, self.hue_factor
        return Adjustment(
            0.0 if brightness is None else _drawn_brightness(draws, brightness),
            1.0 if contrast is None else _drawn_contrast(draws, contrast),
            1.0 if saturation is None else _drawn_saturation(draws, saturation),
            0.0 if hue is None else _drawn_hue(draws, hue),
        )

    def apply(self, canvas: Canvas, parameters: Adjustment) -> None:
        """Changes what was drawn."""
        adjust(canvas, parameters)


class RandomGrayscale(ImageOperation, frozen=True):
    """Makes images grey, and keeps their channels; as ``keras.layers.RandomGrayscale``.

    Args:
        factor: the probability, from 0 to 1.
    """

    factor: float = 0.5

    def check(self) -> None:
        """Raises InvalidArgument for what is no probability."""
        _check_factor(self, "factor", 0.0)

    def draw(self, draws: Draws, size: Size) -> bool:
        """Whether the image becomes grey."""
        return draws.happens(self.factor)

    def apply(self, canvas: Canvas, parameters: bool) -> None:
        """Makes the image grey."""
        if parameters:
            blend_gray(canvas, 0.0)


class RandomColorDegeneration(_Factored, frozen=True):
    """Blends images with their grey; as ``keras.layers.RandomColorDegeneration``.

    Images of one channel are kept.

    Args:
        factor: limits of the share of grey, from -1, which adds colour, over 0, which changes
            nothing, to 1; one number f for -f to f.
    """

    _lowest = -1.0

    def draw(self, draws: Draws, size: Size) -> float:
        """The share of grey."""
        return draws.uniform(*_limits(self.factor, self._lowest))

    def apply(self, canvas: Canvas, parameters: float) -> None:
        """Blends with grey."""
        blend_gray(canvas, 1 - parameters)


class RandomGamma(ImageOperation, frozen=True):
    """Raises values, from 0 to 1, to a random power; torchvision's ``adjust_gamma``, drawn.

    Args:
        gamma: limits of the power, positive: below 1 for brighter shadows, above 1 for darker ones.
    """

    gamma: tuple[float, float] = (0.8, 1.2)

    def check(self) -> None:
        """Raises InvalidArgument for powers that are not positive, or in the wrong order."""
        if not 0 < self.gamma[0] <= self.gamma[1] < np.inf:
            raise self.refusal("gamma", "must be two positive numbers, the lesser first")

    def draw(self, draws: Draws, size: Size) -> float:
        """The power."""
        return draws.uniform(*self.gamma)

    def apply(self, canvas: Canvas, parameters: float) -> None:
        """Raises the values."""
        map_colors(canvas, gamma_table(parameters))


class AutoContrast(ImageOperation, frozen=True):
    """Stretches the values of each channel to 0 to 255; as ``keras.layers.AutoContrast``.

    Channels of one value are kept.
    """

    def apply(self, canvas: Canvas, parameters: None) -> None:
        """Stretches the values."""
        autocontrasted(canvas)


class Equalization(ImageOperation, frozen=True):
    """Makes the values of each channel equally frequent; as ``keras.layers.Equalization``.

    Channels of one value are kept. (``RandAugment``'s is torchvision's, with other rounding.)

    Args:
        bins: how many values are told apart.
    """

    bins: int = 256

    def check(self) -> None:
        """Raises InvalidArgument for bins out of their range."""
        if not 1 <= self.bins <= _MAX_BINS:
            raise self.refusal("bins", f"must be positive, and at most {_MAX_BINS}")

    def apply(self, canvas: Canvas, parameters: None) -> None:
        """Equalizes the channels."""
        counts = histograms(canvas.image)
        map_channels(canvas, [equalize_table(each, self.bins) for each in counts])


class RandomPosterization(ImageOperation, frozen=True):
    """Keeps the upper bits of each value; as ``keras.layers.RandomPosterization``.

    Args:
        factor: two numbers of bits from 1 to 8: from the lesser to below the greater are kept, or
            exactly that many if they are equal; one number f for (1, f).
    """

    factor: int | tuple[int, int]

    def check(self) -> None:
        """Raises InvalidArgument for a wrong number of bits."""
        if not all(1 <= bits <= 8 for bits in _pair(self.factor)):
            raise self.refusal("factor", "must be from 1 to 8")

    def draw(self, draws: Draws, size: Size) -> int:
        """The number of bits that are kept."""
        low, high = (1, self.factor) if isinstance(self.factor, int) else sorted(self.factor)
        return low + draws.integer(max(high - low, 1))

    def apply(self, canvas: Canvas, parameters: int) -> None:
        """Keeps the upper bits."""
        posterized(canvas, parameters)


class Solarization(ImageOperation, frozen=True):
    """Adds to all values, and inverts what is not below a threshold; ``keras.layers.Solarization``.

    By default all values are inverted.

    Args:
        addition_factor: two numbers a and b from 0 to 1, the lesser first: a to 255 * b is added,
            in grey levels (sic: Keras does not multiply the lesser); one number f for (0, f).
        threshold_factor: the threshold, in the same way.
    """

    addition_factor: Factor = 0.0
    threshold_factor: Factor = 0.0

    def check(self) -> None:
        """Raises InvalidArgument for factors beyond the limits."""
        for name in ("addition_factor", "threshold_factor"):
            _check_factor(self, name, 0.0)

    def draw(self, draws: Draws, size: Size) -> tuple[float, float]:
        """(what is added, threshold) in grey levels."""
        addition, threshold = _limits(self.addition_factor), _limits(self.threshold_factor)
        return (
            draws.uniform(addition[0], 255 * addition[1]),
            draws.uniform(threshold[0], 255 * threshold[1]),
        )

    def apply(self, canvas: Canvas, parameters: tuple[float, float]) -> None:
        """Adds and inverts."""
        addition, threshold = parameters
        map_colors(canvas, solarize_table(threshold, addition))


class RandomInvert(_Factored, frozen=True):
    """Inverts images with a probability that is itself drawn; as ``keras.layers.RandomInvert``.

    Args:
        factor: limits of the probability, from 0 to 1; one number f for 0 to f.
    """

    factor: Factor = 1.0

    def draw(self, draws: Draws, size: Size) -> bool:
        """Whether the image is inverted."""
        return draws.happens(draws.uniform(*_limits(self.factor)))

    def apply(self, canvas: Canvas, parameters: bool) -> None:
        """Inverts the image."""
        if parameters:
            inverted(canvas)


# -- factors ---------------------------------------------------------------------------


def _pair(factor: Any) -> tuple[Any, Any]:
    return factor if isinstance(factor, tuple) else (factor, factor)


def _limits(factor: Factor, lowest: float = 0.0) -> tuple[float, float]:
    """The limits that a factor stands for."""
    if isinstance(factor, tuple):
        return min(factor), max(factor)
    return max(-abs(factor), lowest), abs(factor)


def _check_factor(operation: ImageOperation, name: str, lowest: float) -> None:
    factor = getattr(operation, name)
    if factor is not None and not all(lowest <= one <= 1 for one in _pair(factor)):
        raise operation.refusal(name, f"must be from {lowest:g} to 1")


def _drawn_brightness(draws: Draws, factor: Factor) -> float:
    return 255 * draws.uniform(*_limits(factor, RandomBrightness._lowest))


def _drawn_contrast(draws: Draws, factor: Factor) -> float:
    low, high = _limits(factor, RandomContrast._lowest)
    return draws.uniform(1 - low, 1 + high)


def _drawn_saturation(draws: Draws, factor: Factor) -> float:
    share = draws.uniform(*_limits(factor, RandomSaturation._lowest))
    return share / (1 - share + _EPSILON)


def _drawn_hue(draws: Draws, factor: Factor) -> float:
    sign = -1.0 if draws.happens(0.5) else 1.0
    return sign * 0.5 * draws.uniform(*_limits(factor, RandomHue._lowest))
