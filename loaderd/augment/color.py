"""Operations on the values of pixels, each by itself.

Tables of values are pure functions, and functions of a canvas apply them; the classes draw. An
alpha channel is kept. Images of one channel have no colour: what changes colour alone leaves them
as they are.

``factor`` means what it means in Keras 3.15: two numbers are limits, one number f stands for the
limits that the class names. Keras's documentation describes some of them otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Size

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

Table = NDArray[np.uint8]
"""The new value of each value, (256,)."""
Floats = NDArray[np.float32]
Factor = float | tuple[float, float]

_LEVELS = np.arange(256)
_MAX_BINS = 2**16
_SHARES = _LEVELS / 255
_GRAY = (0.2989, 0.587, 0.114)
"""The shares of red, green and blue in grey: those of Keras and torchvision."""
_EYE, _GRAYS = np.eye(3), np.array([_GRAY])
_STRIP = 30_000
"""Values that are floats at a time: few enough for the processor's cache, and for malloc to keep
their memory."""
_EPSILON = 1e-7  # keras.config.epsilon()


# -- tables ----------------------------------------------------------------------------


def linear_table(scale: float, offset: float) -> Table:
    """``value * scale + offset``, clipped."""
    return _rounded(_LEVELS * scale + offset)


def gamma_table(gamma: float) -> Table:
    """``255 * (value / 255) ** gamma``."""
    return _rounded(255 * _SHARES**gamma)


def posterize_table(bits: int) -> Table:
    """Keeps the upper bits of each value."""
    return (_LEVELS >> (8 - bits) << (8 - bits)).astype(np.uint8)


def solarize_table(threshold: float, addition: float = 0.0) -> Table:
    """Adds to each value, and inverts what is then not below the threshold."""
    values = _LEVELS + addition
    return _rounded(np.where(values < threshold, values, 255 - values))


def equalize_table(histogram: NDArray[Any], bins: int = 256) -> Table:
    """Makes the values of one channel equally frequent, as ``keras.layers.Equalization``.

    Args:
        histogram: how often each value occurs, (256,).
        bins: how many values are told apart.
    """
    bin_of = _LEVELS * (bins - 1) // 255
    below = np.cumsum(np.bincount(bin_of, histogram, bins))
    lowest = below[np.argmax(below > 0)]
    if lowest == below[-1]:
        return _rounded(_LEVELS)
    return _rounded((below - lowest) * 255 / (below[-1] - lowest))[bin_of]


def pil_equalize_table(histogram: NDArray[Any]) -> Table:
    """As ``equalize_table``, as PIL's ``ImageOps.equalize`` and torchvision's ``equalize``.

    Args:
        histogram: how often each value occurs, (256,).
    """
    counts = histogram.astype(np.int64)
    below = np.cumsum(counts) - counts
    step = below[np.flatnonzero(counts)[-1]] // 255
    if step == 0:  # one value alone, or too few pixels
        return _rounded(_LEVELS)
    return _rounded((below + step // 2) // step)


_INVERTED: Table = (255 - _LEVELS).astype(np.uint8)


def _rounded(values: NDArray[Any]) -> Table:
    # Not np.clip, which takes 3 µs more, as long as all else.
    table: Table = np.rint(np.minimum(np.maximum(values, 0), 255)).astype(np.uint8)
    return table


# -- operations on a canvas ------------------------------------------------------------


def scaled_brightness(canvas: Canvas, factor: float) -> None:
    """Multiplies all values, as torchvision's ``adjust_brightness``."""
    _map_colors(canvas, linear_table(factor, 0.0))


def blended_color(canvas: Canvas, factor: float) -> None:
    """Blends the image with its grey, and rounds down, as torchvision's ``adjust_saturation``.

    Images of one channel are kept.

    Args:
        canvas: holds the image.
        factor: of the image's own colours: 0 for grey, 1 for no change, more for more colour.
    """
    _blend_gray(canvas, factor, -0.49)


def blended_contrast(canvas: Canvas, factor: float) -> None:
    """Blends the image with the mean of its grey, as torchvision's ``adjust_contrast``.

    Args:
        canvas: holds the image.
        factor: of the image's own values: 0 for grey, 1 for no change, more for more contrast.
    """
    means = _means(canvas.image)
    mean = float(np.dot(means, _GRAY)) if len(means) == 3 else means[0]
    _map_colors(canvas, linear_table(factor, (1 - factor) * mean))


