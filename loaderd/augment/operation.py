"""The base of operations: frozen arguments, how they draw, and what they do to an image.

An operation is also its own part of a spec: it is sent as JSON, with its class's name as tag.
"""

from __future__ import annotations

from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec
import numpy as np

from loaderd.augment.draws import Draws
from loaderd.augment.warps import Size as Size
from loaderd.errors import InvalidArgument

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas  # which loads decoders: not in the client


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The base of all operations.

    Arguments are checked against their annotations, and become plain values: lists become
    tuples, NumPy's numbers Python's.

    Raises:
        InvalidArgument: an argument has the wrong type, or a value that is not allowed.
    """

    def __post_init__(self) -> None:
        """Checks the arguments."""
        for name, kind in _types(type(self)).items():
            try:
                value = msgspec.convert(_plain(getattr(self, name)), kind)
            except msgspec.ValidationError as error:
                raise self.refusal(name, str(error).lower()) from None
            if not _is_finite(value):
                raise self.refusal(name, "must be finite")
            msgspec.structs.force_setattr(self, name, value)
        self.check()

    def check(self) -> None:
        """Raises InvalidArgument for values that are not allowed; to be overridden."""

    def refusal(self, argument: str, why: str) -> InvalidArgument:
        """The error for an argument."""
        value = getattr(self, argument)
        return InvalidArgument(f"{type(self).__name__}: `{argument}` {why}. Received: {value!r}")


class ImageOperation(Operation, frozen=True):
    """An operation on each image by itself."""

    @property
    def sets_size(self) -> Size | None:
        """(height, width) of the images that it makes, whatever they were; None if it keeps it."""
        return None

    def draw(self, draws: Draws, size: Size) -> Any:
        """The parameters for one sample.

        Args:
            draws: at the operation's first number for the sample.
            size: (height, width) of the image.
        """
        return None

    def apply(self, canvas: Canvas, parameters: Any) -> None:
        """Applies the operation to an image, and to what moves with it.

        Args:
            canvas: holds the image.
            parameters: what ``draw`` returned.
        """
        raise NotImplementedError

    def check_range(self, *names: str, lowest: float = 0.0) -> None:
        """Raises InvalidArgument for arguments that are no ``Range`` from ``lowest`` to 1."""
        for name in names:
            low, high = bounds(getattr(self, name), lowest)
            if not lowest <= low <= high <= 1:
                why = f"must be a number, or (lower, upper), from {lowest:g} to 1"
                raise self.refusal(name, why)


Range = float | tuple[float, float]
"""(lower, upper), or one number; see ``bounds``."""


def bounds(value: Range, lowest: float = 0.0) -> tuple[float, float]:
    """(lower, upper) of a range; of one number: it and its negative, or ``lowest`` if that is 0."""
    if isinstance(value, tuple):
        return value
    return (0.0, value) if lowest == 0 else (-abs(value), abs(value))


def _plain(value: Any) -> Any:
    """Lists and arrays as tuples, NumPy's numbers as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(_plain(one) for one in value)
    return value


def _is_finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or isfinite(value)


@cache
def _types(kind: type[Operation]) -> dict[str, Any]:
    """The annotations of a class's arguments; those that hold operations are left out."""
    return {
        name: hint
        for name, hint in get_type_hints(kind).items()
        if name in kind.__struct_fields__ and not _holds_operations(hint)
    }


def _holds_operations(hint: Any) -> bool:
    if get_args(hint):
        return any(_holds_operations(one) for one in get_args(hint))
    return isinstance(hint, type) and issubclass(hint, Operation)
