"""Preprocessing functions, by the names under which failing examples show them.

None draws random numbers: workers have no part in the caller's random state. All work
on each value alone and never turn an order round between values, or turn it round for
all, which is what the oracle needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
Function = Callable[[Pixels], Pixels]


def negative(x: Pixels) -> Pixels:
    return 255 - x


def _scaled_by(factor: float) -> Function:
    def scaled(x: Pixels) -> Pixels:
        return x * factor

    return scaled


PLAIN: dict[str, Function] = {
    "a module's function": negative,
    "a lambda": lambda x: x / 127.5 - 1,
    "a closure": _scaled_by(0.4),
    "a closure that gives float64": _scaled_by(np.float64(1 / 3)),
}

OF_KERAS = {
    "mobilenet_v2's": "mobilenet_v2",  # -1 to 1
    "resnet50's": "resnet50",  # BGR, minus the mean
    "densenet's": "densenet",  # minus the mean, by the deviation
}

THREE_CHANNELS_LAST = {"resnet50's", "densenet's"}
NAMES = sorted({*PLAIN, *OF_KERAS})


def named(name: str) -> Function:
    """The function; only here is Keras imported, as workers may import this module."""
    if name in PLAIN:
        return PLAIN[name]
    module = importlib.import_module(f"keras.applications.{OF_KERAS[name]}")
    function: Function = module.preprocess_input
    return function