def posterized(canvas: Canvas, bits: int) -> None:
    """Keeps the upper bits of each value, as torchvision's ``posterize``."""
    _map_colors(canvas, posterize_table(bits))


def solarized(canvas: Canvas, threshold: float) -> None:
    """Inverts values that are not below the threshold, as torchvision's ``solarize``."""
    _map_colors(canvas, solarize_table(threshold))


def autocontrasted(canvas: Canvas) -> None:
    """Stretches each channel to 0 to 255; constant channels are kept."""
    import cv2

    extremes = [cv2.minMaxLoc(channel)[:2] for channel in cv2.split(canvas.image)[:3]]
    lines = [_stretch(low, high) for low, high in extremes]
    _scale_channels(canvas, [scale for scale, _ in lines], [offset for _, offset in lines])


def _stretch(low: float, high: float) -> tuple[float, float]:
    """(scale, offset) that take ``low`` to 0 and ``high`` to 255."""
    if low == high:
        return 1.0, 0.0
    scale = 255 / (high - low)
    return scale, -low * scale


def equalized(canvas: Canvas) -> None:
    """Makes the values of each channel equally frequent, as torchvision's ``equalize``."""
    _map_channels(canvas, [pil_equalize_table(each) for each in _histograms(canvas.image)])


def inverted(canvas: Canvas) -> None:
    """Replaces each value by 255 minus it."""
    _map_colors(canvas, _INVERTED)


def contrasted(canvas: Canvas, factor: float) -> None:
    """Multiplies the distance of each value to the mean of its channel, as Keras."""
    means = _means(canvas.image)
    _scale_channels(canvas, [factor] * len(means), [(1 - factor) * mean for mean in means])


def saturated(canvas: Canvas, factor: float) -> None:
    """Multiplies the saturation in HSV, and clips the colours that come of it."""
    import cv2

    if canvas.image.shape[2] == 1:
        return
    # Hue and value are kept if the distance of each channel to the largest is multiplied. The
    # largest is a whole number: beyond 255 a greater factor changes nothing, but its rounding.
    factor = min(max(factor, 0.0), 255.0)
    red, green, blue, *alpha = cv2.split(canvas.image)
    largest = cv2.max(cv2.max(red, green), blue)
    result: Any = cv2.merge([largest, largest, largest, *alpha])
    cv2.addWeighted(canvas.image, factor, result, 1 - factor, 0, dst=result)
    canvas.image = result


def _blend_gray(canvas: Canvas, factor: float, offset: float = 0.0) -> None:
    if canvas.image.shape[2] > 1:
        matrix = np.full((3, 4), offset)
        matrix[:, :3] = factor * _EYE + (1 - factor) * _GRAYS
        canvas.mix_channels(matrix)


def _map_colors(canvas: Canvas, table: Table) -> None:
    """Applies a table to all channels but alpha."""
    if _channels(canvas) == 4:
        _map_channels(canvas, [table] * 3)
    else:
        canvas.map_values(table)


def _map_channels(canvas: Canvas, tables: list[Table]) -> None:
    """Applies a table to each channel but alpha."""
    if _channels(canvas) == 4:
        tables = [*tables, _rounded(_LEVELS)]
    canvas.map_values(np.stack(tables, axis=1))


def _scale_channels(canvas: Canvas, scales: list[float], offsets: list[float]) -> None:
    """``value * scale + offset`` of each channel but alpha."""
    if len(scales) == 1:
        canvas.map_values(linear_table(scales[0], offsets[0]))
    else:  # a fifth of the time of a table for each channel
        canvas.mix_channels(np.column_stack([np.diag(scales), offsets]))


def _channels(canvas: Canvas) -> int:
    """Their number; ``canvas.image`` would apply what is pending."""
    image: Any = canvas._image
    mode = getattr(image, "mode", None)
    return {"L": 1, "RGBA": 4}.get(mode, 3) if mode else image.shape[2]


def _means(image: Any) -> list[float]:
    """Those of the channels but alpha."""
    import cv2

    return list(cv2.mean(image)[: min(image.shape[2], 3)])


def _histograms(image: Any) -> list[NDArray[Any]]:
    """Those of the channels but alpha."""
    import cv2

    channels = range(min(image.shape[2], 3))
    return [cv2.calcHist([image], [each], None, [256], [0, 256]).ravel() for each in channels]


