"""The arithmetic of ``keras.applications.*.preprocess_input`` in workers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.render.transforms.normalize import IMAGENET_MEAN_BGR, imagenet
from loaderd.render.transforms.operation import ValueOperation
from loaderd.spec.operations import ImagenetPreprocessing, SamplewiseNormalization
from loaderd.spec.spec import Spec

Array = NDArray[Any]


def preprocessing(operation: ImagenetPreprocessing, spec: Spec) -> ValueOperation:
    """The operation ready to run.

    Args:
        operation: holds the mode.
        spec: the stream's.
    """
    mode, data_format = operation.mode, operation.data_format
    last = spec.image_shape[2] == 3 and data_format == "channels_last"
    # Sums depend on the order of values in memory, and Keras reverses channels by a view.
    summed = spec.first(SamplewiseNormalization) is not None

    def arithmetic(x: Array) -> Array:
        if mode == "caffe" and last and not summed and x.dtype == np.float32:
            return _caffe(x)
        return imagenet(x, mode, data_format, spec.output.floatx)

    return arithmetic


def _caffe(x: Array) -> Array:
    """``imagenet`` for mode ``caffe``: reverses the channels as planes, three times as fast."""
    planes = cv2.split(np.ascontiguousarray(x))[::-1]
    for plane, mean in zip(planes, IMAGENET_MEAN_BGR, strict=True):
        np.subtract(plane, mean, out=plane)
    turned: Array = cv2.merge(planes)
    return turned
