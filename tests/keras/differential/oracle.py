"""How far a row may lie from Keras's: nowhere at all, or inside a box.

A row is exact unless it was warped with linear interpolation (OpenCV instead of scipy)
or whitened (the sums of a matrix product have no fixed order). For such rows intervals
go through Keras's steps: each value has a lowest and a highest result. Where scipy and
OpenCV disagree about the border, a value may be any that the source holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.keras.differential.surface import keras_image

Pixels = NDArray[Any]
Parameters = dict[str, Any]

WARP = 0.03  # grey levels of 255: what OpenCV's float32 may lose
ROUNDING = 2e-6  # of the largest value: float32's own
SUMS = 1e-5  # of the summands of a matrix product
BORDER = 1.001  # pixels

STILL: Parameters = {"theta": 0, "tx": 0, "ty": 0, "shear": 0, "zx": 1, "zy": 1}


class Step(NamedTuple):
    """What Keras did to one image."""

    image: Pixels
    parameters: Parameters
    result: Pixels  # before the batch's dtype

    def moves(self) -> bool:
        return any(self.parameters[name] != still for name, still in STILL.items())


class Box(NamedTuple):
    """The lowest and the highest value for each pixel."""

    low: Pixels
    high: Pixels

    def through(self, function: Callable[[Pixels], Pixels]) -> Box:
        """Through a function that keeps the order of values, or turns it round."""
        one, other = function(self.low.copy()), function(self.high.copy())
        return Box(np.minimum(one, other), np.maximum(one, other))

    def widened(self, by: float | Pixels) -> Box:
        return Box(self.low - by, self.high + by)

    def rounded(self) -> Box:
        """With room for the rounding of values of this size."""
        return self.widened(ROUNDING * max(abs(self.low).max(), abs(self.high).max()))


def is_exact(generator: Any, step: Step) -> bool:
    whitened = generator.zca_whitening and generator.zca_whitening_matrix is not None
    return not whitened and not _warps_inexactly(generator, step)


def allowed(generator: Any, step: Step) -> Box:
    """What a correct row may hold, given what Keras did.

    Args:
        generator: Keras's.
        step: what it did to the row's image.
    """
    brightness = step.parameters["brightness"]
    rest = step.parameters | STILL | {"brightness": None}
    box = _moved(generator, step).through(lambda x: generator.apply_transform(x, rest))
    if brightness is not None:
        box = _brightened(box, brightness)
    return _standardized(generator, box)


def _warps_inexactly(generator: Any, step: Step) -> bool:
    return generator.interpolation_order == 1 and step.moves()


def _moved(generator: Any, step: Step) -> Box:
    image, motion = step.image, {name: step.parameters[name] for name in STILL}
    if not _warps_inexactly(generator, step):
        moved = generator.apply_transform(image, motion)
        return Box(moved, moved)
    moved = generator.apply_transform(image.astype(np.float64), motion)
    ends = [image.min(), image.max(), *([generator.cval] if _is_constant(generator) else [])]
    margin = WARP * max(1.0, abs(np.array(ends, np.float64)).max() / 255)
    unsure = _unsure(generator, step)
    low, high = (
        np.where(unsure, min(ends), moved - margin),
        np.where(unsure, max(ends), moved + margin),
    )
    low, high = np.clip(low, min(ends), max(ends)), np.clip(high, min(ends), max(ends))
    if np.issubdtype(image.dtype, np.integer):  # scipy rounds these, and clips them
        info = np.iinfo(image.dtype)
        low, high = (np.clip(np.floor(end + 0.5), info.min, info.max) for end in (low, high))
    return Box(low.astype(image.dtype), high.astype(image.dtype))


def _is_constant(generator: Any) -> bool:
    return bool(generator.fill_mode == "constant")


def _unsure(generator: Any, step: Step) -> Pixels:
    """Where the two libraries read different things at the border, before flips."""
    if generator.fill_mode in ("nearest", "reflect"):
        return np.zeros(step.image.shape, bool)
    channel, row, column = (
        axis - 1 for axis in (generator.channel_axis, generator.row_axis, generator.col_axis)
    )
    size = step.image.shape[row], step.image.shape[column]
    beside = _outside if _is_constant(generator) else _at_seam
    rows, columns = sources(step.parameters, size)
    unsure = beside(rows, size[0]) | beside(columns, size[1])
    return np.broadcast_to(np.expand_dims(unsure, channel), step.image.shape)


def _outside(place: Pixels, length: int) -> Pixels:
    """Less than a pixel outside: scipy has the constant there, OpenCV blends it in."""
    beyond = np.maximum(-place, place - (length - 1))
    unsure: Pixels = (beyond > 1 - BORDER) & (beyond < BORDER)
    return unsure


def _at_seam(place: Pixels, length: int) -> Pixels:
    """In a period's last pixel: scipy has the last row there, OpenCV the first one again."""
    period = max(length - 1, 1)
    rest = place % period
    unsure: Pixels = (rest > period - BORDER) | (rest < BORDER - 1)
    return unsure


