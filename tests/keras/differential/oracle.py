"""How far a row may lie from Keras's: nowhere at all, but for whitening.

The sums of a matrix product have no fixed order, so a whitened value may lie in a box about
what Keras has.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.keras.differential.surface import keras_image

Pixels = NDArray[Any]
Parameters = dict[str, Any]

SUMS = 1e-5  # of the summands of a matrix product

STILL: Parameters = {"theta": 0, "tx": 0, "ty": 0, "shear": 0, "zx": 1, "zy": 1}


class Step(NamedTuple):
    """What Keras did to one image."""

    image: Pixels
    parameters: Parameters
    result: Pixels  # before the batch's dtype


class Box(NamedTuple):
    """The lowest and the highest value for each pixel."""

    low: Pixels
    high: Pixels


def is_exact(generator: Any) -> bool:
    return not generator.zca_whitening or generator.zca_whitening_matrix is None


def allowed(generator: Any, step: Step) -> Box:
    """What a correct whitened row may hold, given what Keras did.

    Args:
        generator: Keras's.
        step: what it did to the row's image.
    """
    keras = keras_image.ImageDataGenerator
    x = keras.apply_transform(generator, step.image.copy(), step.parameters)
    generator.zca_whitening = False
    try:
        x = keras.standardize(generator, x)
    finally:
        generator.zca_whitening = True
    flat, matrix = x.ravel().astype(np.float64), generator.zca_whitening_matrix
    whitened = (flat @ matrix).reshape(x.shape)
    reach = SUMS * (abs(flat) @ abs(matrix.astype(np.float64))).reshape(x.shape)
    return Box(whitened - reach, whitened + reach)
