"""The arithmetic of ``keras.applications.*.preprocess_input``, as workers run it."""

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
        operation: which arithmetic.
        spec: the stream's.
    """
    mode, data_format = operation.mode, operation.data_format
    last = spec.image_shape[2] == 3 and data_format == "channels_last"
    # A sum is rounded by the order of its values in memory, and Keras's are turned in place.
    summed = spec.first(SamplewiseNormalization) is not None

    def arithmetic(x: Array) -> Array:
        if mode == "caffe" and last and not summed and x.dtype == np.float32:
            return _caffe(x)
        return imagenet(x, mode, data_format, spec.output.floatx)

    return arithmetic


def _caffe(x: Array) -> Array:
    """``imagenet`` for this mode: channels are turned round as planes, in a third of the time."""
    planes = cv2.split(np.ascontiguousarray(x))[::-1]
    for plane, mean in zip(planes, IMAGENET_MEAN_BGR, strict=True):
        np.subtract(plane, mean, out=plane)
    turned: Array = cv2.merge(planes)
    return turned
