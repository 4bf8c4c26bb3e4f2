"""The user's code in a bundle, the format that client and workers share.

The part ``function`` holds plain values alone::

    (functions, buffers) or None, [(module, steps, value, buffers), ...], {name: text or None}, …

``functions`` are a tuple of the functions that are pickled by value. The list holds the values of
the trainer's modules under the names that the functions use: workers reimport the modules and
assign them. The dictionary holds environment variables. ``functions`` and ``value`` are pickled;
their large arrays are the parts ``function.0``, ``function.1``, … in the order of the whole.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import ProtocolError

Array = NDArray[Any]
PART = "function"


class Pickled(NamedTuple):
    """Something pickled, with its out-of-band buffers as bytes."""

    data: bytes
    buffers: tuple[Array, ...] = ()


class Held(NamedTuple):
    """A value within a module of the user's.

    Attributes:
        module: the module's name.
        steps: the path to the value: a name is an attribute, a number the index of a closure
            cell, a tuple of one the key of a dictionary.
    """

    module: str
    steps: tuple[str | int | tuple[str | int], ...]
    value: Pickled


@dataclass(frozen=True)
class Code:
    """Functions and the state that they use.

    Attributes:
        function: a tuple of those that are pickled by value; None if none is.
        state: the values of its modules.
        environment: variables, with None for unset ones.
        versions: how often the code of functions that are pickled by name has changed; it only
            makes the bundles differ.
    """

    function: Pickled | None = None
    state: tuple[Held, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    versions: tuple[int, ...] = ()

    def parts(self) -> dict[str, Array]:
        """The code as parts of a bundle; empty if there is none."""
        if not (self.function or self.state or self.environment or any(self.versions)):
            return {}
        pickled = [self.function] if self.function else []
        pickled += [held.value for held in self.state]
        head = (
            self.function and (self.function.data, len(self.function.buffers)),
            [(one.module, one.steps, one.value.data, len(one.value.buffers)) for one in self.state],
            dict(self.environment),
            self.versions,
        )
        arrays = [array for one in pickled for array in one.buffers]
        data = np.frombuffer(pickle.dumps(head), np.uint8)
        return {PART: data} | {f"{PART}.{index}": array for index, array in enumerate(arrays)}

    @classmethod
    def of(cls, parts: Mapping[str, Array]) -> Code:
        """The code in a bundle's parts.

        Raises:
            ProtocolError: they are damaged.
        """
        if PART not in parts:
            return cls()
        buffers = (parts[f"{PART}.{index}"] for index in range(len(parts)))
        try:
            function, state, environment, versions = pickle.loads(parts[PART].tobytes())
            return cls(
                _pickled(buffers, *function) if function else None,
                tuple(
                    Held(module, steps, _pickled(buffers, data, count))
                    for module, steps, data, count in state
                ),
                environment,
                versions,
            )
        except (ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
            raise ProtocolError(f"the bundle's function is damaged: {error}") from error


def _pickled(buffers: Iterator[Array], data: bytes, count: int) -> Pickled:
    return Pickled(data, tuple(next(buffers) for _ in range(count)))


def load(pickled: Pickled) -> Any:
    """Unpickles; arrays are copies, and writable."""
    return pickle.loads(pickled.data, buffers=[bytearray(one) for one in pickled.buffers])
