"""The common case of the last step: warp, flips and ``rescale``, in as few passes as it goes.

The values are Keras's, bit by bit, but for the warp, which is OpenCV's instead of scipy's.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.render.transforms.geometry import Warp
from loaderd.spec.spec import Pipeline
from loaderd.spec.transform import Transform

Array = NDArray[Any]

_BYTE = np.dtype(np.uint8)
_FLOAT = np.dtype(np.float32)


class FastFinish:
    """Finishes loaded images. Owns buffers: one for each thread.

    Args:
        pipeline: what to do; nothing but warps, flips and a rescale.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._rescale = pipeline.rescale or None
        cval = pipeline.cval * (self._rescale or 1.0)
        self._warp = Warp(pipeline.target_size, pipeline.fill_mode, cval, pipeline.compat)
        self._source = np.empty(pipeline.array_shape, np.float32)
        self._warped = np.empty(pipeline.array_shape, np.float32)
        self._first = pipeline.data_format == "channels_first"
        self._in_place = pipeline.dtype == "float32" and not self._first

    def __call__(self, image: Array, transform: Transform, row: Array) -> None:
        """Writes a finished image.

        Args:
            image: (height, width, channels), of any numbers; left as it is.
            transform: the random parameters of the sample.
            row: where it goes, in the pipeline's data format and dtype.
        """
        if self._first:
            row = row.transpose(1, 2, 0)
        if transform.warps:
            self._write_warped(image, transform, row)
        elif transform.flip_horizontal or transform.flip_vertical:
            self._write_flipped(image, transform, row)
        else:
            write(image, self._rescale, row)

    def _write_warped(self, image: Array, transform: Transform, row: Array) -> None:
        # The warp is linear, so the rescale may come first, in the pass that converts.
        write(image, self._rescale, self._source)
        if self._in_place:
            self._warp(self._source, transform, row)
        else:
            self._warp(self._source, transform, self._warped)
            write(self._warped, None, row)

    def _write_flipped(self, image: Array, transform: Transform, row: Array) -> None:
        fits = image.dtype == row.dtype and not self._rescale and not self._first
        flipped = flip(image, transform, row if fits else None)
        if flipped is not row:  # OpenCV has not filled it
            write(flipped, self._rescale, row)


def flip(image: Array, transform: Transform, out: Array | None = None) -> Array:
    """The image (height, width, channels), mirrored as the transform says.

    Args:
        image: left as it is.
        transform: the random parameters of the sample.
        out: an array like the image, where the result may be written.
    """
    if not (transform.flip_horizontal or transform.flip_vertical):
        return image
    if image.dtype != _BYTE and image.dtype != _FLOAT:
        return image[:: _step(transform.flip_vertical), :: _step(transform.flip_horizontal)]
    if transform.flip_horizontal and transform.flip_vertical:
        code = -1
    else:
        code = 1 if transform.flip_horizontal else 0
    mirrored: Array = cv2.flip(np.ascontiguousarray(image), code, dst=out)
    if mirrored is out:
        return mirrored
    return mirrored.reshape(image.shape)  # OpenCV drops the axis of a single channel


def _step(backwards: bool) -> int:
    return -1 if backwards else 1


def write(image: Array, rescale: float | None, row: Array) -> None:
    """Writes the image's values, times ``rescale``, in the row, converted to its dtype.

    The result is that of Keras, bit by bit: it converts the image to float32, multiplies
    in place by a Python float, and assigns to the batch (which, for uint8, cuts off).

    Args:
        image: numbers of any dtype, of the row's shape.
        rescale: a factor; None or 0 leaves the values.
        row: where the result goes.
    """
    if row.dtype == _FLOAT and image.dtype != _FLOAT:
        # Two passes, each in one dtype: NumPy's one pass goes through buffers.
        np.copyto(row, image, casting="unsafe")
        if rescale:
            np.multiply(row, np.float32(rescale), out=row)
        return
    if image.dtype != _BYTE and image.dtype != _FLOAT:
        image = image.astype(_FLOAT)
    if rescale:
        np.multiply(image, np.float32(rescale), out=row, casting="unsafe")
    else:
        np.copyto(row, image, casting="unsafe")
