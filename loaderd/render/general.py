"""The general path of the last step: one operation after the other, as in Keras.

For specs that the fast path (:mod:`loaderd.render.fast`) does not cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from loaderd.errors import LoaderdError, ProtocolError, RenderError
from loaderd.render.transforms import normalize
from loaderd.render.transforms.augment import BrightnessOperation, ChannelShiftOperation
from loaderd.render.transforms.geometry import AffineOperation, FlipOperation
from loaderd.render.transforms.operation import Array, Parts, RandomOperation, ValueOperation
from loaderd.render.transforms.user_function import UserFunctions, explain
from loaderd.render.values import writer
from loaderd.spec import operations as kinds
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform, Transforms

_Step = Callable[[Array, Transform], Array]

_FEATUREWISE = {
    "mean": normalize.center_featurewise,
    "std": normalize.scale_featurewise,
    "zca": normalize.whiten,
}


def random_operations(spec: Spec, compute: str) -> list[RandomOperation]:
    """The random operations of a spec, in their order, ready to run with images of a dtype."""
    operations: list[RandomOperation] = []
    for operation in spec.transforms:
        match operation:
            case kinds.RandomAffine():
                operations.append(AffineOperation(operation, spec.load.array_shape, compute))
            case kinds.RandomChannelShift():
                operations.append(ChannelShiftOperation(operation))
            case kinds.GeneratorFlip():
                operations.append(FlipOperation(operation))
            case kinds.GeneratorBrightness():
                operations.append(BrightnessOperation(operation, spec.output.floatx))
    return operations


class GeneralFinish:
    """Finishes loaded images. Owns buffers: one for each thread.

    Args:
        spec: what to do.
        compute: the dtype to compute in.
        bundle: the stream's.
        random: the spec's random operations, ready to run.
        functions: the user's code, if there is any.

    Raises:
        ProtocolError: statistics are missing in the bundle.
    """

    copies = False

    def __init__(
        self,
        spec: Spec,
        compute: str,
        bundle: Parts,
        random: Sequence[RandomOperation],
        functions: UserFunctions | None = None,
    ) -> None:
        self._spec = spec
        self._compute = np.dtype(compute)
        self._write = writer(spec.output.dtype)
        self._bundle = bundle
        self._functions = functions
        self._steps = self._all_steps(spec, random)

    def _all_steps(self, spec: Spec, random: Sequence[RandomOperation]) -> list[_Step]:
        """Random operations see the channels last, all others see the output's data format."""
        steps: list[_Step] = []
        first, is_output = spec.output.data_format == "channels_first", False
        left = iter(random)
        for operation in spec.transforms:
            is_random = isinstance(operation, kinds.Random)
            if first and is_output is is_random:
                steps.append(_to_last if is_output else _to_first)
                is_output = not is_output
            if is_random:
                steps.append(next(left).image)
            else:
                steps += [_step(one) for one in self._value_operations(operation)]
        if first and not is_output:
            steps.append(_to_first)
        return steps

    def _value_operations(self, operation: kinds.Operation) -> list[ValueOperation]:
        match operation:
            case kinds.UserCode():
                assert self._functions is not None, "a renderer loads them first"
                return [*self._functions.functions]
            case kinds.ImagenetPreprocessing():
                return [_preprocessing(operation, self._spec)]
            case kinds.GeneratorRescaling(scale=scale):
                return [lambda x: normalize.rescale(x, scale)]
            case kinds.SamplewiseNormalization(center=center, std_normalization=std):
                both = (center, normalize.center_samplewise), (std, normalize.scale_samplewise)
                return [apply for wanted, apply in both if wanted]
            case kinds.FeaturewiseNormalization(statistics=names):
                return [self._featurewise(name) for name in names]
        raise ProtocolError(f"no operation is called {type(operation).__name__}")

    def _featurewise(self, name: str) -> ValueOperation:
        if name not in self._bundle:
            raise ProtocolError(f"the bundle lacks {name}")
        apply, value = _FEATUREWISE[name], self._bundle[name]
        return lambda x: apply(x, value)

    def prepare(self, drawn: Transforms) -> list[Transform]:
        """The parameters of the rows of a chunk, one by one."""
        return [Transform._make(row) for row in drawn.tolist()]

    def __call__(self, image: Array, prepared: Any, at: int, row: Array) -> None:
        """See ``Renderer.finish``; to be called within ``import_scope``.

        Raises:
            RenderError: an operation refuses the image, or the user's function raised.
        """
        drawn = prepared[at]
        try:
            x = image.astype(self._compute)
            for step in self._steps:
                x = step(x, drawn)
            self._put(x, row)
        except LoaderdError:
            raise
        except BaseException as error:  # the user's function may raise anything
            raise RenderError.of(error, explain(error)) from error

    def _put(self, x: Array, row: Array) -> None:
        try:
            self._write(x, row)
        except ValueError as error:  # all other operations keep the shape
            text = f"preprocessing_function returned an image of another shape: {error}"
            raise RenderError.of(error, text) from error


def _preprocessing(operation: kinds.ImagenetPreprocessing, spec: Spec) -> ValueOperation:
    mode, data_format = operation.mode, operation.data_format
    last = spec.image_shape[2] == 3 and data_format == "channels_last"
    # Sums depend on the order of values in memory, and Keras reverses channels by a view.
    summed = spec.first(kinds.SamplewiseNormalization) is not None

    def arithmetic(x: Array) -> Array:
        if mode == "caffe" and last and not summed and x.dtype == np.float32:
            return _caffe(x)
        return normalize.imagenet(x, mode, data_format, spec.output.floatx)

    return arithmetic


def _caffe(x: Array) -> Array:
    """``imagenet`` for mode ``caffe``: reverses the channels as planes, three times as fast."""
    planes = cv2.split(np.ascontiguousarray(x))[::-1]
    for plane, mean in zip(planes, normalize.IMAGENET_MEAN_BGR, strict=True):
        np.subtract(plane, mean, out=plane)
    return cv2.merge(planes)


def _step(operation: ValueOperation) -> _Step:
    return lambda x, _: operation(x)


def _to_first(x: Array, _: Transform) -> Array:
    return x.transpose(2, 0, 1)


def _to_last(x: Array, _: Transform) -> Array:
    return x.transpose(1, 2, 0)
