"""Changes of the values of pixels: tables of them, and functions that change a canvas.

Tables are pure. An alpha channel is kept. Images of one channel have no colour: what changes colour
alone leaves them as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

Table = NDArray[np.uint8]
"""The new value of each value, (256,)."""

_LEVELS = np.arange(256)
_VALUES = np.arange(256.0)
_SHARES = _VALUES / 255
_GRAY = (0.2989, 0.587, 0.114)
"""The shares of red, green and blue in grey: those of Keras and torchvision."""
_EYE, _GRAYS = np.eye(3), np.array([_GRAY])


# -- tables ----------------------------------------------------------------------------


def linear_table(scale: float, offset: float) -> Table:
    """``value * scale + offset``, clipped."""
    return _rounded(_VALUES * scale + offset)


def gamma_table(gamma: float) -> Table:
    """``255 * (value / 255) ** gamma``."""
    return _rounded(255 * _SHARES**gamma)


def posterize_table(bits: int) -> Table:
    """Keeps the upper bits of each value."""
    return (_LEVELS >> (8 - bits) << (8 - bits)).astype(np.uint8)


def solarize_table(threshold: float, addition: float = 0.0) -> Table:
    """Adds to each value, and inverts what is then not below the threshold."""
    values = _VALUES + addition
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
    table: Table = np.rint(values.clip(0.0, 255.0)).astype(np.uint8)
    return table


# -- operations on a canvas ------------------------------------------------------------


def scaled_brightness(canvas: Canvas, factor: float) -> None:
    """Multiplies all values, as torchvision's ``adjust_brightness``."""
    map_colors(canvas, linear_table(factor, 0.0))


def blended_color(canvas: Canvas, factor: float) -> None:
    """Blends the image with its grey, and rounds down, as torchvision's ``adjust_saturation``.

    Images of one channel are kept.

    Args:
        canvas: holds the image.
        factor: of the image's own colours: 0 for grey, 1 for no change, more for more colour.
    """
    blend_gray(canvas, factor, -0.49)


def blended_contrast(canvas: Canvas, factor: float) -> None:
    """Blends the image with the mean of its grey, as torchvision's ``adjust_contrast``.

    Args:
        canvas: holds the image.
        factor: of the image's own values: 0 for grey, 1 for no change, more for more contrast.
    """
    means = _means(canvas.image)
    mean = float(np.dot(means, _GRAY)) if len(means) == 3 else means[0]
    map_colors(canvas, linear_table(factor, (1 - factor) * mean))


def posterized(canvas: Canvas, bits: int) -> None:
    """Keeps the upper bits of each value, as torchvision's ``posterize``."""
    map_colors(canvas, posterize_table(bits))


def solarized(canvas: Canvas, threshold: float) -> None:
    """Inverts values that are not below the threshold, as torchvision's ``solarize``."""
    map_colors(canvas, solarize_table(threshold))


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
    map_channels(canvas, [pil_equalize_table(each) for each in histograms(canvas.image)])


def inverted(canvas: Canvas) -> None:
    """Replaces each value by 255 minus it."""
    map_colors(canvas, _INVERTED)


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


def blend_gray(canvas: Canvas, factor: float, offset: float = 0.0) -> None:
    """Blends the image with its grey; see ``blended_color``. ``offset`` is added."""
    if canvas.image.shape[2] > 1:
        matrix = np.full((3, 4), offset)
        matrix[:, :3] = factor * _EYE + (1 - factor) * _GRAYS
        canvas.mix_channels(matrix)


def map_colors(canvas: Canvas, table: Table) -> None:
    """Applies a table to all channels but alpha."""
    if canvas.channels == 4:
        map_channels(canvas, [table] * 3)
    else:
        canvas.map_values(table)


def map_channels(canvas: Canvas, tables: list[Table]) -> None:
    """Applies a table to each channel but alpha."""
    if canvas.channels == 4:
        tables = [*tables, _rounded(_LEVELS)]
    canvas.map_values(np.stack(tables, axis=1))


def _scale_channels(canvas: Canvas, scales: list[float], offsets: list[float]) -> None:
    """``value * scale + offset`` of each channel but alpha."""
    if len(scales) == 1:
        canvas.map_values(linear_table(scales[0], offsets[0]))
    else:  # a fifth of the time of a table for each channel
        canvas.mix_channels(np.column_stack([np.diag(scales), offsets]))


def _means(image: Any) -> list[float]:
    """Those of the channels but alpha."""
    import cv2

    return list(cv2.mean(image)[: min(image.shape[2], 3)])


def histograms(image: Any) -> list[NDArray[Any]]:
    """Those of the channels but alpha."""
    import cv2

    channels = range(min(image.shape[2], 3))
    return [cv2.calcHist([image], [each], None, [256], [0, 256]).ravel() for each in channels]


# -- brightness, contrast, saturation and hue, rounded once at the end ---------------------


class Adjustment(NamedTuple):
    """What is done to brightness, contrast, saturation and hue, in this order; at first nothing.

    Attributes:
        brightness: grey levels that are added.
        contrast: by what the distance to the channel's mean is multiplied.
        saturation: by what saturation is multiplied.
        hue: the turn, as a share of a circle.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


def adjust(canvas: Canvas, to: Adjustment) -> None:
    """Changes colours as ``keras.layers.RandomColorJitter``."""
    if canvas.channels == 1:
        to = Adjustment(to.brightness, to.contrast)
    if to == Adjustment(to.brightness):
        map_colors(canvas, linear_table(1.0, to.brightness))
    else:
        saturation, sixths = max(to.saturation, 0.0), to.hue % 1 * 6
        canvas.change_colors((to.brightness, to.contrast, saturation, sixths))
