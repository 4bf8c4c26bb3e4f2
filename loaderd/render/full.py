"""Everything that may happen to a loaded image before it is in its row, as Keras does it.

::

    image ─► warp ─► channels ─► flips ─► brightness ─► [function] ─► normalize ─► row

This is the road for pipelines that the fast one (:mod:`loaderd.render.fast`) does not cover.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import LoaderdError, RenderError
from loaderd.render.transforms import augment
from loaderd.render.transforms.geometry import Warp
from loaderd.render.transforms.normalize import IMAGENET_MEAN_BGR, Normalization, imagenet
from loaderd.render.transforms.user_function import UserFunction, explain
from loaderd.spec.spec import Pipeline
from loaderd.spec.transform import Transform

Array = NDArray[Any]
_MOST_CHANNELS = 4  # that OpenCV warps at once


def is_needed(pipeline: Pipeline, compute: str, bundle: Mapping[str, Array]) -> bool:
    """Whether the fast road would not do.

    Args:
        pipeline: what to do.
        compute: the dtype to compute in.
        bundle: the stream's.
    """
    return (
        _needs_scipy(pipeline, compute)
        or bool(pipeline.channel_shift_range or pipeline.brightness_range)
        or pipeline.preprocessing is not None
        or pipeline.function is not None
        or pipeline.samplewise_center
        or pipeline.samplewise_std_normalization
        or not bundle.keys().isdisjoint(("mean", "std", "zca"))
    )


class FullFinish:
    """Finishes loaded images.

    Args:
        pipeline: what to do.
        compute: the dtype to compute in.
        bundle: the stream's.

    Raises:
        RenderError: the user's function cannot be loaded.
    """

    def __init__(self, pipeline: Pipeline, compute: str, bundle: Mapping[str, Array]) -> None:
        self._pipeline = pipeline
        self._compute = np.dtype(compute)
        self._first = pipeline.data_format == "channels_first"
        self._warped = np.empty(pipeline.array_shape, np.float32)
        self._by_scipy = _needs_scipy(pipeline, compute)
        self._fast = Warp(pipeline.target_size, pipeline.fill_mode, pipeline.cval, pipeline.compat)
        self._normalize = Normalization(
            _function(pipeline, bundle),
            pipeline.rescale or None,
            pipeline.samplewise_center,
            pipeline.samplewise_std_normalization,
            bundle.get("mean"),
            bundle.get("std"),
            bundle.get("zca"),
        )

    def seed(self, number: int, row: int, again: int = 0) -> None:
        """Before each image, for what the user's code draws; see ``UserFunction.seed``."""
        function = self._normalize.function
        if isinstance(function, UserFunction):
            function.seed(number, row, again)

    def at_home(self) -> AbstractContextManager[None]:
        """Within it the user's code, if any, finds the modules that the trainer finds."""
        function = self._normalize.function
        return function.at_home() if isinstance(function, UserFunction) else nullcontext()

    def __call__(self, image: Array, transform: Transform, row: Array) -> None:
        """Writes a finished image; within ``at_home``.

        Args:
            image: (height, width, channels), of any numbers; left as it is.
            transform: the random parameters of the sample.
            row: where it goes, in the pipeline's data format and dtype.

        Raises:
            RenderError: an operation refuses the image, or the user's function raised.
        """
        try:
            x = self._augment(image.astype(self._compute), transform)
            x = self._normalize(x.transpose(2, 0, 1) if self._first else x)
            row[...] = x
        except LoaderdError:
            raise
        except BaseException as error:  # the user's function may raise anything
            raise RenderError.of(error, explain(error)) from error

    def _augment(self, x: Array, transform: Transform) -> Array:
        if transform.warps:
            x = (self._scipy_warp if self._by_scipy else self._fast_warp)(x, transform)
        if transform.channel_shift_intensity is not None:
            x = augment.shift_channels(x, transform.channel_shift_intensity, 2)
        if transform.flip_horizontal:
            x = augment.flip_axis(x, 1)
        if transform.flip_vertical:
            x = augment.flip_axis(x, 0)
        if transform.brightness is not None:
            floatx = self._pipeline.floatx
            x = augment.shift_brightness(x, transform.brightness, False, floatx)
        return x

    def _fast_warp(self, x: Array, transform: Transform) -> Array:
        still = transform._replace(flip_horizontal=False, flip_vertical=False)
        self._fast(np.ascontiguousarray(x), still, self._warped)
        return self._warped

    def _scipy_warp(self, x: Array, transform: Transform) -> Array:
        pipeline = self._pipeline
        return augment.apply_affine(
            x,
            transform,
            augment.LAST,
            fill_mode=pipeline.fill_mode,
            cval=pipeline.cval,
            order=pipeline.interpolation_order,
            fixed=pipeline.compat == "fixed",
        )


def _needs_scipy(pipeline: Pipeline, compute: str) -> bool:
    """OpenCV has no splines, and computes in float32."""
    return (
        pipeline.interpolation_order != 1
        or compute != "float32"
        or pipeline.array_shape[2] > _MOST_CHANNELS
    )


def _function(pipeline: Pipeline, bundle: Mapping[str, Array]) -> Callable[[Array], Array] | None:
    if pipeline.function is not None:
        return UserFunction(pipeline.function, bundle)
    if pipeline.preprocessing is None:
        return None
    mode, data_format = pipeline.preprocessing, pipeline.preprocessing_format
    last = pipeline.image_shape[2] == 3 and data_format == "channels_last"
    # A sum is rounded by the order of its values in memory, and Keras's are turned in place.
    summed = pipeline.samplewise_center or pipeline.samplewise_std_normalization

    def arithmetic(x: Array) -> Array:
        if mode == "caffe" and last and not summed and x.dtype == np.float32:
            return _caffe(x)
        return imagenet(x, mode, data_format, pipeline.floatx)

    return arithmetic


def _caffe(x: Array) -> Array:
    """``imagenet`` for this mode: channels are turned round as planes, in a third of the time."""
    planes = cv2.split(np.ascontiguousarray(x))[::-1]
    for plane, mean in zip(planes, IMAGENET_MEAN_BGR, strict=True):
        np.subtract(plane, mean, out=plane)
    turned: Array = cv2.merge(planes)
    return turned
