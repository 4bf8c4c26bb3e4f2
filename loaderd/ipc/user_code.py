"""The user's code as a bundle carries it: what client and workers must agree on.

The part ``function`` holds plain values alone::

    (function, buffers) or None, [(module, steps, value, buffers), ...], {name: text or None}, …

``function`` is a function that travels by value. The list says what the trainer's modules hold
under the names that the function uses: workers import the modules anew and put it there. The
dictionary holds variables of the environment. ``function`` and ``value`` are pickled; large arrays
of theirs lie beside them, in the parts ``function.0``, ``function.1``, … in the order of the whole.
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
    """Something pickled.

    Attributes:
        data: the bytes.
        buffers: what lies beside them, as bytes.
    """

    data: bytes
    buffers: tuple[Array, ...] = ()


class Held(NamedTuple):
    """What a module of the user's holds.

    Attributes:
        module: its name.
        steps: how to get there: a name is an attribute's, a number that of a function's closure
            cell, a tuple of one holds the key of a dictionary.
        value: what is there.
    """

    module: str
    steps: tuple[str | int | tuple[str | int], ...]
    value: Pickled


@dataclass(frozen=True)
class Code:
    """A function and what it works with.

    Attributes:
        function: if it travels by value.
        state: what its modules hold.
        environment: variables, with None for those that are not set.
        versions: how often the code of functions that travel by name was another before; it
            makes a difference, and nobody reads it.
    """

    function: Pickled | None = None
    state: tuple[Held, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    versions: tuple[int, ...] = ()

    def parts(self) -> dict[str, Array]:
        """As parts of a bundle; none where there is nothing to say."""
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
        """The code that a bundle's parts hold.

        Raises:
            ProtocolError: they are damaged.
        """
        if PART not in parts:
            return cls()
        buffers = (parts[f"{PART}.{index}"] for index in range(len(parts)))
        try:
            function, state, environment, versions = pickle.loads(parts[PART].tobytes())
            return cls(
                _taken(buffers, *function) if function else None,
                tuple(
                    Held(module, steps, _taken(buffers, data, count))
                    for module, steps, data, count in state
                ),
                environment,
                versions,
            )
        except (ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
            raise ProtocolError(f"the bundle's function is damaged: {error}") from error


def _taken(buffers: Iterator[Array], data: bytes, count: int) -> Pickled:
    return Pickled(data, tuple(next(buffers) for _ in range(count)))


def load(pickled: Pickled) -> Any:
    """What was pickled; its arrays are its own, and may be changed."""
    return pickle.loads(pickled.data, buffers=[bytearray(one) for one in pickled.buffers])
