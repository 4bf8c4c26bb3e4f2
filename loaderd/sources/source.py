"""The interface of a stream's sources of samples."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loaderd.sources.fetches import Fetches


class Source(Protocol):
    """Random access to samples by number; reads are independent of each other."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """The class of every sample, (len(source),)."""

    @property
    def fetches(self) -> Fetches | None:
        """What is on its way, of a source on an object store; None of others."""

    def __len__(self) -> int:
        """How many samples there are."""

    def read(self, sample: int) -> memoryview | NDArray[Any]:
        """One image: a file's bytes to be decoded, or an array (height, width, channels).

        Valid until the next ``read``.

        Raises:
            BadImage: it cannot be read.
            NoRoom: there is no memory for it.
        """

    def identity(self, sample: int) -> int:
        """The state of the last sample read: a number that changes when the sample does.

        0 if it must not be cached, as it changed meanwhile or just before.
        """

    def name(self, sample: int) -> str:
        """The name of a sample in error texts."""
