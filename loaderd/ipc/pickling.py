"""How code and data of the user's are pickled: by cloudpickle, and so that equal things look equal.

The state of random generators is left out: workers seed those that a function holds before each
image. So a generator that the trainer has drawn from is no change of the function.
"""

from __future__ import annotations

import functools
import io
import random
import sys
from typing import Any

import numpy as np

from loaderd.errors import MissingDependency

_CACHED = type(functools.lru_cache(lambda: None))


@functools.cache
def pickler() -> type[Any]:
    """The class of picklers.

    Raises:
        MissingDependency: cloudpickle is not installed.
    """
    try:
        import cloudpickle
    except ImportError as error:
        raise MissingDependency("cloudpickle is missing: pip install cloudpickle") from error

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        """Leaves the state of generators and of caches out."""

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
            return super().reducer_override(thing)

    return Pickler


def forget_classes() -> None:
    """Lets classes that travel by value be made anew.

    cloudpickle would give one that it has made before, and change that to what it is now: that
    may be another stream's.
    """
    module = sys.modules.get("cloudpickle.cloudpickle")
    getattr(module, "_DYNAMIC_CLASS_TRACKER_BY_ID", {}).clear()


def cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    """A function with an empty ``functools.lru_cache``, which is pickled by name otherwise."""
    return functools.lru_cache(maxsize, typed)(function)


def dumps(thing: Any) -> bytes:
    """A thing by itself, to be compared with another.

    Raises:
        Exception: it cannot be pickled; of any kind.
    """
    file = io.BytesIO()
    pickler()(file).dump(thing)
    return file.getvalue()
