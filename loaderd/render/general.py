"""The general path of the last step: one operation after the other, as in Keras.

For specs that the fast path (:mod:`loaderd.render.fast`) does not cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import LoaderdError, ProtocolError, RenderError
from loaderd.render.transforms import normalize
from loaderd.render.transforms.color import BrightnessOperation, ChannelShiftOperation
from loaderd.render.transforms.geometry import AffineOperation, FlipOperation
from loaderd.render.transforms.operation import Parts, RandomOperation, ValueOperation
from loaderd.render.transforms.preprocessing import preprocessing
from loaderd.render.transforms.user_function import UserFunction, explain
from loaderd.spec.operations import (
    FeaturewiseNormalization,
    Function,
    ImagenetPreprocessing,
    Operation,
    Random,
    RandomAffine,
    RandomBrightness,
    RandomChannelShift,
    RandomFlip,
    Rescaling,
    SamplewiseNormalization,
)
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Parameters

Array = NDArray[Any]
_Step = Callable[[Array, Parameters], Array]

_FEATUREWISE = {
    "mean": normalize.center_featurewise,
    "std": normalize.scale_featurewise,
    "zca": normalize.whiten,
}


def random_operations(spec: Spec, compute: str) -> list[RandomOperation]:
    """The random operations of a spec, in their order, ready to run.

    Args:
        spec: the stream's.
        compute: the dtype to compute in.
    """
    operations: list[RandomOperation] = []
    for operation in spec.transforms:
        match operation:
            case RandomAffine():
                operations.append(AffineOperation(operation, spec.load.array_shape, compute))
            case RandomChannelShift():
                operations.append(ChannelShiftOperation(operation))
            case RandomFlip():
                operations.append(FlipOperation(operation))
            case RandomBrightness():
                operations.append(BrightnessOperation(operation, spec.output.floatx))
    return operations


class GeneralFinish:
    """Finishes loaded images. Owns buffers: one for each thread.

    Args:
        spec: what to do.
        compute: the dtype to compute in.
        bundle: the stream's.
        random: the spec's random operations, ready to run.

    Attributes:
        function: the user's code, if there is any.
        copies: False.

    Raises:
        RenderError: the user's function cannot be loaded.
        ProtocolError: statistics are missing in the bundle.
    """

    copies = False

    def __init__(
        self, spec: Spec, compute: str, bundle: Parts, random: Sequence[RandomOperation]
    ) -> None:
        self._spec = spec
        self._compute = np.dtype(compute)
        self._bundle = bundle
        self.function: UserFunction | None = None
        self._steps = self._all_steps(spec, random)

    def _all_steps(self, spec: Spec, random: Sequence[RandomOperation]) -> list[_Step]:
        """Random operations see the channels last, all others see the output's data format."""
        steps: list[_Step] = []
        first, is_output = spec.output.data_format == "channels_first", False
        left = enumerate(random)
        for operation in spec.transforms:
            is_random = isinstance(operation, Random)
            if first and is_output is is_random:
                steps.append(_to_last if is_output else _to_first)
                is_output = not is_output
            if is_random:
                at, drawn = next(left)
                steps.append(_random_step(drawn, at))
            else:
                steps += [_step(one) for one in self._value_operations(operation)]
        if first and not is_output:
            steps.append(_to_first)
        return steps

    def _value_operations(self, operation: Operation) -> list[ValueOperation]:
        match operation:
            case Function():
                self.function = UserFunction(operation, self._bundle)
                return [self.function]
            case ImagenetPreprocessing():
                return [preprocessing(operation, self._spec)]
            case Rescaling(scale=scale):
                return [lambda x: normalize.rescale(x, scale)]
            case SamplewiseNormalization(center=center, std_normalization=std):
                both = (center, normalize.center_samplewise), (std, normalize.scale_samplewise)
                return [apply for wanted, apply in both if wanted]
            case FeaturewiseNormalization(statistics=names):
                return [self._featurewise(name) for name in names]
        raise ProtocolError(f"no operation is called {type(operation).__name__}")

    def _featurewise(self, name: str) -> ValueOperation:
        if name not in self._bundle:
            raise ProtocolError(f"the bundle lacks {name}")
        apply, value = _FEATUREWISE[name], self._bundle[name]
        return lambda x: apply(x, value)

    def prepare(self, parameters: Sequence[Parameters]) -> Sequence[Parameters]:
        """The parameters of the rows of a chunk, as they are."""
        return parameters

    def __call__(self, image: Array, prepared: Any, at: int, row: Array) -> None:
        """Writes a finished image; within ``import_scope`` of the user's function.

        Args:
            image: (height, width, channels), of any numeric dtype; not changed.
            prepared: the parameters of the rows of a chunk.
            at: the image's row of the chunk.
            row: the destination, in the output's data format and dtype.

        Raises:
            RenderError: an operation refuses the image, or the user's function raised.
        """
        parameters = prepared[at]
        try:
            x = image.astype(self._compute)
            for step in self._steps:
                x = step(x, parameters)
            row[...] = x
        except LoaderdError:
            raise
        except BaseException as error:  # the user's function may raise anything
            raise RenderError.of(error, explain(error)) from error


def _step(operation: ValueOperation) -> _Step:
    return lambda x, _: operation(x)


def _random_step(operation: RandomOperation, at: int) -> _Step:
    apply = operation.image
    return lambda x, parameters: apply(x, parameters[at])


def _to_first(x: Array, _: Parameters) -> Array:
    return x.transpose(2, 0, 1)


def _to_last(x: Array, _: Parameters) -> Array:
    return x.transpose(1, 2, 0)
