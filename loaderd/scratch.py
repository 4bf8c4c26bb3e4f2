"""Memory that is reused for each sample."""

from __future__ import annotations

import numpy as np

_MAX_REUSED = 1 << 26  # bytes; a larger file or picture gets new memory


class Scratch:
    """A buffer that grows to the largest sample."""

    def __init__(self) -> None:
        self._memory = _memory(1 << 16)

    def take(self, size: int) -> memoryview:
        """The first ``size`` bytes, valid until the next call."""
        if size > len(self._memory):
            if size > _MAX_REUSED:
                return _memory(size)
            self._memory = _memory(min(size + size // 2, _MAX_REUSED))
        return self._memory[:size]


def _memory(size: int) -> memoryview:
    """Uninitialized bytes, without pages before they are written."""
    return np.empty(size, np.uint8).data
