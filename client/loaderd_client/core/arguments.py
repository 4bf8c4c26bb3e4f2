"""Argument checks with Keras's error messages, and conversion to the plain values of a spec.

The checks follow ``keras/src/legacy/preprocessing/image.py``. They accept the numbers and strings
that Keras accepts: NumPy's scalars and 0-dimensional arrays, subclasses of ``str`` and ``int``,
enumerations of these, fractions. They return Python's own types.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np

from loaderd.errors import DatasetNotFound, InvalidArgument, InvalidType
from loaderd.spec import url as urls
from loaderd.spec.base import OnError

_PICKED_SEEDS = 2**31
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def plain(value: Any) -> Any:
    """A string as a plain ``str``, a 0-dimensional array as its item; other values unchanged."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    return str.__str__(value) if isinstance(value, str) else value


def is_one_of(value: Any, allowed: Iterable[str | None]) -> bool:
    """Whether a string or None is one of the allowed values."""
    value = plain(value)
    return (value is None or isinstance(value, str)) and value in allowed


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> Any:
    """One of the allowed strings.

    Raises:
        InvalidArgument: it is none of them.
    """
    if not is_one_of(value, allowed):
        words = ", ".join(f'"{word}"' for word in allowed)
        raise InvalidArgument(f"Invalid {name}: {value}; expected one of {words}.")
    return plain(value)


def text(name: str, value: object) -> str:
    """A string.

    Raises:
        InvalidType: it is no string.
    """
    value = plain(value)
    if isinstance(value, str):
        return value
    raise InvalidType(f"`{name}` should be a text. Received: {value!r}")


def flag(name: str, value: object) -> bool:
    """The truth value.

    Raises:
        InvalidArgument: it has none, as a pandas Series.
    """
    try:
        return bool(value)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"`{name}` should be True or False. Received: {value!r}") from error


def folder(name: str, path: object) -> str:
    """An absolute path.

    Raises:
        InvalidArgument: it is a URL.
        InvalidType: it is no path.
        DatasetNotFound: it is empty.
    """
    if isinstance(path, (str, bytes, os.PathLike)):
        if isinstance(path, str) and urls.is_url(path):
            raise InvalidArgument(
                f"`{name}` should be a path: URLs are read by image_dataset_from_directory and "
                f"image_dataset_from_archive. Received: {urls.shown(path)}"
            )
        if not os.fspath(path):  # as from an unset variable; it would mean the working directory
            raise DatasetNotFound(f"`{name}` is empty: give the path of a folder")
        return plain(os.path.abspath(os.fsdecode(path)))  # type: ignore[no-any-return]  # a str
    raise InvalidType(f"`{name}` should be the path of a folder. Received: {path!r}")


def place(name: str, path: object) -> str:
    """An absolute path, or a URL that can be read.

    Raises:
        InvalidArgument: it is a URL that cannot.
        InvalidType: it is no path.
        DatasetNotFound: it is empty.
    """
    value = plain(path)
    if isinstance(value, str) and urls.is_url(value):
        return urls.checked(name, value)
    return folder(name, path)


def nbytes(name: str, value: object) -> int:
    """Bytes, as a number or with a unit, such as ``"50GB"``.

    Raises:
        InvalidArgument: it is neither.
    """
    found = _SIZE.fullmatch(str(plain(value)))
    count = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if count < 1 or isinstance(value, bool):
        raise InvalidArgument(
            f'`{name}` should be a number of bytes, or one with a unit, such as "50GB". '
            f"Received: {value!r}"
        )
    return count


def number(name: str, value: object) -> float:
    """A finite number.

    Raises:
        InvalidType: it is no number.
        InvalidArgument: it is not finite.
    """
    value = plain(value)
    try:
        if isinstance(value, (str, bytes, bytearray)):  # float() would read them
            raise TypeError
        found = float(value)  # type: ignore[arg-type]  # that is what is tried
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidType(f"`{name}` should be a number. Received: {value!r}") from error
    if not math.isfinite(found):
        raise InvalidArgument(f"`{name}` should be a number. Received: {value!r}")
    return found


def share(name: str, value: object) -> float:
    """A fraction of the samples.

    Counts are rounded down, so a float32 is read by its decimal digits: 0.7 of ten samples is
    seven, and not the six of 0.699999988.

    Raises:
        InvalidType: it is no number.
        InvalidArgument: it is not finite.
    """
    value = plain(value)
    return number(name, float(str(value)) if isinstance(value, np.floating) else value)


