"""Pickles the user's code and data with cloudpickle, such that equal things give equal bytes.

The state of random generators is left out, as workers seed a function's generators before each
image: drawing from one in the trainer does not change the function.
"""

from __future__ import annotations

import functools
import io
import random
import sys
from types import CodeType
from typing import Any

import numpy as np

from loaderd.errors import MissingDependency

_NO_FILE = "<dynamic-code>"
_CACHED = type(functools.lru_cache(lambda: None))


@functools.cache
def pickler() -> type[Any]:
    """The pickler class.

    Raises:
        MissingDependency: cloudpickle is not installed.
    """
    try:
        import cloudpickle
    except ImportError as error:
        raise MissingDependency("cloudpickle is missing: pip install cloudpickle") from error

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        """Leaves out the state of generators and caches."""

        def reducer_override(self, thing: Any) -> Any:
            kind = type(thing)
            if issubclass(kind, np.random.BitGenerator):
                return kind, (0,)
            if kind is np.random.Generator:
                return np.random.Generator, (thing.bit_generator,)
            if kind is np.random.RandomState or kind is random.Random:
                return kind, (0,)
            if kind is _CACHED and thing.__module__ == "__main__":
                return cached, (thing.__wrapped__, *thing.cache_parameters().values())
            if kind is CodeType:  # cloudpickle drops the file, which tracebacks name
                make, given = self.dispatch_table[kind](thing)
                return make, tuple(thing.co_filename if one == _NO_FILE else one for one in given)
            return super().reducer_override(thing)

    return Pickler


def forget_classes() -> None:
    """Has classes that are pickled by value recreated.

    cloudpickle would reuse and overwrite the class that it made before, which may be another
    stream's.
    """
    module = sys.modules.get("cloudpickle.cloudpickle")
    getattr(module, "_DYNAMIC_CLASS_TRACKER_BY_ID", {}).clear()


def cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Wraps a function in an empty ``functools.lru_cache``; by default these pickle by name."""
    return functools.lru_cache(maxsize, typed)(function)


def dumps(thing: Any) -> bytes:
    """Pickles one thing, for comparison with another.

    Raises:
        Exception: of any type, if it cannot be pickled.
    """
    file = io.BytesIO()
    pickler()(file).dump(thing)
    return file.getvalue()
