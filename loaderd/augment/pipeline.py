"""A list of operations, divided by what they work on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from loaderd.augment.mixing import MixOperation
from loaderd.augment.operation import ImageOperation, Operation, Size
from loaderd.augment.values import ValueOperation
from loaderd.errors import InvalidArgument


class Pipeline(NamedTuple):
    """The operations of a list.

    Attributes:
        images: those on each image of bytes, with their numbers.
        values: those on finished values, in their order.
        mixes: those that mix images of a batch, with their numbers.
    """

    images: tuple[tuple[int, ImageOperation], ...]
    values: tuple[ValueOperation, ...]
    mixes: tuple[tuple[int, MixOperation], ...]

    @property
    def size(self) -> Size | None:
        """(height, width) of the images that it makes; None if they keep theirs."""
        sizes = [op.sets_size for _, op in self.images if op.sets_size is not None]
        return sizes[-1] if sizes else None


def divide(operations: Sequence[Operation]) -> Pipeline:
    """Divides a list of operations.

    Operations on images come first, in any order. ``MixUp`` and ``CutMix`` may come before or after
    ``Rescaling`` and ``Normalization``: they are applied to finished values.

    Raises:
        InvalidArgument: an operation on images follows one of the others.
    """
    images: list[tuple[int, ImageOperation]] = []
    values: list[ValueOperation] = []
    mixes: list[tuple[int, MixOperation]] = []
    last = ""
    for number, operation in enumerate(operations):
        name = type(operation).__name__.removesuffix("Call")
        match operation:
            case ImageOperation() if last:
                raise InvalidArgument(f"augment: {name} must come before {last}")
            case ImageOperation():
                images.append((number, operation))
            case ValueOperation():
                values.append(operation)
                last = name
            case MixOperation():
                mixes.append((number, operation))
                last = name
    return Pipeline(tuple(images), tuple(values), tuple(mixes))
