"""Keras's normalization of one image, or of a batch, with Keras's exact values.

The operations, their order and their dtypes are those of ``ImageDataGenerator.standardize``
in ``keras/src/legacy/preprocessing/image.py``, and of ``_preprocess_numpy_input`` in
``keras/src/applications/imagenet_utils.py``. Imports NumPy, but no decoder.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.spec.base import DataFormat, Preprocessing

Array = NDArray[Any]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def rescale(x: Array, factor: float) -> Array:
    """Multiplies an image in place."""
    x *= factor
    return x


def center_samplewise(x: Array) -> Array:
    """Subtracts the mean of all values, in place."""
    x -= np.mean(x, keepdims=True)
    return x


def scale_samplewise(x: Array) -> Array:
    """Divides by the standard deviation of all values, in place."""
    x /= np.std(x, keepdims=True) + 1e-6
    return x


def center_featurewise(x: Array, mean: Array) -> Array:
    """Subtracts a mean, in place."""
    _each_channel(np.subtract, x, np.asarray(mean))
    return x


def scale_featurewise(x: Array, std: Array) -> Array:
    """Divides by a standard deviation, in place."""
    _each_channel(np.divide, x, np.asarray(std) + 1e-6)
    return x


def whiten(x: Array, matrix: Array) -> Array:
    """Multiplies the flattened image, or each of a batch, by a whitening matrix."""
    flat = x.reshape(-1, math.prod(x.shape[-3:]))
    return np.reshape(flat @ matrix, x.shape)


class Imagenet(NamedTuple):
    """A ``preprocess_input`` of ``keras.applications``, without Keras.

    Attributes:
        mode: ``caffe``, ``tf``, ``torch``, or None, which changes nothing.
        data_format: the default for calls without one.
        floatx: the dtype to which integers are converted.
    """

    mode: Preprocessing | None
    data_format: DataFormat
    floatx: str

    def __call__(self, x: Array, data_format: DataFormat | None = None) -> Array:
        """Preprocesses one image; see :func:`imagenet`."""
        if self.mode is None:
            return x
        return imagenet(x, self.mode, data_format or self.data_format, self.floatx)


def _each_channel(operation: np.ufunc, x: Array, value: Array) -> None:
    """``operation(x, value)`` in place; along a last axis value by value: three times as fast."""
    channels = x.shape[-1]
    if value.ndim and value.size == value.shape[-1] == channels:
        for channel in range(channels):
            operation(x[..., channel], value[..., channel], out=x[..., channel])
    else:
        operation(x, value, out=x)


def imagenet(x: Array, mode: Preprocessing, data_format: DataFormat, floatx: str) -> Array:
    """The arithmetic of ``keras.applications.*.preprocess_input``.

    Args:
        x: one image; changed in place if it holds floats.
        mode: ``caffe``, ``tf`` or ``torch``.
        data_format: of the image.
        floatx: the dtype to which integers are converted.
    """
    if not issubclass(x.dtype.type, np.floating):
        x = x.astype(floatx, copy=False)
    if mode == "tf":
        x /= 127.5
        x -= 1.0
        return x
    channels = x if data_format == "channels_first" else np.moveaxis(x, -1, 0)
    if mode == "torch":
        x /= 255.0
        for channel in range(3):
            channels[channel] -= IMAGENET_MEAN[channel]
            channels[channel] /= IMAGENET_STD[channel]
        return x
    channels = channels[::-1]
    for channel in range(3):
        channels[channel] -= IMAGENET_MEAN_BGR[channel]
    return channels if data_format == "channels_first" else np.moveaxis(channels, 0, -1)
