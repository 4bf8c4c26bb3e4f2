"""What a stream reads its samples from."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Encoded = memoryview
"""The bytes of an image file."""


class Source(Protocol):
    """Samples by number, in any order; reading one leaves nothing behind for the next."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """The class of every sample, (len(source),)."""

    def __len__(self) -> int:
        """How many samples there are."""

    def read(self, sample: int) -> Encoded | NDArray[Any]:
        """One image: bytes to be decoded, or an array (height, width, channels).

        Valid until the next ``read``.

        Raises:
            BadImage: it cannot be read.
            NoRoom: there is no memory for it.
        """

    def identity(self, sample: int) -> int:
        """A number that changes when the sample does, for the sample that was read last.

        0 if nothing that is made of it may be kept: it changed meanwhile, or just before.
        """

    def name(self, sample: int) -> str:
        """What people read about a sample."""
