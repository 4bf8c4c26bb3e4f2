"""The arguments by which samples are drawn with replacement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from loaderd.errors import InvalidArgument
from loaderd.sampling.weights import Weights, checked
from loaderd.spec.output import ClassWeights
from loaderd_client.core import arguments


def class_weights(given: object) -> ClassWeights | None:
    """The value of an argument ``class_weights``.

    Raises:
        InvalidArgument: it is neither None, ``"balanced"`` nor a table of weights.
    """
    if given is None:
        return None
    if arguments.is_one_of(given, ("balanced",)):
        return "balanced"
    if not isinstance(given, Mapping):
        raise InvalidArgument(
            '`class_weights` should be "balanced" or a dictionary of {class name: weight}. '
            f"Received: {given!r}"
        )
    return tuple(sorted((_name(name), _weight(name, one)) for name, one in given.items()))


def _name(name: object) -> str:
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return str(name)
    if not isinstance(name, str):
        raise InvalidArgument(f"`class_weights` should name classes. Received: {name!r}")
    return str.__str__(name)


def _weight(name: object, weight: Any) -> float:
    number = arguments.number(f"class_weights[{name!r}]", weight)
    if number < 0:
        raise InvalidArgument(f"`class_weights[{name!r}]` must not be negative: {weight!r}")
    return number


def column_weights(name: str, values: list[Any]) -> Weights:
    """The weights of samples, in a column or an argument of that name.

    Raises:
        InvalidArgument: they are no numbers, one is negative or not finite, or all are 0.
    """
    try:
        numbers = np.array(values, np.float64).reshape(len(values))
    except (TypeError, ValueError):
        raise InvalidArgument(f"weights of samples: {name!r} should hold numbers") from None
    try:
        return checked(numbers)
    except InvalidArgument as error:
        raise InvalidArgument(f"{name!r}: {error}") from None
