"""Arguments, checked in Keras's words, as plain values that a spec can hold.

The checks follow ``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from loaderd.errors import InvalidArgument, InvalidType
from loaderd.wire.spec import DType, OnError


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises InvalidArgument unless the value is one of the words."""
    if value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed)
        raise InvalidArgument(f"Invalid {name}: {value}; expected one of {words}.")


def folder(name: str, path: object) -> str:
    """An absolute path.

    Raises:
        InvalidType: it is no path.
    """
    if isinstance(path, (str, bytes, os.PathLike)):
        return os.path.abspath(os.fsdecode(path))
    raise InvalidType(f"`{name}` should be the path of a folder. Received: {path!r}")


def number(name: str, value: object) -> float:
    """A finite number.

    Raises:
        InvalidArgument: it is none.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value):
        return float(value)
    raise InvalidArgument(f"`{name}` should be a number. Received: {value!r}")


def whole(name: str, value: object) -> int:
    """A whole number.

    Raises:
        InvalidArgument: it is none.
    """
    if isinstance(value, (int, np.integer)):
        return int(value)
    raise InvalidArgument(f"`{name}` should be a whole number. Received: {value!r}")


def substitute_weight(on_error: object, weight: object, labelled: bool) -> float | None:
    """The weight of substitutes, checked together with what decides whether there are any.

    Args:
        on_error: what becomes of an image that cannot be read.
        weight: of its substitute; None for batches without weights.
        labelled: whether the batches have labels.

    Raises:
        InvalidArgument: a value is not allowed, or not with the others.
    """
    one_of("on_error", on_error, get_args(OnError))
    if weight is None:
        return None
    checked = number("substitute_weight", weight)
    if checked < 0:
        raise InvalidArgument(f"`substitute_weight` should be 0 or more. Received: {weight!r}")
    if on_error != "substitute":
        raise InvalidArgument(
            f'`substitute_weight` needs on_error="substitute". Received: on_error="{on_error}"'
        )
    if not labelled:
        raise InvalidArgument("`substitute_weight` needs labels: there is nothing else to weigh")
    return checked


def size(target_size: Sequence[int]) -> tuple[int, int]:
    """(height, width).

    Raises:
        InvalidArgument: it is no pair of whole numbers.
    """
    if np.shape(target_size) != (2,):
        raise InvalidArgument(
            f"`target_size` should be (height, width) in pixels. Received: {target_size!r}"
        )
    return (whole("target_size", target_size[0]), whole("target_size", target_size[1]))


def names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of classes.

    Raises:
        InvalidArgument: it is one text, whose letters would be taken for names.
    """
    if isinstance(classes, str):
        raise InvalidArgument(f"`classes` should be a list of names. Received: {classes!r}")
    return tuple(classes) if classes else None


def zoom(zoom_range: Any) -> list[float]:
    """``[lower, upper]``.

    Raises:
        InvalidArgument: it is neither a number nor a pair of them.
    """
    if isinstance(zoom_range, (float, int)):
        return [1 - zoom_range, 1 + zoom_range]
    if np.shape(zoom_range) == (2,) and all(isinstance(one, (float, int)) for one in zoom_range):
        return [zoom_range[0], zoom_range[1]]
    raise InvalidArgument(
        f"`zoom_range` should be a float or a tuple or list of two floats. Received: {zoom_range}"
    )


def shift(name: str, value: float | Sequence[float]) -> int | float | tuple[float, ...]:
    """As a spec has it: plain numbers, whatever NumPy's the user gave.

    Raises:
        InvalidArgument: it is neither a number nor a list of them.
    """
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return number(name, value)
    if np.ndim(value) != 1:
        raise InvalidArgument(f"`{name}` should be a number or a list of them. Received: {value!r}")
    return tuple(number(name, one) for one in value)


def pair(name: str, value: Sequence[float] | None) -> tuple[float, float] | None:
    """Two numbers, or None.

    Raises:
        InvalidArgument: they are no numbers.
    """
    return None if value is None else (number(name, value[0]), number(name, value[1]))


def dtype(value: Any) -> DType:
    """The name of a dtype.

    Raises:
        InvalidType: batches cannot have it.
    """
    try:
        name: Any = np.dtype(value).name
    except TypeError:
        name = str(value)
    if name not in get_args(DType):
        raise InvalidType(f"Invalid dtype: {value}; expected one of {', '.join(get_args(DType))}.")
    return name  # type: ignore[no-any-return]  # it is one of them