def sources(parameters: Parameters, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """The source coordinates (rows, columns) of all pixels, by Keras's matrices."""
    theta, shear = np.deg2rad(parameters["theta"]), np.deg2rad(parameters["shear"])
    turn = [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    shift = [[1, 0, parameters["tx"]], [0, 1, parameters["ty"]], [0, 0, 1]]
    slant = [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]]
    zoom = np.diag([parameters["zx"], parameters["zy"], 1])
    about = keras_image.transform_matrix_offset_center(
        np.linalg.multi_dot([np.array(turn), np.array(shift), np.array(slant), zoom]), *size
    )
    rows, columns = np.mgrid[: size[0], : size[1]]
    # Keras swaps the axes: its first coordinate is the column, though it takes the height.
    x, y, _ = np.tensordot(about, np.stack([columns, rows, np.ones_like(rows)]), 1)
    return y, x


def _brightened(box: Box, brightness: float) -> Box:
    if box.low.min() >= 0 and box.high.max() <= 255:
        return box.through(lambda x: keras_image.apply_brightness_shift(x, brightness, False))
    # Keras stretches such images over 256 steps, works there, and undoes it: a step each
    # for cutting off and for brightness's own. Whether it does may depend on the border.
    darkest, lightest = (box.low.min(), box.high.min(), 0.0), (box.low.max(), box.high.max(), 255.0)
    step = (max(lightest) - min(darkest)) / 255
    factors = np.full(box.low.shape[-1], brightness)
    factors[3:] = 1  # Pillow leaves alpha as it is

    def at(end: Pixels, black: float, white: float) -> Pixels:
        return np.minimum(black + factors * (end.astype(np.float64) - black), white)

    lows = [at(box.low, black, min(lightest)) for black in darkest]
    highs = [at(box.high, black, max(lightest)) for black in darkest]
    whole = Box(np.minimum.reduce(lows), np.maximum.reduce(highs))
    return whole.widened((factors + 1) * step).rounded()


def _standardized(generator: Any, box: Box) -> Box:
    if generator.preprocessing_function:
        box = box.through(generator.preprocessing_function)
    box = Box(box.low.astype(np.float64), box.high.astype(np.float64))
    if generator.rescale:
        box = box.through(lambda x: x * generator.rescale)
    box = box.rounded()
    if generator.samplewise_center:
        box = _by_its_own(box, generator.samplewise_std_normalization).rounded()
    if generator.featurewise_center and generator.mean is not None:
        box = box.through(lambda x: x - generator.mean).rounded()
    if generator.featurewise_std_normalization and generator.std is not None:
        box = box.through(lambda x: x / (generator.std + 1e-6)).rounded()
    if generator.zca_whitening and generator.zca_whitening_matrix is not None:
        box = _whitened(box, generator.zca_whitening_matrix)
    return box


def _by_its_own(box: Box, deviation: bool) -> Box:
    """Minus the image's mean, and by its deviation: those have bounds, too."""
    centred = Box(box.low - box.high.mean(), box.high - box.low.mean())
    if not deviation:
        return centred
    middle = ((box.low + box.high) / 2).mean()
    farthest = np.maximum(abs(box.low - middle), abs(box.high - middle))
    most = np.sqrt(np.mean(farthest**2)) + 1e-6
    for _ in range(20):  # to the flattest image in the box
        middle = np.clip(middle, box.low, box.high).mean()
    least = 0.999 * np.clip(middle, box.low, box.high).std() + 1e-6
    return Box(
        centred.low / np.where(centred.low < 0, least, most),
        centred.high / np.where(centred.high < 0, most, least),
    )


def _whitened(box: Box, matrix: Pixels) -> Box:
    middle, radius = (box.low + box.high).ravel() / 2, (box.high - box.low).ravel() / 2
    whitened = (middle @ matrix).reshape(box.low.shape)
    reach = (radius + SUMS * abs(middle)) @ abs(matrix.astype(np.float64))
    return Box(whitened, whitened).widened(reach.reshape(box.low.shape))