def seed(value: Any) -> int:
    """A seed; for None, one drawn from NumPy's global generator, from which Keras draws then.

    So two flows of one program differ, and two runs of a program that seeds it are the same.

    Raises:
        InvalidType: it is no whole number.
    """
    if value is None:
        return int(np.random.randint(_PICKED_SEEDS))
    return whole("seed", np.squeeze(value) if hasattr(value, "squeeze") else value)


def whole(name: str, value: object) -> int:
    """A whole number.

    Raises:
        InvalidType: it is no whole number.
    """
    try:
        return int(operator.index(value))  # type: ignore[arg-type]  # that is what is tried
    except TypeError as error:
        raise InvalidType(f"`{name}` should be a whole number. Received: {value!r}") from error


def count(name: str, value: object) -> int:
    """A whole number that is not negative.

    Raises:
        InvalidType: it is no whole number.
        InvalidArgument: it is negative.
    """
    found = whole(name, value)
    if found < 0:
        raise InvalidArgument(f"`{name}` should be 0 or more. Received: {value!r}")
    return found


def substitute_weight(on_error: object, weight: object, labelled: bool) -> float | None:
    """The weight of substitutes, checked together with the arguments that it depends on.

    Args:
        on_error: what happens to an image that cannot be read.
        weight: of its substitute; None for batches without weights.
        labelled: whether the batches have labels.

    Raises:
        InvalidArgument: a value, or the combination, is not allowed.
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


def size(value: Sequence[int], name: str = "target_size") -> tuple[int, int]:
    """(height, width).

    Raises:
        InvalidArgument: it is no pair of whole numbers.
    """
    height, width = _two(name, value, "(height, width) in pixels")
    return whole(name, height), whole(name, width)


def names(name: str, classes: Iterable[str] | None) -> tuple[str, ...] | None:
    """Class names, from a list, an array or a column; None for None.

    Raises:
        InvalidArgument: it is a single string, whose letters would be read as names.
        InvalidType: they are no strings.
    """
    if isinstance(classes, (str, bytes)):
        raise InvalidArgument(f"`{name}` should be a list of names. Received: {classes!r}")
    if classes is None:
        return None
    return tuple(text(name, one) for one in _items(name, classes, "a list of names"))


def _items(name: str, value: Any, what: str) -> list[Any]:
    try:
        return list(value)
    except TypeError as error:
        raise InvalidType(f"`{name}` should be {what}. Received: {value!r}") from error


def zoom(zoom_range: Any) -> list[float]:
    """``[lower, upper]`` of a number or a pair.

    Raises:
        InvalidArgument: it is a sequence, but no pair of numbers.
        InvalidType: it is neither a number nor a sequence.
    """
    if isinstance(zoom_range, (float, int)):
        return [1 - zoom_range, 1 + zoom_range]
    if np.shape(zoom_range) == (2,) and all(isinstance(one, (float, int)) for one in zoom_range):
        return [*zoom_range]
    kind = InvalidArgument if hasattr(zoom_range, "__len__") else InvalidType
    raise kind(
        f"`zoom_range` should be a float or a tuple or list of two floats. Received: {zoom_range}"
    )


def shift(name: str, value: float | Sequence[float]) -> int | float | tuple[float, ...]:
    """A shift range as plain numbers; 0 for None.

    Raises:
        InvalidType: it is neither a number nor a list of numbers.
    """
    value = plain(value)
    if value is None:
        return 0.0
    if isinstance(value, (int, np.integer)):
        return int(value)
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes, bytearray)):
        return tuple(number(name, one) for one in value)
    return number(name, value)


def pair(name: str, value: Sequence[float] | None) -> tuple[float, float] | None:
    """Two numbers, or None.

    Raises:
        InvalidArgument: there are not two.
        InvalidType: they are no numbers.
    """
    if value is None:
        return None
    first, second = _two(name, value, "two numbers")
    return number(name, first), number(name, second)


def _two(name: str, value: Any, what: str) -> list[Any]:
    both = _items(name, value, what)
    if len(both) != 2:
        raise InvalidArgument(f"`{name}` should be {what}. Received: {value!r}")
    return both