# -- classes ---------------------------------------------------------------------------


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
        _map_colors(canvas, linear_table(1.0, parameters))


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
        _adjust(canvas, Adjustment(hue=parameters))


class Adjustment(NamedTuple):
    """What is done to brightness, contrast, saturation and hue, in this order.

    Attributes:
        brightness: grey levels that are added.
        contrast: by what the distance to the channel's mean is multiplied.
        saturation: by what saturation is multiplied.
        hue: the turn, as a share of a circle.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None


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
            None if brightness is None else _drawn_brightness(draws, brightness),
            None if contrast is None else _drawn_contrast(draws, contrast),
            None if saturation is None else _drawn_saturation(draws, saturation),
            None if hue is None else _drawn_hue(draws, hue),
        )

    def apply(self, canvas: Canvas, parameters: Adjustment) -> None:
        """Changes what was drawn."""
        _adjust(canvas, parameters)


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
            _blend_gray(canvas, 0.0)


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
        _blend_gray(canvas, 1 - parameters)


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
        _map_colors(canvas, gamma_table(parameters))


class AutoContrast(ImageOperation, frozen=True):
    """Stretches the values of each channel to 0 to 255; as ``keras.layers.AutoContrast``.

    Channels of one value are kept.
    """

    def apply(self, canvas: Canvas, parameters: None) -> None:
        """Stretches the values."""
        autocontrasted(canvas)


class Equalization(ImageOperation, frozen=True):
    """Makes the values of each channel equally frequent; as ``keras.layers.Equalization``.

    Channels of one value are kept. (``equalized`` is torchvision's, with other rounding.)

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
        histograms = _histograms(canvas.image)
        _map_channels(canvas, [equalize_table(each, self.bins) for each in histograms])


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
        _map_colors(canvas, solarize_table(threshold, addition))


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


# -- brightness, contrast, saturation and hue, rounded once at the end ---------------------


def _adjust(canvas: Canvas, to: Adjustment) -> None:
    changes_levels = (to.brightness, to.contrast) != (None, None)
    changes_colors = (to.saturation, to.hue) != (None, None) and _channels(canvas) > 1
    levels = _adjusted_levels(canvas, to) if changes_levels else None
    if changes_colors:
        saturation = 1.0 if to.saturation is None else max(to.saturation, 0.0)
        canvas.image = _adjusted_colors(canvas.image, levels, saturation, to.hue or 0.0)
    elif levels is not None:
        _map_channels(canvas, [_rounded(each) for each in levels])


def _adjusted_levels(canvas: Canvas, to: Adjustment) -> NDArray[Any]:
    """What each value becomes in each channel but alpha, (channels, 256), by the first two."""
    levels = np.clip(_LEVELS + (to.brightness or 0.0), 0, 255)
    if to.contrast is None:
        return np.tile(levels, (min(_channels(canvas), 3), 1))
    counts = np.array(_histograms(canvas.image))
    means = (counts @ levels / counts.sum(axis=1))[:, np.newaxis]
    adjusted: NDArray[Any] = np.clip(to.contrast * levels + (1 - to.contrast) * means, 0, 255)
    return adjusted


def _adjusted_colors(image: Any, levels: NDArray[Any] | None, saturation: float, hue: float) -> Any:
    """Maps values, if there is a map, then changes saturation and hue in HSV.

    In float32: OpenCV's bytes, 256 hues, are up to 12 grey levels off, and no faster.
    """
    import cv2

    table = None if levels is None else levels.T.astype(np.float32)[:, np.newaxis]
    change = np.diag([1.0, saturation, 1.0])
    change = np.column_stack([change, [hue % 1 * 360, 0, 0]])  # OpenCV takes 0 to 720
    has_alpha = image.shape[2] == 4
    result = image.copy() if has_alpha else np.empty_like(image)
    rows = max(_STRIP // (3 * image.shape[1]), 1)
    for top in range(0, len(image), rows):
        strip = np.ascontiguousarray(image[top : top + rows, :, :3])
        values = strip.astype(np.float32) if table is None else cv2.LUT(strip, table)
        hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV)
        cv2.transform(hsv, change, dst=hsv)
        colors = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)
        if saturation > 1:  # then some are below 0
            np.maximum(colors, 0, out=colors)
        if has_alpha:
            result[top : top + rows, :, :3] = cv2.convertScaleAbs(colors)
        else:
            cv2.convertScaleAbs(colors, dst=result[top : top + rows])
    return result
