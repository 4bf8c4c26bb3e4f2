"""The last step: values to the batch's dtype, rescaled, in the given row."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.wire.transform import Transform


def flip(image: NDArray[Any], transform: Transform) -> NDArray[Any]:
    """The image (height, width, channels), mirrored as the transform says."""
    if not (transform.flip_horizontal or transform.flip_vertical):
        return image
    if transform.flip_horizontal and transform.flip_vertical:
        code = -1
    else:
        code = 1 if transform.flip_horizontal else 0
    mirrored: NDArray[Any] = cv2.flip(image, code)
    return mirrored.reshape(image.shape)  # OpenCV drops the axis of a single channel


def write(image: NDArray[Any], rescale: float | None, row: NDArray[Any]) -> None:
    """Writes the image's values, times ``rescale``, in the row, converted to its dtype.

    The result is that of Keras, bit by bit: it converts the image to float32, multiplies
    in place by a Python float, and assigns to the batch (which, for uint8, cuts off).

    Args:
        image: numbers of any dtype, of the row's shape.
        rescale: a factor; None or 0 leaves the values.
        row: where the result goes.
    """
    if image.dtype != np.uint8 and image.dtype != np.float32:
        image = image.astype(np.float32)
    if rescale:
        np.multiply(image, np.float32(rescale), out=row, casting="unsafe")
    else:
        np.copyto(row, image, casting="unsafe")
